package keystone

import (
	"net/http"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/identity"
	"yakumo/model"
)

// documentRoutes are the collections that are kept for clients and that nothing here
// acts on: policies, and mappings of a federation.
func (k *dialect) documentRoutes() []api.Route {
	policies := &collection{k: k, kind: identity.Policies, noun: "policy", plural: "policies", path: "/v3/policies", id: "policy",
		read: api.Admin, write: api.Admin, filters: []string{"type"},
		show: func(c *api.Context, r *model.IdentityRecord) map[string]any {
			return render(extraOf(r), map[string]any{"id": r.ID, "type": text(r, "type"), "blob": text(r, "blob"), "links": self(c, "policies", r.ID)})
		},
		fill: func(f *fields, rec *model.IdentityRecord, fresh bool) {
			put(f, rec, "type", fresh)
			put(f, rec, "blob", fresh)
			putExtra(f, rec)
		}}
	mappings := &collection{k: k, kind: identity.Mappings, noun: "mapping", plural: "mappings", path: "/v3/OS-FEDERATION/mappings", id: "mapping",
		read: api.Admin, write: api.Admin,
		show: func(c *api.Context, r *model.IdentityRecord) map[string]any {
			return map[string]any{"id": r.ID, "rules": r.Body["rules"], "links": self(c, "OS-FEDERATION", "mappings", r.ID)}
		},
		fill: fillMapping}
	out := policies.routes()
	for _, r := range mappings.routes() {
		if r.Method != http.MethodPost {
			out = append(out, r)
		}
	}
	return append(out, api.Route{Method: "PUT", Pattern: "/v3/OS-FEDERATION/mappings/{mapping}", Access: api.Admin, Handle: func(c *api.Context) error {
		f, err := read(c, "mapping")
		if err != nil {
			return err
		}
		f.sameID("mapping", c.Param("mapping"))
		return mappings.createWith(c, f, c.Param("mapping"))
	}})
}

func fillMapping(f *fields, rec *model.IdentityRecord, fresh bool) {
	rules, ok := f.objects("rules")
	if !ok {
		if fresh || f.has("rules") {
			f.fail(fault.New(fault.Invalid, "'rules' is a required property"))
		}
		return
	}
	if len(rules) == 0 {
		f.fail(fault.New(fault.Invalid, "Invalid input for field 'rules': [] should be non-empty"))
	}
	for _, rule := range rules {
		for _, side := range []string{"local", "remote"} {
			if parts, ok := rule.objects(side); !ok || len(parts) == 0 {
				f.fail(fault.New(fault.Invalid, "Invalid input for field 'rules': each has a list of objects '%s'", side))
			}
		}
	}
	rec.Body["rules"], _ = f.get("rules")
}
