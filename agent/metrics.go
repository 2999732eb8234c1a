package agent

import (
	"encoding/json"
	"errors"
	"net/http"
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
	descs     map[string]*prometheus.Desc
	kinds     map[string]prometheus.ValueType
}

func newMetrics(a *Agent) *metrics {
	m := &metrics{
		a: a, descs: map[string]*prometheus.Desc{}, kinds: map[string]prometheus.ValueType{},
		reconcile: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "yakumo_agent_reconcile_seconds", Help: "Time that one look at a server took, by its result.",
			Buckets: prometheus.ExponentialBuckets(1e-4, 10, 7),
		}, []string{"result"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "yakumo_agent_failures_total", Help: "What went wrong and was tried again, by what it was about.",
		}, []string{"about"}),
	}
	for _, d := range simple {
		m.descs[d.name] = prometheus.NewDesc("yakumo_agent_"+d.name, d.help, d.labels, nil)
		m.kinds[d.name] = d.kind
	}
	return m
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

// simple are the metrics that are read where they stand when they are asked for.
var simple = []struct {
	name, help string
	kind       prometheus.ValueType
	labels     []string
}{
	{"link_up", "1 while a server has the host's stream.", prometheus.GaugeValue, nil},
	{"hypervisor_up", "1 while the hypervisor answers.", prometheus.GaugeValue, nil},
	{"generation", "Generation of the desired state that the host has.", prometheus.GaugeValue, nil},
	{"rows", "Rows that the host has been told, by kind.", prometheus.GaugeValue, []string{"kind"}},
	{"guests", "Servers here, by phase and power.", prometheus.GaugeValue, []string{"phase", "power"}},
	{"ports", "Ports here.", prometheus.GaugeValue, nil},
	{"gateways", "Routers whose gateway this host serves.", prometheus.GaugeValue, nil},
	{"ports_wired", "Ports here that carry traffic.", prometheus.GaugeValue, nil},
	{"image_cache_requests_total", "Images asked for by guests, by whether they were here.", prometheus.CounterValue, []string{"result"}},
	{"image_bytes_total", "Bytes of images fetched.", prometheus.CounterValue, nil},
	{"image_cache_evictions_total", "Images removed from the cache.", prometheus.CounterValue, nil},
	{"image_corrupt_total", "Images whose bytes did not have their hash.", prometheus.CounterValue, nil},
	{"quarantined", "Guests' folders and volumes that are laid aside.", prometheus.GaugeValue, nil},
	{"image_cache_bytes", "Size of the cache of images.", prometheus.GaugeValue, nil},
	{"metadata_requests_total", "Requests of guests to the metadata service, by class of status.", prometheus.CounterValue, []string{"status"}},
	{"dns_questions_total", "Questions of guests for names, by what became of them.", prometheus.CounterValue, []string{"result"}},
	{"datapath_up", "1 while the switch is connected.", prometheus.GaugeValue, nil},
	{"datapath_rows", "Rows that the data path holds.", prometheus.GaugeValue, nil},
	{"datapath_entries", "Entries that the switch should hold.", prometheus.GaugeValue, nil},
	{"datapath_pending", "Entries that wait for a device or the switch.", prometheus.GaugeValue, nil},
	{"datapath_conflicts", "Entries of two rows that contradict each other.", prometheus.GaugeValue, nil},
	{"datapath_added_total", "Entries written.", prometheus.CounterValue, nil},
	{"datapath_deleted_total", "Entries deleted.", prometheus.CounterValue, nil},
	{"datapath_bundles_total", "Atomic changes that the switch confirmed.", prometheus.CounterValue, nil},
	{"datapath_rejected_total", "Entries that the switch refused.", prometheus.CounterValue, nil},
	{"datapath_connects_total", "Connections to the switch.", prometheus.CounterValue, nil},
	{"datapath_resyncs_total", "Times that the whole set was installed.", prometheus.CounterValue, nil},
	{"datapath_packet_ins_total", "Packets that the switch handed over.", prometheus.CounterValue, nil},
	{"dhcp_requests_total", "DHCP requests of guests, by whether one was answered.", prometheus.CounterValue, []string{"result"}},
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	m.reconcile.Describe(ch)
	m.failures.Describe(ch)
	for _, d := range m.descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	m.reconcile.Collect(ch)
	m.failures.Collect(ch)
	put := func(name string, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(m.descs[name], m.kinds[name], v, labels...)
	}
	flag := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	a := m.a
	put("link_up", flag(a.link.Connected()))
	put("hypervisor_up", flag(a.guests.healthy()))
	put("generation", float64(a.ledger.Generation()))
	for kind, n := range a.ledger.count() {
		put("rows", float64(n), string(kind))
	}
	phases := map[[2]string]int{}
	for _, p := range a.ledger.allProgress() {
		phases[[2]string{string(p.Phase), string(p.Power)}]++
	}
	for k, n := range phases {
		put("guests", float64(n), k[0], k[1])
	}
	ports, wired := a.ports.counts()
	put("ports", float64(ports))
	put("ports_wired", float64(wired))
	put("gateways", float64(a.ledger.activeGateways()))

	put("quarantined", float64(len(a.quarantine.list())))

	c := a.images
	c.mu.Lock()
	hits, misses, bytes, evicted, corrupt := c.hits, c.misses, c.bytes, c.evicted, c.corrupt
	c.mu.Unlock()
	put("image_cache_requests_total", float64(hits), "hit")
	put("image_cache_requests_total", float64(misses), "miss")
	put("image_bytes_total", float64(bytes))
	put("image_cache_evictions_total", float64(evicted))
	put("image_corrupt_total", float64(corrupt))
	if size, err := c.size(); err == nil {
		put("image_cache_bytes", float64(size))
	}
	for _, class := range []int{2, 4, 5} {
		put("metadata_requests_total", float64(a.meta.requests[class].Load()), strconv.Itoa(class)+"xx")
	}

	put("dns_questions_total", float64(a.dns.local.Load()), "local")
	put("dns_questions_total", float64(a.dns.forwarded.Load()), "forwarded")
	put("dns_questions_total", float64(a.dns.failed.Load()), "failed")
	put("dns_questions_total", float64(a.dns.dropped.Load()), "dropped")

	d := a.cfg.Datapath.Counters()
	put("datapath_up", flag(d.Connected))
	put("datapath_rows", float64(d.Rows))
	put("datapath_entries", float64(d.Entries))
	put("datapath_pending", float64(d.Pending))
	put("datapath_conflicts", float64(d.Conflicts))
	put("datapath_added_total", float64(d.Added))
	put("datapath_deleted_total", float64(d.Deleted))
	put("datapath_bundles_total", float64(d.Bundles))
	put("datapath_rejected_total", float64(d.Rejected))
	put("datapath_connects_total", float64(d.Connects))
	put("datapath_resyncs_total", float64(d.Resyncs))
	put("datapath_packet_ins_total", float64(d.PacketIns))
	put("dhcp_requests_total", float64(d.DHCPReplies), "answered")
	put("dhcp_requests_total", float64(d.DHCPIgnored), "ignored")
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
