package cinder_test

import (
	"strings"
	"testing"

	"yakumo/model"
)

// TestLifeOfAVolume: from nothing to available, larger, used, and gone, with Cinder's words for what is refused.
func TestLifeOfAVolume(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	a := c.want(202, "red", "3.70", "POST", "/volumes", object{"volume": object{"size": 2, "name": "data", "description": "d", "metadata": object{"k": "v"}}})
	if a.str("volume.status") != "creating" || a.str("volume.volume_type") != "__DEFAULT__" || a.str("volume.bootable") != "false" {
		t.Errorf("%s", a.raw)
	}
	id := a.str("volume.id")
	c.until("red", "/volumes/"+id, "volume.status", "available")
	if a := c.want(200, "admin", "3.70", "GET", "/volumes/"+id, nil); a.str("volume.os-vol-host-attr:host") != "h1@local#local" {
		t.Errorf("%s", a.raw)
	}
	// Both forms of the path.
	c.want(200, "red", "", "GET", "/"+red+"/volumes/"+id, nil)
	c.want(400, "red", "", "GET", "/"+blue+"/volumes/"+id, nil)

	for _, x := range []struct {
		body   object
		status int
		text   string
	}{
		{object{"os-extend": object{"new_size": 2}}, 400, "New size for extend must be greater than current size. (current: 2, extended: 2)."},
		{object{"os-extend": object{}}, 400, "'new_size' is a required property"},
		{object{"os-extend": object{"new_size": "x"}}, 400, "is not of type 'integer'"},
		{object{"os-fly": object{}}, 400, "There is no such action"},
		{object{"os-reset_status": object{"status": "error"}}, 403, "Policy doesn't allow"},
		{object{"os-migrate_volume": object{"host": "x"}}, 403, "Policy doesn't allow"},
		{object{"os-begin_detaching": object{}}, 400, "Unable to detach volume"},
		{object{"os-retype": object{"new_type": "nothing"}}, 404, "could not be found"},
		{object{"revert": object{"snapshot_id": "nothing"}}, 404, "could not be found"},
		{object{"os-detach": object{}}, 400, "is not attached"},
		{object{"a": 1, "b": 2}, 400, "Malformed"},
	} {
		if a := c.do("red", "3.70", "POST", "/volumes/"+id+"/action", x.body); a.status != x.status || !strings.Contains(a.raw, x.text) {
			t.Errorf("%v: %d %s", x.body, a.status, a.raw)
		}
	}
	c.want(202, "red", "3.70", "POST", "/volumes/"+id+"/action", object{"os-extend": object{"new_size": 3}})
	c.until("red", "/volumes/"+id, "volume.status", "available")
	if a := c.want(200, "red", "3.70", "GET", "/volumes/"+id, nil); a.get("volume.size") != 3.0 {
		t.Errorf("%s", a.raw)
	}
	if a := c.want(400, "admin", "3.70", "POST", "/volumes/"+id+"/action", object{"os-migrate_volume": object{"host": "x"}}); !strings.Contains(a.raw, "No available service named") {
		t.Errorf("%s", a.raw)
	}
	c.want(400, "admin", "3.70", "POST", "/volumes/"+id+"/action", object{"os-migrate_volume": object{}})

	// Names, metadata, flags.
	c.want(200, "red", "", "PUT", "/volumes/"+id, object{"volume": object{"name": "other"}})
	c.want(400, "red", "", "PUT", "/volumes/"+id, object{"volume": object{}})
	c.want(200, "red", "", "POST", "/volumes/"+id+"/metadata", object{"metadata": object{"a": "b"}})
	if a := c.want(200, "red", "", "GET", "/volumes/"+id+"/metadata", nil); a.str("metadata.a") != "b" || a.str("metadata.k") != "v" {
		t.Errorf("%s", a.raw)
	}
	c.want(200, "red", "", "PUT", "/volumes/"+id+"/metadata/a", object{"meta": object{"a": "c"}})
	c.want(400, "red", "", "PUT", "/volumes/"+id+"/metadata/a", object{"meta": object{"x": "c"}})
	c.want(200, "red", "", "DELETE", "/volumes/"+id+"/metadata/a", nil)
	c.want(404, "red", "", "DELETE", "/volumes/"+id+"/metadata/a", nil)
	c.want(200, "red", "", "PUT", "/volumes/"+id+"/metadata", object{"metadata": object{"only": "1"}})
	c.want(200, "red", "", "POST", "/volumes/"+id+"/action", object{"os-set_bootable": object{"bootable": true}})
	c.want(202, "red", "", "POST", "/volumes/"+id+"/action", object{"os-update_readonly_flag": object{"readonly": true}})
	if a := c.want(200, "red", "", "GET", "/volumes/"+id, nil); a.str("volume.bootable") != "true" || a.str("volume.metadata.readonly") != "True" || a.str("volume.metadata.only") != "1" || a.str("volume.name") != "other" {
		t.Errorf("%s", a.raw)
	}
	c.want(202, "red", "", "POST", "/volumes/"+id+"/action", object{"os-update_readonly_flag": object{"readonly": false}})
	c.want(200, "red", "", "POST", "/volumes/"+id+"/action", object{"os-set_image_metadata": object{"metadata": object{"os_type": "linux"}}})
	c.want(200, "red", "", "POST", "/volumes/"+id+"/action", object{"os-unset_image_metadata": object{"key": "os_type"}})
	c.want(404, "red", "", "POST", "/volumes/"+id+"/action", object{"os-unset_image_metadata": object{"key": "os_type"}})

	// The older calls by which others use it.
	c.want(202, "red", "", "POST", "/volumes/"+id+"/action", object{"os-reserve": object{}})
	c.until("red", "/volumes/"+id, "volume.status", "reserved")
	if a := c.want(400, "red", "", "DELETE", "/volumes/"+id, nil); !strings.Contains(a.raw, "must be available or error") {
		t.Errorf("%s", a.raw)
	}
	c.want(202, "red", "", "POST", "/volumes/"+id+"/action", object{"os-attach": object{"host_name": "elsewhere", "mountpoint": "/dev/sdx"}})
	if a := c.want(200, "red", "", "GET", "/volumes/"+id, nil); a.str("volume.status") != "in-use" || a.str("volume.attachments.0.device") != "/dev/sdx" {
		t.Errorf("%s", a.raw)
	}
	c.want(202, "red", "", "POST", "/volumes/"+id+"/action", object{"os-begin_detaching": object{}})
	c.until("red", "/volumes/"+id, "volume.status", "detaching")
	c.want(202, "red", "", "POST", "/volumes/"+id+"/action", object{"os-roll_detaching": object{}})
	c.until("red", "/volumes/"+id, "volume.status", "in-use")
	if a := c.want(400, "red", "3.41", "POST", "/volumes/"+id+"/action", object{"os-extend": object{"new_size": 4}}); !strings.Contains(string(a.raw), "status must be 'available' to extend, currently in-use") {
		t.Errorf("a volume in use: %s", a.raw)
	}
	c.want(202, "red", "3.42", "POST", "/volumes/"+id+"/action", object{"os-extend": object{"new_size": 4}})
	c.until("red", "/volumes/"+id, "volume.status", "in-use")
	c.want(202, "red", "", "POST", "/volumes/"+id+"/action", object{"os-detach": object{}})
	c.until("red", "/volumes/"+id, "volume.status", "available")

	c.want(202, "red", "", "DELETE", "/volumes/"+id, nil)
	c.gone("red", "/volumes/"+id)
	if a := c.want(404, "red", "", "GET", "/volumes/"+id, nil); a.get("itemNotFound.code") != 404.0 || a.str("itemNotFound.message") != "Volume "+id+" could not be found." {
		t.Errorf("%s", a.raw)
	}
}

// TestSourcesOfVolumes: an image, a snapshot, a volume and a backup, and what does not fit.
func TestSourcesOfVolumes(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	boot := c.volume(object{"imageRef": c.image, "size": 2})
	if a := c.want(200, "red", "", "GET", "/volumes/"+boot, nil); a.str("volume.bootable") != "true" || a.str("volume.volume_image_metadata.image_name") != "mini" || a.str("volume.volume_image_metadata.os_distro") != "mini" {
		t.Errorf("%s", a.raw)
	}
	snap := c.want(202, "red", "", "POST", "/snapshots", object{"snapshot": object{"volume_id": boot, "name": "s"}}).str("snapshot.id")
	c.until("red", "/snapshots/"+snap, "snapshot.status", "available")
	if id := c.volume(object{"snapshot_id": snap, "size": nil}); true {
		if a := c.want(200, "red", "", "GET", "/volumes/"+id, nil); a.get("volume.size") != 2.0 || a.str("volume.snapshot_id") != snap || a.str("volume.bootable") != "true" {
			t.Errorf("%s", a.raw)
		}
	}
	c.volume(object{"source_volid": boot, "size": 5})
	backup := c.want(202, "red", "", "POST", "/backups", object{"backup": object{"volume_id": boot, "name": "b"}}).str("backup.id")
	c.until("red", "/backups/"+backup, "backup.status", "available")
	c.until("red", "/volumes/"+boot, "volume.status", "available")
	c.volume(object{"backup_id": backup, "size": nil})

	for _, x := range []struct {
		more   object
		status int
		text   string
	}{
		{object{"snapshot_id": snap}, 400, "cannot be smaller than the snapshot size"},
		{object{"source_volid": boot}, 400, "cannot be smaller than original volume size"},
		{object{"imageRef": model.NewID()}, 400, "Invalid image identifier"},
		{object{"snapshot_id": model.NewID()}, 404, "could not be found"},
		{object{"source_volid": model.NewID()}, 404, "could not be found"},
		{object{"size": 0}, 400, "is not between"},
		{object{"size": -1}, 400, "is not between"},
		{object{"size": nil}, 400, "None is not of type 'integer'"},
		{object{"size": "big"}, 400, "is not of type 'integer'"},
		{object{"volume_type": "no-such"}, 404, "could not be found"},
		{object{"availability_zone": "mars"}, 400, "is invalid"},
		{object{"imageRef": c.image, "snapshot_id": snap}, 400, "one of an image"},
		{object{"multiattach": true}, 400, "multiattach"},
		{object{"name": strings.Repeat("x", 256)}, 400, "is too long"},
		{object{"metadata": "x"}, 400, "is not of type 'object'"},
	} {
		o := object{"size": 1}
		for k, v := range x.more {
			o[k] = v
		}
		if a := c.do("red", "3.70", "POST", "/volumes", object{"volume": o}); a.status != x.status || !strings.Contains(a.raw, x.text) {
			t.Errorf("%v: %d %s", x.more, a.status, a.raw)
		}
	}
	// Removing what others come of.
	if a := c.want(400, "red", "", "DELETE", "/volumes/"+boot, nil); !strings.Contains(a.raw, "have snapshots") {
		t.Errorf("%s", a.raw)
	}
	c.want(202, "red", "", "DELETE", "/volumes/"+boot+"?cascade=True", nil)
	c.gone("red", "/volumes/"+boot)
	c.gone("red", "/snapshots/"+snap)

	// A host that cannot fill it says so, and the owner can remove it.
	c.failing(func(v *model.Volume) *model.Fault {
		if v.Name == "bad" && !v.Deleted {
			return &model.Fault{Code: 500, Message: "The disk is full."}
		}
		return nil
	})
	bad := c.want(202, "red", "", "POST", "/volumes", object{"volume": object{"size": 1, "name": "bad"}}).str("volume.id")
	c.until("red", "/volumes/"+bad, "volume.status", "error")
	if a := c.want(200, "red", "3.3", "GET", "/messages", nil); a.str("messages.0.user_message") != "The disk is full." || a.str("messages.0.resource_uuid") != bad {
		t.Errorf("%s", a.raw)
	}
	c.want(202, "red", "", "DELETE", "/volumes/"+bad, nil)
	c.gone("red", "/volumes/"+bad)
}

func TestSnapshotsAndBackups(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	v := c.volume(nil)
	s := c.want(202, "red", "", "POST", "/snapshots", object{"snapshot": object{"volume_id": v, "name": "s", "metadata": object{"k": "v"}}}).str("snapshot.id")
	if a := c.until("red", "/snapshots/"+s, "snapshot.status", "available"); a.str("snapshot.os-extended-snapshot-attributes:progress") != "100%" {
		t.Errorf("%s", a.raw)
	}
	c.want(200, "red", "", "PUT", "/snapshots/"+s, object{"snapshot": object{"name": "t"}})
	c.want(200, "red", "", "POST", "/snapshots/"+s+"/metadata", object{"metadata": object{"a": "b"}})
	c.want(403, "red", "", "POST", "/snapshots/"+s+"/action", object{"os-reset_status": object{"status": "error"}})
	c.want(202, "admin", "", "POST", "/snapshots/"+s+"/action", object{"os-reset_status": object{"status": "error"}})
	c.want(400, "red", "", "POST", "/volumes", object{"volume": object{"snapshot_id": s}})
	c.want(202, "admin", "", "POST", "/snapshots/"+s+"/action", object{"os-reset_status": object{"status": "available"}})

	// Back to the newest snapshot, and to no other.
	older := s
	s = c.want(202, "red", "", "POST", "/snapshots", object{"snapshot": object{"volume_id": v}}).str("snapshot.id")
	c.until("red", "/snapshots/"+s, "snapshot.status", "available")
	if a := c.want(400, "red", "3.40", "POST", "/volumes/"+v+"/action", object{"revert": object{"snapshot_id": older}}); !strings.Contains(a.raw, "latest snapshot") {
		t.Errorf("%s", a.raw)
	}
	c.want(400, "red", "3.39", "POST", "/volumes/"+v+"/action", object{"revert": object{"snapshot_id": s}})
	c.want(202, "red", "3.40", "POST", "/volumes/"+v+"/action", object{"revert": object{"snapshot_id": s}})
	c.until("red", "/volumes/"+v, "volume.status", "available")
	c.until("red", "/snapshots/"+s, "snapshot.status", "available")
	for _, id := range []string{s, older} {
		c.want(202, "red", "", "DELETE", "/snapshots/"+id, nil)
		c.gone("red", "/snapshots/"+id)
	}

	// In use: only with force before 3.66.
	c.want(202, "red", "", "POST", "/volumes/"+v+"/action", object{"os-attach": object{"host_name": "x", "mountpoint": "/dev/x"}})
	if a := c.want(400, "red", "", "POST", "/snapshots", object{"snapshot": object{"volume_id": v}}); !strings.Contains(a.raw, "status must be available") {
		t.Errorf("%s", a.raw)
	}
	if a := c.want(400, "red", "", "POST", "/backups", object{"backup": object{"volume_id": v}}); !strings.Contains(a.raw, "must use the force flag") {
		t.Errorf("%s", a.raw)
	}
	s = c.want(202, "red", "3.66", "POST", "/snapshots", object{"snapshot": object{"volume_id": v}}).str("snapshot.id")
	c.want(400, "red", "3.66", "POST", "/snapshots", object{"snapshot": object{"volume_id": v, "force": false}})
	c.until("red", "/snapshots/"+s, "snapshot.status", "available")
	b := c.want(202, "red", "", "POST", "/backups", object{"backup": object{"volume_id": v, "force": true, "name": "b"}}).str("backup.id")
	c.until("red", "/backups/"+b, "backup.status", "available")
	c.until("red", "/volumes/"+v, "volume.status", "in-use")
	c.want(202, "red", "", "POST", "/volumes/"+v+"/action", object{"os-detach": object{}})

	more := c.want(202, "red", "", "POST", "/backups", object{"backup": object{"volume_id": v, "incremental": true, "force": true}}).str("backup.id")
	if a := c.until("red", "/backups/"+more, "backup.status", "available"); a.get("backup.is_incremental") != true || a.get("backup.has_dependent_backups") != false {
		t.Errorf("%s", a.raw)
	}
	if a := c.want(200, "red", "", "GET", "/backups/"+b, nil); a.get("backup.is_incremental") != false || a.get("backup.has_dependent_backups") != true {
		t.Errorf("%s", a.raw)
	}
	if a := c.want(400, "red", "", "DELETE", "/backups/"+b, nil); !strings.Contains(a.raw, "Incremental backups exist for this backup.") {
		t.Errorf("%s", a.raw)
	}
	c.want(202, "red", "", "DELETE", "/backups/"+more, nil)
	c.gone("red", "/backups/"+more)
	small := c.volume(nil)
	c.want(202, "red", "", "POST", "/volumes/"+v+"/action", object{"os-extend": object{"new_size": 3}})
	c.until("red", "/volumes/"+v, "volume.status", "available")
	big := c.want(202, "red", "", "POST", "/backups", object{"backup": object{"volume_id": v}}).str("backup.id")
	c.until("red", "/backups/"+big, "backup.status", "available")
	if a := c.want(400, "red", "", "POST", "/backups/"+big+"/restore", object{"restore": object{"volume_id": small}}); !strings.Contains(a.raw, "is too small to restore backup") {
		t.Errorf("%s", a.raw)
	}
	a := c.want(202, "red", "", "POST", "/backups/"+b+"/restore", object{"restore": object{"volume_id": small}})
	if a.str("restore.volume_id") != small {
		t.Errorf("%s", a.raw)
	}
	c.until("red", "/volumes/"+small, "volume.status", "available")
	c.until("red", "/backups/"+b, "backup.status", "available")
	fresh := c.want(202, "red", "", "POST", "/backups/"+b+"/restore", object{"restore": object{}}).str("restore.volume_id")
	c.until("red", "/volumes/"+fresh, "volume.status", "available")
	c.until("red", "/backups/"+b, "backup.status", "available")
	c.want(202, "red", "", "DELETE", "/backups/"+b, nil)
	c.gone("red", "/backups/"+b)

	// A volume as an image.
	a = c.want(202, "red", "3.1", "POST", "/volumes/"+v+"/action", object{"os-volume_upload_image": object{"image_name": "i", "disk_format": "qcow2"}})
	if a.str("os-volume_upload_image.status") != "uploading" || a.str("os-volume_upload_image.image_id") == "" {
		t.Errorf("%s", a.raw)
	}
	c.until("red", "/volumes/"+v, "volume.status", "available")
	c.want(400, "red", "3.1", "POST", "/volumes/"+v+"/action", object{"os-volume_upload_image": object{"image_name": "i", "disk_format": "vmdk"}})
}
