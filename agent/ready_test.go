package agent

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"yakumo/datapath/pipeline"
	"yakumo/datapath/pipeline/sim"
	"yakumo/hypervisor"
	"yakumo/hypervisor/fake"
	"yakumo/model"
)

// TestMetadataIsThereAtTheFirstInstruction boots guests 1,000 times. The first instruction of each sends a frame
// from its card to the metadata service; the switch has to bring it to the service, which has to answer with this guest's
// own id and address, at the first try and before the hypervisor has even said that the guest runs.
func TestMetadataIsThereAtTheFirstInstruction(t *testing.T) {
	const guests, boots = 250, 4
	var w *world
	var a *running
	var mu sync.Mutex
	asked, misses := map[model.ID]int{}, []string{}
	alias := make(chan netip.AddrPort, 1)
	ports := map[model.ID]*model.HostPort{}
	miss := func(format string, args ...any) { misses = append(misses, fmt.Sprintf(format, args...)) }
	first := func(g hypervisor.Guest) {
		mu.Lock() // one guest's frame is on its way at a time
		defer mu.Unlock()
		asked[g.ID]++
		port := ports[g.NICs[0].ID]
		w.sw.AddDevice(g.NICs[0].Tap, func([]byte) {}).Send(syn(t, port))
		var from netip.AddrPort
		select {
		case from = <-alias:
		default:
			miss("boot %d of %s: the frame does not reach the service", asked[g.ID], g.ID)
			return
		}
		get := func(path, want string) {
			r := httptest.NewRequest("GET", "http://169.254.169.254"+path, nil)
			r.RemoteAddr = from.String()
			got := httptest.NewRecorder()
			a.meta.ServeHTTP(got, r)
			if got.Code != http.StatusOK || !strings.Contains(got.Body.String(), want) {
				miss("boot %d of %s: %s answers %d %.100s", asked[g.ID], g.ID, path, got.Code, got.Body)
			}
		}
		get("/openstack/latest/meta_data.json", `"uuid":"`+g.ID+`"`)
		get("/latest/meta-data/local-ipv4", port.FixedIPs[0].Address.String())
		get("/openstack/latest/network_data.json", port.NetworkID)
	}
	w = newWorld(t.TempDir(), fake.HostConfig{Guests: fake.Behaviour{First: first}})
	w.sw.Serve(func(frame []byte) {
		if p, err := sim.Parse(frame); err == nil && p.DstPort == pipeline.DefaultEnv().MetadataListener.Port() {
			alias <- netip.AddrPortFrom(p.Src, p.SrcPort)
		}
	})
	c := newCloud(w.side)
	c.network.Subnets[0].CIDR = netip.MustParsePrefix("10.0.0.0/16")
	a = w.start(t, func(cfg *Config) { cfg.Boots, cfg.Taps = 16, slowTaps{cfg.Taps} })
	t.Cleanup(func() { a.stop(t) })
	rows := c.base()
	var servers []*model.HostServer
	for i := range guests {
		s, p := c.server()
		p.MAC = fmt.Sprintf("fa:16:3e:00:%02x:%02x", i>>8, i&0xff)
		p.FixedIPs = []model.FixedIP{{SubnetID: c.network.Subnets[0].ID, Address: netip.AddrFrom4([4]byte{10, 0, byte(1 + i>>8), byte(i)})}}
		s.NICs[0].MAC = p.MAC
		mu.Lock()
		ports[p.ID] = p
		mu.Unlock()
		servers, rows = append(servers, s), append(rows, s, p)
	}
	w.side.apply(t, full(5, rows...))
	for n := range boots {
		for _, s := range servers {
			w.settled(t, s.ID, s.Generation, model.PhaseReady, model.PowerRunning)
		}
		if n == boots-1 {
			break
		}
		// From the start again: at once, each of them.
		rows = rows[:0]
		for i, s := range servers {
			servers[i] = with(s, func(s *model.HostServer) { s.HardReboots++ })
			rows = append(rows, servers[i])
		}
		w.side.apply(t, change(int64(6+n), rows...))
	}
	mu.Lock()
	defer mu.Unlock()
	total := 0
	for _, s := range servers {
		total += asked[s.ID]
	}
	if total < guests*boots {
		t.Errorf("only %d boots", total)
	}
	if len(misses) > 0 {
		t.Errorf("%d misses in %d boots: %s", len(misses), total, strings.Join(slices.Clone(misses[:min(5, len(misses))]), "; "))
	}
}

// slowTaps are taps that take their time, so that a guest that does not wait for its wires is found out.
type slowTaps struct{ Taps }

func (s slowTaps) Ensure(ctx context.Context, name string, mtu int) error {
	<-time.After(5 * time.Millisecond)
	return s.Taps.Ensure(ctx, name, mtu)
}

// syn is a guest's first packet to the metadata service.
func syn(t *testing.T, p *model.HostPort) []byte {
	mac, err := pipeline.ParseMAC(p.MAC)
	if err != nil {
		t.Error(err)
	}
	out := sim.Packet{EthSrc: mac, EthDst: pipeline.ServiceMAC, EthType: pipeline.TypeIPv4, Src: p.FixedIPs[0].Address, Dst: pipeline.ServiceAddr,
		Proto: 6, SrcPort: 40000, DstPort: 80, Flags: sim.SYN}
	return out.Frame()
}
