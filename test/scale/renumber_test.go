package scale_test

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"yakumo/agent"
	"yakumo/datapath"
	dpfake "yakumo/datapath/fake"
	"yakumo/hypervisor/fake"
	"yakumo/link"
	"yakumo/model"
	"yakumo/store"
)

// simHost is a host in this process, whose switch really passes frames, in memory.
type simHost struct {
	name     string
	dir      string
	token    string
	ordinals datapath.Ordinals
	sw       *dpfake.Switch
	stop     func()

	mu      sync.Mutex
	devices map[string]*dpfake.Device
	got     map[string][]string // frames that left by each device
}

// start runs the host's agent with a tunnel address, on a switch that has it.
func (h *simHost) start(t *testing.T, u *dpfake.Underlay, server string, tunnel netip.Addr) {
	t.Helper()
	sw := dpfake.NewSwitch(u, tunnel)
	h.mu.Lock()
	h.sw, h.devices, h.got = sw, map[string]*dpfake.Device{}, map[string][]string{}
	h.mu.Unlock()
	dp, err := dpfake.New(dpfake.Config{Switch: sw, Ordinals: h.ordinals})
	if err != nil {
		t.Fatal(err)
	}
	var client *link.Client
	a, err := agent.New(agent.Config{Dir: h.dir, Hypervisor: fake.New(fake.Config{Host: fake.NewHost(fake.HostConfig{})}), Datapath: dp, Taps: h, Disks: noDisks{},
		TunnelIP: tunnel, HostName: h.name, Zone: "nova", Version: "test", BootID: "boot", Log: slog.New(slog.DiscardHandler),
		Link: func(handler link.Handler) agent.Link {
			client = link.NewClient(link.ClientConfig{Servers: []string{server}, Dir: h.dir, Version: "test", Handler: handler, Log: slog.New(slog.DiscardHandler)})
			return client
		}})
	if err != nil {
		t.Fatal(err)
	}
	if !client.Joined() {
		if err := client.Join(t.Context(), h.token, h.name); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("agent of %s: %v", h.name, err)
		}
		if err := dp.Close(); err != nil {
			t.Error(err)
		}
		sw.Leave()
	})
	t.Cleanup(h.stop)
}

// Ensure and the others make the host the agent's taps.
func (h *simHost) Ensure(_ context.Context, name string, _ int) error {
	h.mu.Lock()
	_, here := h.devices[name]
	h.mu.Unlock()
	if here {
		return nil
	}
	d := h.sw.AddDevice(name, func(frame []byte) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.got[name] = append(h.got[name], string(frame))
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.devices[name] = d
	return nil
}

func (h *simHost) Remove(_ context.Context, name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.devices, name)
	return nil
}

func (h *simHost) List(_ context.Context, prefix string) (names []string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for n := range h.devices {
		if strings.HasPrefix(n, prefix) {
			names = append(names, n)
		}
	}
	return names, nil
}

func (h *simHost) MTU(context.Context, netip.Addr) (int, error) { return 1500, nil }

// only gives the host's one device, nil before there is one.
func (h *simHost) only() *dpfake.Device {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.devices {
		return d
	}
	return nil
}

// has tells whether a datagram has left the switch; its checksum may have been filled in.
func (h *simHost) has(frame []byte) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, frames := range h.got {
		for _, f := range frames {
			if len(f) == len(frame) && f[:12] == string(frame[:12]) && f[len(f)-1] == frame[len(frame)-1] {
				return true
			}
		}
	}
	return false
}

// datagram is a UDP packet in an Ethernet frame (RFC 768, RFC 791); n tells it from others.
func datagram(from, to *model.Port, n byte) []byte {
	src, _ := net.ParseMAC(from.MAC)
	dst, _ := net.ParseMAC(to.MAC)
	f := append(append(append([]byte{}, dst...), src...), 0x08, 0)
	ip := []byte{0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0}
	a, b := from.FixedIPs[0].Address.As4(), to.FixedIPs[0].Address.As4()
	ip = append(append(ip, a[:]...), b[:]...)
	sum := uint32(0)
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
	return append(append(f, ip...), 0, 9, 0, 9, 0, 9, 0, 0, n)
}

// TestRenumberedHost: a host whose agent comes back with another address on the underlay is
// found there by all others; nobody does anything about it.
func TestRenumberedHost(t *testing.T) {
	c := newCloud(t)
	addr := c.listen()
	u := dpfake.NewUnderlay()
	var hosts []*simHost
	for i := range 2 {
		h := &simHost{name: hostName(i), dir: filepath.Join(t.TempDir(), hostName(i)), token: c.token(i), ordinals: datapath.NewMemoryOrdinals()}
		h.start(t, u, addr, tunnelIP(i))
		hosts = append(hosts, h)
	}
	c.meet(2)
	c.inhabit()
	network := model.NewID()
	var ports []*model.Port
	for i := range hosts {
		ports = append(ports, &model.Port{Meta: model.NewMeta("p", "", c.now), NetworkID: network, MAC: c.mac(), AdminStateUp: true, Host: c.hosts[i], DeviceID: c.servers[i],
			FixedIPs: []model.FixedIP{{SubnetID: "s", Address: address(0, 10+i)}}})
	}
	c.update(func(tx *store.Tx) error {
		if err := store.Networks.Put(tx, &model.Network{Meta: model.Meta{ID: network, ProjectID: "p"}, AdminStateUp: true, Type: model.NetworkVXLAN, VNI: 7, MTU: 1450}); err != nil {
			return err
		}
		for _, p := range ports {
			if err := store.Ports.Put(tx, p); err != nil {
				return err
			}
		}
		return nil
	})
	n := byte(0)
	pass := func(what string) {
		t.Helper()
		end := time.After(90 * time.Second)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for from := range hosts {
			for arrived := false; !arrived; {
				n++
				f := datagram(ports[from], ports[1-from], n)
				if d := hosts[from].only(); d != nil {
					d.Send(f)
				}
				if arrived = hosts[1-from].has(f); arrived {
					break
				}
				select {
				case <-tick.C:
				case <-end:
					t.Fatalf("%s: no frame goes from host %d", what, from)
				}
			}
		}
	}
	pass("at first")
	hosts[1].stop()
	hosts[1].start(t, u, addr, netip.MustParseAddr("100.64.9.9"))
	pass("after host 1 was renumbered")
	if h, _ := store.Hosts.Get(c.st.Snapshot(), c.hosts[1]); h.TunnelIP != netip.MustParseAddr("100.64.9.9") {
		t.Errorf("the host's address is %s", h.TunnelIP)
	}
}
