package cinder

import (
	"cmp"
	"net/http"
	"slices"

	"yakumo/api"
	"yakumo/model"
	"yakumo/store"
	"yakumo/volume"
)

func (d *dialect) attachmentRoutes(route adder) {
	route(http.MethodGet, "/attachments", api.Reader, 27, func(c *api.Context) error { return d.listAttachments(c, false) })
	route(http.MethodGet, "/attachments/detail", api.Reader, 27, func(c *api.Context) error { return d.listAttachments(c, true) })
	route(http.MethodPost, "/attachments", api.Member, 27, func(c *api.Context) error {
		b, err := read(c, "attachment")
		if err != nil {
			return err
		}
		n := volume.NewAttachment{VolumeID: b.needed("volume_uuid"), ServerID: b.text("instance_uuid"), Connector: b.strings("connector")}
		if at(c, 54) {
			n.Mode = b.text("mode")
		}
		if b.err() != nil {
			return b.err()
		}
		var x *model.Volume
		var a *model.Attachment
		if err := do(c, func(tx *store.Tx) (err error) { x, a, err = d.v.Attach(tx, scope(c), n); return err }); err != nil {
			return err
		}
		return c.JSON(http.StatusOK, object{"attachment": attachmentShown(x, a, true)})
	})
	route(http.MethodGet, "/attachments/{id}", api.Reader, 27, func(c *api.Context) error {
		x, a, err := volume.GetAttachment(c.Snapshot(), scope(c), c.Param("id"))
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, object{"attachment": attachmentShown(x, a, true)})
	})
	route(http.MethodPut, "/attachments/{id}", api.Member, 27, func(c *api.Context) error {
		b, err := read(c, "attachment")
		if err != nil {
			return err
		}
		connector := b.strings("connector")
		if b.err() != nil || connector == nil {
			return cmp.Or(b.err(), badRequest("Invalid input for field/attribute attachment. 'connector' is a required property"))
		}
		var x *model.Volume
		var a *model.Attachment
		if err := do(c, func(tx *store.Tx) (err error) {
			x, a, err = d.v.Connect(tx, scope(c), c.Param("id"), connector)
			return err
		}); err != nil {
			return err
		}
		return c.JSON(http.StatusOK, object{"attachment": attachmentShown(x, a, true)})
	})
	route(http.MethodDelete, "/attachments/{id}", api.Member, 27, func(c *api.Context) error {
		x, err := update(c, func(tx *store.Tx) (*model.Volume, error) { return d.v.Detach(tx, scope(c), c.Param("id")) })
		if err != nil {
			return err
		}
		out := []object{}
		for i := range x.Attachments {
			out = append(out, attachmentShown(x, &x.Attachments[i], false))
		}
		return c.JSON(http.StatusOK, object{"attachments": out})
	})
	route(http.MethodPost, "/attachments/{id}/action", api.Member, 44, func(c *api.Context) error {
		o, err := readAll(c)
		if err != nil {
			return err
		}
		if _, there := o["os-complete"]; !there || len(o) != 1 {
			return badRequest("There is no such action.")
		}
		if err := do(c, func(tx *store.Tx) error { return d.v.Complete(tx, scope(c), c.Param("id")) }); err != nil {
			return err
		}
		return c.Empty(http.StatusNoContent)
	})
}

func attachmentShown(x *model.Volume, a *model.Attachment, detail bool) object {
	o := object{"id": a.ID, "volume_id": x.ID, "instance": orNull(a.ServerID), "status": a.State}
	if detail {
		o["attached_at"], o["detached_at"], o["attach_mode"], o["connection_info"] = stamp(a.AttachedAt), nil, a.Mode, object{}
	}
	return o
}

func (d *dialect) listAttachments(c *api.Context, detail bool) error {
	q := c.Query()
	snap := c.Snapshot()
	type use struct {
		x *model.Volume
		a *model.Attachment
	}
	var rows []use
	for x := range owned(c, snap, store.Volumes) {
		for i := range x.Attachments {
			a := &x.Attachments[i]
			if v := q.Get("volume_id"); v != "" && v != x.ID {
				continue
			}
			if v := q.Get("instance_id"); v != "" && v != a.ServerID {
				continue
			}
			if v := cmp.Or(q.Get("status"), q.Get("attach_status")); v != "" && v != a.State {
				continue
			}
			rows = append(rows, use{x, a})
		}
	}
	slices.SortFunc(rows, func(a, b use) int { return cmp.Compare(a.a.ID, b.a.ID) })
	pg, err := api.ParsePage(q, maxLimit)
	if err != nil {
		return badRequest("Invalid input received: the page that is asked for is none.")
	}
	page, _, err := api.Cut(rows, pg, func(u use) string { return u.a.ID })
	if err != nil {
		return badRequest("Invalid input received: marker %s could not be found.", api.Clip(pg.Marker))
	}
	out := []object{}
	for _, u := range page {
		out = append(out, attachmentShown(u.x, u.a, detail))
	}
	return c.JSON(http.StatusOK, object{"attachments": out})
}
