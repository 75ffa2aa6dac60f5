package realtime

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	listeners [protocols]prometheus.Gauge
	delivered prometheus.Counter
	cuts      *prometheus.CounterVec
	replays   prometheus.Counter
	healed    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	listeners := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "parley_realtime_listeners", Help: "Open streams.",
	}, []string{"protocol"})
	m := &metrics{
		delivered: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "parley_realtime_signals_delivered_total", Help: "Signals written or queued to listeners, one per signal and listener.",
		}),
		cuts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "parley_realtime_cuts_total", Help: "Listeners dropped by the server, by reason.",
		}, []string{"reason"}),
		replays: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "parley_realtime_replays_total", Help: "Joins that had signals to catch up on.",
		}),
		healed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "parley_realtime_healed_total", Help: "Signals read from the log because their hint was late or lost.",
		}),
	}
	for p := range protocols {
		m.listeners[p] = listeners.WithLabelValues(p.String())
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{listeners, m.delivered, m.cuts, m.replays, m.healed} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
