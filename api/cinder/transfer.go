package cinder

import (
	"cmp"
	"net/http"
	"slices"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
	"yakumo/volume"
)

func (d *dialect) transferRoutes(route adder) {
	for path, min := range map[string]int{"/os-volume-transfer": 0, "/volume-transfers": 55} {
		route(http.MethodGet, path, api.Reader, min, func(c *api.Context) error { return d.listTransfers(c, false) })
		route(http.MethodGet, path+"/detail", api.Reader, min, func(c *api.Context) error { return d.listTransfers(c, true) })
		route(http.MethodPost, path, api.Member, min, d.createTransfer)
		route(http.MethodGet, path+"/{id}", api.Reader, min, func(c *api.Context) error {
			t, err := volume.GetTransfer(c.Snapshot(), scope(c), c.Param("id"))
			if err != nil {
				return err
			}
			return c.JSON(http.StatusOK, object{"transfer": transferShown(c, t, true)})
		})
		route(http.MethodDelete, path+"/{id}", api.Member, min, func(c *api.Context) error {
			if err := do(c, func(tx *store.Tx) error { return d.v.DeleteTransfer(tx, scope(c), c.Param("id")) }); err != nil {
				return err
			}
			return c.Empty(http.StatusAccepted)
		})
		route(http.MethodPost, path+"/{id}/accept", api.Member, min, func(c *api.Context) error {
			if err := needProject(c); err != nil {
				return err
			}
			b, err := read(c, "accept")
			if err != nil {
				return err
			}
			key := b.needed("auth_key")
			if b.err() != nil {
				return b.err()
			}
			t, err := update(c, func(tx *store.Tx) (*model.VolumeTransfer, error) { return d.v.Accept(tx, scope(c), c.Param("id"), key) })
			if err != nil {
				return err
			}
			return c.JSON(http.StatusAccepted, object{"transfer": object{"id": t.ID, "name": orNull(t.Name), "volume_id": t.VolumeID, "links": links(c, "os-volume-transfer/"+t.ID)}})
		})
	}
}

func transferShown(c *api.Context, t *model.VolumeTransfer, detail bool) object {
	o := object{"id": t.ID, "name": orNull(t.Name), "volume_id": t.VolumeID, "links": links(c, "os-volume-transfer/"+t.ID)}
	if !detail {
		return o
	}
	o["created_at"] = stamp(t.CreatedAt)
	if at(c, 55) {
		o["no_snapshots"] = !t.Snapshots
	}
	if at(c, 57) {
		o["source_project_id"], o["destination_project_id"], o["accepted"] = t.ProjectID, nil, false
	}
	return o
}

func (d *dialect) listTransfers(c *api.Context, detail bool) error {
	snap := c.Snapshot()
	rows := slices.SortedFunc(owned(c, snap, store.VolumeTransfers), func(a, b *model.VolumeTransfer) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.ID, a.ID))
	})
	pg, err := api.ParsePage(c.Query(), maxLimit)
	if err != nil {
		text, _ := fault.Text(err)
		return badRequest("Invalid input received: %s", text)
	}
	if name := c.Query().Get("name"); name != "" {
		rows = slices.DeleteFunc(rows, func(t *model.VolumeTransfer) bool { return t.Name != name })
	}
	page, _, err := api.Cut(rows, pg, func(t *model.VolumeTransfer) string { return t.ID })
	if err != nil {
		return fault.New(fault.NotFound, "Marker %s could not be found.", api.Clip(pg.Marker))
	}
	out := []object{}
	for _, t := range page {
		out = append(out, transferShown(c, t, detail))
	}
	return c.JSON(http.StatusOK, object{"transfers": out})
}

func (d *dialect) createTransfer(c *api.Context) error {
	b, err := read(c, "transfer")
	if err != nil {
		return err
	}
	id, name, snapshots := b.needed("volume_id"), b.text("name"), at(c, 55) && !b.truth("no_snapshots")
	if b.err() != nil {
		return b.err()
	}
	key := volume.NewKey()
	t, err := update(c, func(tx *store.Tx) (*model.VolumeTransfer, error) {
		return d.v.CreateTransfer(tx, scope(c), id, name, key, snapshots)
	})
	if err != nil {
		return err
	}
	o := transferShown(c, t, true)
	o["auth_key"] = key
	return c.JSON(http.StatusAccepted, object{"transfer": o})
}
