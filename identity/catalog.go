package identity

import (
	"cmp"
	"net/url"
	"slices"
	"strings"

	"yakumo/model"
	"yakumo/store"
)

// CatalogService is a service with the endpoints that a token's user may use.
type CatalogService struct {
	ID, Type, Name string
	Endpoints      []CatalogEndpoint
}

// CatalogEndpoint is where a service is served.
type CatalogEndpoint struct{ ID, Interface, RegionID, URL string }

// Catalog gives the enabled services and endpoints, with the placeholders in their URLs
// filled for the token. A project that endpoints are associated with sees those only.
func Catalog(r store.Reader, t *Token) []CatalogService {
	var only map[model.ID]bool
	if t.Project != nil {
		for _, rec := range collect(store.IdentityRecords.List(r, "parent", t.Project.ID)) {
			if rec.Collection == ProjectEndpoints {
				if only == nil {
					only = map[model.ID]bool{}
				}
				only[rec.PeerID] = true
			}
		}
	}
	project := ""
	if t.Project != nil {
		project = t.Project.ID
	}
	fill := strings.NewReplacer("$(tenant_id)s", url.PathEscape(project), "%(tenant_id)s", url.PathEscape(project),
		"$(project_id)s", url.PathEscape(project), "%(project_id)s", url.PathEscape(project),
		"$(user_id)s", url.PathEscape(t.UserID), "%(user_id)s", url.PathEscape(t.UserID))
	var out []CatalogService
	for _, svc := range ListRecords(r, Services) {
		if !svc.Enabled {
			continue
		}
		s := CatalogService{ID: svc.ID, Type: body(svc, "type"), Name: svc.Name}
		for _, e := range collect(store.IdentityRecords.List(r, "parent", svc.ID)) {
			address := body(e, "url")
			if e.Collection != Endpoints || !e.Enabled || only != nil && !only[e.ID] || project == "" && needsProject(address) {
				continue
			}
			s.Endpoints = append(s.Endpoints, CatalogEndpoint{e.ID, body(e, "interface"), e.PeerID, fill.Replace(address)})
		}
		slices.SortFunc(s.Endpoints, func(a, b CatalogEndpoint) int {
			return cmp.Or(cmp.Compare(a.RegionID, b.RegionID), cmp.Compare(a.Interface, b.Interface), cmp.Compare(a.ID, b.ID))
		})
		if only == nil || len(s.Endpoints) > 0 {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b CatalogService) int { return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.ID, b.ID)) })
	return out
}

func needsProject(address string) bool {
	return strings.Contains(address, "(tenant_id)s") || strings.Contains(address, "(project_id)s")
}
