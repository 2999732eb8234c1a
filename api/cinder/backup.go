package cinder

import (
	"net/http"
	"strings"

	"yakumo/api"
	"yakumo/model"
	"yakumo/store"
	"yakumo/volume"
)

func (d *dialect) backupRoutes(route adder) {
	(&copies[model.VolumeBackup]{one: "backup", all: "backups", table: store.VolumeBackups, get: volume.GetBackup, short: backupShort, full: backupShown,
		about: func(b *model.VolumeBackup) about {
			return about{&b.Meta, b.State, b.VolumeID, b.UserID, b.SizeGiB, b.Metadata}
		},
		renamed: 9, metadata: 43, update: d.v.UpdateBackup, remove: d.v.DeleteBackup, reset: d.v.ResetBackup, resets: []string{"os-reset_status"},
	}).routes(route)
	route(http.MethodPost, "/backups", api.Member, 0, d.createBackup)
	route(http.MethodPost, "/backups/{id}/restore", api.Member, 0, d.restore)
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		path := map[string]string{http.MethodGet: "/backups/{id}/export_record", http.MethodPost: "/backups/import_record"}[method]
		route(method, path, api.Admin, 0, func(*api.Context) error { return notOffered("Moving the record of a backup between clouds") })
	}
}

func backupShort(c *api.Context, _ store.Reader, x *model.VolumeBackup) object {
	return object{"id": x.ID, "name": orNull(x.Name), "links": links(c, "backups/"+x.ID)}
}

func backupShown(c *api.Context, r store.Reader, x *model.VolumeBackup) object {
	o := backupShort(c, r, x)
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
	return c.JSON(http.StatusAccepted, object{"backup": backupShort(c, c.Snapshot(), x)})
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
