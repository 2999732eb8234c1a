package ovs_test

import (
	"strings"
	"testing"

	"yakumo/datapath/dptest"
	"yakumo/model"
)

// A packet without DF that is too large for the next network is answered like one with it: no router here fragments. The sender's
// kernel takes the answer to heart, and sends fragments itself from then on.
func TestKernelFragmentsAfterAnswer(t *testing.T) {
	f := newFabric(t)
	h0, h1 := f.newHost(t), f.newHost(t)
	router, far, pd := behindRouter()
	router.Interfaces[1].MTU, far.MTU = 1300, 1300
	pa := dptest.NewPort("net", 5_000_000, "a", 5, "all")
	prune(t, h0, []model.HostRow{dptest.NewNetwork("net", 5_000_000), dptest.AllowAll("all"), pa, far, router, dptest.PeerOf(pd, h1.addr)})
	prune(t, h1, []model.HostRow{dptest.NewNetwork("net", 5_000_000), dptest.AllowAll("all"), pd, far, router, dptest.PeerOf(pa, h0.addr)})
	a, d := bootKernel(t, h0, pa, 1450), bootKernel(t, h1, pd, 1300)
	routeVia(t, d, a)
	send := func(args ...string) (bool, string) {
		_, got, out := a.ping(t, append(args, "-c", "1", "-W", "1", d.addr().String())...)
		return got == 1, out
	}
	dptest.WaitFor(t, "the underlay to learn its neighbours", func() bool { ok, _ := send(); return ok })
	if ok, out := send("-M", "do", "-s", "1400"); ok || !strings.Contains(out, "mtu") && !strings.Contains(out, "Message too long") {
		t.Errorf("a packet with DF: %v, %s", ok, out)
	}
	ip(t, "-n", a.ns, "route", "flush", "cache")
	if ok, _ := send("-M", "dont", "-s", "1400"); ok {
		t.Error("a packet that is too large has passed whole")
	}
	dptest.WaitFor(t, "the sender to send fragments", func() bool { ok, _ := send("-M", "dont", "-s", "1400"); return ok })
}
