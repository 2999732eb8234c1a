package agent

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"net/netip"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"yakumo/hypervisor/fake"
	"yakumo/model"
)

func TestMetrics(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{})
	c := newCloud(w.side)
	reg := prometheus.NewPedanticRegistry()
	a := w.start(t, func(c *Config) { c.Metrics = reg })
	s, p := c.server()
	w.side.apply(t, full(5, c.network, c.group, s, p))
	w.settled(t, s.ID, 1, model.PhaseReady, model.PowerRunning)
	waitFor(t, "the port to count as wired", func() bool { _, n := a.ports.counts(); return n == 1 })
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				name += " " + l.GetName() + "=" + l.GetValue()
			}
			got[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for name, want := range map[string]float64{
		"yakumo_agent_generation": 5, "yakumo_agent_rows kind=server": 1, "yakumo_agent_rows kind=port": 1, "yakumo_agent_ports": 1,
		"yakumo_agent_ports_wired": 1, "yakumo_agent_guests phase=ready power=running": 1, "yakumo_agent_link_up": 1, "yakumo_agent_hypervisor_up": 1,
		"yakumo_agent_image_cache_requests_total result=miss": 1, "yakumo_agent_image_cache_requests_total result=hit": 0,
		"yakumo_agent_image_bytes_total": 18000, "yakumo_agent_image_cache_bytes": 18000, "yakumo_agent_datapath_up": 1,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v (%v), want %v", name, v, ok, want)
		}
	}
	if got["yakumo_agent_reconcile_seconds result=done"] == 0 {
		t.Errorf("no reconcile was counted: %v", got)
	}
	h := httptest.NewRecorder()
	a.Healthz(h, httptest.NewRequest("GET", "/healthz", nil))
	var health Health
	if err := json.Unmarshal(h.Body.Bytes(), &health); err != nil || h.Code != 200 || !health.OK || health.Generation != 5 {
		t.Errorf("health %d %s, %v", h.Code, h.Body, err)
	}
	w.host.Disconnect()
	waitFor(t, "health to tell", func() bool {
		h := httptest.NewRecorder()
		a.Healthz(h, httptest.NewRequest("GET", "/healthz", nil))
		return h.Code == 503
	})
	a.stop(t)
	if families, err := reg.Gather(); err != nil || len(families) > 0 {
		t.Errorf("an agent that has ended is still measured: %v", err)
	}
}

func TestFacts(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{})
	a := w.start(t, nil)
	a.cfg.Providers = map[string]string{"b": "br-b", "a": "br-a"}
	h, err := a.Facts(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if h.Name != "h1" || h.Zone != "nova" || h.TunnelIP != netip.MustParseAddr("192.0.2.1") || h.Underlay != 1500 || h.Version != "test" ||
		h.BootID != "boot-1" || h.StartedAt.IsZero() || h.Capacity.VCPUs != 64 || h.Capacity.MemoryMiB != 256<<10 || h.Capacity.Accelerator != "tcg" ||
		h.Capacity.MemoryFreeMiB <= 0 || h.Capacity.DiskFreeGiB <= 0 || h.Capacity.DiskGiB != 1<<10 ||
		!slices.Equal(h.BridgeMappings, []string{"a", "b"}) || h.Bridges()["a"] != "br-a" || h.Bridges()["b"] != "br-b" || h.Maps("c") {
		t.Errorf("facts %+v", h)
	}
	a.stop(t)
	// The hypervisor is away: its last word counts, after a restart too.
	w.host.Disconnect()
	a = w.start(t, nil)
	if again, err := a.Facts(context.Background()); err != nil || again.Capacity.VCPUs != 64 {
		t.Errorf("facts without a hypervisor: %+v, %v", again, err)
	}
	a.stop(t)
	w2 := newWorld(t.TempDir(), fake.HostConfig{})
	w2.host.Disconnect()
	a = w2.start(t, nil)
	if _, err := a.Facts(context.Background()); err == nil {
		t.Error("facts that nobody knows")
	}
	a.stop(t)
	b := h
	b.Capacity.MemoryFreeMiB -= 10
	if factsDiffer(h, b) {
		t.Error("a small change is told")
	}
	b.Capacity.VCPUs++
	if !factsDiffer(h, b) {
		t.Error("a change is not told")
	}
}
