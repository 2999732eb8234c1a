package keystone

import (
	"net/http"
	"slices"
	"strings"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/identity"
	"yakumo/model"
	"yakumo/store"
)

func (k *dialect) projectRoutes() []api.Route {
	return []api.Route{
		{Method: "GET", Pattern: "/v3/projects", Access: api.Manager, Handle: k.listProjects},
		{Method: "POST", Pattern: "/v3/projects", Access: api.Manager, Handle: k.createProject},
		{Method: "GET", Pattern: "/v3/projects/{project}", Access: api.Anyone, Handle: k.getProject},
		{Method: "PATCH", Pattern: "/v3/projects/{project}", Access: api.Manager, Handle: k.updateProject},
		{Method: "DELETE", Pattern: "/v3/projects/{project}", Access: api.Manager, Handle: k.deleteProject},
		{Method: "GET", Pattern: "/v3/projects/{project}/tags", Access: api.Anyone, Handle: k.getTags},
		{Method: "PUT", Pattern: "/v3/projects/{project}/tags", Access: api.Manager, Handle: k.setTags},
		{Method: "DELETE", Pattern: "/v3/projects/{project}/tags", Access: api.Manager, Handle: k.clearTags},
		{Method: "GET", Pattern: "/v3/projects/{project}/tags/{tag}", Access: api.Anyone, Handle: k.checkTag},
		{Method: "PUT", Pattern: "/v3/projects/{project}/tags/{tag}", Access: api.Manager, Handle: k.addTag},
		{Method: "DELETE", Pattern: "/v3/projects/{project}/tags/{tag}", Access: api.Manager, Handle: k.removeTag},
	}
}

func orNone(tags []string) []string {
	if tags == nil {
		return []string{}
	}
	return tags
}

func showProject(c *api.Context, p *model.Project) map[string]any {
	return render(p.Extra, map[string]any{
		"id": p.ID, "name": p.Name, "domain_id": p.DomainID, "parent_id": p.ParentID, "description": p.Description, "enabled": p.Enabled,
		"is_domain": false, "tags": orNone(p.Tags), "options": orEmpty(p.Options), "links": self(c, "projects", p.ID),
	})
}

// showDomainProject shows a domain as the project that it also is.
func showDomainProject(c *api.Context, d *model.Domain) map[string]any {
	return render(d.Extra, map[string]any{
		"id": d.ID, "name": d.Name, "domain_id": nil, "parent_id": nil, "description": d.Description, "enabled": d.Enabled,
		"is_domain": true, "tags": orNone(d.Tags), "options": orEmpty(d.Options), "links": self(c, "projects", d.ID),
	})
}

func (k *dialect) listProjects(c *api.Context) error {
	q, r := c.Query(), c.Snapshot()
	var out []map[string]any
	if v := strings.ToLower(q.Get("is_domain")); v == "true" || v == "1" {
		for d := range store.Domains.All(r) {
			if c.Caller.CloudAdmin || d.ID == c.Caller.DomainID {
				if tagged(q, d.Tags) {
					out = append(out, showDomainProject(c, d))
				}
			}
		}
		return list(c, "projects", out, "name", "enabled")
	}
	rows := store.Projects.All(r)
	switch {
	case q.Get("name") != "":
		rows = store.Projects.List(r, "name", q.Get("name"))
	case q.Get("parent_id") != "":
		rows = store.Projects.List(r, "parent", q.Get("parent_id"))
	case !c.Caller.CloudAdmin:
		rows = store.Projects.List(r, "domain", c.Caller.DomainID)
	case q.Get("domain_id") != "":
		rows = store.Projects.List(r, "domain", q.Get("domain_id"))
	}
	for p := range rows {
		if (c.Caller.CloudAdmin || p.DomainID == c.Caller.DomainID) && tagged(q, p.Tags) {
			out = append(out, showProject(c, p))
		}
	}
	return list(c, "projects", out, "name", "domain_id", "parent_id", "enabled")
}

// tagged applies the API-SIG's tag filters: all of tags, any of tags-any, not all of
// not-tags, none of not-tags-any.
func tagged(q map[string][]string, tags []string) bool {
	count := func(key string) (hits, of int) {
		if len(q[key]) == 0 {
			return 0, 0
		}
		want := strings.Split(q[key][0], ",")
		for _, w := range want {
			if slices.Contains(tags, w) {
				hits++
			}
		}
		return hits, len(want)
	}
	if n, of := count("tags"); n < of {
		return false
	}
	if n, of := count("tags-any"); of > 0 && n == 0 {
		return false
	}
	if n, of := count("not-tags"); of > 0 && n == of {
		return false
	}
	n, _ := count("not-tags-any")
	return n == 0
}

// projectFields reads what create and update share.
func projectFields(f *fields, p *model.Project) {
	f.text("description", &p.Description)
	f.flag("enabled", &p.Enabled)
	f.texts("tags", &p.Tags)
	f.options(&p.Options)
}

func (k *dialect) createProject(c *api.Context) error {
	f, err := read(c, "project")
	if err != nil {
		return err
	}
	p := model.Project{Enabled: true}
	isDomain := false
	f.must("name", &p.Name)
	f.flag("is_domain", &isDomain)
	f.text("parent_id", &p.ParentID)
	f.text("domain_id", &p.DomainID)
	projectFields(f, &p)
	f.extra(&p.Extra)
	if f.err != nil {
		return f.err
	}
	if isDomain {
		if p.ParentID != "" || p.DomainID != "" {
			return fault.New(fault.Invalid, "A project that acts as a domain has neither domain_id nor parent_id.")
		}
		if !c.Caller.CloudAdmin {
			return denied("create_project")
		}
		d, err := k.id.CreateDomain(c.R.Context(), model.Domain{Name: p.Name, Description: p.Description, Enabled: p.Enabled, Tags: p.Tags, Options: p.Options, Extra: p.Extra})
		if err != nil {
			return err
		}
		return one(c, http.StatusCreated, "project", showDomainProject(c, d))
	}
	if p.DomainID == "" {
		p.DomainID = homeDomain(c)
		if up, ok := store.Projects.Get(c.Snapshot(), p.ParentID); ok {
			p.DomainID = up.DomainID
		} else if d, ok := store.Domains.Get(c.Snapshot(), p.ParentID); ok {
			p.DomainID = d.ID
		}
	}
	if err := manages(c, p.DomainID, "create_project"); err != nil {
		return err
	}
	made, err := k.id.CreateProject(c.R.Context(), p)
	if err != nil {
		return err
	}
	return one(c, http.StatusCreated, "project", showProject(c, made))
}

// projectFor gives the path's project where the caller manages its domain or, with mine,
// has a role on it. domain is set instead where the path names a domain.
func (k *dialect) projectFor(c *api.Context, mine bool, action string) (p *model.Project, domain *model.Domain, err error) {
	id := c.Param("project")
	if d, ok := store.Domains.Get(c.Snapshot(), id); ok {
		if mine && c.Caller.DomainID == id {
			return nil, d, nil
		}
		return nil, d, manages(c, "", action) // domains are for the cloud's administrators
	}
	p, err = identity.GetProject(c.Snapshot(), id)
	if err != nil {
		if denied := manages(c, c.Caller.DomainID, action); denied != nil {
			return nil, nil, denied
		}
		return nil, nil, err
	}
	if mine && (c.Caller.ProjectID == id || len(identity.EffectiveRoles(c.Snapshot(), c.Caller.UserID, identity.Scope{Kind: identity.ProjectScope, ID: id})) > 0) {
		return p, nil, nil
	}
	return p, nil, manages(c, p.DomainID, action)
}

func (k *dialect) getProject(c *api.Context) error {
	p, d, err := k.projectFor(c, true, "get_project")
	if err != nil {
		return err
	}
	if d != nil {
		return one(c, http.StatusOK, "project", showDomainProject(c, d))
	}
	out := showProject(c, p)
	q, r := c.Query(), c.Snapshot()
	if q.Has("parents_as_list") {
		rows := []any{}
		for _, up := range identity.Ancestors(r, p) {
			rows = append(rows, map[string]any{"project": showProject(c, up)})
		}
		out["parents"] = rows
	}
	if q.Has("subtree_as_list") {
		rows := []any{}
		for _, below := range identity.Subtree(r, p.ID) {
			rows = append(rows, map[string]any{"project": showProject(c, below)})
		}
		out["subtree"] = rows
	}
	if q.Has("parents_as_ids") {
		var chain any
		above := identity.Ancestors(r, p)
		for _, up := range slices.Backward(above) {
			chain = map[string]any{up.ID: chain}
		}
		out["parents"] = map[string]any{p.DomainID: nil}
		if chain != nil {
			out["parents"] = chain
		}
	}
	if q.Has("subtree_as_ids") {
		out["subtree"] = subtreeIDs(r, p.ID, 0)
	}
	return one(c, http.StatusOK, "project", out)
}

func subtreeIDs(r store.Reader, id model.ID, depth int) any {
	out := map[string]any{}
	for p := range store.Projects.List(r, "parent", id) {
		if depth < 32 {
			out[p.ID] = subtreeIDs(r, p.ID, depth+1)
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

func (k *dialect) updateProject(c *api.Context) error {
	f, err := read(c, "project")
	if err != nil {
		return err
	}
	p, d, err := k.projectFor(c, false, "update_project")
	if err != nil {
		return err
	}
	if d != nil {
		f.sameID("project", d.ID)
		for _, key := range []string{"parent_id", "domain_id", "is_domain"} {
			f.used[key] = true
		}
		made, err := k.id.UpdateDomain(c.R.Context(), d.ID, func(d *model.Domain) error { return domainFields(f, d) })
		if err != nil {
			return err
		}
		return one(c, http.StatusOK, "project", showDomainProject(c, made))
	}
	f.sameID("project", p.ID)
	if isDomain := false; f.has("is_domain") {
		if f.flag("is_domain", &isDomain); isDomain && f.err == nil {
			return fault.New(fault.Invalid, "Update of `is_domain` is not allowed.")
		}
	}
	if err := k.sparesProject(c, p.ID, "update_project"); err != nil {
		return err
	}
	made, err := k.id.UpdateProject(c.R.Context(), p.ID, func(p *model.Project) error {
		f.text("name", &p.Name)
		f.text("domain_id", &p.DomainID)
		f.text("parent_id", &p.ParentID)
		projectFields(f, p)
		f.extra(&p.Extra)
		return f.err
	})
	if err != nil {
		return err
	}
	return one(c, http.StatusOK, "project", showProject(c, made))
}

// sparesProject keeps a domain's manager off the cloud's admin project.
func (k *dialect) sparesProject(c *api.Context, id model.ID, action string) error {
	if !c.Caller.CloudAdmin && id == identity.AdminProject(c.Snapshot()) {
		return denied(action)
	}
	return nil
}

func (k *dialect) deleteProject(c *api.Context) error {
	p, d, err := k.projectFor(c, false, "delete_project")
	switch {
	case err != nil:
		return err
	case d != nil && d.Enabled:
		// gophercloud and Keystone agree that a domain is disabled before it is deleted, here too.
		return fault.New(fault.Forbidden, "Cannot delete a project that acts as a domain and is enabled, please disable it first.")
	case d != nil:
		err = k.id.DeleteDomain(c.R.Context(), d.ID)
	default:
		err = k.id.DeleteProject(c.R.Context(), p.ID)
	}
	if err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

func (k *dialect) getTags(c *api.Context) error {
	p, d, err := k.projectFor(c, true, "list_project_tags")
	if err != nil {
		return err
	}
	if d != nil {
		return c.JSON(http.StatusOK, map[string]any{"tags": orNone(d.Tags), "links": self(c, "projects", d.ID, "tags")})
	}
	return c.JSON(http.StatusOK, map[string]any{"tags": orNone(p.Tags), "links": self(c, "projects", p.ID, "tags")})
}

func (k *dialect) checkTag(c *api.Context) error {
	p, d, err := k.projectFor(c, true, "get_project_tag")
	if err != nil {
		return err
	}
	tags := []string(nil)
	if d != nil {
		tags = d.Tags
	} else {
		tags = p.Tags
	}
	if !slices.Contains(tags, c.Param("tag")) {
		return fault.New(fault.NotFound, "Could not find project tag: %s.", c.Param("tag"))
	}
	return c.Empty(http.StatusNoContent)
}

// changeTags changes the tags of the path's project.
func (k *dialect) changeTags(c *api.Context, action string, change func([]string) ([]string, error)) ([]string, error) {
	p, d, err := k.projectFor(c, false, action)
	if err != nil {
		return nil, err
	}
	var out []string
	if d != nil {
		_, err = k.id.UpdateDomain(c.R.Context(), d.ID, func(d *model.Domain) error {
			d.Tags, err = change(slices.Clone(d.Tags))
			out = d.Tags
			return err
		})
		return out, err
	}
	if err := k.sparesProject(c, p.ID, action); err != nil {
		return nil, err
	}
	_, err = k.id.UpdateProject(c.R.Context(), p.ID, func(p *model.Project) error {
		p.Tags, err = change(slices.Clone(p.Tags))
		out = p.Tags
		return err
	})
	return out, err
}

func (k *dialect) setTags(c *api.Context) error {
	var body map[string]any
	if err := c.Decode(&body); err != nil {
		return err
	}
	f := newFields(body)
	var tags []string
	if f.texts("tags", &tags); !f.has("tags") {
		return fault.New(fault.Invalid, "'tags' is a required property")
	}
	if f.err != nil {
		return f.err
	}
	out, err := k.changeTags(c, "update_project_tags", func([]string) ([]string, error) { return tags, nil })
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, map[string]any{"tags": orNone(out), "links": self(c, "projects", c.Param("project"), "tags")})
}

func (k *dialect) clearTags(c *api.Context) error {
	if _, err := k.changeTags(c, "delete_project_tags", func([]string) ([]string, error) { return nil, nil }); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

func (k *dialect) addTag(c *api.Context) error {
	tag := c.Param("tag")
	if _, err := k.changeTags(c, "create_project_tag", func(have []string) ([]string, error) {
		if slices.Contains(have, tag) {
			return have, nil
		}
		return append(have, tag), nil
	}); err != nil {
		return err
	}
	c.W.Header().Set("Location", c.URL("/v3/projects/"+c.Param("project")+"/tags/"+tag))
	return c.Empty(http.StatusCreated)
}

func (k *dialect) removeTag(c *api.Context) error {
	tag := c.Param("tag")
	if _, err := k.changeTags(c, "delete_project_tag", func(have []string) ([]string, error) {
		if !slices.Contains(have, tag) {
			return nil, fault.New(fault.NotFound, "Could not find project tag: %s.", tag)
		}
		return slices.DeleteFunc(have, func(t string) bool { return t == tag }), nil
	}); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}
