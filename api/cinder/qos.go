package cinder

import (
	"cmp"
	"maps"
	"net/http"
	"slices"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
	"yakumo/volume"
)

func (d *dialect) qosRoutes(route adder) {
	route(http.MethodGet, "/qos-specs", api.Admin, 0, func(c *api.Context) error {
		rows := slices.Collect(store.VolumeQoS.All(c.Snapshot()))
		slices.SortFunc(rows, func(a, b *model.VolumeQoS) int {
			return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.ID, a.ID))
		})
		pg, err := api.ParsePage(c.Query(), maxLimit)
		if err != nil {
			text, _ := fault.Text(err)
			return badRequest("Invalid input received: %s", text)
		}
		page, _, err := api.Cut(rows, pg, func(q *model.VolumeQoS) string { return q.ID })
		if err != nil {
			return fault.New(fault.NotFound, "Marker %s could not be found.", api.Clip(pg.Marker))
		}
		out := []object{}
		for _, q := range page {
			out = append(out, qosShown(q))
		}
		return c.JSON(http.StatusOK, object{"qos_specs": out})
	})
	route(http.MethodPost, "/qos-specs", api.Admin, 0, func(c *api.Context) error {
		b, err := read(c, "qos_specs")
		if err != nil {
			return err
		}
		name, consumer := b.needed("name"), cmp.Or(b.text("consumer"), "back-end")
		rest := &body{o: object{"specs": without(b.o, "name", "consumer")}}
		specs := rest.strings("specs")
		if err := cmp.Or(b.err(), rest.err()); err != nil {
			return err
		}
		return d.answerQoS(c, func(tx *store.Tx) (*model.VolumeQoS, error) { return d.v.CreateQoS(tx, name, consumer, specs) }, true)
	})
	route(http.MethodGet, "/qos-specs/{id}", api.Admin, 0, func(c *api.Context) error {
		q, err := volume.GetQoS(c.Snapshot(), c.Param("id"))
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, object{"qos_specs": qosShown(q), "links": links(c, "qos-specs/"+q.ID)})
	})
	route(http.MethodPut, "/qos-specs/{id}", api.Admin, 0, func(c *api.Context) error {
		b, err := read(c, "qos_specs")
		if err != nil {
			return err
		}
		consumer := b.text("consumer")
		rest := &body{o: object{"specs": without(b.o, "consumer")}}
		specs := rest.strings("specs")
		if err := cmp.Or(b.err(), rest.err()); err != nil {
			return err
		}
		if _, err := update(c, func(tx *store.Tx) (*model.VolumeQoS, error) {
			return d.v.SetQoS(tx, c.Param("id"), consumer, lay(specs, false))
		}); err != nil {
			return err
		}
		return c.JSON(http.StatusOK, object{"qos_specs": b.o})
	})
	route(http.MethodPut, "/qos-specs/{id}/delete_keys", api.Admin, 0, func(c *api.Context) error {
		o, err := readAll(c)
		if err != nil {
			return err
		}
		keys, ok := o["keys"].([]any)
		if !ok {
			return badRequest("Invalid input for field/attribute keys. 'keys' is a required property")
		}
		if _, err := update(c, func(tx *store.Tx) (*model.VolumeQoS, error) {
			return d.v.SetQoS(tx, c.Param("id"), "", func(m map[string]string) (map[string]string, error) {
				for _, k := range keys {
					name, ok := k.(string)
					if _, there := m[name]; !ok || !there {
						return nil, badRequest("QoS Specs %s has no spec with key %s.", c.Param("id"), api.Quoted(k))
					}
					delete(m, name)
				}
				return m, nil
			})
		}); err != nil {
			return err
		}
		return c.Empty(http.StatusAccepted)
	})
	route(http.MethodDelete, "/qos-specs/{id}", api.Admin, 0, func(c *api.Context) error {
		force, _ := truth(c.Query().Get("force"))
		return d.qosDo(c, func(tx *store.Tx) error { return d.v.DeleteQoS(tx, c.Param("id"), force) })
	})
	route(http.MethodGet, "/qos-specs/{id}/associations", api.Admin, 0, func(c *api.Context) error {
		snap := c.Snapshot()
		if _, err := volume.GetQoS(snap, c.Param("id")); err != nil {
			return err
		}
		out := []object{}
		for t := range store.VolumeTypes.List(snap, "qos", c.Param("id")) {
			out = append(out, object{"association_type": "volume_type", "name": t.Name, "id": t.ID})
		}
		return c.JSON(http.StatusOK, object{"qos_associations": out})
	})
	for path, with := range map[string]bool{"associate": true, "disassociate": false} {
		route(http.MethodGet, "/qos-specs/{id}/"+path, api.Admin, 0, func(c *api.Context) error {
			t := c.Query().Get("vol_type_id")
			if t == "" {
				return badRequest("Volume Type id must not be None.")
			}
			return d.qosDo(c, func(tx *store.Tx) error { return d.v.Associate(tx, c.Param("id"), t, with) })
		})
	}
	route(http.MethodGet, "/qos-specs/{id}/disassociate_all", api.Admin, 0, func(c *api.Context) error {
		return d.qosDo(c, func(tx *store.Tx) error { return d.v.DisassociateAll(tx, c.Param("id")) })
	})
}

func without(o object, names ...string) object {
	out := maps.Clone(o)
	for _, n := range names {
		delete(out, n)
	}
	return out
}

func (d *dialect) qosDo(c *api.Context, f func(tx *store.Tx) error) error {
	if err := do(c, f); err != nil {
		return err
	}
	return c.Empty(http.StatusAccepted)
}

func (d *dialect) answerQoS(c *api.Context, f func(tx *store.Tx) (*model.VolumeQoS, error), linked bool) error {
	q, err := update(c, f)
	if err != nil {
		return err
	}
	o := object{"qos_specs": qosShown(q)}
	if linked {
		o["links"] = links(c, "qos-specs/"+q.ID)
	}
	return c.JSON(http.StatusOK, o)
}

func qosShown(q *model.VolumeQoS) object {
	return object{"id": q.ID, "name": q.Name, "consumer": q.Consumer, "specs": orEmpty(q.Specs)}
}
