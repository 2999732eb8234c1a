package fake_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"yakumo/datapath"
	"yakumo/datapath/dptest"
	"yakumo/datapath/fake"
	"yakumo/model"
)

type fabric struct {
	underlay *fake.Underlay
	next     byte
}

type host struct {
	sw       *fake.Switch
	underlay *fake.Underlay
	addr     netip.Addr
	ord      datapath.Ordinals
	drv      *fake.Driver
	nics     int
}

func (f *fabric) NewHost(t testing.TB) dptest.Host {
	f.next++
	h := &host{addr: netip.AddrFrom4([4]byte{192, 0, 2, f.next}), ord: datapath.NewMemoryOrdinals()}
	h.sw = fake.NewSwitch(f.underlay, h.addr)
	h.underlay = f.underlay
	t.Cleanup(h.sw.Leave)
	h.start(t)
	t.Cleanup(func() {
		if err := h.drv.Close(); err != nil { // else it goes on to speak outside
			t.Error(err)
		}
	})
	return h
}

func (h *host) start(t testing.TB) {
	var err error
	if h.drv, err = fake.New(fake.Config{Switch: h.sw, Ordinals: h.ord, Physical: []string{dptest.Physical}}); err != nil {
		t.Fatal(err)
	}
}

func (h *host) Driver() datapath.Driver  { return h.drv }
func (h *host) TunnelIP() netip.Addr     { return h.addr }
func (h *host) Settle(testing.TB)        {}
func (h *host) Entries(testing.TB) int   { return h.sw.Entries() }
func (h *host) RestartSwitch(testing.TB) { h.sw.Clear() }
func (h *host) RestartDriver(t testing.TB) {
	if err := h.drv.Close(); err != nil {
		t.Fatal(err)
	}
	h.start(t)
}

type nic struct {
	dev    *fake.Device
	frames chan []byte
}

func (h *host) NewNIC(testing.TB) dptest.NIC {
	h.nics++
	n := &nic{frames: make(chan []byte, 1024)}
	n.dev = h.sw.AddDevice(fmt.Sprintf("tap%d", h.nics), func(b []byte) { n.frames <- b })
	return n
}

// NewProvider implements dptest.Host.
func (h *host) NewProvider(t testing.TB) dptest.NIC {
	n := &nic{frames: make(chan []byte, 1024)}
	n.dev = h.underlay.AddProvider(dptest.Physical, func(b []byte) { n.frames <- b })
	t.Cleanup(n.dev.Remove)
	return n
}

func (n *nic) Device() string                  { return n.dev.Name }
func (n *nic) Frames() <-chan []byte           { return n.frames }
func (n *nic) Send(_ testing.TB, frame []byte) { n.dev.Send(frame) }

func TestConformance(t *testing.T) { dptest.Run(t, &fabric{underlay: fake.NewUnderlay()}) }

func TestFailures(t *testing.T) {
	boom := errors.New("boom")
	d, err := fake.New(fake.Config{Failures: []fake.Failure{{Method: "Apply", N: 2, Err: boom}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, row := context.Background(), &model.HostNetwork{ID: "n", VNI: 5}
	for i, want := range []error{nil, boom, nil} {
		if err := datapath.Ensure(ctx, d, row); !errors.Is(err, want) {
			t.Errorf("call %d: got %v, want %v", i+1, err, want)
		}
	}
	if err := datapath.Remove(ctx, d, row.RowID()); err != nil {
		t.Fatal(err)
	}
	if n := d.Counters().Rows; n != 0 {
		t.Errorf("%d rows left", n)
	}
}
