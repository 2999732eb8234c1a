package cinder

import (
	"cmp"
	"net/http"
	"slices"
	"strings"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
	"yakumo/volume"
)

func (d *dialect) serviceRoutes(route adder) {
	route(http.MethodGet, "/os-services", api.Admin, 0, d.listServices)
	route(http.MethodPut, "/os-services/{action}", api.Admin, 0, func(*api.Context) error {
		return notOffered("Disabling a host for volumes alone (disable its compute service)")
	})
	route(http.MethodGet, "/os-availability-zone", api.Reader, 0, d.listZones)
	route(http.MethodGet, "/scheduler-stats/get_pools", api.Admin, 0, d.listPools)
	route(http.MethodGet, "/capabilities/{host}", api.Admin, 0, d.capabilities)
	route(http.MethodGet, "/extensions", api.Anyone, 0, func(c *api.Context) error {
		out := []object{}
		for _, alias := range extensions {
			out = append(out, extension(alias))
		}
		return c.JSON(http.StatusOK, object{"extensions": out})
	})
	route(http.MethodGet, "/extensions/{alias}", api.Anyone, 0, func(c *api.Context) error {
		if !slices.Contains(extensions, c.Param("alias")) {
			return fault.New(fault.NotFound, "No extension with alias %s.", api.Clip(c.Param("alias")))
		}
		return c.JSON(http.StatusOK, object{"extension": extension(c.Param("alias"))})
	})
	route(http.MethodGet, "/messages", api.Reader, 3, d.listMessages)
	route(http.MethodGet, "/messages/{id}", api.Reader, 3, func(c *api.Context) error {
		for _, m := range messages(c) {
			if m["id"] == c.Param("id") {
				return c.JSON(http.StatusOK, object{"message": m})
			}
		}
		return fault.New(fault.NotFound, "Message %s could not be found.", api.Clip(c.Param("id")))
	})
	route(http.MethodGet, "/resource_filters", api.Reader, 33, func(c *api.Context) error {
		return c.JSON(http.StatusOK, object{"resource_filters": []object{
			{"resource": "volume", "filters": []string{"name", "status", "metadata", "bootable", "availability_zone", "volume_type", "user_id", "size"}},
			{"resource": "snapshot", "filters": []string{"name", "status", "volume_id", "metadata"}},
			{"resource": "backup", "filters": []string{"name", "status", "volume_id"}},
			{"resource": "attachment", "filters": []string{"volume_id", "instance_id", "status"}},
		}})
	})
}

// extensions are what of Cinder's former extensions is here.
var extensions = []string{"OS-SCH-HNT", "backups", "capabilities", "os-admin-actions", "os-availability-zone", "os-extended-services", "os-extended-snapshot-attributes",
	"os-quota-class-sets", "os-quota-sets", "os-services", "os-snapshot-actions", "os-types-extra-specs", "os-types-manage", "os-used-limits", "os-vol-host-attr",
	"os-vol-image-meta", "os-vol-mig-status-attr", "os-vol-tenant-attr", "os-volume-actions", "os-volume-transfer", "os-volume-type-access", "qos-specs", "scheduler-stats"}

func extension(alias string) object {
	return object{"alias": alias, "name": alias, "description": "", "updated": "2022-03-30T00:00:00+00:00", "links": []any{}}
}

// listServices shows each host's agent as the service that works on the volumes of each of its engines.
func (d *dialect) listServices(c *api.Context) error {
	q := c.Query()
	snap := c.Snapshot()
	out := []object{}
	hosts := slices.SortedFunc(store.Hosts.All(snap), func(a, b *model.Host) int { return cmp.Compare(a.Name, b.Name) })
	for _, h := range hosts {
		for _, engine := range h.Engines {
			state, status := "down", "enabled"
			if store.HostUp(snap, h) {
				state = "up"
			}
			if h.Disabled {
				status = "disabled"
			}
			for _, binary := range []string{"cinder-volume", "cinder-backup"} {
				name := h.Name + "@" + engine
				if b := q.Get("binary"); b != "" && b != binary {
					continue
				}
				if n := q.Get("host"); n != "" && n != name && n != h.Name {
					continue
				}
				o := object{"binary": binary, "host": name, "zone": h.Zone, "status": status, "state": state, "updated_at": stamp(h.UpdatedAt), "disabled_reason": orNull(h.Reason),
					"replication_status": "disabled", "frozen": false, "active_backend_id": nil}
				if at(c, 7) {
					o["cluster"] = nil
				}
				if at(c, 49) {
					o["backend_state"] = state
				}
				out = append(out, o)
			}
		}
	}
	return c.JSON(http.StatusOK, object{"services": out})
}

func (d *dialect) listZones(c *api.Context) error {
	snap := c.Snapshot()
	zones := map[string]bool{d.v.Zone(): true}
	for h := range store.Hosts.All(snap) {
		if len(h.Engines) > 0 {
			zones[h.Zone] = true
		}
	}
	names := []string{}
	for z := range zones {
		names = append(names, z)
	}
	slices.Sort(names)
	out := []object{}
	for _, z := range names {
		out = append(out, object{"zoneName": z, "zoneState": object{"available": true}})
	}
	return c.JSON(http.StatusOK, object{"availabilityZoneInfo": out})
}

func (d *dialect) listPools(c *api.Context) error {
	snap := c.Snapshot()
	detail, _ := truth(c.Query().Get("detail"))
	out := []object{}
	for _, engine := range []string{model.EngineLocal, model.EngineNFS, model.EngineRBD} {
		for _, room := range volume.Rooms(snap, engine) {
			o := object{"name": room.Host.Name + "@" + engine + "#" + engine}
			if detail {
				total, free := any(room.Total), any(room.Free)
				if engine != model.EngineLocal { // what the storage behind it has is not the host's to say
					total, free = "unknown", "unknown"
				}
				state := "down"
				if room.Up {
					state = "up"
				}
				o["capabilities"] = object{"pool_name": engine, "volume_backend_name": engine, "storage_protocol": engine, "vendor_name": "Yakumo", "driver_version": "1",
					"total_capacity_gb": total, "free_capacity_gb": free, "allocated_capacity_gb": room.Total - room.Free, "reserved_percentage": 0, "thin_provisioning_support": true,
					"thick_provisioning_support": false, "max_over_subscription_ratio": "1.0", "QoS_support": false, "multiattach": true, "online_extend_support": true,
					"backend_state": state, "timestamp": stamp(c.Now)}
			}
			out = append(out, o)
		}
	}
	return c.JSON(http.StatusOK, object{"pools": out})
}

func (d *dialect) capabilities(c *api.Context) error {
	name, engine, _ := strings.Cut(c.Param("host"), "@")
	engine, _, _ = strings.Cut(engine, "#")
	for h := range store.Hosts.List(c.Snapshot(), "name", name) {
		if slices.Contains(h.Engines, engine) {
			return c.JSON(http.StatusOK, object{"namespace": "OS::Storage::Capabilities::" + name + "@" + engine, "vendor_name": "Yakumo", "volume_backend_name": engine, "pool_name": engine,
				"driver_version": "1", "storage_protocol": engine, "display_name": nil, "description": nil, "visibility": "public", "replication_targets": []any{}, "properties": object{}})
		}
	}
	return fault.New(fault.NotFound, "Service %s could not be found.", api.Clip(c.Param("host")))
}

// messages are the faults of the project's volumes, snapshots and backups: each is there as long as what has it.
func messages(c *api.Context) []object {
	snap := c.Snapshot()
	out := []object{}
	add := func(kind string, m *model.Meta, f *model.Fault) {
		if f != nil {
			out = append(out, object{"id": m.ID, "event_id": "VOLUME_" + kind + "_001_001", "user_message": f.Message, "message_level": "ERROR", "resource_type": "VOLUME_" + kind,
				"resource_uuid": m.ID, "request_id": nil, "created_at": stamp(f.At), "guaranteed_until": nil})
		}
	}
	for x := range owned(c, snap, store.Volumes) {
		add("VOLUME", &x.Meta, x.Status.Fault)
	}
	for s := range owned(c, snap, store.VolumeSnapshots) {
		add("VOLUME_SNAPSHOT", &s.Meta, s.Fault)
	}
	for b := range owned(c, snap, store.VolumeBackups) {
		add("VOLUME_BACKUP", &b.Meta, b.Fault)
	}
	return out
}

func (d *dialect) listMessages(c *api.Context) error {
	return c.JSON(http.StatusOK, object{"messages": messages(c)})
}
