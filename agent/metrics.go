package agent

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/pprof"
	"os"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics is the agent's prometheus.Collector.
type metrics struct {
	a         *Agent
	reconcile *prometheus.HistogramVec
	failures  *prometheus.CounterVec
}

func newMetrics(a *Agent) *metrics {
	return &metrics{
		a: a,
		reconcile: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "yakumo_agent_reconcile_seconds", Help: "Time that one look at a server took, by its result.",
			Buckets: prometheus.ExponentialBuckets(1e-4, 10, 7),
		}, []string{"result"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "yakumo_agent_failures_total", Help: "What went wrong and was tried again, by what it was about.",
		}, []string{"about"}),
	}
}

func (m *metrics) reconciled(d time.Duration, err error) {
	result := "done"
	switch {
	case errors.Is(err, errWaiting):
		result = "waiting"
	case err != nil:
		result = "failed"
	}
	m.reconcile.WithLabelValues(result).Observe(d.Seconds())
}

func (m *metrics) failed(about string) { m.failures.WithLabelValues(about).Inc() }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("yakumo_agent_"+name, help, labels, nil)
}

// Describe implements prometheus.Collector; there is nothing to check beforehand.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	m.reconcile.Describe(ch)
	m.failures.Describe(ch)
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	m.reconcile.Collect(ch)
	m.failures.Collect(ch)
	gauge := func(name, help string, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc(name, help, keys(labels)...), prometheus.GaugeValue, v, values(labels)...)
	}
	counter := func(name, help string, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc(name, help, keys(labels)...), prometheus.CounterValue, float64(v), values(labels)...)
	}
	flag := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	a := m.a
	gauge("link_up", "1 while a server has the host's stream.", flag(a.link.Connected()))
	gauge("hypervisor_up", "1 while the hypervisor answers.", flag(a.guests.healthy()))
	gauge("generation", "Generation of the desired state that the host has.", float64(a.ledger.Generation()))
	for kind, n := range a.ledger.count() {
		gauge("rows", "Rows that the host has been told, by kind.", float64(n), "kind", string(kind))
	}
	phases := map[[2]string]int{}
	for _, p := range a.ledger.allProgress() {
		phases[[2]string{string(p.Phase), string(p.Power)}]++
	}
	for k, n := range phases {
		gauge("guests", "Servers here, by phase and power.", float64(n), "phase", k[0], "power", k[1])
	}
	ports, wired := a.ports.counts()
	gauge("ports", "Ports here.", float64(ports))
	gauge("ports_wired", "Ports here that carry traffic.", float64(wired))

	c := a.images
	c.mu.Lock()
	hits, misses, bytes, evicted, corrupt := c.hits, c.misses, c.bytes, c.evicted, c.corrupt
	c.mu.Unlock()
	counter("image_cache_requests_total", "Images asked for by guests, by whether they were here.", hits, "result", "hit")
	counter("image_cache_requests_total", "Images asked for by guests, by whether they were here.", misses, "result", "miss")
	counter("image_bytes_total", "Bytes of images fetched.", bytes)
	counter("image_cache_evictions_total", "Images removed from the cache.", evicted)
	counter("image_corrupt_total", "Images whose bytes did not have their hash.", corrupt)
	if size, err := c.size(); err == nil {
		gauge("image_cache_bytes", "Size of the cache of images.", float64(size))
	}
	for i := range a.meta.requests {
		if i > 0 {
			counter("metadata_requests_total", "Requests of guests to the metadata service, by class of status.", a.meta.requests[i].Load(), "status", strconv.Itoa(i)+"xx")
		}
	}

	d := a.cfg.Datapath.Counters()
	gauge("datapath_up", "1 while the switch is connected.", flag(d.Connected))
	gauge("datapath_rows", "Rows that the data path holds.", float64(d.Rows))
	gauge("datapath_entries", "Entries that the switch should hold.", float64(d.Entries))
	gauge("datapath_pending", "Entries that wait for a device or the switch.", float64(d.Pending))
	gauge("datapath_conflicts", "Entries of two rows that contradict each other.", float64(d.Conflicts))
	counter("datapath_added_total", "Entries written.", d.Added)
	counter("datapath_deleted_total", "Entries deleted.", d.Deleted)
	counter("datapath_bundles_total", "Atomic changes that the switch confirmed.", d.Bundles)
	counter("datapath_rejected_total", "Entries that the switch refused.", d.Rejected)
	counter("datapath_connects_total", "Connections to the switch.", d.Connects)
	counter("datapath_resyncs_total", "Times that the whole set was installed.", d.Resyncs)
	counter("datapath_packet_ins_total", "Packets that the switch handed over.", d.PacketIns)
	counter("dhcp_requests_total", "DHCP requests of guests, by whether one was answered.", d.DHCPReplies, "result", "answered")
	counter("dhcp_requests_total", "DHCP requests of guests, by whether one was answered.", d.DHCPIgnored, "result", "ignored")
}

// keys and values part a list of label, value, label, value.
func keys(pairs []string) (out []string) {
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, pairs[i])
	}
	return out
}

func values(pairs []string) (out []string) {
	for i := 1; i < len(pairs); i += 2 {
		out = append(out, pairs[i])
	}
	return out
}

// size gives the bytes of all files of the cache.
func (c *imageCache) size() (sum int64, err error) {
	entries, err := os.ReadDir(c.dir)
	for _, e := range entries {
		if st, err := e.Info(); err == nil {
			sum += st.Size()
		}
	}
	return sum, err
}

// Health is what Agent.Healthz answers.
type Health struct {
	OK         bool  `json:"ok"` // the agent can do its work; without a server it still does
	Link       bool  `json:"link"`
	Hypervisor bool  `json:"hypervisor"`
	Datapath   bool  `json:"datapath"`
	Generation int64 `json:"generation"`
}

// Health tells what the agent can reach.
func (a *Agent) Health() Health {
	h := Health{
		Link: a.link.Connected(), Hypervisor: a.guests.healthy(), Datapath: a.cfg.Datapath.Counters().Connected,
		Generation: a.ledger.Generation(),
	}
	h.OK = h.Hypervisor && h.Datapath
	return h
}

// Healthz answers 200 where Health is OK, else 503, with Health in JSON.
func (a *Agent) Healthz(w http.ResponseWriter, _ *http.Request) {
	h := a.Health()
	w.Header().Set("Content-Type", "application/json")
	if !h.OK {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if err := json.NewEncoder(w).Encode(h); err != nil {
		a.log.Debug("a health check hung up", "err", err)
	}
}

// Private gives the handlers of the agent's private address: /healthz and /debug/pprof/.
func (a *Agent) Private() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", a.Healthz)
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}
