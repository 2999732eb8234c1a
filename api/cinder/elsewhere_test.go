package cinder_test

import (
	"strings"
	"testing"
	"time"

	"yakumo/model"
	"yakumo/store"
)

// guest gives a volume to a server that runs on a host, as the Compute API would.
func (c *cloud) guest(volume string, host model.ID) *model.Server {
	c.t.Helper()
	s := &model.Server{Meta: model.NewMeta(red, "s", time.Now()), Host: host, Power: model.PowerRunning, Status: model.ServerStatus{Phase: model.PhaseReady, Power: model.PowerRunning}}
	if _, err := c.store.Update(c.t.Context(), func(tx *store.Tx) error {
		_, att, err := c.v.UseVolume(tx, red, false, volume, s.ID, "/dev/vdb", false)
		if err != nil {
			return err
		}
		n := *s
		n.Volumes = []model.VolumeUse{{VolumeID: volume, AttachmentID: att, Device: "/dev/vdb"}}
		if err := store.Servers.Put(tx, &n); err != nil {
			return err
		}
		return c.v.VolumeUsed(tx, volume, att)
	}); err != nil {
		c.t.Fatal(err)
	}
	return s
}

// TestElsewhereUnderItsGuest: a volume in use is migrated by administrators and retyped by its owner, as Cinder shows it; and is refused with Cinder's codes.
func TestElsewhereUnderItsGuest(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	h := &model.Host{Meta: model.NewMeta("", "h2", time.Now()), Zone: "nova", Engines: []string{"local", "nfs"}, Capacity: model.HostCapacity{DiskGiB: 100}}
	put := func(f func(tx *store.Tx) error) {
		t.Helper()
		if _, err := c.store.Update(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	put(func(tx *store.Tx) error {
		if err := store.Hosts.Put(tx, h); err != nil {
			return err
		}
		return store.Heartbeats.Put(tx, &model.Heartbeat{HostID: h.ID, At: time.Now()})
	})
	c.want(200, "admin", "", "POST", "/types", object{"volume_type": object{"name": "shared", "extra_specs": object{"volume_backend_name": "nfs"}}})
	c.want(200, "admin", "", "POST", "/types", object{"volume_type": object{"name": "many", "extra_specs": object{"multiattach": "<is> True"}}})
	v := c.volume(nil)
	row, _ := store.Volumes.Get(c.store.Snapshot(), v)
	from := row.Host
	to := "h2@local#local"
	if from == h.ID { // by its room
		to = "h1@local#local"
	}
	migrate, retype := object{"os-migrate_volume": object{"host": to}}, object{"os-retype": object{"new_type": "shared", "migration_policy": "on-demand"}}
	act := func(status int, token, id string, body object, text string) {
		t.Helper()
		if a := c.want(status, token, "3.70", "POST", "/volumes/"+id+"/action", body); !strings.Contains(a.raw, text) {
			t.Errorf("%s, want %q", a.raw, text)
		}
	}
	many := c.volume(object{"volume_type": "many"})
	c.guest(many, from)
	act(400, "admin", many, migrate, "multiattach")
	act(400, "red", many, retype, "multiattach")

	s := c.guest(v, from)
	task := func(name string) {
		put(func(tx *store.Tx) error {
			old, _ := store.Servers.Get(tx, s.ID)
			n := *old
			n.Status.Task = name
			return store.Servers.Put(tx, &n)
		})
	}
	task("migrating")
	act(409, "admin", v, migrate, "task_state migrating")
	act(409, "red", v, retype, "task_state migrating")
	task("")
	act(403, "red", v, migrate, "")
	act(400, "red", v, object{"os-retype": object{"new_type": "shared", "migration_policy": "never"}}, "Retype requires migration")
	act(404, "blue", v, retype, "")
	act(202, "red", v, retype, "")
	a := c.want(200, "admin", "", "GET", "/volumes/"+v, nil)
	if a.str("volume.status") != "retyping" || a.str("volume.migration_status") != "migrating" || a.str("volume.volume_type") == "shared" {
		t.Errorf("%s", a.raw)
	}
	act(400, "admin", v, migrate, "migrating")
	act(400, "red", v, object{"os-extend": object{"new_size": 5}}, "status must be")
	c.want(400, "red", "", "POST", "/snapshots", object{"snapshot": object{"volume_id": v, "force": true}})
	c.want(400, "red", "", "DELETE", "/volumes/"+v, nil)
	// The hosts do their parts: the test's host makes the place and clears what was, and the guest's host says the rest.
	number := int64(1)
	said := func(state model.DiskState) {
		t.Helper()
		put(func(tx *store.Tx) error {
			return c.v.Elsewhere(tx, s.ID, model.DiskReport{VolumeID: v, Number: number, State: state})
		})
	}
	if err := c.v.VolumeReports(t.Context(), from, []model.VolumeReport{{VolumeID: v, Placed: number}}); err != nil {
		t.Fatal(err)
	}
	said(model.DiskNear)
	act(409, "admin", v, object{"os-reset_status": object{"status": "in-use"}}, "at this moment")
	said(model.DiskTurned)
	c.until("admin", "/volumes/"+v, "volume.migration_status", "success")
	a = c.until("admin", "/volumes/"+v, "volume.status", "in-use")
	if a.str("volume.volume_type") != "shared" || !strings.Contains(a.str("volume.os-vol-host-attr:host"), "@nfs#nfs") {
		t.Errorf("%s", a.raw)
	}
}
