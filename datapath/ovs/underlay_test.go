package ovs_test

import (
	"strings"
	"testing"

	"yakumo/datapath/dptest"
	"yakumo/model"
)

// TestFarHostsAreKnownBeforeTheFirstPacket: the user-space datapath drops the packet for which it
// does not know the other host's MAC. It must know it before a guest sends one, also after the
// switch was restarted.
func TestFarHostsAreKnownBeforeTheFirstPacket(t *testing.T) {
	f := newFabric(t)
	a, b := f.newHost(t), f.newHost(t)
	rows := []model.HostRow{&model.HostNetwork{ID: "n", VNI: 7, MTU: 1450},
		&model.HostPeer{ID: "far", NetworkID: "n", VNI: 7, MAC: "02:00:00:00:00:07", TunnelIP: b.TunnelIP()}}
	prune := func() {
		dptest.WaitFor(t, "the rows to be installed", func() bool {
			return a.Driver().Prune(t.Context(), func(yield func(model.HostRow) bool) {
				for _, r := range rows {
					if !yield(r) {
						return
					}
				}
			}) == nil
		})
	}
	knows := func() bool { return strings.Contains(a.sw.Appctl("tnl/neigh/show"), b.TunnelIP().String()) }
	if knows() {
		t.Fatal("the other host is known before anything leads there")
	}
	prune()
	dptest.WaitFor(t, "the other host's MAC to be known", knows)
	a.RestartSwitch(t)
	dptest.WaitFor(t, "the other host's MAC to be known again", knows)
}
