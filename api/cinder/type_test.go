package cinder_test

import (
	"strings"
	"testing"
)

func TestTypesAndQoS(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	id := c.want(200, "admin", "", "POST", "/types", object{"volume_type": object{"name": "fast", "extra_specs": object{"volume_backend_name": "local", "multiattach": "<is> True"}}}).str("volume_type.id")
	c.want(409, "admin", "", "POST", "/types", object{"volume_type": object{"name": "fast"}})
	c.want(400, "admin", "", "POST", "/types", object{"volume_type": object{}})
	if a := c.want(200, "red", "", "GET", "/types/"+id, nil); a.str("volume_type.extra_specs.multiattach") != "<is> True" || a.str("volume_type.extra_specs.volume_backend_name") != "" {
		t.Errorf("%s", a.raw)
	}
	if a := c.want(200, "red", "", "GET", "/types/default", nil); a.str("volume_type.name") != "__DEFAULT__" {
		t.Errorf("%s", a.raw)
	}
	c.want(200, "admin", "", "POST", "/types/"+id+"/extra_specs", object{"extra_specs": object{"note": "1"}})
	c.want(200, "admin", "", "PUT", "/types/"+id+"/extra_specs/note", object{"note": "2"})
	if a := c.want(200, "admin", "", "GET", "/types/"+id+"/extra_specs/note", nil); a.str("note") != "2" {
		t.Errorf("%s", a.raw)
	}
	c.want(202, "admin", "", "DELETE", "/types/"+id+"/extra_specs/note", nil)
	c.want(404, "admin", "", "DELETE", "/types/"+id+"/extra_specs/note", nil)
	c.want(400, "admin", "", "POST", "/types/"+id+"/encryption", object{"encryption": object{"provider": "luks"}})

	v := c.volume(object{"volume_type": "fast"})
	if a := c.want(200, "red", "", "GET", "/volumes/"+v, nil); a.get("volume.multiattach") != true {
		t.Errorf("%s", a.raw)
	}
	if a := c.want(400, "admin", "", "DELETE", "/types/"+id, nil); !strings.Contains(a.raw, "Target volume type is still in use.") {
		t.Errorf("%s", a.raw)
	}
	c.want(400, "admin", "", "POST", "/types/"+id+"/extra_specs", object{"extra_specs": object{"multiattach": "<is> False"}})
	c.want(202, "red", "", "POST", "/volumes/"+v+"/action", object{"os-retype": object{"new_type": "__DEFAULT__", "migration_policy": "never"}})
	if a := c.want(200, "red", "", "GET", "/volumes/"+v, nil); a.str("volume.volume_type") != "__DEFAULT__" {
		t.Errorf("%s", a.raw)
	}
	other := c.want(200, "admin", "", "POST", "/types", object{"volume_type": object{"name": "shared", "extra_specs": object{"volume_backend_name": "nfs"}, "os-volume-type-access:is_public": false}}).str("volume_type.id")
	c.want(404, "red", "", "GET", "/types/"+other, nil)
	c.want(404, "red", "", "POST", "/volumes", object{"volume": object{"size": 1, "volume_type": "shared"}})
	c.want(202, "admin", "", "POST", "/types/"+other+"/action", object{"addProjectAccess": object{"project": red}})
	c.want(409, "admin", "", "POST", "/types/"+other+"/action", object{"addProjectAccess": object{"project": red}})
	if a := c.want(200, "admin", "", "GET", "/types/"+other+"/os-volume-type-access", nil); a.str("volume_type_access.0.project_id") != red {
		t.Errorf("%s", a.raw)
	}
	c.want(409, "admin", "", "POST", "/types/"+id+"/action", object{"addProjectAccess": object{"project": red}})
	if a := c.want(400, "red", "", "POST", "/volumes/"+v+"/action", object{"os-retype": object{"new_type": "shared"}}); !strings.Contains(a.raw, "Retype requires migration") {
		t.Errorf("%s", a.raw)
	}
	c.want(400, "red", "", "POST", "/volumes/"+v+"/action", object{"os-retype": object{"new_type": "shared", "migration_policy": "maybe"}})
	c.want(404, "blue", "", "POST", "/volumes/"+v+"/action", object{"os-retype": object{"new_type": "shared", "migration_policy": "on-demand"}})
	c.want(202, "red", "", "POST", "/volumes/"+v+"/action", object{"os-retype": object{"new_type": "shared", "migration_policy": "on-demand"}})
	c.until("red", "/volumes/"+v, "volume.migration_status", "success")
	if a := c.want(200, "admin", "", "GET", "/volumes/"+v, nil); a.str("volume.volume_type") != "shared" || a.str("volume.os-vol-host-attr:host") != "h1@nfs#nfs" || a.str("volume.status") != "available" {
		t.Errorf("%s", a.raw)
	}
	if w := c.volume(object{"volume_type": "shared"}); true {
		if a := c.want(200, "admin", "", "GET", "/volumes/"+w, nil); a.str("volume.os-vol-host-attr:host") != "h1@nfs#nfs" {
			t.Errorf("%s", a.raw)
		}
	}
	c.want(202, "admin", "", "POST", "/types/"+other+"/action", object{"removeProjectAccess": object{"project": red}})
	c.want(404, "admin", "", "POST", "/types/"+other+"/action", object{"removeProjectAccess": object{"project": red}})

	q := c.want(200, "admin", "", "POST", "/qos-specs", object{"qos_specs": object{"name": "slow", "consumer": "front-end", "total_iops_sec": "100"}}).str("qos_specs.id")
	c.want(409, "admin", "", "POST", "/qos-specs", object{"qos_specs": object{"name": "slow"}})
	c.want(400, "admin", "", "POST", "/qos-specs", object{"qos_specs": object{"name": "y", "consumer": "nobody"}})
	c.want(200, "admin", "", "PUT", "/qos-specs/"+q, object{"qos_specs": object{"total_bytes_sec": "5"}})
	c.want(202, "admin", "", "PUT", "/qos-specs/"+q+"/delete_keys", object{"keys": []string{"total_bytes_sec"}})
	c.want(202, "admin", "", "GET", "/qos-specs/"+q+"/associate?vol_type_id="+id, nil)
	if a := c.want(200, "admin", "", "GET", "/qos-specs/"+q+"/associations", nil); a.str("qos_associations.0.id") != id {
		t.Errorf("%s", a.raw)
	}
	c.want(400, "admin", "", "DELETE", "/qos-specs/"+q, nil)
	c.want(202, "admin", "", "GET", "/qos-specs/"+q+"/disassociate?vol_type_id="+id, nil)
	c.want(202, "admin", "", "GET", "/qos-specs/"+q+"/associate?vol_type_id="+id, nil)
	c.want(202, "admin", "", "GET", "/qos-specs/"+q+"/disassociate_all", nil)
	c.want(202, "admin", "", "DELETE", "/qos-specs/"+q, nil)
	c.want(404, "admin", "", "GET", "/qos-specs/"+q, nil)
	c.want(202, "admin", "", "DELETE", "/types/"+id, nil)
	def := c.want(200, "red", "", "GET", "/types/default", nil).str("volume_type.id")
	c.want(400, "admin", "", "DELETE", "/types/"+def, nil)
}

func TestQuotas(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.want(403, "red", "", "PUT", "/os-quota-sets/"+red, object{"quota_set": object{"volumes": 1}})
	c.want(403, "red", "", "GET", "/os-quota-sets/"+blue, nil)
	c.want(400, "admin", "", "PUT", "/os-quota-sets/"+red, object{"quota_set": object{"wings": 1}})
	c.want(400, "admin", "", "PUT", "/os-quota-sets/"+red, object{"quota_set": object{"volumes": -2}})
	c.want(200, "admin", "", "PUT", "/os-quota-sets/"+red, object{"quota_set": object{"volumes": 2, "gigabytes": 5, "snapshots": 1, "backups": 1, "volumes___DEFAULT__": 1}})
	v := c.volume(nil)
	a := c.want(413, "red", "", "POST", "/volumes", object{"volume": object{"size": 1}})
	if !strings.HasPrefix(a.str("overLimit.message"), "VolumeLimitExceeded") || a.get("overLimit.code") != 413.0 {
		t.Errorf("%s", a.raw)
	}
	c.want(200, "admin", "", "PUT", "/os-quota-sets/"+red, object{"quota_set": object{"volumes___DEFAULT__": -1}})
	if a := c.want(413, "red", "", "POST", "/volumes", object{"volume": object{"size": 5}}); !strings.Contains(a.raw, "VolumeSizeExceedsAvailableQuota") {
		t.Errorf("%s", a.raw)
	}
	c.want(413, "red", "", "POST", "/volumes/"+v+"/action", object{"os-extend": object{"new_size": 6}})
	s := c.want(202, "red", "", "POST", "/snapshots", object{"snapshot": object{"volume_id": v}}).str("snapshot.id")
	c.until("red", "/snapshots/"+s, "snapshot.status", "available")
	c.want(413, "red", "", "POST", "/snapshots", object{"snapshot": object{"volume_id": v}})
	a = c.want(200, "red", "", "GET", "/os-quota-sets/"+red+"?usage=True", nil)
	if a.get("quota_set.volumes.in_use") != 1.0 || a.get("quota_set.volumes.limit") != 2.0 || a.get("quota_set.gigabytes.in_use") != 2.0 || a.get("quota_set.snapshots___DEFAULT__.in_use") != 1.0 {
		t.Errorf("%s", a.raw)
	}
	if a := c.want(200, "red", "", "GET", "/limits", nil); a.get("limits.absolute.totalVolumesUsed") != 1.0 || a.get("limits.absolute.maxTotalVolumes") != 2.0 {
		t.Errorf("%s", a.raw)
	}
	c.want(200, "admin", "", "DELETE", "/os-quota-sets/"+red, nil)
	if a := c.want(200, "red", "", "GET", "/os-quota-sets/"+red, nil); a.get("quota_set.volumes") != 10.0 {
		t.Errorf("%s", a.raw)
	}
	c.want(200, "admin", "", "PUT", "/os-quota-class-sets/default", object{"quota_class_set": object{"volumes": 7}})
	if a := c.want(200, "red", "", "GET", "/os-quota-sets/"+red+"/defaults", nil); a.get("quota_set.volumes") != 7.0 {
		t.Errorf("%s", a.raw)
	}
}

func TestTransfersAndAttachments(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	v := c.volume(nil)
	a := c.want(202, "red", "", "POST", "/os-volume-transfer", object{"transfer": object{"volume_id": v, "name": "gift"}})
	id, key := a.str("transfer.id"), a.str("transfer.auth_key")
	c.until("red", "/volumes/"+v, "volume.status", "awaiting-transfer")
	c.want(400, "red", "", "POST", "/os-volume-transfer", object{"transfer": object{"volume_id": v}})
	c.want(400, "red", "", "DELETE", "/volumes/"+v, nil)
	c.want(404, "blue", "", "GET", "/os-volume-transfer/"+id, nil)
	if a := c.want(400, "blue", "", "POST", "/os-volume-transfer/"+id+"/accept", object{"accept": object{"auth_key": "wrong"}}); !strings.Contains(a.raw, "invalid auth key") {
		t.Errorf("%s", a.raw)
	}
	c.want(202, "red", "", "DELETE", "/os-volume-transfer/"+id, nil)
	c.until("red", "/volumes/"+v, "volume.status", "available")
	s := c.want(202, "red", "", "POST", "/snapshots", object{"snapshot": object{"volume_id": v}}).str("snapshot.id")
	c.until("red", "/snapshots/"+s, "snapshot.status", "available")
	c.want(400, "red", "", "POST", "/os-volume-transfer", object{"transfer": object{"volume_id": v}})
	a = c.want(202, "red", "3.55", "POST", "/volume-transfers", object{"transfer": object{"volume_id": v}})
	id, key = a.str("transfer.id"), a.str("transfer.auth_key")
	c.want(202, "blue", "3.55", "POST", "/volume-transfers/"+id+"/accept", object{"accept": object{"auth_key": key}})
	c.until("blue", "/volumes/"+v, "volume.status", "available")
	c.until("blue", "/snapshots/"+s, "snapshot.status", "available")
	c.want(404, "red", "", "GET", "/volumes/"+v, nil)
	c.want(404, "blue", "3.55", "POST", "/volume-transfers/"+id+"/accept", object{"accept": object{"auth_key": key}})

	v = c.volume(nil)
	c.want(404, "red", "3.26", "GET", "/attachments", nil)
	a = c.want(200, "red", "3.27", "POST", "/attachments", object{"attachment": object{"volume_uuid": v, "instance_uuid": "8e4b4a8a-0000-4000-8000-000000000000"}})
	att := a.str("attachment.id")
	if a.str("attachment.status") != "reserved" {
		t.Errorf("%s", a.raw)
	}
	c.until("red", "/volumes/"+v, "volume.status", "reserved")
	if a := c.want(400, "red", "3.27", "POST", "/attachments", object{"attachment": object{"volume_uuid": v}}); !strings.Contains(a.raw, "status must be available or downloading to reserve") {
		t.Errorf("%s", a.raw)
	}
	c.want(400, "red", "3.44", "POST", "/attachments/"+att+"/action", object{"os-complete": nil})
	c.want(200, "red", "3.27", "PUT", "/attachments/"+att, object{"attachment": object{"connector": object{"host": "h", "mountpoint": "/dev/x"}}})
	c.want(204, "red", "3.44", "POST", "/attachments/"+att+"/action", object{"os-complete": nil})
	c.until("red", "/volumes/"+v, "volume.status", "in-use")
	c.want(404, "blue", "3.27", "GET", "/attachments/"+att, nil)
	if a := c.want(200, "red", "3.27", "GET", "/attachments/detail?volume_id="+v, nil); a.str("attachments.0.id") != att {
		t.Errorf("%s", a.raw)
	}
	c.want(200, "red", "3.27", "DELETE", "/attachments/"+att, nil)
	c.until("red", "/volumes/"+v, "volume.status", "available")
}
