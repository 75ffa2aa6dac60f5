package app

import (
	"net/http"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"parley/internal/bus"
	"parley/internal/sqldb"
)

// metrics is what /metrics shows.
type metrics struct {
	registry *prometheus.Registry
	http.Handler
}

func newMetrics(c Config) *metrics {
	r := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "parley_build_info", Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": c.Version, "go": runtime.Version()},
	})
	build.Set(1)
	roles := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "parley_role", Help: "1 for each role that this server has; a role that no server has is work that nobody does.",
	}, []string{"role"})
	for _, role := range c.Roles {
		roles.WithLabelValues(string(role)).Set(1)
	}
	r.MustRegister(build, roles, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return &metrics{r, promhttp.HandlerFor(r, promhttp.HandlerOpts{})}
}

// database adds the counters of db.
func (m *metrics) database(db *sqldb.DB) { m.registry.MustRegister(databaseCollector{db}) }

// databaseCollector shows the counters that sqldb keeps.
type databaseCollector struct{ db *sqldb.DB }

type databaseMetric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(sqldb.Stats) float64
}

func databaseGauge(name, help string, value func(sqldb.Stats) float64) databaseMetric {
	return databaseMetric{prometheus.NewDesc("parley_db_"+name, help, nil, nil), prometheus.GaugeValue, value}
}

func databaseCounter(name, help string, value func(sqldb.Stats) float64) databaseMetric {
	return databaseMetric{prometheus.NewDesc("parley_db_"+name, help, nil, nil), prometheus.CounterValue, value}
}

var databaseMetrics = []databaseMetric{
	databaseGauge("write_queue", "Writes that wait for their turn.", func(s sqldb.Stats) float64 { return float64(s.QueueLen) }),
	databaseGauge("readers_in_use", "Connections that serve a reader.", func(s sqldb.Stats) float64 { return float64(s.ReadersInUse) }),
	databaseGauge("writers_in_use", "Connections that are in a write.", func(s sqldb.Stats) float64 { return float64(s.WritersInUse) }),
	databaseCounter("writes_total", "Writes committed.", func(s sqldb.Stats) float64 { return float64(s.Writes) }),
	databaseCounter("soon_writes_total", "Of these, writes that rode with others.", func(s sqldb.Stats) float64 { return float64(s.Soon) }),
	databaseCounter("commits_total", "Commits; writes divided by commits is the size of a batch.", func(s sqldb.Stats) float64 { return float64(s.Batches) }),
	databaseCounter("replays_total", "Batches that were rolled back and run again one write at a time.", func(s sqldb.Stats) float64 { return float64(s.Replays) }),
	databaseCounter("reruns_total", "Transactions that ran again after a conflict.", func(s sqldb.Stats) float64 { return float64(s.Reruns) }),
	databaseCounter("busy_total", "Writes refused because the queue was full.", func(s sqldb.Stats) float64 { return float64(s.Busy) }),
	databaseCounter("commit_seconds_total", "Time spent in commits.", func(s sqldb.Stats) float64 { return s.CommitTime.Seconds() }),
}

// Describe implements prometheus.Collector.
func (databaseCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range databaseMetrics {
		ch <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c databaseCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.db.Stats()
	for _, m := range databaseMetrics {
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(s))
	}
}

// busCollector shows what goes from node to node.
type busCollector struct{ bus *bus.NATS }

var (
	busConnected = prometheus.NewDesc("parley_bus_connected", "1 while a NATS server is reached.", nil, nil)
	busMessages  = prometheus.NewDesc("parley_bus_messages_total", "Messages between the nodes; dropped ones make something late.", []string{"what"}, nil)
)

// Describe implements prometheus.Collector.
func (c busCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- busConnected
	ch <- busMessages
}

// Collect implements prometheus.Collector.
func (c busCollector) Collect(ch chan<- prometheus.Metric) {
	connected := 0.0
	if c.bus.Connected() {
		connected = 1
	}
	ch <- prometheus.MustNewConstMetric(busConnected, prometheus.GaugeValue, connected)
	s := c.bus.Stats()
	for what, n := range map[string]int64{"sent": s.Sent, "received": s.Received, "dropped": s.Dropped} {
		ch <- prometheus.MustNewConstMetric(busMessages, prometheus.CounterValue, float64(n), what)
	}
}
