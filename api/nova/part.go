package nova

import (
	"cmp"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// serverParts adds the routes of what belongs to a server.
func (d *dialect) serverParts(route adder) {
	route(http.MethodPost, "/servers/{id}/action", api.Member, 1, d.act)

	route(http.MethodGet, "/servers/{id}/metadata", api.Reader, 1, d.showMetadata)
	route(http.MethodPost, "/servers/{id}/metadata", api.Member, 1, func(c *api.Context) error { return d.setMetadata(c, false) })
	route(http.MethodPut, "/servers/{id}/metadata", api.Member, 1, func(c *api.Context) error { return d.setMetadata(c, true) })
	route(http.MethodGet, "/servers/{id}/metadata/{key}", api.Reader, 1, d.showItem)
	route(http.MethodPut, "/servers/{id}/metadata/{key}", api.Member, 1, d.setItem)
	route(http.MethodDelete, "/servers/{id}/metadata/{key}", api.Member, 1, d.deleteItem)

	route(http.MethodGet, "/servers/{id}/tags", api.Reader, 26, d.showTags)
	route(http.MethodPut, "/servers/{id}/tags", api.Member, 26, d.setTags)
	route(http.MethodDelete, "/servers/{id}/tags", api.Member, 26, func(c *api.Context) error {
		if _, err := d.retag(c, func([]string) ([]string, error) { return nil, nil }); err != nil {
			return err
		}
		return c.Empty(http.StatusNoContent)
	})
	route(http.MethodGet, "/servers/{id}/tags/{tag}", api.Reader, 26, d.checkTag)
	route(http.MethodPut, "/servers/{id}/tags/{tag}", api.Member, 26, d.addTag)
	route(http.MethodDelete, "/servers/{id}/tags/{tag}", api.Member, 26, d.removeTag)

	route(http.MethodGet, "/servers/{id}/ips", api.Reader, 1, d.listIPs)
	route(http.MethodGet, "/servers/{id}/ips/{network}", api.Reader, 1, d.showIPs)
	route(http.MethodGet, "/servers/{id}/os-security-groups", api.Reader, 1, d.listGroups)
	route(http.MethodGet, "/servers/{id}/os-interface", api.Reader, 1, d.listInterfaces)
	route(http.MethodGet, "/servers/{id}/os-interface/{port}", api.Reader, 1, d.showInterface)
	route(http.MethodPost, "/servers/{id}/os-interface", api.Member, 1, d.attachInterface)
	route(http.MethodDelete, "/servers/{id}/os-interface/{port}", api.Member, 1, d.detachInterface)
	route(http.MethodGet, "/servers/{id}/diagnostics", api.Admin, 1, d.diagnostics)
	route(http.MethodGet, "/servers/{id}/topology", api.Reader, 78, d.topology)
	d.volumeRoutes(route)

	route(http.MethodGet, "/servers/{id}/os-instance-actions", api.Reader, 1, d.listActions)
	route(http.MethodGet, "/servers/{id}/os-instance-actions/{request}", api.Reader, 1, d.showAction)
}

// serverOf gives the server of the path.
func (d *dialect) serverOf(c *api.Context) (store.Snapshot, *model.Server, error) {
	snap := c.Snapshot()
	s, err := compute.Get(snap, scope(c), c.Param("id"))
	return snap, s, err
}

// owned answers with the error where the caller has the server.
func (d *dialect) owned(answer error) api.Handler {
	return func(c *api.Context) error {
		if _, _, err := d.serverOf(c); err != nil {
			return err
		}
		return answer
	}
}

func (d *dialect) showMetadata(c *api.Context) error {
	_, s, err := d.serverOf(c)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"metadata": orEmpty(s.Metadata)})
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

func (d *dialect) setMetadata(c *api.Context, replace compute.Replace) error {
	body, err := decode(c, exactly(members{"metadata": items}, "metadata"))
	if err != nil {
		return err
	}
	var s *model.Server
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) (err error) {
		s, err = d.c.SetMetadata(tx, scope(c), c.Param("id"), stringMap(body["metadata"]), replace)
		return err
	}); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"metadata": orEmpty(s.Metadata)})
}

func (d *dialect) showItem(c *api.Context) error {
	_, s, err := d.serverOf(c)
	if err != nil {
		return err
	}
	v, ok := s.Metadata[c.Param("key")]
	if !ok {
		return fault.New(fault.NotFound, "Metadata item was not found")
	}
	return c.JSON(http.StatusOK, object{"meta": object{c.Param("key"): v}})
}

func (d *dialect) setItem(c *api.Context) error {
	body, err := decode(c, exactly(members{"meta": items}, "meta"))
	if err != nil {
		return err
	}
	m := stringMap(body["meta"])
	v, ok := m[c.Param("key")]
	if !ok || len(m) != 1 {
		return badRequest("Request body and URI mismatch")
	}
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		_, err := d.c.SetMetadata(tx, scope(c), c.Param("id"), m, false)
		return err
	}); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"meta": object{c.Param("key"): v}})
}

func (d *dialect) deleteItem(c *api.Context) error {
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		_, err := d.c.DeleteMetadata(tx, scope(c), c.Param("id"), c.Param("key"))
		return err
	}); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

func (d *dialect) showTags(c *api.Context) error {
	_, s, err := d.serverOf(c)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"tags": nonNil(s.Tags)})
}

func (d *dialect) retag(c *api.Context, f func([]string) ([]string, error)) (*model.Server, error) {
	var s *model.Server
	_, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) (err error) {
		s, err = d.c.SetTags(tx, scope(c), c.Param("id"), f)
		return err
	})
	return s, err
}

func (d *dialect) setTags(c *api.Context) error {
	body, err := decode(c, exactly(members{"tags": list(matching(tagRE, 1, 60), 0, compute.MaxTags)}, "tags"))
	if err != nil {
		return err
	}
	var tags []string
	for _, t := range body["tags"].([]any) {
		tags = append(tags, t.(string))
	}
	s, err := d.retag(c, func([]string) ([]string, error) { return slices.Clone(tags), nil })
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"tags": nonNil(s.Tags)})
}

func noTag(c *api.Context) error {
	return fault.New(fault.NotFound, "Server %s has no tag '%s'", c.Param("id"), api.Clip(c.Param("tag")))
}

func (d *dialect) checkTag(c *api.Context) error {
	_, s, err := d.serverOf(c)
	if err != nil {
		return err
	}
	if !slices.Contains(s.Tags, c.Param("tag")) {
		return noTag(c)
	}
	return c.Empty(http.StatusNoContent)
}

func (d *dialect) addTag(c *api.Context) error {
	tag := c.Param("tag")
	if err := matching(tagRE, 1, 60)("tag", tag); err != nil {
		return err
	}
	status := http.StatusNoContent
	if _, err := d.retag(c, func(tags []string) ([]string, error) {
		status = http.StatusNoContent
		if !slices.Contains(tags, tag) {
			status = http.StatusCreated
			tags = append(tags, tag)
		}
		return tags, nil
	}); err != nil {
		return err
	}
	if status == http.StatusCreated {
		c.W.Header().Set("Location", c.URL("/v2.1/servers/"+c.Param("id")+"/tags/"+url.PathEscape(tag)))
	}
	return c.Empty(status)
}

func (d *dialect) removeTag(c *api.Context) error {
	if _, err := d.retag(c, func(tags []string) ([]string, error) {
		i := slices.Index(tags, c.Param("tag"))
		if i < 0 {
			return nil, noTag(c)
		}
		return slices.Delete(tags, i, i+1), nil
	}); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

func (d *dialect) listIPs(c *api.Context) error {
	snap, s, err := d.serverOf(c)
	if err != nil {
		return err
	}
	v := newViewer(c, snap)
	return c.JSON(http.StatusOK, object{"addresses": v.addresses(v.ports(s), false)})
}

func (d *dialect) showIPs(c *api.Context) error {
	snap, s, err := d.serverOf(c)
	if err != nil {
		return err
	}
	v := newViewer(c, snap)
	l, ok := v.addresses(v.ports(s), false)[c.Param("network")]
	if !ok {
		return fault.New(fault.NotFound, "Instance is not a member of specified network")
	}
	return c.JSON(http.StatusOK, object{c.Param("network"): l})
}

// listGroups shows the security groups of a server's ports, in Nova's own older form.
func (d *dialect) listGroups(c *api.Context) error {
	snap, s, err := d.serverOf(c)
	if err != nil {
		return err
	}
	out := []object{}
	var seen []string
	for _, p := range portsOf(snap, s) {
		for _, id := range p.Groups {
			g, ok := store.SecurityGroups.Get(snap, id)
			if !ok || slices.Contains(seen, id) {
				continue
			}
			seen = append(seen, id)
			out = append(out, groupShown(snap, g))
		}
	}
	return c.JSON(http.StatusOK, object{"security_groups": out})
}

func groupShown(r store.Reader, g *model.SecurityGroup) object {
	rules := []object{}
	for x := range store.SecurityRules.List(r, "group", g.ID) {
		if x.Direction == model.Ingress {
			rules = append(rules, groupRule(r, x))
		}
	}
	return object{"id": g.ID, "name": g.Name, "description": g.Description, "tenant_id": g.ProjectID, "rules": rules}
}

// listOwnGroups shows the groups of the caller's project.
func (d *dialect) listOwnGroups(c *api.Context) error {
	if err := removed(c, 36); err != nil {
		return err
	}
	snap := c.Snapshot()
	out := []object{}
	for g := range store.SecurityGroups.List(snap, "project", c.Caller.ProjectID) {
		out = append(out, groupShown(snap, g))
	}
	return c.JSON(http.StatusOK, object{"security_groups": out})
}

func (d *dialect) showGroup(c *api.Context) error {
	if err := removed(c, 36); err != nil {
		return err
	}
	snap := c.Snapshot()
	g, err := d.net.GetGroup(snap, netScope(c), c.Param("id"))
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"security_group": groupShown(snap, g)})
}

func groupRule(r store.Reader, x *model.SecurityRule) object {
	o := object{"id": x.ID, "parent_group_id": x.GroupID, "ip_protocol": nil, "from_port": nil, "to_port": nil, "group": object{}, "ip_range": object{}}
	if x.Protocol != "" {
		o["ip_protocol"], o["from_port"], o["to_port"] = x.Protocol, -1, -1
	}
	if x.PortMin != nil {
		o["from_port"] = *x.PortMin
	}
	if x.PortMax != nil {
		o["to_port"] = *x.PortMax
	}
	switch remote, ok := store.SecurityGroups.Get(r, x.RemoteGroupID); {
	case ok && x.RemoteGroupID != "":
		o["group"] = object{"name": remote.Name, "tenant_id": remote.ProjectID}
	case x.RemotePrefix.IsValid():
		o["ip_range"] = object{"cidr": x.RemotePrefix.String()}
	case x.EtherType == model.IPv6:
		o["ip_range"] = object{"cidr": "::/0"}
	default:
		o["ip_range"] = object{"cidr": "0.0.0.0/0"}
	}
	return o
}

// actionsOf gives the actions of a server, the newest first. Those of one that is gone
// are shown from microversion 2.21 on, as long as they are kept.
func actionsOf(c *api.Context) (store.Snapshot, []*model.Action, error) {
	snap, id := c.Snapshot(), c.Param("id")
	_, err := compute.Get(snap, scope(c), id)
	var out []*model.Action
	for a := range store.Actions.List(snap, "server", id) {
		if err == nil || at(c, 21) && scope(c).Owns(a.ProjectID) {
			out = append(out, a)
		}
	}
	if err != nil && len(out) == 0 {
		return snap, nil, err
	}
	slices.SortStableFunc(out, func(a, b *model.Action) int {
		return cmp.Or(b.StartedAt.Compare(a.StartedAt), cmp.Compare(b.RequestID, a.RequestID))
	})
	return snap, out, nil
}

func actionOf(c *api.Context, a *model.Action) object {
	o := object{"action": a.Action, "instance_uuid": a.ServerID, "message": nil, "project_id": a.ProjectID, "request_id": a.RequestID,
		"start_time": micros(a.StartedAt), "user_id": a.UserID}
	if a.Message != "" {
		o["message"] = a.Message
	}
	if at(c, 58) {
		o["updated_at"] = micros(a.UpdatedAt)
	}
	return o
}

func (d *dialect) listActions(c *api.Context) error {
	if err := unknownQuery(c, 75, "limit", "marker", "changes-since", "changes-before"); err != nil {
		return err
	}
	q := c.Query()
	_, actions, err := actionsOf(c)
	if err != nil {
		return err
	}
	pg := api.Page{}
	if at(c, 58) {
		if pg, err = page(q); err != nil {
			return err
		}
		since, err := queryTime(q, "changes-since")
		if err != nil {
			return err
		}
		actions = slices.DeleteFunc(actions, func(a *model.Action) bool { return a.UpdatedAt.Before(since) })
		if at(c, 66) {
			before, err := queryTime(q, "changes-before")
			if err != nil {
				return err
			}
			actions = slices.DeleteFunc(actions, func(a *model.Action) bool { return !before.IsZero() && a.UpdatedAt.After(before) })
		}
	}
	actions, more, err := api.Cut(actions, pg, func(a *model.Action) string { return a.RequestID })
	if err != nil {
		return badRequest("marker [%s] not found", api.Clip(pg.Marker))
	}
	out := make([]object, 0, len(actions))
	for _, a := range actions {
		out = append(out, actionOf(c, a))
	}
	body := object{"instanceActions": out}
	if more && len(actions) > 0 {
		body["links"] = next(c, "/servers/"+c.Param("id")+"/os-instance-actions", actions[len(actions)-1].RequestID, pg.Limit)
	}
	return c.JSON(http.StatusOK, body)
}

func (d *dialect) showAction(c *api.Context) error {
	snap, actions, err := actionsOf(c)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(actions, func(a *model.Action) bool { return a.RequestID == c.Param("request") })
	if i < 0 {
		return fault.New(fault.NotFound, "Action for request_id %s on instance %s not found", api.Clip(c.Param("request")), c.Param("id"))
	}
	a := actions[i]
	o := actionOf(c, a)
	events := []object{}
	for _, e := range a.Events {
		ev := object{"event": e.Event, "start_time": micros(e.StartedAt), "finish_time": micros(e.FinishedAt), "result": nil}
		if e.Result != "" {
			ev["result"] = e.Result
		}
		if c.Caller.CloudAdmin {
			ev["traceback"] = nil
		}
		if at(c, 62) {
			ev["hostId"] = hostHash(a.ProjectID, e.Host)
			if c.Caller.CloudAdmin {
				ev["host"] = nil
				if h, ok := store.Hosts.Get(snap, e.Host); ok {
					ev["host"] = h.Name
				}
			}
		}
		if at(c, 84) {
			ev["details"] = nil
			// What a host says of a failure is for operators; why no host was found is not.
			if e.Details != "" && (c.Caller.CloudAdmin || e.Event == string(model.StepPlace)) {
				ev["details"] = e.Details
			}
		}
		events = append(events, ev)
	}
	o["events"] = events
	return c.JSON(http.StatusOK, object{"instanceAction": o})
}

// sortedKeys is for answers and errors that must be the same every time.
func sortedKeys[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }

// unknown refuses query parameters that Nova's schema of the route does not know, from
// the microversion on that is strict.
func unknownQuery(c *api.Context, minor int, known ...string) error {
	if !at(c, minor) {
		return nil
	}
	var bad []string
	for _, k := range sortedKeys(c.Query()) {
		if !slices.Contains(known, k) {
			bad = append(bad, "'"+api.Clip(k)+"'")
		}
	}
	switch len(bad) {
	case 0:
		return nil
	case 1:
		return badRequest("Additional properties are not allowed (%s was unexpected)", bad[0])
	}
	return badRequest("Additional properties are not allowed (%s were unexpected)", strings.Join(bad, ", "))
}
