package cinder

import (
	"cmp"
	"maps"
	"net/http"
	"slices"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/images"
	"yakumo/model"
	"yakumo/store"
	"yakumo/volume"
)

// action is one of those of POST volumes/<id>/action.
type action struct {
	min   int
	admin string // Cinder's name of the rule, of what only administrators may
	run   func(d *dialect, c *api.Context, b *body) error
}

// plain is an action that answers 202 with nothing.
func plain(f func(d *dialect, tx *store.Tx, c *api.Context, b *body) error) func(d *dialect, c *api.Context, b *body) error {
	return func(d *dialect, c *api.Context, b *body) error {
		if err := do(c, func(tx *store.Tx) error {
			err := f(d, tx, c, b)
			return cmp.Or(b.err(), err) // what is wrong in the body changes nothing
		}); err != nil {
			return err
		}
		return c.Empty(http.StatusAccepted)
	}
}

// flagged is an action that sets a boolean and answers 200.
func flagged(name string, f func(d *dialect, tx *store.Tx, c *api.Context, on bool) error) func(d *dialect, c *api.Context, b *body) error {
	return func(d *dialect, c *api.Context, b *body) error {
		on := b.truth(name)
		if !b.has(name) {
			return badRequest("Invalid input for field/attribute %s. '%s' is a required property", name, name)
		}
		if b.err() != nil {
			return b.err()
		}
		if err := do(c, func(tx *store.Tx) error { return f(d, tx, c, on) }); err != nil {
			return err
		}
		return c.Empty(http.StatusOK)
	}
}

func refused(what string) func(*dialect, *api.Context, *body) error {
	return func(*dialect, *api.Context, *body) error { return notOffered(what) }
}

var actions = map[string]action{
	"os-extend": {run: plain(func(d *dialect, tx *store.Tx, c *api.Context, b *body) error {
		if !b.has("new_size") {
			return badRequest("Invalid input for field/attribute os-extend. 'new_size' is a required property")
		}
		_, err := d.v.Extend(tx, scope(c), c.Param("id"), b.number("new_size", 1, volume.MaxSizeGiB, 0), at(c, 42))
		return err
	})},
	"os-reset_status": {admin: "volume_extension:volume_admin_actions:reset_status", run: plain(func(d *dialect, tx *store.Tx, c *api.Context, b *body) error {
		state, attach := b.text("status"), b.text("attach_status")
		if state == "" && attach == "" && !b.has("migration_status") {
			return badRequest("Invalid input for field/attribute os-reset_status. Must specify 'status', 'attach_status' or 'migration_status' for update.")
		}
		_, err := d.v.Reset(tx, c.Param("id"), state, attach)
		return err
	})},
	"os-force_delete": {admin: "volume_extension:volume_admin_actions:force_delete", run: plain(func(d *dialect, tx *store.Tx, c *api.Context, _ *body) error {
		return d.v.Delete(tx, scope(c), c.Param("id"), true, true)
	})},
	"os-set_bootable": {run: flagged("bootable", func(d *dialect, tx *store.Tx, c *api.Context, on bool) error {
		_, err := d.v.SetBootable(tx, scope(c), c.Param("id"), on)
		return err
	})},
	"os-update_readonly_flag": {run: func(d *dialect, c *api.Context, b *body) error {
		on := b.truth("readonly")
		if !b.has("readonly") || b.err() != nil {
			return cmp.Or(b.err(), badRequest("Invalid input for field/attribute readonly. 'readonly' is a required property"))
		}
		if err := do(c, func(tx *store.Tx) error { _, err := d.v.SetReadOnly(tx, scope(c), c.Param("id"), on); return err }); err != nil {
			return err
		}
		return c.Empty(http.StatusAccepted)
	}},
	"os-retype": {run: plain(func(d *dialect, tx *store.Tx, c *api.Context, b *body) error {
		name, p := b.needed("new_type"), b.text("migration_policy")
		if p != "" && p != "never" && p != "on-demand" {
			return badRequest("Invalid input for field/attribute migration_policy. Value: %s. migration_policy must be 'on-demand' or 'never'", api.Quoted(p))
		}
		if b.err() != nil {
			return b.err()
		}
		_, err := d.v.Retype(tx, scope(c), c.Param("id"), name, p == "on-demand")
		return err
	})},
	"os-reserve": {run: plain(func(d *dialect, tx *store.Tx, c *api.Context, _ *body) error {
		return d.v.Reserve(tx, scope(c), c.Param("id"))
	})},
	"os-unreserve": {run: plain(func(d *dialect, tx *store.Tx, c *api.Context, _ *body) error {
		return d.v.Unreserve(tx, scope(c), c.Param("id"))
	})},
	"os-begin_detaching": {run: plain(func(d *dialect, tx *store.Tx, c *api.Context, _ *body) error {
		return d.v.BeginDetaching(tx, scope(c), c.Param("id"))
	})},
	"os-roll_detaching": {run: plain(func(d *dialect, tx *store.Tx, c *api.Context, _ *body) error {
		return d.v.RollDetaching(tx, scope(c), c.Param("id"))
	})},
	"os-attach": {run: plain(func(d *dialect, tx *store.Tx, c *api.Context, b *body) error {
		server, host := b.text("instance_uuid"), b.text("host_name")
		if server == "" && host == "" {
			return badRequest("Invalid input for field/attribute os-attach. Invalid request to attach volume to an invalid target")
		}
		_, _, err := d.v.Attach(tx, scope(c), volume.NewAttachment{VolumeID: c.Param("id"), ServerID: server, HostName: host, MountPoint: b.text("mountpoint"),
			Mode: cmp.Or(b.text("mode"), "rw"), State: volume.Attached})
		return err
	})},
	"os-detach": {run: plain(func(d *dialect, tx *store.Tx, c *api.Context, b *body) error {
		return d.v.DetachAny(tx, scope(c), c.Param("id"), b.text("attachment_id"))
	})},
	"os-force_detach": {admin: "volume_extension:volume_admin_actions:force_detach", run: plain(func(d *dialect, tx *store.Tx, c *api.Context, b *body) error {
		return d.v.DetachAny(tx, scope(c), c.Param("id"), b.text("attachment_id"))
	})},
	"os-initialize_connection": {run: refused("A connection to a volume for others than this cloud's servers")},
	"os-terminate_connection":  {run: refused("A connection to a volume for others than this cloud's servers")},
	"os-volume_upload_image":   {run: (*dialect).uploadImage},
	"os-set_image_metadata": {run: func(d *dialect, c *api.Context, b *body) error {
		items := b.strings("metadata")
		if b.err() != nil || items == nil {
			return cmp.Or(b.err(), badRequest("Invalid input for field/attribute metadata. 'metadata' is a required property"))
		}
		x, err := update(c, func(tx *store.Tx) (*model.Volume, error) {
			return d.v.SetImageMetadata(tx, scope(c), c.Param("id"), lay(items, false))
		})
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, object{"metadata": orEmpty(x.ImageMetadata)})
	}},
	"os-unset_image_metadata": {run: func(d *dialect, c *api.Context, b *body) error {
		key := b.needed("key")
		if b.err() != nil {
			return b.err()
		}
		if err := do(c, func(tx *store.Tx) error {
			_, err := d.v.SetImageMetadata(tx, scope(c), c.Param("id"), func(m map[string]string) (map[string]string, error) {
				if _, ok := m[key]; !ok {
					return nil, fault.New(fault.NotFound, "Metadata item was not found.")
				}
				delete(m, key)
				return m, nil
			})
			return err
		}); err != nil {
			return err
		}
		return c.Empty(http.StatusOK)
	}},
	"os-show_image_metadata": {run: func(d *dialect, c *api.Context, _ *body) error {
		x, err := volume.Get(c.Snapshot(), scope(c), c.Param("id"))
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, object{"metadata": orEmpty(x.ImageMetadata)})
	}},
	"revert": {min: 40, run: plain(func(d *dialect, tx *store.Tx, c *api.Context, b *body) error {
		_, err := d.v.Revert(tx, scope(c), c.Param("id"), b.needed("snapshot_id"))
		return err
	})},
	"os-migrate_volume": {admin: "volume_extension:volume_admin_actions:migrate_volume", run: plain(func(d *dialect, tx *store.Tx, c *api.Context, b *body) error {
		host := b.text("host")
		b.truth("force_host_copy") // it is always copied, and nobody else has it meanwhile
		b.truth("lock_volume")
		if host == "" && b.err() == nil {
			return badRequest("Invalid input for field/attribute os-migrate_volume. 'host' is a required property")
		}
		_, err := d.v.Migrate(tx, scope(c), c.Param("id"), host)
		return err
	})},
	"os-migrate_volume_completion": {admin: "volume_extension:volume_admin_actions:migrate_volume_completion", run: refused("Moving a volume to another host or engine")},
	"os-unmanage":                  {admin: "volume_extension:volume_unmanage", run: refused("Giving a volume out of this cloud's hands")},
	"os-reimage":                   {min: 68, admin: "volume:reimage", run: refused("Writing another image to a volume")},
	"os-extend_volume_completion":  {min: 71, admin: "volume_extension:volume_admin_actions:extend_volume_complete", run: refused("Completing an extension from outside")},
}

// actionNames are sorted, for those who count them.
func actionNames() []string { return slices.Sorted(maps.Keys(actions)) }

func (d *dialect) act(c *api.Context) error {
	o, err := readAll(c)
	if err != nil {
		return err
	}
	if len(o) != 1 {
		return badRequest("Malformed request body")
	}
	for name, v := range o {
		a, known := actions[name]
		if !known || !at(c, a.min) {
			return badRequest("There is no such action: %s", api.Clip(name))
		}
		if _, err := volume.Get(c.Snapshot(), scope(c), c.Param("id")); err != nil {
			return err
		}
		if a.admin != "" {
			if err := adminOnly(c, a.admin); err != nil {
				return err
			}
		}
		in, ok := v.(object)
		if !ok && v != nil && v != "" {
			return badRequest("Invalid input for field/attribute %s. Value: %s. %s is not of type 'object'", name, api.Quoted(v), api.Quoted(v))
		}
		return a.run(d, c, &body{o: in})
	}
	return nil
}

// uploadImage makes an image of a volume.
func (d *dialect) uploadImage(c *api.Context, b *body) error {
	name, format, container := b.needed("image_name"), cmp.Or(b.text("disk_format"), "raw"), cmp.Or(b.text("container_format"), "bare")
	visibility, force, protected := "", b.truth("force"), false
	if at(c, 1) {
		visibility, protected = b.text("visibility"), b.truth("protected")
	}
	if b.err() != nil {
		return b.err()
	}
	if visibility == "" {
		visibility = model.VisibilityShared
	}
	if container != "bare" {
		return badRequest("Invalid input received: The container format '%s' cannot be made; bare can.", api.Clip(container))
	}
	var img *model.Image
	var x *model.Volume
	if err := do(c, func(tx *store.Tx) (err error) {
		by := images.Caller{ProjectID: c.Caller.ProjectID, Admin: c.Caller.CloudAdmin}
		old, err := volume.Get(tx, scope(c), c.Param("id"))
		if err != nil {
			return err
		}
		properties := map[string]string{}
		for k, v := range old.ImageMetadata {
			if !slices.Contains([]string{"image_id", "image_name", "disk_format", "container_format", "checksum", "size", "min_disk", "min_ram"}, k) {
				properties[k] = v
			}
		}
		img, err = d.img.Add(tx, by, model.Image{Meta: model.Meta{Name: name}, DiskFormat: format, ContainerFormat: container, Visibility: visibility, Protected: protected,
			MinDiskGiB: old.SizeGiB, Properties: properties})
		if err != nil {
			return err
		}
		x, err = d.v.Upload(tx, scope(c), old.ID, img.ID, format, force)
		return err
	}); err != nil {
		return err
	}
	o := object{"id": x.ID, "updated_at": stamp(x.UpdatedAt), "status": x.Status.State, "display_description": orNull(x.Description), "size": x.SizeGiB,
		"volume_type": nil, "image_id": img.ID, "container_format": container, "disk_format": format, "image_name": name}
	if t, err := volume.GetType(c.Snapshot(), volume.Scope{Admin: true}, x.TypeID); err == nil {
		o["volume_type"] = typeShown(c, t)
	}
	if at(c, 1) {
		o["visibility"], o["protected"] = visibility, protected
	}
	return c.JSON(http.StatusAccepted, object{"os-volume_upload_image": o})
}
