package keystone

import (
	"net/http"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/identity"
	"yakumo/model"
	"yakumo/store"
)

// collection serves the five routes of a plain collection of records.
type collection struct {
	k            *dialect
	kind         string // identity's name
	noun, plural string // in bodies
	path, id     string // "/v3/regions", "region"
	read, write  api.Access
	filters      []string
	show         func(*api.Context, *model.IdentityRecord) map[string]any
	// fill puts a body's members into a record; fresh tells a create from an update.
	fill func(f *fields, rec *model.IdentityRecord, fresh bool)
}

func (s *collection) routes() []api.Route {
	one := s.path + "/{" + s.id + "}"
	return []api.Route{
		{Method: "GET", Pattern: s.path, Access: s.read, Handle: s.list},
		{Method: "POST", Pattern: s.path, Access: s.write, Handle: s.create},
		{Method: "GET", Pattern: one, Access: s.read, Handle: s.get},
		{Method: "PATCH", Pattern: one, Access: s.write, Handle: s.update},
		{Method: "DELETE", Pattern: one, Access: s.write, Handle: s.remove},
	}
}

func (s *collection) list(c *api.Context) error {
	var rows []map[string]any
	for _, rec := range identity.ListRecords(c.Snapshot(), s.kind) {
		rows = append(rows, s.show(c, rec))
	}
	return list(c, s.plural, rows, s.filters...)
}

func (s *collection) create(c *api.Context) error {
	f, err := read(c, s.noun)
	if err != nil {
		return err
	}
	return s.createWith(c, f, "")
}

func (s *collection) createWith(c *api.Context, f *fields, id model.ID) error {
	rec := &model.IdentityRecord{Collection: s.kind, ID: id, Enabled: true, Body: map[string]any{}}
	s.fill(f, rec, true)
	if f.err != nil {
		return f.err
	}
	made, err := s.k.id.CreateRecord(c.R.Context(), rec, "")
	if err != nil {
		return err
	}
	return one(c, http.StatusCreated, s.noun, s.show(c, made))
}

func (s *collection) get(c *api.Context) error {
	rec, err := identity.GetRecord(c.Snapshot(), s.kind, c.Param(s.id))
	if err != nil {
		return err
	}
	return one(c, http.StatusOK, s.noun, s.show(c, rec))
}

func (s *collection) update(c *api.Context) error {
	f, err := read(c, s.noun)
	if err != nil {
		return err
	}
	f.sameID(s.noun, c.Param(s.id))
	rec, err := s.k.id.UpdateRecord(c.R.Context(), s.kind, c.Param(s.id), nil, func(rec *model.IdentityRecord) error {
		s.fill(f, rec, false)
		return f.err
	})
	if err != nil {
		return err
	}
	return one(c, http.StatusOK, s.noun, s.show(c, rec))
}

func (s *collection) remove(c *api.Context) error {
	if err := s.k.id.DeleteRecord(c.R.Context(), s.kind, c.Param(s.id)); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

// put sets a string attribute where the body has it; required: it has to on create.
func put(f *fields, rec *model.IdentityRecord, key string, required bool) {
	if !required && !f.has(key) {
		return
	}
	s := ""
	if required {
		f.must(key, &s)
	} else {
		f.text(key, &s)
	}
	rec.Body[key] = s
}

func putExtra(f *fields, rec *model.IdentityRecord) {
	extra, _ := rec.Body["extra"].(map[string]any)
	if f.extra(&extra); extra != nil {
		rec.Body["extra"] = extra
	}
}

func extraOf(rec *model.IdentityRecord) map[string]any {
	extra, _ := rec.Body["extra"].(map[string]any)
	return extra
}

func text(rec *model.IdentityRecord, key string) string { s, _ := rec.Body[key].(string); return s }

func (k *dialect) catalogRoutes() []api.Route {
	regions := &collection{k: k, kind: identity.Regions, noun: "region", plural: "regions", path: "/v3/regions", id: "region",
		read: api.Anyone, write: api.Admin, filters: []string{"parent_region_id"}, show: showRegion,
		fill: func(f *fields, rec *model.IdentityRecord, fresh bool) {
			if fresh && rec.ID == "" {
				f.text("id", &rec.ID)
			}
			put(f, rec, "description", false)
			f.text("parent_region_id", &rec.ParentID)
			putExtra(f, rec)
		}}
	services := &collection{k: k, kind: identity.Services, noun: "service", plural: "services", path: "/v3/services", id: "service",
		read: api.Admin, write: api.Admin, filters: []string{"type", "name"}, show: showService,
		fill: func(f *fields, rec *model.IdentityRecord, fresh bool) {
			put(f, rec, "type", fresh)
			put(f, rec, "description", false)
			f.text("name", &rec.Name)
			f.flag("enabled", &rec.Enabled)
			putExtra(f, rec)
		}}
	endpoints := &collection{k: k, kind: identity.Endpoints, noun: "endpoint", plural: "endpoints", path: "/v3/endpoints", id: "endpoint",
		read: api.Admin, write: api.Admin, filters: []string{"interface", "service_id", "region_id", "region"}, show: showEndpoint,
		fill: func(f *fields, rec *model.IdentityRecord, fresh bool) {
			put(f, rec, "url", fresh)
			put(f, rec, "interface", fresh)
			put(f, rec, "name", false)
			put(f, rec, "description", false)
			if fresh {
				f.must("service_id", &rec.ParentID)
			} else {
				f.text("service_id", &rec.ParentID)
			}
			f.text("region", &rec.PeerID)
			f.text("region_id", &rec.PeerID)
			f.flag("enabled", &rec.Enabled)
			putExtra(f, rec)
		}}
	out := append(append(regions.routes(), services.routes()...), endpoints.routes()...)
	return append(out,
		api.Route{Method: "PUT", Pattern: "/v3/regions/{region}", Access: api.Admin, Handle: func(c *api.Context) error {
			f, err := read(c, "region")
			if err != nil {
				return err
			}
			f.sameID("region", c.Param("region"))
			return regions.createWith(c, f, c.Param("region"))
		}},
		api.Route{Method: "GET", Pattern: "/v3/OS-EP-FILTER/projects/{project}/endpoints", Access: api.Admin, Handle: k.listProjectEndpoints},
		api.Route{Method: "GET", Pattern: "/v3/OS-EP-FILTER/endpoints/{endpoint}/projects", Access: api.Admin, Handle: k.listEndpointProjects},
		api.Route{Method: "PUT", Pattern: "/v3/OS-EP-FILTER/projects/{project}/endpoints/{endpoint}", Access: api.Admin, Handle: k.addProjectEndpoint},
		api.Route{Method: "GET", Pattern: "/v3/OS-EP-FILTER/projects/{project}/endpoints/{endpoint}", Access: api.Admin, Handle: k.checkProjectEndpoint},
		api.Route{Method: "DELETE", Pattern: "/v3/OS-EP-FILTER/projects/{project}/endpoints/{endpoint}", Access: api.Admin, Handle: k.removeProjectEndpoint},
	)
}

func showRegion(c *api.Context, r *model.IdentityRecord) map[string]any {
	return render(extraOf(r), map[string]any{"id": r.ID, "description": text(r, "description"), "parent_region_id": orNull(r.ParentID), "links": self(c, "regions", r.ID)})
}

func showService(c *api.Context, r *model.IdentityRecord) map[string]any {
	fixed := map[string]any{"id": r.ID, "type": text(r, "type"), "enabled": r.Enabled, "links": self(c, "services", r.ID)}
	if r.Name != "" {
		fixed["name"] = r.Name
	}
	if d, ok := r.Body["description"]; ok {
		fixed["description"] = d
	}
	return render(extraOf(r), fixed)
}

func showEndpoint(c *api.Context, r *model.IdentityRecord) map[string]any {
	fixed := map[string]any{"id": r.ID, "interface": text(r, "interface"), "url": text(r, "url"), "service_id": r.ParentID, "region": orNull(r.PeerID),
		"region_id": orNull(r.PeerID), "enabled": r.Enabled, "links": self(c, "endpoints", r.ID)}
	for _, key := range []string{"name", "description"} {
		if v, ok := r.Body[key]; ok {
			fixed[key] = v
		}
	}
	return render(extraOf(r), fixed)
}

// association is the record that ties an endpoint to a project.
func association(c *api.Context) *model.IdentityRecord {
	p, e := c.Param("project"), c.Param("endpoint")
	return &model.IdentityRecord{Collection: identity.ProjectEndpoints, ID: p + "-" + e, ParentID: p, PeerID: e, Enabled: true}
}

func (k *dialect) listProjectEndpoints(c *api.Context) error {
	p, err := identity.GetProject(c.Snapshot(), c.Param("project"))
	if err != nil {
		return err
	}
	var rows []map[string]any
	for rec := range store.IdentityRecords.List(c.Snapshot(), "parent", p.ID) {
		if rec.Collection == identity.ProjectEndpoints {
			e, err := identity.GetRecord(c.Snapshot(), identity.Endpoints, rec.PeerID)
			if err != nil {
				return err
			}
			rows = append(rows, showEndpoint(c, e))
		}
	}
	return list(c, "endpoints", rows)
}

func (k *dialect) listEndpointProjects(c *api.Context) error {
	e, err := identity.GetRecord(c.Snapshot(), identity.Endpoints, c.Param("endpoint"))
	if err != nil {
		return err
	}
	var rows []map[string]any
	for rec := range store.IdentityRecords.List(c.Snapshot(), "peer", e.ID) {
		if rec.Collection == identity.ProjectEndpoints {
			p, err := identity.GetProject(c.Snapshot(), rec.ParentID)
			if err != nil {
				return err
			}
			rows = append(rows, showProject(c, p))
		}
	}
	return list(c, "projects", rows)
}

func (k *dialect) addProjectEndpoint(c *api.Context) error {
	_, err := k.id.CreateRecord(c.R.Context(), association(c), "")
	if err != nil && !fault.Is(err, fault.Conflict) { // twice is once
		return err
	}
	return c.Empty(http.StatusNoContent)
}

func (k *dialect) checkProjectEndpoint(c *api.Context) error {
	if _, err := identity.GetRecord(c.Snapshot(), identity.ProjectEndpoints, association(c).ID); err != nil {
		return fault.New(fault.NotFound, "Endpoint %s not found in project %s.", c.Param("endpoint"), c.Param("project"))
	}
	return c.Empty(http.StatusNoContent)
}

func (k *dialect) removeProjectEndpoint(c *api.Context) error {
	if err := k.id.DeleteRecord(c.R.Context(), identity.ProjectEndpoints, association(c).ID); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}
