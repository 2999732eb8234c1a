package cinder

import (
	"cmp"
	"net/http"

	"yakumo/api"
	"yakumo/model"
	"yakumo/store"
	"yakumo/volume"
)

func (d *dialect) snapshotRoutes(route adder) {
	(&copies[model.VolumeSnapshot]{one: "snapshot", all: "snapshots", table: store.VolumeSnapshots, get: volume.GetSnapshot, short: snapshotShort, full: snapshotShown,
		about: func(s *model.VolumeSnapshot) about {
			return about{&s.Meta, s.State, s.VolumeID, s.UserID, s.SizeGiB, s.Metadata}
		},
		update: d.v.UpdateSnapshot, remove: d.v.DeleteSnapshot, reset: d.v.ResetSnapshot, resets: []string{"os-reset_status", "os-update_snapshot_status"}, refused: []string{"os-unmanage"},
	}).routes(route)
	route(http.MethodPost, "/snapshots", api.Member, 0, d.createSnapshot)
	metadataOf[model.VolumeSnapshot]{noun: "Snapshot Metadata",
		get: func(c *api.Context) (map[string]string, error) {
			s, err := volume.GetSnapshot(c.Snapshot(), scope(c), c.Param("id"))
			if err != nil {
				return nil, err
			}
			return s.Metadata, nil
		},
		set: func(tx *store.Tx, c *api.Context, f func(map[string]string) (map[string]string, error)) (*model.VolumeSnapshot, error) {
			return d.v.SetSnapshotMetadata(tx, scope(c), c.Param("id"), f)
		},
		of: func(s *model.VolumeSnapshot) map[string]string { return s.Metadata },
	}.routes(route, "/snapshots/{id}/metadata")
}

func snapshotShort(c *api.Context, _ store.Reader, s *model.VolumeSnapshot) object {
	o := object{"id": s.ID, "name": orNull(s.Name), "description": orNull(s.Description), "status": s.State, "size": s.SizeGiB, "volume_id": s.VolumeID,
		"created_at": stamp(s.CreatedAt), "updated_at": changed(&s.Meta), "metadata": orEmpty(s.Metadata)}
	if at(c, 14) {
		o["group_snapshot_id"] = nil
	}
	if at(c, 41) {
		o["user_id"] = orNull(s.UserID)
	}
	if at(c, 65) {
		o["consumes_quota"] = true
	}
	return o
}

func snapshotShown(c *api.Context, r store.Reader, s *model.VolumeSnapshot) object {
	o := snapshotShort(c, r, s)
	progress := "0%"
	if s.State == volume.Available {
		progress = "100%"
	}
	o["os-extended-snapshot-attributes:progress"], o["os-extended-snapshot-attributes:project_id"] = progress, s.ProjectID
	return o
}

func (d *dialect) createSnapshot(c *api.Context) error {
	b, err := read(c, "snapshot")
	if err != nil {
		return err
	}
	n := volume.NewSnapshot{VolumeID: b.needed("volume_id"), Name: cmp.Or(b.text("name"), b.text("display_name")), Description: cmp.Or(b.text("description"), b.text("display_description")),
		Metadata: b.strings("metadata"), Force: b.truth("force")}
	// From 3.66 on a volume in use needs no force, and none may be asked not to be forced.
	if at(c, 66) {
		if b.has("force") && !n.Force {
			return badRequest("Invalid input for field/attribute force. Value: False. Since microversion 3.66 a snapshot of a volume in use needs no 'force'; False is not allowed.")
		}
		n.Force = true
	}
	if b.err() != nil {
		return b.err()
	}
	s, err := update(c, func(tx *store.Tx) (*model.VolumeSnapshot, error) { return d.v.CreateSnapshot(tx, scope(c), n) })
	if err != nil {
		return err
	}
	return c.JSON(http.StatusAccepted, object{"snapshot": snapshotShort(c, c.Snapshot(), s)})
}
