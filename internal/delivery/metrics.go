package delivery

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	attempts *prometheus.CounterVec
	inFlight prometheus.Gauge
	lag      prometheus.Histogram
}

func newMetrics(r prometheus.Registerer, e *Engine) (*metrics, error) {
	m := &metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "parley_delivery_attempts_total", Help: "Tries at a delivery, by what they meant.",
		}, []string{"outcome"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "parley_delivery_attempts_in_flight", Help: "Tries that wait for an answer.",
		}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "parley_delivery_lag_seconds", Help: "Age of an entry when a try at it begins.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30, 300, 3600},
		}),
	}
	gauge := func(name, help string, value func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			e.mu.Lock()
			defer e.mu.Unlock()
			return float64(value())
		})
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		m.attempts, m.inFlight, m.lag,
		gauge("parley_delivery_lanes_held", "Lanes claimed by this node.", func() int { return len(e.lanes) }),
		gauge("parley_delivery_lanes_waiting", "Claimed lanes that wait for a worker.", func() int { return e.waiting }),
		gauge("parley_delivery_breakers_open", "Endpoints with lanes here that cannot be reached.", func() (open int) {
			for _, t := range e.targets {
				if t.open() {
					open++
				}
			}
			return open
		}),
	} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
