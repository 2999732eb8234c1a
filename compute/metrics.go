package compute

import "github.com/prometheus/client_golang/prometheus"

// metrics are what an operator watches of servers' lives on this process.
type metrics struct {
	boots   prometheus.Histogram
	passes  prometheus.Histogram
	placed  *prometheus.CounterVec
	failed  prometheus.Counter
	retried prometheus.Counter
	moves   *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		boots: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "yakumo_boot_seconds", Help: "From the request for a server until its host says that it runs.",
			Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 20, 40, 80, 160}}),
		passes: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "yakumo_placement_pass_seconds", Help: "Time of a placement pass that had something to place.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}}),
		placed:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "yakumo_placements_total", Help: "Servers that placement decided on, by result."}, []string{"result"}),
		failed:  prometheus.NewCounter(prometheus.CounterOpts{Name: "yakumo_server_failures_total", Help: "Servers that went into error by what their host said."}),
		retried: prometheus.NewCounter(prometheus.CounterOpts{Name: "yakumo_server_retries_total", Help: "Servers that were taken from a host that could not start them."}),
		moves:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "yakumo_moves_total", Help: "Moves of servers that have ended, by kind and result."}, []string{"kind", "result"}),
	}
	if reg != nil {
		reg.MustRegister(m.boots, m.passes, m.placed, m.failed, m.retried, m.moves)
	}
	return m
}
