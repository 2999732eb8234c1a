package cinder

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strings"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
	"yakumo/volume"
)

func (d *dialect) typeRoutes(route adder) {
	route(http.MethodGet, "/types", api.Reader, 0, d.listTypes)
	route(http.MethodGet, "/types/{id}", api.Reader, 0, func(c *api.Context) error {
		if c.Param("id") == "default" {
			t := volume.Default(c.Snapshot())
			if t == nil {
				return fault.New(fault.NotFound, "Default volume type can not be found.")
			}
			return c.JSON(http.StatusOK, object{"volume_type": typeShown(c, t)})
		}
		t, err := volume.GetType(c.Snapshot(), scope(c), c.Param("id"))
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, object{"volume_type": typeShown(c, t)})
	})
	route(http.MethodPost, "/types", api.Admin, 0, func(c *api.Context) error {
		b, err := read(c, "volume_type")
		if err != nil {
			return err
		}
		name := b.needed("name")
		s := volume.TypeSpec{Name: &name, Description: b.optional("description"), ExtraSpecs: b.strings("extra_specs")}
		if b.has("os-volume-type-access:is_public") {
			public := b.truth("os-volume-type-access:is_public")
			s.Public = &public
		}
		return d.answerType(c, b, func(tx *store.Tx) (*model.VolumeType, error) { return d.v.CreateType(tx, s) })
	})
	route(http.MethodPut, "/types/{id}", api.Admin, 0, func(c *api.Context) error {
		b, err := read(c, "volume_type")
		if err != nil {
			return err
		}
		s := volume.TypeSpec{Name: b.optional("name"), Description: b.optional("description")}
		if b.has("is_public") {
			public := b.truth("is_public")
			s.Public = &public
		}
		if s.Name == nil && s.Description == nil && s.Public == nil {
			return badRequest("Specify volume type name, description, is_public or a combination thereof.")
		}
		return d.answerType(c, b, func(tx *store.Tx) (*model.VolumeType, error) { return d.v.UpdateType(tx, c.Param("id"), s) })
	})
	route(http.MethodDelete, "/types/{id}", api.Admin, 0, func(c *api.Context) error {
		if err := do(c, func(tx *store.Tx) error { return d.v.DeleteType(tx, c.Param("id")) }); err != nil {
			return err
		}
		return c.Empty(http.StatusAccepted)
	})
	route(http.MethodGet, "/types/{id}/os-volume-type-access", api.Admin, 0, func(c *api.Context) error {
		t, err := volume.GetType(c.Snapshot(), scope(c), c.Param("id"))
		if err != nil {
			return err
		}
		if t.Public {
			return fault.New(fault.NotFound, "Access list not available for public volume types.")
		}
		out := []object{}
		for _, p := range t.Access {
			out = append(out, object{"volume_type_id": t.ID, "project_id": p})
		}
		return c.JSON(http.StatusOK, object{"volume_type_access": out})
	})
	route(http.MethodPost, "/types/{id}/action", api.Admin, 0, d.typeAccess)
	route(http.MethodGet, "/types/{id}/extra_specs", api.Reader, 0, func(c *api.Context) error {
		t, err := volume.GetType(c.Snapshot(), scope(c), c.Param("id"))
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, object{"extra_specs": specsShown(c, t)})
	})
	route(http.MethodPost, "/types/{id}/extra_specs", api.Admin, 0, func(c *api.Context) error {
		o, err := readAll(c)
		if err != nil {
			return err
		}
		b := &body{o: o}
		items := b.strings("extra_specs")
		if b.err() != nil || items == nil {
			return cmp.Or(b.err(), badRequest("Invalid input for field/attribute extra_specs. 'extra_specs' is a required property"))
		}
		if _, err := update(c, func(tx *store.Tx) (*model.VolumeType, error) {
			return d.v.SetSpecs(tx, c.Param("id"), lay(items, false))
		}); err != nil {
			return err
		}
		return c.JSON(http.StatusOK, object{"extra_specs": items})
	})
	route(http.MethodGet, "/types/{id}/extra_specs/{key}", api.Reader, 0, func(c *api.Context) error {
		t, err := volume.GetType(c.Snapshot(), scope(c), c.Param("id"))
		if err != nil {
			return err
		}
		v, ok := specsShown(c, t)[c.Param("key")]
		if !ok {
			return noSpec(c)
		}
		return c.JSON(http.StatusOK, object{c.Param("key"): v})
	})
	route(http.MethodPut, "/types/{id}/extra_specs/{key}", api.Admin, 0, func(c *api.Context) error {
		o, err := readAll(c)
		if err != nil {
			return err
		}
		b := &body{o: object{"extra_specs": o}}
		items := b.strings("extra_specs")
		if b.err() != nil {
			return b.err()
		}
		if _, ok := items[c.Param("key")]; !ok || len(items) != 1 {
			return badRequest("Request body and URI mismatch")
		}
		if _, err := update(c, func(tx *store.Tx) (*model.VolumeType, error) {
			return d.v.SetSpecs(tx, c.Param("id"), lay(items, false))
		}); err != nil {
			return err
		}
		return c.JSON(http.StatusOK, items)
	})
	route(http.MethodDelete, "/types/{id}/extra_specs/{key}", api.Admin, 0, func(c *api.Context) error {
		if _, err := update(c, func(tx *store.Tx) (*model.VolumeType, error) {
			return d.v.SetSpecs(tx, c.Param("id"), func(m map[string]string) (map[string]string, error) {
				if _, ok := m[c.Param("key")]; !ok {
					return nil, noSpec(c)
				}
				delete(m, c.Param("key"))
				return m, nil
			})
		}); err != nil {
			return err
		}
		return c.Empty(http.StatusAccepted)
	})
	// Encryption of volumes is not offered: a type has none, and none can be given to it.
	route(http.MethodGet, "/types/{id}/encryption", api.Admin, 0, func(c *api.Context) error {
		if _, err := volume.GetType(c.Snapshot(), scope(c), c.Param("id")); err != nil {
			return err
		}
		return c.JSON(http.StatusOK, object{})
	})
	route(http.MethodPost, "/types/{id}/encryption", api.Admin, 0, func(c *api.Context) error {
		if _, err := volume.GetType(c.Snapshot(), scope(c), c.Param("id")); err != nil {
			return err
		}
		return badRequest("Create failed. Encryption of volumes is not offered by this cloud.")
	})
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
		route(method, "/types/{id}/encryption/{key}", api.Admin, 0, func(c *api.Context) error {
			return fault.New(fault.NotFound, "Volume type encryption for type %s does not exist.", api.Clip(c.Param("id")))
		})
	}
}

func noSpec(c *api.Context) error {
	return fault.New(fault.NotFound, "Volume Type %s has no extra specs with key %s.", api.Clip(c.Param("id")), api.Clip(c.Param("key")))
}

// specsShown gives what the caller may see of a type's extra specs: users see what concerns them.
func specsShown(c *api.Context, t *model.VolumeType) map[string]string {
	out := map[string]string{}
	for k, v := range t.ExtraSpecs {
		if c.Caller.CloudAdmin || slices.Contains([]string{"multiattach", "RESKEY:availability_zones", "replication_enabled"}, k) {
			out[k] = v
		}
	}
	return out
}

func typeShown(c *api.Context, t *model.VolumeType) object {
	o := object{"id": t.ID, "name": t.Name, "description": orNull(t.Description), "is_public": t.Public, "os-volume-type-access:is_public": t.Public, "extra_specs": specsShown(c, t)}
	if c.Caller.CloudAdmin {
		o["qos_specs_id"] = orNull(t.QoSID)
	}
	return o
}

func (d *dialect) answerType(c *api.Context, b *body, f func(tx *store.Tx) (*model.VolumeType, error)) error {
	if b.err() != nil {
		return b.err()
	}
	t, err := update(c, f)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"volume_type": typeShown(c, t)})
}

func (d *dialect) listTypes(c *api.Context) error {
	q := c.Query()
	snap := c.Snapshot()
	pg, err := api.ParsePage(q, maxLimit)
	if err != nil {
		text, _ := fault.Text(err)
		return badRequest("Invalid input received: %s", text)
	}
	specs := map[string]string{}
	if s := q.Get("extra_specs"); s != "" {
		if specs, err = pairs(s); err != nil {
			return err
		}
	}
	want, filtered := truth(q.Get("is_public"))
	filtered = filtered && q.Get("is_public") != "" && c.Caller.CloudAdmin
	// Without the filter an administrator sees the public ones, as everybody; None means all.
	all := c.Caller.CloudAdmin && strings.EqualFold(q.Get("is_public"), "none")
	var rows []*model.VolumeType
	for t := range store.VolumeTypes.All(snap) {
		visible := t.Public || slices.Contains(t.Access, c.Caller.ProjectID) || all || filtered && !want
		if !visible || filtered && t.Public != want {
			continue
		}
		if n := q.Get("name"); n != "" && n != t.Name {
			continue
		}
		if !subset(specs, specsShown(c, t)) {
			continue
		}
		rows = append(rows, t)
	}
	slices.SortFunc(rows, func(a, b *model.VolumeType) int {
		for _, k := range pg.Sort {
			n := 0
			switch k.Key {
			case "id":
				n = cmp.Compare(a.ID, b.ID)
			case "name":
				n = cmp.Compare(a.Name, b.Name)
			case "created_at":
				n = a.CreatedAt.Compare(b.CreatedAt)
			}
			if k.Desc {
				n = -n
			}
			if n != 0 {
				return n
			}
		}
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.ID, a.ID))
	})
	page, more, err := api.Cut(rows, pg, func(t *model.VolumeType) string { return t.ID })
	if err != nil {
		return fault.New(fault.NotFound, "Marker %s could not be found.", api.Clip(pg.Marker))
	}
	out := []object{}
	for _, t := range page {
		out = append(out, typeShown(c, t))
	}
	body := object{"volume_types": out}
	if more && len(page) > 0 {
		next := c.R.URL.Query()
		next.Set("marker", page[len(page)-1].ID)
		body["volume_type_links"] = []link{{"next", c.URL(strings.TrimPrefix(c.R.URL.Path, "/volume")) + "?" + next.Encode()}}
	}
	return c.JSON(http.StatusOK, body)
}

func subset(want, have map[string]string) bool {
	for k := range maps.Keys(want) {
		if have[k] != want[k] {
			return false
		}
	}
	return true
}

func (d *dialect) typeAccess(c *api.Context) error {
	o, err := readAll(c)
	if err != nil {
		return err
	}
	b := &body{o: o}
	change := d.v.AddAccess
	name := "addProjectAccess"
	if _, remove := o["removeProjectAccess"]; remove {
		name, change = "removeProjectAccess", d.v.RemoveAccess
	}
	if _, there := o[name]; !there || len(o) != 1 {
		return badRequest("There is no such action.")
	}
	in := b.inner(name)
	project := in.needed("project")
	if err := cmp.Or(b.err(), in.err()); err != nil {
		return err
	}
	if err := do(c, func(tx *store.Tx) error { return change(tx, c.Param("id"), project) }); err != nil {
		return err
	}
	return c.Empty(http.StatusAccepted)
}
