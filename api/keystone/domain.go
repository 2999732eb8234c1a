package keystone

import (
	"net/http"

	"yakumo/api"
	"yakumo/identity"
	"yakumo/model"
	"yakumo/store"
)

func (k *dialect) domainRoutes() []api.Route {
	return []api.Route{
		{Method: "GET", Pattern: "/v3/domains", Access: api.Manager, Handle: k.listDomains},
		{Method: "POST", Pattern: "/v3/domains", Access: api.Admin, Handle: k.createDomain},
		{Method: "GET", Pattern: "/v3/domains/{domain}", Access: api.Anyone, Handle: k.getDomain},
		{Method: "PATCH", Pattern: "/v3/domains/{domain}", Access: api.Admin, Handle: k.updateDomain},
		{Method: "DELETE", Pattern: "/v3/domains/{domain}", Access: api.Admin, Handle: k.deleteDomain},
	}
}

func showDomain(c *api.Context, d *model.Domain) map[string]any {
	return render(d.Extra, map[string]any{
		"id": d.ID, "name": d.Name, "description": d.Description, "enabled": d.Enabled, "tags": orNone(d.Tags), "options": orEmpty(d.Options),
		"links": self(c, "domains", d.ID),
	})
}

func (k *dialect) listDomains(c *api.Context) error {
	var rows []map[string]any
	for d := range store.Domains.All(c.Snapshot()) {
		if c.Caller.CloudAdmin || d.ID == c.Caller.DomainID {
			rows = append(rows, showDomain(c, d))
		}
	}
	return list(c, "domains", rows, "name", "enabled")
}

func domainFields(f *fields, d *model.Domain) error {
	f.text("name", &d.Name)
	f.text("description", &d.Description)
	f.flag("enabled", &d.Enabled)
	f.texts("tags", &d.Tags)
	f.options(&d.Options)
	f.extra(&d.Extra)
	return f.err
}

func (k *dialect) createDomain(c *api.Context) error {
	f, err := read(c, "domain")
	if err != nil {
		return err
	}
	d := model.Domain{Enabled: true}
	f.must("name", &d.Name)
	if err := domainFields(f, &d); err != nil {
		return err
	}
	made, err := k.id.CreateDomain(c.R.Context(), d)
	if err != nil {
		return err
	}
	return one(c, http.StatusCreated, "domain", showDomain(c, made))
}

func (k *dialect) getDomain(c *api.Context) error {
	id := c.Param("domain")
	if !c.Caller.CloudAdmin && id != c.Caller.DomainID && id != c.Caller.ProjectDomainID {
		return denied("get_domain")
	}
	d, err := identity.GetDomain(c.Snapshot(), id)
	if err != nil {
		return err
	}
	return one(c, http.StatusOK, "domain", showDomain(c, d))
}

func (k *dialect) updateDomain(c *api.Context) error {
	f, err := read(c, "domain")
	if err != nil {
		return err
	}
	f.sameID("domain", c.Param("domain"))
	d, err := k.id.UpdateDomain(c.R.Context(), c.Param("domain"), func(d *model.Domain) error { return domainFields(f, d) })
	if err != nil {
		return err
	}
	return one(c, http.StatusOK, "domain", showDomain(c, d))
}

func (k *dialect) deleteDomain(c *api.Context) error {
	if err := k.id.DeleteDomain(c.R.Context(), c.Param("domain")); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}
