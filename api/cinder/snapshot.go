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

func (d *dialect) snapshotRoutes(route adder) {
	l := snapshotListing()
	route(http.MethodGet, "/snapshots", api.Reader, 0, func(c *api.Context) error {
		snap := c.Snapshot()
		return l.answer(c, snap, owned(c, snap, store.VolumeSnapshots), snapshotShort)
	})
	route(http.MethodGet, "/snapshots/detail", api.Reader, 0, func(c *api.Context) error {
		snap := c.Snapshot()
		return l.answer(c, snap, owned(c, snap, store.VolumeSnapshots), l.show)
	})
	route(http.MethodPost, "/snapshots", api.Member, 0, d.createSnapshot)
	route(http.MethodGet, "/snapshots/{id}", api.Reader, 0, func(c *api.Context) error {
		snap := c.Snapshot()
		s, err := volume.GetSnapshot(snap, scope(c), c.Param("id"))
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, object{"snapshot": snapshotShown(c, snap, s)})
	})
	route(http.MethodPut, "/snapshots/{id}", api.Member, 0, func(c *api.Context) error {
		b, err := read(c, "snapshot")
		if err != nil {
			return err
		}
		u := volume.Update{Name: b.optional("name"), Description: b.optional("description")}
		if b.err() != nil {
			return b.err()
		}
		s, err := update(c, func(tx *store.Tx) (*model.VolumeSnapshot, error) {
			return d.v.UpdateSnapshot(tx, scope(c), c.Param("id"), u)
		})
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, object{"snapshot": snapshotShort(c, c.Snapshot(), s)})
	})
	route(http.MethodDelete, "/snapshots/{id}", api.Member, 0, func(c *api.Context) error {
		if err := do(c, func(tx *store.Tx) error { return d.v.DeleteSnapshot(tx, scope(c), c.Param("id"), false) }); err != nil {
			return err
		}
		return c.Empty(http.StatusAccepted)
	})
	route(http.MethodPost, "/snapshots/{id}/action", api.Member, 0, d.snapshotAction)
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

func snapshotListing() *listing[model.VolumeSnapshot] {
	return &listing[model.VolumeSnapshot]{name: "snapshots", meta: func(s *model.VolumeSnapshot) *model.Meta { return &s.Meta }, show: snapshotShown,
		number: func(s *model.VolumeSnapshot, name string) (int64, bool) {
			switch name {
			case "size":
				return int64(s.SizeGiB), true
			case "created_at":
				return s.CreatedAt.UnixMicro(), true
			}
			return 0, false
		},
		field: func(_ store.Reader, s *model.VolumeSnapshot, name string) (string, bool) {
			switch name {
			case "id":
				return s.ID, true
			case "name":
				return s.Name, true
			case "status":
				return s.State, true
			case "volume_id":
				return s.VolumeID, true
			case "project_id":
				return s.ProjectID, true
			case "user_id":
				return s.UserID, true
			case "size":
				return strconv.Itoa(s.SizeGiB), true
			case "created_at":
				return s.CreatedAt.UTC().Format("2006-01-02T15:04:05.000000"), true
			}
			if k, ok := strings.CutPrefix(name, "metadata:"); ok {
				return s.Metadata[k], true
			}
			return "", false
		},
	}
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

func (d *dialect) snapshotAction(c *api.Context) error {
	o, err := readAll(c)
	if err != nil {
		return err
	}
	s, err := volume.GetSnapshot(c.Snapshot(), scope(c), c.Param("id"))
	if err != nil {
		return err
	}
	b := &body{o: o}
	var f func(tx *store.Tx) error
	switch {
	case len(o) != 1:
		return badRequest("Malformed request body")
	case b.o["os-reset_status"] != nil, b.o["os-update_snapshot_status"] != nil:
		name := "os-reset_status"
		if b.o[name] == nil {
			name = "os-update_snapshot_status"
		}
		if err := adminOnly(c, "volume_extension:snapshot_admin_actions:reset_status"); err != nil {
			return err
		}
		in := b.inner(name)
		state := in.needed("status")
		if err := cmp.Or(b.err(), in.err()); err != nil {
			return err
		}
		switch state {
		case volume.Available, volume.Creating, volume.Deleting, volume.Errored, volume.ErrorDeleting:
		default:
			return badRequest("Invalid input for field/attribute status. Value: %s. Must specify a valid status.", api.Quoted(state))
		}
		f = func(tx *store.Tx) error { _, err := d.v.ResetSnapshot(tx, s.ID, state); return err }
	default:
		for name := range o {
			switch name {
			case "os-force_delete":
				if err := adminOnly(c, "volume_extension:snapshot_admin_actions:force_delete"); err != nil {
					return err
				}
				f = func(tx *store.Tx) error { return d.v.DeleteSnapshot(tx, scope(c), s.ID, true) }
			case "os-unmanage":
				return notOffered("The action " + name)
			default:
				return badRequest("There is no such action: %s", api.Clip(name))
			}
		}
	}
	if err := do(c, f); err != nil {
		return err
	}
	return c.Empty(http.StatusAccepted)
}
