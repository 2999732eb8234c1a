package nova_test

import (
	"testing"
	"time"

	"yakumo/model"
	"yakumo/store"
	"yakumo/volume"
)

// TestServerWhoseVolumeGoesElsewhere: what would not go with that is refused with 409, and its end ends that.
func TestServerWhoseVolumeGoesElsewhere(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	c.host("h2") // to which it might move
	make := c.storage()
	far := &model.Host{Meta: model.NewMeta("", "far", time.Now()), Zone: "nova", Engines: []string{"local"}, Capacity: model.HostCapacity{DiskGiB: 100}}
	s := c.bootWith(object{"imageRef": c.image})
	v := make(red, volume.Spec{SizeGiB: 1})
	path := "/servers/" + s + "/os-volume_attachments"
	c.say(200, "", "red", "POST", path, object{"volumeAttachment": object{"volumeId": v.ID}}, "2.1")
	c.state(v.ID, "in-use")
	row, _ := store.Servers.Get(c.store.Snapshot(), s)
	begin := func() {
		c.update(func(tx *store.Tx) error {
			if err := store.Hosts.Put(tx, far); err != nil {
				return err
			}
			if err := store.Heartbeats.Put(tx, &model.Heartbeat{HostID: far.ID, At: time.Now()}); err != nil {
				return err
			}
			_, err := c.volumes.Migrate(tx, volume.Scope{Admin: true}, v.ID, "far@local#local")
			return err
		})
	}
	begin()
	act := func(name string, args any) func(string, int, string) {
		return func(token string, status int, text string) {
			t.Helper()
			c.say(status, text, token, "POST", "/servers/"+s+"/action", object{name: args}, "2.30")
		}
	}
	const busy = "in migration_status migrating"
	act("os-migrateLive", object{"host": nil, "block_migration": "auto"})("admin", 409, busy)
	act("migrate", nil)("admin", 409, busy)
	act("resize", object{"flavorRef": "2"})("red", 409, busy)
	act("suspend", nil)("red", 409, busy)
	act("shelve", nil)("red", 409, busy)
	c.say(409, "Unable to detach volume. Volume status must be 'in-use'", "red", "DELETE", path+"/"+v.ID, nil, "2.1")
	act("pause", nil)("red", 202, "")
	c.status(s, "PAUSED")
	act("unpause", nil)("red", 202, "")
	c.status(s, "ACTIVE")

	// At the moment at which only the guest's host knows where the volume is, nothing ends it.
	stage := func(to model.RelocationStage) {
		c.update(func(tx *store.Tx) error {
			old, _ := store.Volumes.Get(tx, v.ID)
			n, r := *old, *old.Relocation
			r.Stage = to
			n.Relocation = &r
			return store.Volumes.Put(tx, &n)
		})
	}
	stage(model.RelocateTurning)
	c.say(409, "at this moment", "red", "DELETE", "/servers/"+s, nil, "2.1")
	c.update(func(tx *store.Tx) error { // its host is dead
		old, _ := store.Hosts.Get(tx, row.Host)
		h := *old
		h.ForcedDown = true
		return store.Hosts.Put(tx, &h)
	})
	c.say(409, "at this moment", "admin", "POST", "/servers/"+s+"/action", object{"evacuate": object{}}, "2.30")
	stage(model.RelocateCopying)
	c.say(200, "", "admin", "POST", "/servers/"+s+"/action", object{"evacuate": object{}}, "2.30")
	if x := c.state(v.ID, "in-use"); x.Relocating() || x.Status.Migration != volume.MigrationFailed {
		t.Errorf("%+v", x)
	}
	c.status(s, "ACTIVE")
	if x, _ := store.Servers.Get(c.store.Snapshot(), s); x.Host == row.Host {
		t.Errorf("the server is on the dead host: %+v", x)
	}

	// A server that is deleted takes its volume from the way.
	c.update(func(tx *store.Tx) error {
		old, _ := store.Volumes.Get(tx, v.ID)
		n := *old
		n.Relocation = nil // the place is cleared
		return store.Volumes.Put(tx, &n)
	})
	begin()
	c.say(204, "", "red", "DELETE", "/servers/"+s, nil, "2.1")
	c.status(s, "")
	if x := c.state(v.ID, "available"); x.Relocating() {
		t.Errorf("%+v", x.Relocation)
	}
}
