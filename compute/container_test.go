package compute_test

import (
	"context"
	"strings"
	"testing"

	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// TestContainersStay: a container gets no volume, and a drain says that it stays where it is.
func TestContainersStay(t *testing.T) {
	w := newWorld(t)
	w.run("a")
	w.host("boxes", nil, func(h *model.Host) { h.Capacity.HypervisorType = "LXC" })
	img := *image
	img.ID, img.DiskFormat, img.Properties = model.NewID(), "raw", map[string]string{"hypervisor_type": "LXC"}
	s := w.create(func(n *compute.NewServer) { n.Image = &img })
	w.state(s.ID, compute.Active)
	_, err := w.s.Update(context.Background(), func(tx *store.Tx) error {
		_, _, err := w.c.AttachVolume(tx, w.scope(), s.ID, compute.NewUse{VolumeID: model.NewID()})
		return err
	})
	if text, _ := fault.Text(err); !fault.Is(err, fault.Conflict) || text != "Cannot 'attach_volume' instance "+s.ID+": it is a container" {
		t.Errorf("a volume for a container: %v", err)
	}
	w.update(func(tx *store.Tx) error {
		_, err := w.c.Drain(tx, w.get(s.ID).Host, "a test")
		return err
	})
	snap := w.s.Snapshot()
	h, _ := store.Hosts.Get(snap, w.get(s.ID).Host)
	if d := compute.DrainOf(snap, h); !d.Draining || len(d.Left) != 1 || !strings.Contains(d.Left[0].Why, "container") {
		t.Errorf("the drain is %+v", d)
	}
}
