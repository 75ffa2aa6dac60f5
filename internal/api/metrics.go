package api

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the counts of all APIs of one registry.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	inFlight *prometheus.GaugeVec
}

// opMetrics are those of one operation.
type opMetrics struct {
	byClass  [6]prometheus.Counter // index = status / 100; 0 = the client left before
	seconds  prometheus.Observer
	inFlight prometheus.Gauge
}

var statusClasses = [6]string{"gone", "1xx", "2xx", "3xx", "4xx", "5xx"}

func newMetrics(r prometheus.Registerer) *metrics {
	labels := []string{"api", "operation"}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "parley_http_requests_total", Help: "Requests answered, by operation and class of status.",
		}, append(labels, "status")),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "parley_http_request_seconds", Help: "Time from a request's arrival to its answer, without what its client waits for with ?wait.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 5, 30},
		}, labels),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "parley_http_requests_in_flight", Help: "Requests being served.",
		}, labels),
	}
	if r != nil {
		m.requests, m.seconds, m.inFlight = register(r, m.requests), register(r, m.seconds), register(r, m.inFlight)
	}
	return m
}

// register adds c to r, or finds what another API of the server registered before.
func register[C prometheus.Collector](r prometheus.Registerer, c C) C {
	err := r.Register(c)
	if was, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		return was.ExistingCollector.(C)
	}
	if err != nil {
		panic(err)
	}
	return c
}

func (m *metrics) of(api, operation string) *opMetrics {
	o := &opMetrics{
		seconds:  m.seconds.WithLabelValues(api, operation),
		inFlight: m.inFlight.WithLabelValues(api, operation),
	}
	for i, class := range statusClasses {
		o.byClass[i] = m.requests.WithLabelValues(api, operation, class)
	}
	return o
}

// noOperation labels requests that reached none.
const noOperation = "none"

// count records the finished call.
func (c *call) count(took time.Duration) {
	class := c.status / 100
	if c.gone || class >= len(statusClasses) {
		class = 0
	}
	if c.op == nil {
		c.api.metrics.requests.WithLabelValues(c.api.Name, noOperation, statusClasses[class]).Inc()
		return
	}
	m := c.op.metrics()
	m.byClass[class].Inc()
	m.seconds.Observe(took.Seconds())
}
