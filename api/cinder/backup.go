package cinder

import (
	"cmp"
	"net/http"
	"strconv"
	"strings"

	"yakumo/api"
	"yakumo/model"
	"yakumo/store"
	"yakumo/volume"
)

func (d *dialect) backupRoutes(route adder) {
	l := backupListing()
	route(http.MethodGet, "/backups", api.Reader, 0, func(c *api.Context) error {
		snap := c.Snapshot()
		return l.answer(c, snap, owned(c, snap, store.VolumeBackups), func(c *api.Context, _ store.Reader, x *model.VolumeBackup) object { return backupShort(c, x) })
	})
	route(http.MethodGet, "/backups/detail", api.Reader, 0, func(c *api.Context) error {
		snap := c.Snapshot()
		return l.answer(c, snap, owned(c, snap, store.VolumeBackups), l.show)
	})
	route(http.MethodPost, "/backups", api.Member, 0, d.createBackup)
	route(http.MethodGet, "/backups/{id}", api.Reader, 0, func(c *api.Context) error {
		snap := c.Snapshot()
		b, err := volume.GetBackup(snap, scope(c), c.Param("id"))
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, object{"backup": backupShown(c, snap, b)})
	})
	route(http.MethodPut, "/backups/{id}", api.Member, 9, func(c *api.Context) error {
		b, err := read(c, "backup")
		if err != nil {
			return err
		}
		u := volume.Update{Name: b.optional("name"), Description: b.optional("description")}
		if at(c, 43) {
			u.Metadata = b.strings("metadata")
		}
		if b.err() != nil {
			return b.err()
		}
		x, err := update(c, func(tx *store.Tx) (*model.VolumeBackup, error) {
			return d.v.UpdateBackup(tx, scope(c), c.Param("id"), u)
		})
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, object{"backup": backupShort(c, x)})
	})
	route(http.MethodDelete, "/backups/{id}", api.Member, 0, func(c *api.Context) error {
		if err := do(c, func(tx *store.Tx) error { return d.v.DeleteBackup(tx, scope(c), c.Param("id"), false) }); err != nil {
			return err
		}
		return c.Empty(http.StatusAccepted)
	})
	route(http.MethodPost, "/backups/{id}/restore", api.Member, 0, d.restore)
	route(http.MethodPost, "/backups/{id}/action", api.Member, 0, d.backupAction)
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		path := map[string]string{http.MethodGet: "/backups/{id}/export_record", http.MethodPost: "/backups/import_record"}[method]
		route(method, path, api.Admin, 0, func(*api.Context) error { return notOffered("Moving the record of a backup between clouds") })
	}
}

func backupListing() *listing[model.VolumeBackup] {
	return &listing[model.VolumeBackup]{name: "backups", meta: func(x *model.VolumeBackup) *model.Meta { return &x.Meta }, show: backupShown,
		number: func(x *model.VolumeBackup, name string) (int64, bool) {
			switch name {
			case "size":
				return int64(x.SizeGiB), true
			case "created_at":
				return x.CreatedAt.UnixMicro(), true
			}
			return 0, false
		},
		field: func(_ store.Reader, x *model.VolumeBackup, name string) (string, bool) {
			switch name {
			case "id":
				return x.ID, true
			case "name":
				return x.Name, true
			case "status":
				return x.State, true
			case "volume_id":
				return x.VolumeID, true
			case "project_id":
				return x.ProjectID, true
			case "size":
				return strconv.Itoa(x.SizeGiB), true
			case "created_at":
				return x.CreatedAt.UTC().Format("2006-01-02T15:04:05.000000"), true
			}
			if k, ok := strings.CutPrefix(name, "metadata:"); ok {
				return x.Metadata[k], true
			}
			return "", false
		},
	}
}

func backupShort(c *api.Context, x *model.VolumeBackup) object {
	return object{"id": x.ID, "name": orNull(x.Name), "links": links(c, "backups/"+x.ID)}
}

func backupShown(c *api.Context, r store.Reader, x *model.VolumeBackup) object {
	o := backupShort(c, x)
	reason := any(nil)
	if x.Fault != nil {
		reason = x.Fault.Message
	}
	for k, v := range (object{"status": x.State, "size": x.SizeGiB, "object_count": 1, "availability_zone": x.Zone, "container": x.Container, "created_at": stamp(x.CreatedAt),
		"updated_at": changed(&x.Meta), "description": orNull(x.Description), "fail_reason": reason, "volume_id": x.VolumeID, "is_incremental": x.ParentID != "",
		"has_dependent_backups": volume.Dependent(r, x.ID), "snapshot_id": orNull(x.SnapshotID), "data_timestamp": stamp(x.DataAt)}) {
		o[k] = v
	}
	if at(c, 43) {
		o["metadata"] = orEmpty(x.Metadata)
	}
	if at(c, 56) {
		o["user_id"] = orNull(x.UserID)
	}
	if c.Caller.CloudAdmin && at(c, 18) {
		o["os-backup-project-attr:project_id"] = x.ProjectID
	}
	if at(c, 64) {
		o["encryption_key_id"] = nil
	}
	return o
}

func (d *dialect) createBackup(c *api.Context) error {
	b, err := read(c, "backup")
	if err != nil {
		return err
	}
	n := volume.NewBackup{VolumeID: b.needed("volume_id"), SnapshotID: b.text("snapshot_id"), Name: b.text("name"), Description: b.text("description"),
		Container: b.text("container"), Incremental: b.truth("incremental"), Force: b.truth("force")}
	if at(c, 43) {
		n.Metadata = b.strings("metadata")
	}
	if at(c, 51) {
		n.Zone = b.text("availability_zone")
	}
	if b.err() != nil {
		return b.err()
	}
	if strings.Contains(n.Container, "/") {
		return badRequest("Invalid input received: the container's name has a slash.")
	}
	x, err := update(c, func(tx *store.Tx) (*model.VolumeBackup, error) { return d.v.CreateBackup(tx, scope(c), n) })
	if err != nil {
		return err
	}
	return c.JSON(http.StatusAccepted, object{"backup": backupShort(c, x)})
}

func (d *dialect) restore(c *api.Context) error {
	b, err := read(c, "restore")
	if err != nil {
		return err
	}
	id, name := b.text("volume_id"), b.text("name")
	if b.err() != nil {
		return b.err()
	}
	x, err := update(c, func(tx *store.Tx) (*model.Volume, error) {
		_, x, err := d.v.Restore(tx, scope(c), c.Param("id"), id, name)
		return x, err
	})
	if err != nil {
		return err
	}
	return c.JSON(http.StatusAccepted, object{"restore": object{"backup_id": c.Param("id"), "volume_id": x.ID, "volume_name": x.Name}})
}

func (d *dialect) backupAction(c *api.Context) error {
	o, err := readAll(c)
	if err != nil {
		return err
	}
	x, err := volume.GetBackup(c.Snapshot(), scope(c), c.Param("id"))
	if err != nil {
		return err
	}
	if len(o) != 1 {
		return badRequest("Malformed request body")
	}
	for name, v := range o {
		switch name {
		case "os-reset_status":
			if err := adminOnly(c, "volume_extension:backup_admin_actions:reset_status"); err != nil {
				return err
			}
			b := &body{o: object{name: v}}
			in := b.inner(name)
			state := in.needed("status")
			if err := cmp.Or(b.err(), in.err()); err != nil {
				return err
			}
			err = do(c, func(tx *store.Tx) error { _, err := d.v.ResetBackup(tx, x.ID, state); return err })
		case "os-force_delete":
			if err := adminOnly(c, "volume_extension:backup_admin_actions:force_delete"); err != nil {
				return err
			}
			err = do(c, func(tx *store.Tx) error { return d.v.DeleteBackup(tx, scope(c), x.ID, true) })
		default:
			return badRequest("There is no such action: %s", api.Clip(name))
		}
	}
	if err != nil {
		return err
	}
	return c.Empty(http.StatusAccepted)
}
