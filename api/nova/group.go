package nova

import (
	"net/http"
	"slices"
	"strings"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/model"
	"yakumo/store"
)

func (d *dialect) groupRoutes(route adder) {
	route(http.MethodGet, "/os-server-groups", api.Reader, 1, d.listServerGroups)
	route(http.MethodPost, "/os-server-groups", api.Member, 1, d.createServerGroup)
	route(http.MethodGet, "/os-server-groups/{id}", api.Reader, 1, d.showServerGroup)
	route(http.MethodDelete, "/os-server-groups/{id}", api.Member, 1, d.deleteServerGroup)
}

func serverGroupOf(c *api.Context, r store.Reader, g *model.ServerGroup) object {
	o := object{"id": g.ID, "name": g.Name, "members": compute.Members(r, g.ID)}
	if at(c, 13) {
		o["project_id"], o["user_id"] = g.ProjectID, g.UserID
	}
	if at(c, 64) {
		rules := g.Rules
		if rules == nil {
			rules = map[string]int{}
		}
		o["policy"], o["rules"] = g.Policy, rules
	} else {
		o["policies"], o["metadata"] = []string{g.Policy}, object{}
	}
	return o
}

func (d *dialect) listServerGroups(c *api.Context) error {
	if err := unknownQuery(c, 75, "all_projects", "limit", "offset"); err != nil {
		return err
	}
	q, snap := c.Query(), c.Snapshot()
	limit, offset := maxLimit, 0
	for name, dst := range map[string]*int{"limit": &limit, "offset": &offset} {
		if s := q.Get(name); s != "" {
			n, ok := asInt(s)
			if !ok || n < 0 {
				return badRequest("Invalid input for query parameters %s. Value: %s. %s is not a non-negative integer", name, api.Clip(s), api.Quoted(s))
			}
			*dst = int(min(n, 1<<30))
		}
	}
	all := q.Has("all_projects") && c.Caller.CloudAdmin
	var groups []*model.ServerGroup
	for g := range store.ServerGroups.All(snap) {
		if all || g.ProjectID == c.Caller.ProjectID {
			groups = append(groups, g)
		}
	}
	slices.SortStableFunc(groups, func(a, b *model.ServerGroup) int { return a.CreatedAt.Compare(b.CreatedAt) })
	groups = groups[min(offset, len(groups)):]
	if limit == 0 || limit > maxLimit {
		limit = maxLimit
	}
	out := []object{}
	for _, g := range groups[:min(limit, len(groups))] {
		out = append(out, serverGroupOf(c, snap, g))
	}
	return c.JSON(http.StatusOK, object{"server_groups": out})
}

func (d *dialect) showServerGroup(c *api.Context) error {
	snap := c.Snapshot()
	g, err := compute.GetGroup(snap, scope(c), c.Param("id"))
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"server_group": serverGroupOf(c, snap, g)})
}

func (d *dialect) createServerGroup(c *api.Context) error {
	policies := []string{compute.AntiAffinity, compute.Affinity}
	if at(c, 15) {
		policies = append(policies, compute.SoftAntiAffinity, compute.SoftAffinity)
	}
	m, required := members{"name": title}, []string{"name", "policies"}
	if at(c, 64) {
		m["policy"], required[1] = oneOf(policies...), "policy"
		m["rules"] = exactly(members{compute.MaxPerHost: integer(1, 1<<31-1)})
	} else {
		m["policies"] = list(oneOf(policies...), 1, 1)
	}
	body, err := decode(c, exactly(members{"server_group": exactly(m, required...)}, "server_group"))
	if err != nil {
		return err
	}
	o := body["server_group"].(object)
	n := compute.NewGroup{Name: strings.TrimSpace(str(o, "name")), Policy: str(o, "policy")}
	if l, ok := o["policies"].([]any); ok {
		n.Policy, _ = l[0].(string)
	}
	if rules, ok := o["rules"].(object); ok && len(rules) > 0 {
		n.Rules = map[string]int{compute.MaxPerHost: num(rules, compute.MaxPerHost, 1)}
	}
	var g *model.ServerGroup
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) (err error) {
		g, err = d.c.CreateGroup(tx, scope(c), n)
		return err
	}); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"server_group": serverGroupOf(c, c.Snapshot(), g)})
}

func (d *dialect) deleteServerGroup(c *api.Context) error {
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error { return d.c.DeleteGroup(tx, scope(c), c.Param("id")) }); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

// hints reads scheduler hints: each is a text or several. The one that this cloud acts on by itself names a server group.
func (w *wanted) hints(o object) error {
	for _, k := range sortedKeys(o) {
		var values []string
		switch v := o[k].(type) {
		case nil:
			continue
		case []any:
			for _, x := range v {
				values = append(values, plain(x))
			}
		default:
			values = []string{plain(v)}
		}
		if k == "group" {
			if len(values) != 1 || !uuidRE.MatchString(values[0]) {
				return badRequest("Invalid input for field/attribute group. Value: %s. %s is not a 'uuid'", plain(o[k]), api.Quoted(o[k]))
			}
			w.GroupID = values[0]
		}
		if w.Hints == nil {
			w.Hints = map[string][]string{}
		}
		w.Hints[k] = values
	}
	return nil
}
