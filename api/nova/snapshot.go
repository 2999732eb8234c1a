package nova

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/http"
	"strings"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/images"
	"yakumo/launch"
	"yakumo/model"
	"yakumo/store"
	"yakumo/volume"
)

// imageActions are those that make an image of a server's disk.
func (d *dialect) imageActions(add adds) {
	add("createImage", action{
		check: always(exactly(members{"name": title, "metadata": items}, "name")),
		run:   func(c *api.Context, v any) error { return d.createImage(c, v.(object)) },
	})
	add("createBackup", action{
		check: always(exactly(members{"name": title, "backup_type": text(0, 255), "rotation": integer(0, 1<<31-1), "metadata": items},
			"name", "backup_type", "rotation")),
		run: func(c *api.Context, v any) error { return d.createBackup(c, v.(object)) },
	})
	add("shelve", action{run: func(c *api.Context, _ any) error { return d.shelve(c) }})
	offload := plainly(d.c.ShelveOffload)
	offload.rule = "os_compute_api:os-shelve:shelve_offload"
	add("shelveOffload", offload)
	add("unshelve", action{check: unshelveSchema, run: d.unshelve})
}

// snapshotOf adds the row of an image that is to be made of a server, with the properties that Nova gives it. Those of the
// image that the server was made from go with it, but for what says who made that.
func (d *dialect) snapshotOf(tx *store.Tx, c *api.Context, s *model.Server, id model.ID, name string, metadata, more map[string]string) error {
	if limit := d.c.Quota(tx, s.ProjectID)[compute.QuotaMetadata]; limit >= 0 && len(metadata) > limit {
		return fault.New(fault.OverQuota, "Image metadata limit exceeded")
	}
	props := map[string]string{}
	want := model.Image{Meta: model.Meta{ID: id, ProjectID: s.ProjectID, Name: name}, Visibility: model.VisibilityPrivate, DiskFormat: "qcow2",
		ContainerFormat: "bare", MinDiskGiB: s.Flavor.DiskGiB}
	if base, ok := store.Images.Get(tx, s.ImageID); ok {
		for k, v := range base.Properties {
			if !strings.HasPrefix(k, "image_") && !strings.HasPrefix(k, "instance_") && k != images.PropertyBackup && k != "cache_in_nova" && k != "signature_verified" {
				props[k] = v
			}
		}
		want.MinRAMMiB = base.MinRAMMiB
	}
	maps.Copy(props, metadata)
	maps.Copy(props, map[string]string{images.PropertyType: "snapshot", images.PropertyServer: s.ID, "base_image_ref": s.ImageID,
		"user_id": c.Caller.UserID, "boot_roles": strings.Join(c.Caller.RoleNames, ",")})
	maps.Copy(props, more)
	want.Properties = props
	sc := scope(c)
	if props[images.PropertyMapping] != "" {
		want.DiskFormat, want.MinDiskGiB = "raw", 0
		_, err := d.img.AddMapping(tx, images.Caller{ProjectID: sc.ProjectID, Admin: sc.Admin}, want)
		return err
	}
	_, err := d.img.Add(tx, images.Caller{ProjectID: sc.ProjectID, Admin: sc.Admin}, want)
	return err
}

// imageOfVolumes makes an image of a server that boots from a volume, as Nova does: snapshots of all its volumes, and an image of no bytes that names them.
func (d *dialect) imageOfVolumes(tx *store.Tx, c *api.Context, id model.ID, name string, metadata map[string]string) error {
	s, err := d.c.CreateVolumeImage(tx, scope(c), c.Param("id"))
	if err != nil {
		return err
	}
	list := []object{}
	for _, u := range s.Volumes {
		if u.Detaching {
			continue
		}
		snap, err := d.vols.CreateSnapshot(tx, volumeScope(c), volume.NewSnapshot{VolumeID: u.VolumeID, Name: "snapshot for " + name, Force: true})
		if fault.Is(err, fault.OverQuota) {
			return err
		}
		if err != nil {
			return asInvalid(err)
		}
		b := object{"source_type": "snapshot", "destination_type": "volume", "snapshot_id": snap.ID, "volume_size": snap.SizeGiB, "device_name": u.Device, "boot_index": nil,
			"delete_on_termination": u.DeleteWithServer, "device_type": "disk", "disk_bus": "virtio", "guest_format": nil, "image_id": nil, "no_device": nil, "volume_id": nil,
			"volume_type": nil, "tag": nil}
		if u.Boot {
			b["boot_index"] = 0
		}
		list = append(list, b)
	}
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return d.snapshotOf(tx, c, s, id, name, metadata, map[string]string{images.PropertyMapping: string(b), images.PropertyMappingNew: "True", images.PropertyRoot: "/dev/vda"})
}

func (d *dialect) createImage(c *api.Context, o object) error {
	id := model.NewID()
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		s, err := compute.Get(tx, scope(c), c.Param("id"))
		if err != nil {
			return err
		}
		if compute.VolumeBacked(s) {
			return d.imageOfVolumes(tx, c, id, strings.TrimSpace(str(o, "name")), stringMap(o["metadata"]))
		}
		if s, err = d.c.CreateImage(tx, scope(c), s.ID, id); err != nil {
			return err
		}
		return d.snapshotOf(tx, c, s, id, strings.TrimSpace(str(o, "name")), stringMap(o["metadata"]), nil)
	}); err != nil {
		return err
	}
	return d.imageMade(c, id)
}

// imageMade answers with the new image: in the body since 2.45.
func (d *dialect) imageMade(c *api.Context, id model.ID) error {
	if at(c, 45) {
		return c.JSON(http.StatusAccepted, object{"image_id": id})
	}
	c.W.Header().Set("Location", c.URL("/images/"+id))
	return c.Empty(http.StatusAccepted)
}

func (d *dialect) createBackup(c *api.Context, o object) error {
	id, keep, kind := model.NewID(), num(o, "rotation", 0), str(o, "backup_type")
	if keep == 0 {
		return badRequest("A backup with a rotation of 0 would be removed at once: it is not made.")
	}
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		s, err := d.c.CreateBackup(tx, scope(c), c.Param("id"), id, keep)
		if err != nil {
			return err
		}
		if compute.VolumeBacked(s) {
			return badRequest("Backup is not supported for volume-backed instances.")
		}
		return d.snapshotOf(tx, c, s, id, strings.TrimSpace(str(o, "name")), stringMap(o["metadata"]),
			map[string]string{images.PropertyType: "backup", images.PropertyBackup: kind})
	}); err != nil {
		return err
	}
	return d.imageMade(c, id)
}

func (d *dialect) shelve(c *api.Context) error {
	id := model.NewID()
	return change(c, func(tx *store.Tx) error {
		s, err := compute.Get(tx, scope(c), c.Param("id"))
		if err != nil {
			return err
		}
		image := id
		if compute.VolumeBacked(s) {
			image = ""
		}
		if s, err = d.c.Shelve(tx, scope(c), s.ID, image); err != nil || image == "" {
			return err
		}
		return d.snapshotOf(tx, c, s, image, cmp.Or(s.Name, s.ID)+"-shelved", nil, nil)
	})
}

func unshelveSchema(c *api.Context) schema {
	zone := text(1, 255)
	switch {
	case at(c, 91):
		return nullOr(exactly(members{"availability_zone": nullOr(zone), "host": text(1, 255)}))
	case at(c, 77):
		return nullOr(exactly(members{"availability_zone": zone}, "availability_zone"))
	}
	return anything
}

func (d *dialect) unshelve(c *api.Context, v any) error {
	var to compute.Unshelve
	if o, ok := v.(object); ok && at(c, 77) {
		if at(c, 91) && len(o) == 0 {
			return badRequest("Invalid input for field/attribute unshelve. Value: {}. {} does not have enough properties")
		}
		to.Zone, to.Host = strPtr(o, "availability_zone"), str(o, "host")
	}
	if to.Host != "" && !c.Caller.CloudAdmin {
		return fault.New(fault.Forbidden, "Policy doesn't allow os_compute_api:os-shelve:unshelve_to_host to be performed.")
	}
	return change(c, func(tx *store.Tx) error {
		zone := ""
		if to.Zone != nil {
			zone = *to.Zone
		}
		if err := launch.Whereabouts(tx, zone, to.Host); err != nil {
			return err
		}
		_, err := d.c.Unshelve(tx, scope(c), c.Param("id"), to)
		return err
	})
}
