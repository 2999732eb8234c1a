package nova_test

import (
	"strings"
	"testing"
	"time"

	"yakumo/model"
	"yakumo/store"
	"yakumo/volume"
	"yakumo/volume/volumetest"
)

// storage adds a host that keeps volumes, and gives a maker of volumes that are available.
func (c *cloud) storage() func(project model.ID, spec volume.Spec) *model.Volume {
	c.t.Helper()
	h := &model.Host{Meta: model.NewMeta("", "store1", time.Now()), Zone: "nova", Disabled: false, Engines: []string{"local"}, Capacity: model.HostCapacity{DiskGiB: 500}}
	c.update(func(tx *store.Tx) error {
		if err := store.Hosts.Put(tx, h); err != nil {
			return err
		}
		return store.Heartbeats.Put(tx, &model.Heartbeat{HostID: h.ID, At: time.Now()})
	})
	volumetest.Start(c.t, volumetest.Config{Store: c.store, Volumes: c.volumes, Host: h.ID, Fail: func(v *model.Volume) *model.Fault {
		if strings.Contains(v.Name, "bad") && !v.Deleted {
			return &model.Fault{Code: 500, Message: "The disk is full."}
		}
		return nil
	}})
	return func(project model.ID, spec volume.Spec) *model.Volume {
		c.t.Helper()
		var v *model.Volume
		c.update(func(tx *store.Tx) (err error) {
			v, err = c.volumes.Create(tx, volume.Scope{ProjectID: project, UserID: "u1"}, spec)
			return err
		})
		c.state(v.ID, "available")
		return v
	}
}

// state waits until a volume is in the state; "": gone.
func (c *cloud) state(id model.ID, want string) *model.Volume {
	c.t.Helper()
	for end := time.Now().Add(60 * time.Second); ; {
		v, ok := store.Volumes.Get(c.store.Snapshot(), id)
		if !ok && want == "" || ok && v.Status.State == want {
			return v
		}
		if time.Now().After(end) {
			c.t.Fatalf("volume %s never became %q: %+v", id, want, v)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-c.t.Context().Done():
		}
	}
}

// active waits for a server's status.
func (c *cloud) status(id, want string) object {
	c.t.Helper()
	for end := time.Now().Add(60 * time.Second); ; {
		a := c.do("red", "GET", "/servers/"+id, nil, "2.96")
		s, _ := a.body["server"].(object)
		if s != nil && s["status"] == want || a.status == 404 && want == "" {
			return s
		}
		if time.Now().After(end) {
			c.t.Fatalf("server %s never became %q: %s", id, want, a.raw)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-c.t.Context().Done():
		}
	}
}

// boot makes a server and waits until it is active.
func (c *cloud) bootWith(more object) string {
	c.t.Helper()
	o := object{"name": "s", "flavorRef": "1", "networks": "none"}
	for k, v := range more {
		o[k] = v
	}
	a := c.do("red", "POST", "/servers", object{"server": o}, "2.96")
	if a.status != 202 {
		c.t.Fatalf("%d %s", a.status, a.raw)
	}
	id := a.body["server"].(object)["id"].(string)
	c.status(id, "ACTIVE")
	return id
}

func (c *cloud) say(status int, text, token, method, path string, body any, version string) answer {
	c.t.Helper()
	a := c.do(token, method, path, body, version)
	if a.status != status || !strings.Contains(string(a.raw), text) {
		c.t.Fatalf("%s %s: %d %s, want %d with %q", method, path, a.status, a.raw, status, text)
	}
	return a
}

func TestVolumesOfAServer(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	make := c.storage()
	s, other := c.bootWith(object{"imageRef": c.image}), c.bootWith(object{"imageRef": c.image})
	v, foreign := make(red, volume.Spec{SizeGiB: 1}), make(blue, volume.Spec{SizeGiB: 1})
	path := "/servers/" + s + "/os-volume_attachments"
	attach := func(id model.ID) object { return object{"volumeAttachment": object{"volumeId": id}} }

	c.say(404, "could not be found", "red", "POST", path, attach(foreign.ID), "2.89")
	c.say(404, "could not be found", "blue", "POST", path, attach(foreign.ID), "2.89")
	c.say(403, "", "red-reader", "POST", path, attach(v.ID), "2.89")
	c.say(400, "is not a 'uuid'", "red", "POST", path, attach("x"), "2.89")
	c.say(400, "device path", "red", "POST", path, object{"volumeAttachment": object{"volumeId": v.ID, "device": "!"}}, "2.89")
	a := c.say(200, `"device":"/dev/vdb"`, "red", "POST", path, object{"volumeAttachment": object{"volumeId": v.ID, "tag": "data", "delete_on_termination": false}}, "2.89")
	if at := a.body["volumeAttachment"].(object); at["tag"] != "data" || at["id"] != nil || at["attachment_id"] == "" {
		t.Errorf("%s", a.raw)
	}
	got := c.state(v.ID, "in-use")
	if len(got.Attachments) != 1 || got.Attachments[0].ServerID != s || got.Attachments[0].MountPoint != "/dev/vdb" || got.Attachments[0].AttachedAt.IsZero() {
		t.Errorf("%+v", got.Attachments)
	}
	c.say(409, "already attached to instance", "red", "POST", path, attach(v.ID), "2.89")
	c.say(400, "status must be available or downloading to reserve, but the current status is in-use", "red", "POST", "/servers/"+other+"/os-volume_attachments", attach(v.ID), "2.89")
	c.say(200, v.ID, "red", "GET", path, nil, "2.1")
	c.say(200, v.ID, "red", "GET", path+"/"+v.ID, nil, "2.1")
	c.say(404, "is not attached to volume", "red", "GET", path+"/"+foreign.ID, nil, "2.1")
	c.say(404, "", "blue", "GET", path, nil, "2.1")
	c.say(200, `"delete_on_termination":false`, "red", "GET", "/servers/"+s, nil, "2.96")

	// Its users let go of it through the server alone.
	c.update(func(tx *store.Tx) error {
		sc := volume.Scope{ProjectID: red}
		for _, err := range []error{c.volumes.DetachAny(tx, sc, v.ID, ""), c.volumes.BeginDetaching(tx, sc, v.ID)} {
			if err == nil || !strings.Contains(err.Error(), "using the Compute API") {
				t.Errorf("behind the server's back: %v", err)
			}
		}
		if err := c.volumes.Delete(tx, sc, v.ID, false, false); err == nil {
			t.Error("a volume in use is deleted")
		}
		return nil
	})

	put := func(o object) object {
		o["volumeId"] = v.ID
		return object{"volumeAttachment": o}
	}
	c.say(202, "", "red", "PUT", path+"/"+v.ID, put(object{"delete_on_termination": true}), "2.85")
	c.say(200, `"delete_on_termination":true`, "red", "GET", path+"/"+v.ID, nil, "2.85")
	c.say(202, "", "red", "PUT", path+"/"+v.ID, put(object{"delete_on_termination": false}), "2.85")
	c.say(403, "swap", "red", "PUT", path+"/"+v.ID, object{"volumeAttachment": object{"volumeId": foreign.ID}}, "2.85")
	c.say(501, "not offered", "admin", "PUT", path+"/"+v.ID, object{"volumeAttachment": object{"volumeId": foreign.ID}}, "2.85")

	c.say(404, "", "blue", "DELETE", path+"/"+v.ID, nil, "2.1")
	c.say(202, "", "red", "DELETE", path+"/"+v.ID, nil, "2.1")
	c.state(v.ID, "available")
	c.say(404, "is not attached to volume", "red", "DELETE", path+"/"+v.ID, nil, "2.1")
	c.say(200, `"volumeAttachments":[]`, "red", "GET", path, nil, "2.1")

	// One that goes with the server, and one that stays.
	gone := make(red, volume.Spec{SizeGiB: 1})
	c.say(200, "", "red", "POST", path, attach(v.ID), "2.1")
	c.say(200, "", "red", "POST", path, object{"volumeAttachment": object{"volumeId": gone.ID, "delete_on_termination": true}}, "2.79")
	c.state(v.ID, "in-use")
	c.state(gone.ID, "in-use")
	c.say(204, "", "red", "DELETE", "/servers/"+s, nil, "2.1")
	c.status(s, "")
	c.state(v.ID, "available")
	c.state(gone.ID, "")
}

func TestBootFromVolume(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	make := c.storage()
	mapping := func(o object) object { return object{"block_device_mapping_v2": []object{o}} }

	// An image on a volume made for it, which goes with the server.
	s := c.bootWith(mapping(object{"source_type": "image", "destination_type": "volume", "boot_index": 0, "uuid": c.image, "volume_size": 2, "delete_on_termination": true}))
	shown := c.status(s, "ACTIVE")
	uses := shown["os-extended-volumes:volumes_attached"].([]any)
	if shown["image"] != "" || len(uses) != 1 {
		t.Fatalf("%v", shown)
	}
	root := uses[0].(object)["id"].(string)
	if v := c.state(root, "in-use"); v.SizeGiB != 2 || !v.Bootable || v.Attachments[0].MountPoint != "/dev/vda" {
		t.Errorf("%+v", v)
	}
	row, _ := store.Servers.Get(c.store.Snapshot(), s)
	if model.RootGiB(row) != 0 {
		t.Errorf("it takes %d GiB of its host", model.RootGiB(row))
	}
	c.say(400, "Cannot detach a root device volume", "red", "DELETE", "/servers/"+s+"/os-volume_attachments/"+root, nil, "2.1")
	c.say(204, "", "red", "DELETE", "/servers/"+s, nil, "2.1")
	c.state(root, "")

	// A volume that is there, with a blank one beside it; it stays.
	img, _ := store.Images.Get(c.store.Snapshot(), c.image)
	v := make(red, volume.Spec{SizeGiB: 1, Image: img})
	s = c.bootWith(object{"block_device_mapping_v2": []object{
		{"source_type": "volume", "destination_type": "volume", "boot_index": "0", "uuid": v.ID},
		{"source_type": "blank", "destination_type": "volume", "boot_index": -1, "volume_size": 1, "tag": "scratch"}}})
	c.state(v.ID, "in-use")
	if uses := c.status(s, "ACTIVE")["os-extended-volumes:volumes_attached"].([]any); len(uses) != 2 {
		t.Errorf("%v", uses)
	}
	c.say(204, "", "red", "DELETE", "/servers/"+s, nil, "2.1")
	c.state(v.ID, "available")

	// The older form, and a snapshot.
	s = c.bootWith(object{"block_device_mapping": []object{{"device_name": "vda", "volume_id": v.ID, "delete_on_termination": "0"}}})
	c.state(v.ID, "in-use")
	c.say(204, "", "red", "DELETE", "/servers/"+s, nil, "2.1")
	c.state(v.ID, "available")
	var snap *model.VolumeSnapshot
	c.update(func(tx *store.Tx) (err error) {
		snap, err = c.volumes.CreateSnapshot(tx, volume.Scope{ProjectID: red}, volume.NewSnapshot{VolumeID: v.ID})
		return err
	})
	for end := time.Now().Add(60 * time.Second); snap.State != volume.Available && time.Now().Before(end); snap, _ = store.VolumeSnapshots.Get(c.store.Snapshot(), snap.ID) {
		c.state(v.ID, "available")
	}
	c.bootWith(mapping(object{"source_type": "snapshot", "destination_type": "volume", "boot_index": 0, "uuid": snap.ID, "delete_on_termination": true}))

	plain := make(red, volume.Spec{SizeGiB: 1})
	foreign := make(blue, volume.Spec{SizeGiB: 1, Image: img})
	for _, x := range []struct {
		more object
		text string
	}{
		{mapping(object{"source_type": "volume", "destination_type": "volume", "boot_index": 0, "uuid": plain.ID}), "is not bootable"},
		{mapping(object{"source_type": "volume", "destination_type": "volume", "boot_index": 0, "uuid": foreign.ID}), "failed to get volume"},
		{mapping(object{"source_type": "volume", "destination_type": "local", "boot_index": 0, "uuid": v.ID}), "Mapping volume to local is not supported"},
		{mapping(object{"source_type": "volume", "destination_type": "volume", "boot_index": 1, "uuid": v.ID}), "Boot sequence"},
		{mapping(object{"source_type": "blank", "destination_type": "volume", "boot_index": -1}), "non-zero size"},
		{mapping(object{"source_type": "image", "destination_type": "volume", "boot_index": 0, "uuid": model.NewID(), "volume_size": 1}), "failed to get image"},
		{mapping(object{"source_type": "snapshot", "destination_type": "volume", "boot_index": 0, "uuid": model.NewID()}), "failed to get snapshot"},
		{object{"imageRef": c.image, "block_device_mapping_v2": []object{{"source_type": "volume", "destination_type": "volume", "boot_index": 0, "uuid": v.ID}}}, "Boot sequence"},
		{object{"max_count": 2, "block_device_mapping_v2": []object{{"source_type": "volume", "destination_type": "volume", "boot_index": 0, "uuid": v.ID}}}, "multiple instances"},
		{object{"imageRef": ""}, "Invalid imageRef"},
	} {
		o := object{"name": "s", "flavorRef": "1", "networks": "none"}
		for k, y := range x.more {
			o[k] = y
		}
		c.say(400, x.text, "red", "POST", "/servers", object{"server": o}, "2.96")
	}
	c.state(v.ID, "available") // none of them kept anything
}

// TestServerOfAVolumeThatFails: a server whose volume cannot be made is in error with the reason, and its volume is released.
func TestServerOfAVolumeThatFails(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	c.storage()
	var v *model.Volume
	img, _ := store.Images.Get(c.store.Snapshot(), c.image)
	c.update(func(tx *store.Tx) (err error) {
		v, err = c.volumes.Create(tx, volume.Scope{ProjectID: red}, volume.Spec{Name: "bad", SizeGiB: 1, Image: img})
		return err
	})
	c.state(v.ID, "error")
	c.update(func(tx *store.Tx) error { // as if it failed while the server waited
		n := *v
		n.Status.State, n.Host = "creating", "gone"
		return store.Volumes.Put(tx, &n)
	})
	o := object{"name": "s", "flavorRef": "1", "networks": "none", "block_device_mapping_v2": []object{{"source_type": "volume", "destination_type": "volume", "boot_index": 0, "uuid": v.ID}}}
	a := c.do("red", "POST", "/servers", object{"server": o}, "2.96")
	if a.status != 202 {
		t.Fatalf("%d %s", a.status, a.raw)
	}
	id := a.body["server"].(object)["id"].(string)
	c.update(func(tx *store.Tx) error {
		now, _ := store.Volumes.Get(tx, v.ID)
		n := *now
		n.Status.State = "error"
		return store.Volumes.Put(tx, &n)
	})
	s := c.status(id, "ERROR")
	if f, _ := s["fault"].(object); f == nil || !strings.Contains(f["message"].(string), "did not finish being created") {
		t.Errorf("%v", s)
	}
	c.say(204, "", "red", "DELETE", "/servers/"+id, nil, "2.1")
	c.status(id, "")
	if now, _ := store.Volumes.Get(c.store.Snapshot(), v.ID); len(now.Attachments) != 0 {
		t.Errorf("%+v", now.Attachments)
	}
}

// TestImageOfAServerOnVolumes: an image of a server that boots from a volume is snapshots of its volumes, and a server boots from those; a rebuild fills the root volume.
func TestImageOfAServerOnVolumes(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	c.storage()
	s := c.bootWith(object{"block_device_mapping_v2": []object{
		{"source_type": "image", "destination_type": "volume", "boot_index": 0, "uuid": c.image, "volume_size": 2, "delete_on_termination": true},
		{"source_type": "blank", "destination_type": "volume", "boot_index": -1, "volume_size": 1, "delete_on_termination": true}}})
	path := "/servers/" + s + "/action"
	c.say(404, "", "blue", "POST", path, object{"createImage": object{"name": "i"}}, "2.45")
	c.say(403, "", "red-reader", "POST", path, object{"createImage": object{"name": "i"}}, "2.45")
	c.say(400, "Backup is not supported for volume-backed instances.", "red", "POST", path, object{"createBackup": object{"name": "b", "backup_type": "daily", "rotation": 1}}, "2.45")
	id := c.say(202, "", "red", "POST", path, object{"createImage": object{"name": "i", "metadata": object{"a": "b"}}}, "2.45").body["image_id"].(string)
	img, ok := store.Images.Get(c.store.Snapshot(), id)
	if !ok || img.Status != model.ImageActive || img.Size != 0 || img.Properties["a"] != "b" || img.Properties["bdm_v2"] != "True" || img.ProjectID != red {
		t.Fatalf("%+v", img)
	}
	for snap := range store.VolumeSnapshots.All(c.store.Snapshot()) {
		if snap.Name != "snapshot for i" || snap.ProjectID != red || !strings.Contains(img.Properties["block_device_mapping"], snap.ID) {
			t.Errorf("%+v in %v", snap, img.Properties)
		}
		for end := time.Now().Add(60 * time.Second); snap.State != volume.Available; snap, _ = store.VolumeSnapshots.Get(c.store.Snapshot(), snap.ID) {
			if time.Now().After(end) {
				t.Fatalf("%+v", snap)
			}
		}
	}
	second := c.bootWith(object{"imageRef": id})
	row, _ := store.Servers.Get(c.store.Snapshot(), second)
	if len(row.Volumes) != 2 || !row.Volumes[0].Boot || row.Volumes[1].Boot || row.ImageID != "" || model.RootGiB(row) != 0 {
		t.Fatalf("%+v", row.Volumes)
	}
	for i, size := range []int{2, 1} {
		if v := c.state(row.Volumes[i].VolumeID, "in-use"); v.SizeGiB != size || v.Source.SnapshotID == "" || v.Bootable != (i == 0) {
			t.Errorf("%+v", v)
		}
	}
	c.say(400, "", "blue", "POST", "/servers", object{"server": object{"name": "s", "flavorRef": "1", "networks": "none", "imageRef": id}}, "2.96")
	c.say(400, "it has no data of its own", "red", "POST", path, object{"rebuild": object{"imageRef": id}}, "2.93")

	root := c.status(s, "ACTIVE")["os-extended-volumes:volumes_attached"].([]any)[0].(object)["id"].(string)
	first, _ := store.Images.Get(c.store.Snapshot(), c.image)
	other := *first
	other.ID = model.NewID()
	c.update(func(tx *store.Tx) error { return store.Images.Put(tx, &other) })
	c.say(202, "", "red", "POST", path, object{"rebuild": object{"imageRef": c.image}}, "2.92")
	c.status(s, "ACTIVE")
	if v := c.state(root, "in-use"); v.Fills != 0 {
		t.Errorf("before 2.93 the volume is filled anew: %+v", v)
	}
	c.say(400, "different image for a volume-backed server", "red", "POST", path, object{"rebuild": object{"imageRef": other.ID}}, "2.92")
	c.say(202, "", "red", "POST", path, object{"rebuild": object{"imageRef": other.ID}}, "2.93")
	c.status(s, "ACTIVE")
	if v := c.state(root, "in-use"); v.Fills != 1 || v.Status.Fills != 1 || v.Refill.ImageID != other.ID || v.ImageMetadata["image_id"] != other.ID {
		t.Errorf("%+v", v)
	}
	big := other
	big.ID, big.MinDiskGiB = model.NewID(), 3
	c.update(func(tx *store.Tx) error { return store.Images.Put(tx, &big) })
	c.say(400, "cannot be smaller than the image minDisk", "red", "POST", path, object{"rebuild": object{"imageRef": big.ID}}, "2.93")
}
