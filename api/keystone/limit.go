package keystone

import (
	"net/http"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/identity"
	"yakumo/model"
)

func (k *dialect) limitRoutes() []api.Route {
	registered := k.registeredLimits()
	limits := k.limits()
	var out []api.Route
	for _, s := range []*collection{registered, limits} {
		for _, r := range s.routes() {
			if r.Method == http.MethodPost {
				r.Handle = s.createBatch
			}
			if s == limits && r.Method == http.MethodGet {
				if r.Handle = k.getLimit; r.Pattern == s.path {
					r.Handle = k.listLimits
				}
			}
			out = append(out, r)
		}
	}
	return append(out, api.Route{Method: "GET", Pattern: "/v3/limits/model", Access: api.Anyone, NoSync: true, Handle: func(c *api.Context) error {
		return c.JSON(http.StatusOK, map[string]any{"model": map[string]any{"name": "flat",
			"description": "Limit enforcement and validation does not take project hierarchy into consideration."}, "links": self(c, "limits", "model")})
	}})
}

func (k *dialect) registeredLimits() *collection {
	return &collection{k: k, kind: identity.RegisteredLimits, noun: "registered_limit", plural: "registered_limits", path: "/v3/registered_limits", id: "limit",
		read: api.Anyone, write: api.Admin, filters: []string{"service_id", "region_id", "resource_name"},
		show: func(c *api.Context, r *model.IdentityRecord) map[string]any {
			return map[string]any{"id": r.ID, "service_id": r.ParentID, "region_id": orNull(r.PeerID), "resource_name": text(r, "resource_name"),
				"default_limit": whole(r.Body["default_limit"]), "description": orNull(text(r, "description")), "links": self(c, "registered_limits", r.ID)}
		},
		fill: func(f *fields, rec *model.IdentityRecord, fresh bool) {
			if fresh {
				f.must("service_id", &rec.ParentID)
			} else {
				f.text("service_id", &rec.ParentID)
			}
			f.text("region_id", &rec.PeerID)
			put(f, rec, "resource_name", fresh)
			put(f, rec, "description", false)
			putNumber(f, rec, "default_limit", fresh)
		}}
}

func (k *dialect) limits() *collection {
	return &collection{k: k, kind: identity.Limits, noun: "limit", plural: "limits", path: "/v3/limits", id: "limit",
		read: api.Anyone, write: api.Admin, filters: []string{"service_id", "region_id", "resource_name", "project_id", "domain_id"},
		show: showLimit,
		fill: func(f *fields, rec *model.IdentityRecord, fresh bool) {
			if fresh {
				project, domain := "", ""
				f.text("project_id", &project)
				f.text("domain_id", &domain)
				if (project == "") == (domain == "") {
					f.fail(fault.New(fault.Invalid, "A limit is one of a project or of a domain: give project_id or domain_id."))
				}
				rec.ParentID = project + domain
				rec.Body["of_domain"] = domain != ""
				put(f, rec, "service_id", true)
				put(f, rec, "region_id", false)
				put(f, rec, "resource_name", true)
			} else {
				for _, key := range []string{"project_id", "domain_id", "service_id", "region_id", "resource_name"} {
					if f.has(key) {
						f.fail(fault.New(fault.Invalid, "Additional properties are not allowed ('%s' was unexpected)", key))
					}
				}
			}
			put(f, rec, "description", false)
			putNumber(f, rec, "resource_limit", fresh)
		}}
}

// putNumber sets a limit: a whole number from -1, which is none.
func putNumber(f *fields, rec *model.IdentityRecord, key string, required bool) {
	if !f.has(key) {
		if required {
			f.fail(fault.New(fault.Invalid, "'%s' is a required property", key))
		}
		return
	}
	n := 0
	f.number(key, -1, &n)
	rec.Body[key] = n
}

// whole gives a number as a row holds it before and after it was stored.
func whole(v any) int {
	switch v := v.(type) {
	case float64:
		return int(v)
	case int:
		return v
	}
	return 0
}

func showLimit(c *api.Context, r *model.IdentityRecord) map[string]any {
	out := map[string]any{"id": r.ID, "project_id": orNull(r.ParentID), "domain_id": nil, "service_id": text(r, "service_id"), "region_id": orNull(text(r, "region_id")),
		"resource_name": text(r, "resource_name"), "resource_limit": whole(r.Body["resource_limit"]), "description": orNull(text(r, "description")), "links": self(c, "limits", r.ID)}
	if of, _ := r.Body["of_domain"].(bool); of {
		out["project_id"], out["domain_id"] = nil, r.ParentID
	}
	return out
}

// createBatch makes several records, all or none, and answers with them.
func (s *collection) createBatch(c *api.Context) error {
	var body map[string]any
	if err := c.Decode(&body); err != nil {
		return err
	}
	f := newFields(body)
	objects, ok := f.objects(s.plural)
	switch {
	case f.err != nil:
		return f.err
	case !ok:
		return fault.New(fault.Invalid, "'%s' is a required property", s.plural)
	case len(objects) == 0 || len(objects) > 100:
		return fault.New(fault.Invalid, "Invalid input for field '%s': there are %d, not 1 to 100", s.plural, len(objects))
	}
	var recs []*model.IdentityRecord
	for _, o := range objects {
		rec := &model.IdentityRecord{Collection: s.kind, Enabled: true, Body: map[string]any{}}
		if s.fill(o, rec, true); o.err != nil {
			return o.err
		}
		recs = append(recs, rec)
	}
	made, err := s.k.id.CreateRecords(c.R.Context(), recs, nil)
	if err != nil {
		return err
	}
	rows := []any{}
	for _, rec := range made {
		rows = append(rows, s.show(c, rec))
	}
	return c.JSON(http.StatusCreated, map[string]any{s.plural: rows})
}

// mayRead tells whether a limit is the caller's own or he is an administrator.
func mayRead(c *api.Context, r *model.IdentityRecord) bool {
	return c.Caller.CloudAdmin || r.ParentID == c.Caller.ProjectID || r.ParentID == c.Caller.DomainID
}

func (k *dialect) listLimits(c *api.Context) error {
	var rows []map[string]any
	for _, rec := range identity.ListRecords(c.Snapshot(), identity.Limits) {
		if mayRead(c, rec) {
			rows = append(rows, showLimit(c, rec))
		}
	}
	return list(c, "limits", rows, k.limits().filters...)
}

func (k *dialect) getLimit(c *api.Context) error {
	rec, err := identity.GetRecord(c.Snapshot(), identity.Limits, c.Param("limit"))
	if err != nil {
		return err
	}
	if !mayRead(c, rec) {
		return denied("get_limit")
	}
	return one(c, http.StatusOK, "limit", showLimit(c, rec))
}
