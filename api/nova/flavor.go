package nova

import (
	"cmp"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

var flavorIDRE = regexp.MustCompile(`^[a-zA-Z0-9. _-]*$`)

func (d *dialect) flavorRoutes(route adder) {
	route(http.MethodGet, "/flavors", api.Reader, 1, func(c *api.Context) error { return d.listFlavors(c, false) })
	route(http.MethodGet, "/flavors/detail", api.Reader, 1, func(c *api.Context) error { return d.listFlavors(c, true) })
	route(http.MethodPost, "/flavors", api.Admin, 1, d.createFlavor)
	route(http.MethodGet, "/flavors/{id}", api.Reader, 1, d.showFlavor)
	route(http.MethodPut, "/flavors/{id}", api.Admin, 55, d.updateFlavor)
	route(http.MethodDelete, "/flavors/{id}", api.Admin, 1, d.deleteFlavor)
	route(http.MethodPost, "/flavors/{id}/action", api.Admin, 1, d.flavorAction)
	route(http.MethodGet, "/flavors/{id}/os-flavor-access", api.Admin, 1, d.listAccess)
	route(http.MethodGet, "/flavors/{id}/os-extra_specs", api.Reader, 1, d.listSpecs)
	route(http.MethodPost, "/flavors/{id}/os-extra_specs", api.Admin, 1, d.addSpecs)
	route(http.MethodGet, "/flavors/{id}/os-extra_specs/{key}", api.Reader, 1, d.showSpec)
	route(http.MethodPut, "/flavors/{id}/os-extra_specs/{key}", api.Admin, 1, d.setSpec)
	route(http.MethodDelete, "/flavors/{id}/os-extra_specs/{key}", api.Admin, 1, d.deleteSpec)
}

func flavorBrief(c *api.Context, f *model.Flavor) object {
	o := object{"id": f.ID, "name": f.Name, "links": links(c, "flavors/"+f.ID)}
	if at(c, 55) {
		o["description"] = nil
		if f.Description != "" {
			o["description"] = f.Description
		}
	}
	return o
}

func flavorOf(c *api.Context, f *model.Flavor) object {
	o := flavorBrief(c, f)
	var swap any = f.SwapMiB
	if f.SwapMiB == 0 && !at(c, 75) {
		swap = ""
	}
	maps.Copy(o, object{
		"ram": f.MemoryMiB, "disk": f.DiskGiB, "vcpus": f.VCPUs, "swap": swap, "rxtx_factor": f.RxTxFactor,
		"OS-FLV-DISABLED:disabled": f.Disabled, "OS-FLV-EXT-DATA:ephemeral": f.Ephemeral, "os-flavor-access:is_public": f.Public,
	})
	if at(c, 61) {
		o["extra_specs"] = orEmpty(f.ExtraSpecs)
	}
	return o
}

var flavorSort = map[string]func(a, b *model.Flavor) int{
	"created_at": func(a, b *model.Flavor) int { return a.CreatedAt.Compare(b.CreatedAt) }, "name": func(a, b *model.Flavor) int { return cmp.Compare(a.Name, b.Name) },
	"description": func(a, b *model.Flavor) int { return cmp.Compare(a.Description, b.Description) },
	"disabled": func(a, b *model.Flavor) int {
		return cmp.Compare(strconv.FormatBool(a.Disabled), strconv.FormatBool(b.Disabled))
	},
	"ephemeral_gb": func(a, b *model.Flavor) int {
		return cmp.Compare(a.Ephemeral, b.Ephemeral)
	},
	"flavorid": func(a, b *model.Flavor) int { return cmp.Compare(a.ID, b.ID) },
	"id":       func(a, b *model.Flavor) int { return cmp.Compare(a.ID, b.ID) },
	"is_public": func(a, b *model.Flavor) int {
		return cmp.Compare(strconv.FormatBool(a.Public), strconv.FormatBool(b.Public))
	},
	"memory_mb":   func(a, b *model.Flavor) int { return cmp.Compare(a.MemoryMiB, b.MemoryMiB) },
	"root_gb":     func(a, b *model.Flavor) int { return cmp.Compare(a.DiskGiB, b.DiskGiB) },
	"rxtx_factor": func(a, b *model.Flavor) int { return cmp.Compare(a.RxTxFactor, b.RxTxFactor) },
	"swap":        func(a, b *model.Flavor) int { return cmp.Compare(a.SwapMiB, b.SwapMiB) },
	"updated_at":  func(a, b *model.Flavor) int { return a.CreatedAt.Compare(b.CreatedAt) },
	"vcpus":       func(a, b *model.Flavor) int { return cmp.Compare(a.VCPUs, b.VCPUs) },
	"vcpu_weight": func(a, b *model.Flavor) int { return 0 },
}

func (d *dialect) listFlavors(c *api.Context, detail bool) error {
	q := c.Query()
	if err := unknownQuery(c, 75, "limit", "marker", "is_public", "minRam", "minDisk", "sort_key", "sort_dir"); err != nil {
		return err
	}
	pg, err := page(q)
	if err != nil {
		return err
	}
	least := map[string]int{}
	for _, k := range []string{"minRam", "minDisk"} {
		if s := q.Get(k); s != "" {
			n, err := strconv.Atoi(s)
			if err != nil || n < 0 {
				return badRequest("Invalid %s filter [%s]", k, api.Clip(s))
			}
			least[k] = n
		}
	}
	sc := scope(c)
	// An administrator sees public flavors, unless it asks for others or for all.
	var public *bool
	yes := true
	if sc.Admin {
		public = &yes
		if s, ok := q["is_public"]; ok {
			if strings.EqualFold(s[0], "none") {
				public = nil
			} else if b, _, err := queryBool(q, "is_public"); err != nil {
				return badRequest("Invalid is_public filter [%s]", api.Clip(s[0]))
			} else {
				public = &b
			}
		}
	}
	snap := c.Snapshot()
	var rows []*model.Flavor
	for f := range store.Flavors.All(snap) {
		if sc.Sees(f) && (public == nil || f.Public == *public) && f.MemoryMiB >= least["minRam"] && f.DiskGiB >= least["minDisk"] {
			rows = append(rows, f)
		}
	}
	if len(pg.Sort) == 0 {
		pg.Sort = []api.SortKey{{Key: "flavorid"}}
	}
	for _, k := range pg.Sort {
		if flavorSort[k.Key] == nil {
			return badRequest("Invalid input for query parameters sort_key. Value: %s. %s is not one of %s", api.Clip(k.Key), api.Quoted(k.Key), api.Quoted(sortedKeys(flavorSort)))
		}
	}
	slices.SortStableFunc(rows, func(a, b *model.Flavor) int {
		for _, k := range pg.Sort {
			n := flavorSort[k.Key](a, b)
			if k.Desc {
				n = -n
			}
			if n != 0 {
				return n
			}
		}
		return cmp.Compare(a.ID, b.ID)
	})
	rows, more, err := api.Cut(rows, pg, func(f *model.Flavor) string { return f.ID })
	if err != nil {
		return badRequest("marker [%s] not found", api.Clip(pg.Marker))
	}
	out := make([]object, 0, len(rows))
	path := "/flavors"
	for _, f := range rows {
		if detail {
			out = append(out, flavorOf(c, f))
		} else {
			out = append(out, flavorBrief(c, f))
		}
	}
	body := object{"flavors": out}
	if more && len(rows) > 0 {
		if detail {
			path += "/detail"
		}
		body["flavors_links"] = next(c, path, rows[len(rows)-1].ID, pg.Limit)
	}
	return c.JSON(http.StatusOK, body)
}

func (d *dialect) showFlavor(c *api.Context) error {
	f, err := compute.GetFlavor(c.Snapshot(), scope(c), c.Param("id"))
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"flavor": flavorOf(c, f)})
}

// number of a factor: a JSON number, or a string of one.
func factor(name string, v any) error {
	if _, ok := asFloat(v); !ok {
		return wrong(name, v, "%s is not of type 'number', 'string'", api.Quoted(v))
	}
	return nil
}

func asFloat(v any) (float64, bool) {
	s, ok := v.(string)
	if !ok {
		n, isNumber := v.(interface{ String() string })
		if !isNumber {
			return 0, false
		}
		s = n.String()
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil && f > 0 && f <= 3.40282e+38
}

func flavorText(name string, v any) error {
	if v == nil {
		return nil
	}
	return text(0, 65535)(name, v)
}

func (d *dialect) createFlavor(c *api.Context) error {
	m := members{
		"name": title, "id": nullOr(either(matching(flavorIDRE, 1, 255), integer(0, 1<<31-1))), "ram": integer(1, 1<<31-1), "vcpus": integer(1, 1<<31-1),
		"disk": integer(0, 1<<31-1), "OS-FLV-EXT-DATA:ephemeral": integer(0, 1<<31-1), "swap": integer(0, 1<<31-1), "rxtx_factor": factor,
		"os-flavor-access:is_public": boolean,
	}
	if at(c, 55) {
		m["description"] = flavorText
	}
	body, err := decode(c, exactly(members{"flavor": exactly(m, "name", "ram", "vcpus", "disk")}, "flavor"))
	if err != nil {
		return err
	}
	o := body["flavor"].(object)
	f := model.Flavor{
		Name: strings.TrimSpace(str(o, "name")), Description: str(o, "description"), VCPUs: num(o, "vcpus", 0), MemoryMiB: num(o, "ram", 0), DiskGiB: num(o, "disk", 0),
		Ephemeral: num(o, "OS-FLV-EXT-DATA:ephemeral", 0), SwapMiB: num(o, "swap", 0), RxTxFactor: 1, Public: true,
	}
	if v, ok := asFloat(o["rxtx_factor"]); ok {
		f.RxTxFactor = v
	}
	if v, there := o["os-flavor-access:is_public"]; there {
		f.Public = asBool(v)
	}
	switch id := o["id"].(type) {
	case nil:
	case string:
		if f.ID = strings.TrimSpace(id); f.ID == "auto" {
			f.ID = ""
		}
	default:
		f.ID = plain(id)
	}
	var made *model.Flavor
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) (err error) {
		made, err = d.c.CreateFlavor(tx, f)
		return err
	}); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"flavor": flavorOf(c, made)})
}

func (d *dialect) changeFlavor(c *api.Context, change func(*model.Flavor) error) (*model.Flavor, error) {
	var f *model.Flavor
	_, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) (err error) {
		f, err = d.c.ChangeFlavor(tx, scope(c), c.Param("id"), change)
		return err
	})
	return f, err
}

func (d *dialect) updateFlavor(c *api.Context) error {
	body, err := decode(c, exactly(members{"flavor": exactly(members{"description": flavorText}, "description")}, "flavor"))
	if err != nil {
		return err
	}
	f, err := d.changeFlavor(c, func(f *model.Flavor) error {
		f.Description = str(body["flavor"].(object), "description")
		return nil
	})
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"flavor": flavorOf(c, f)})
}

func (d *dialect) deleteFlavor(c *api.Context) error {
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error { return d.c.DeleteFlavor(tx, scope(c), c.Param("id")) }); err != nil {
		return err
	}
	return c.Empty(http.StatusAccepted)
}

func (d *dialect) flavorAction(c *api.Context) error {
	tenant := exactly(members{"tenant": text(1, 255)}, "tenant")
	body, err := decode(c, exactly(members{"addTenantAccess": tenant, "removeTenantAccess": tenant}))
	if err != nil {
		return err
	}
	add, removes := body["addTenantAccess"].(object)
	remove, _ := body["removeTenantAccess"].(object)
	if len(body) != 1 {
		return badRequest("There is no such action: the body needs addTenantAccess or removeTenantAccess.")
	}
	f, err := d.changeFlavor(c, func(f *model.Flavor) error {
		if f.Public {
			if removes {
				return fault.New(fault.Conflict, "Can not add access to a public flavor.")
			}
			return fault.New(fault.Conflict, "Can not remove access from a public flavor.")
		}
		if add != nil {
			if slices.Contains(f.Access, str(add, "tenant")) {
				return fault.New(fault.Conflict, "Flavor access already exists for flavor %s and project %s combination.", f.ID, str(add, "tenant"))
			}
			f.Access = append(f.Access, str(add, "tenant"))
			return nil
		}
		i := slices.Index(f.Access, str(remove, "tenant"))
		if i < 0 {
			return fault.New(fault.NotFound, "Flavor access not found for %s / %s combination.", f.ID, api.Clip(str(remove, "tenant")))
		}
		f.Access = slices.Delete(f.Access, i, i+1)
		return nil
	})
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"flavor_access": accessOf(f)})
}

func accessOf(f *model.Flavor) []object {
	out := []object{}
	for _, p := range f.Access {
		out = append(out, object{"flavor_id": f.ID, "tenant_id": p})
	}
	return out
}

func (d *dialect) listAccess(c *api.Context) error {
	f, err := compute.GetFlavor(c.Snapshot(), scope(c), c.Param("id"))
	if err != nil {
		return err
	}
	if f.Public {
		return fault.New(fault.NotFound, "Access list not available for public flavors.")
	}
	return c.JSON(http.StatusOK, object{"flavor_access": accessOf(f)})
}

func (d *dialect) listSpecs(c *api.Context) error {
	f, err := compute.GetFlavor(c.Snapshot(), scope(c), c.Param("id"))
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"extra_specs": orEmpty(f.ExtraSpecs)})
}

// specs checks extra specs: strings, or numbers that are taken as such.
func specs(name string, v any) error {
	o, ok := v.(object)
	if !ok {
		return wrong(name, v, "%s is not of type 'object'", api.Quoted(v))
	}
	for _, k := range sortedKeys(o) {
		if !itemRE.MatchString(k) {
			return wrong(name, v, "Additional properties are not allowed ('%s' was unexpected)", api.Clip(k))
		}
		if _, number := asFloat(o[k]); number {
			continue
		}
		if err := text(0, 255)(k, o[k]); err != nil {
			return err
		}
	}
	return nil
}

func (d *dialect) addSpecs(c *api.Context) error {
	body, err := decode(c, exactly(members{"extra_specs": specs}, "extra_specs"))
	if err != nil {
		return err
	}
	added := map[string]string{}
	for k, v := range body["extra_specs"].(object) {
		added[k] = plain(v)
		if s, ok := v.(string); ok {
			added[k] = s
		}
	}
	if at(c, 86) {
		for _, k := range sortedKeys(added) {
			if err := checkSpec(k, added[k]); err != nil {
				return err
			}
		}
	}
	if _, err := d.changeFlavor(c, func(f *model.Flavor) error {
		maps.Copy(f.ExtraSpecs, added)
		if len(f.ExtraSpecs) > 256 {
			return badRequest("A flavor has at most 256 extra specs.")
		}
		return nil
	}); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"extra_specs": added})
}

func noSpec(c *api.Context) error {
	return fault.New(fault.NotFound, "Flavor %s has no extra specs with key %s.", c.Param("id"), api.Clip(c.Param("key")))
}

func (d *dialect) showSpec(c *api.Context) error {
	f, err := compute.GetFlavor(c.Snapshot(), scope(c), c.Param("id"))
	if err != nil {
		return err
	}
	v, ok := f.ExtraSpecs[c.Param("key")]
	if !ok {
		return noSpec(c)
	}
	return c.JSON(http.StatusOK, object{c.Param("key"): v})
}

func (d *dialect) setSpec(c *api.Context) error {
	body, err := decode(c, specs)
	if err != nil {
		return err
	}
	key := c.Param("key")
	v, ok := body[key]
	if !ok || len(body) != 1 {
		return badRequest("Request body and URI mismatch")
	}
	value := plain(v)
	if s, isText := v.(string); isText {
		value = s
	}
	if at(c, 86) {
		if err := checkSpec(key, value); err != nil {
			return err
		}
	}
	if _, err := d.changeFlavor(c, func(f *model.Flavor) error { f.ExtraSpecs[key] = value; return nil }); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{key: value})
}

func (d *dialect) deleteSpec(c *api.Context) error {
	if _, err := d.changeFlavor(c, func(f *model.Flavor) error {
		if _, ok := f.ExtraSpecs[c.Param("key")]; !ok {
			return noSpec(c)
		}
		delete(f.ExtraSpecs, c.Param("key"))
		return nil
	}); err != nil {
		return err
	}
	return c.Empty(http.StatusOK)
}
