package neutron

import (
	"encoding/json"
	"iter"
	"net/http"
	"strconv"

	"yakumo/api"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

func (d *dialect) trunkCollection() *collection[model.Trunk, network.TrunkSpec] {
	type (
		R = model.Trunk
		S = network.TrunkSpec
	)
	meta := func(t *R) *model.Meta { return &t.Meta }
	attrs := metaAttrs(meta, func(s *S) **string { return &s.ProjectID })
	attrs = append(attrs,
		textAttr("name", everyone, everyone, func(t *R) string { return t.Name }, func(s *S) **string { return &s.Name }),
		textAttr("description", everyone, everyone, func(t *R) string { return t.Description }, func(s *S) **string { return &s.Description }),
		tagsAttr[R, S](meta),
		boolAttr("admin_state_up", everyone, everyone, func(t *R) bool { return t.AdminStateUp }, func(s *S) **bool { return &s.AdminStateUp }),
		refAttr("port_id", func(t *R) string { return t.PortID }, func(s *S) *string { return &s.PortID }),
		attribute[R, S]{name: "sub_ports", post: everyone,
			set: func(s *S, raw json.RawMessage) (err error) {
				s.SubPorts, err = readSubPorts(raw, true)
				return err
			},
			emit: func(b []byte, _ *view, t *R) []byte { return appendSubPorts(b, nil, t) }},
		attribute[R, S]{name: "status",
			emit:  func(b []byte, v *view, t *R) []byte { return appendString(b, network.TrunkState(v.r, t)) },
			match: func(v *view, t *R) []string { return []string{network.TrunkState(v.r, t)} }},
	)
	return &collection[R, S]{
		path: "trunks", single: "trunk", plural: "trunks", attrs: attrs, tagged: true, meta: meta,
		get:  d.net.GetTrunk,
		sees: func(v *view, t *R) bool { return v.scope.Owns(t.ProjectID) },
		candidates: func(v *view, q *query) iter.Seq[*R] {
			if ids := q.filters["id"]; len(ids) > 0 {
				return byID(store.Trunks, v, ids)
			}
			if ids := q.filters["port_id"]; len(ids) > 0 {
				return anyOf(store.Trunks, v, "port", ids)
			}
			return owned(store.Trunks, v, q)
		},
		create: d.net.CreateTrunk, update: d.net.UpdateTrunk, remove: d.net.DeleteTrunk,
	}
}

// trunkRoutes are those of a trunk's subports.
func (d *dialect) trunkRoutes() []api.Route {
	change := func(full bool, f func(tx *store.Tx, sc network.Scope, id model.ID, specs []network.SubPortSpec) (*model.Trunk, error)) api.Handler {
		return func(c *api.Context) error { return d.changeSubPorts(c, full, f) }
	}
	remove := func(tx *store.Tx, sc network.Scope, id model.ID, specs []network.SubPortSpec) (*model.Trunk, error) {
		ports := make([]model.ID, 0, len(specs))
		for _, s := range specs {
			ports = append(ports, s.PortID)
		}
		return d.net.RemoveSubPorts(tx, sc, id, ports)
	}
	return []api.Route{
		{Method: http.MethodGet, Pattern: "/v2.0/trunks/{id}/get_subports", Access: api.Reader, Handle: d.listSubPorts},
		{Method: http.MethodPut, Pattern: "/v2.0/trunks/{id}/add_subports", Access: api.Member, Handle: change(true, d.net.AddSubPorts)},
		{Method: http.MethodPut, Pattern: "/v2.0/trunks/{id}/remove_subports", Access: api.Member, Handle: change(false, remove)},
	}
}

func (d *dialect) listSubPorts(c *api.Context) error {
	t, err := d.net.GetTrunk(c.Snapshot(), scope(c), c.Param("id"))
	if err != nil {
		return err
	}
	b := append([]byte(nil), `{"sub_ports":`...)
	return c.Bytes(http.StatusOK, "application/json", append(appendSubPorts(b, nil, t), '}'))
}

// changeSubPorts answers with the trunk as it is, in no envelope.
func (d *dialect) changeSubPorts(c *api.Context, full bool, f func(tx *store.Tx, sc network.Scope, id model.ID, specs []network.SubPortSpec) (*model.Trunk, error)) error {
	sc, id := scope(c), c.Param("id")
	if _, err := d.net.GetTrunk(c.Snapshot(), sc, id); err != nil { // before anything is said of the body
		return err
	}
	var body map[string]json.RawMessage
	if err := c.Decode(&body); err != nil {
		return err
	}
	raw, ok := body["sub_ports"]
	if !ok {
		return badRequest("Unable to find 'sub_ports' in request body")
	}
	specs, err := readSubPorts(raw, full)
	if err != nil {
		return err
	}
	match, err := ifMatch(c)
	if err != nil {
		return err
	}
	var t *model.Trunk
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		old, err := d.net.GetTrunk(tx, sc, id)
		if err != nil {
			return err
		}
		if err := checkMatch(match, &old.Meta); err != nil {
			return err
		}
		t, err = f(tx, sc, id, specs)
		return err
	}); err != nil {
		return err
	}
	return c.Bytes(http.StatusOK, "application/json", d.trunks.emit(nil, &view{r: c.Snapshot(), scope: sc}, t, nil))
}

// readSubPorts reads a list of subports; full: with their segmentation.
func readSubPorts(raw json.RawMessage, full bool) ([]network.SubPortSpec, error) {
	list, err := readObjects("sub_ports", raw, "port_id", "segmentation_type", "segmentation_id")
	if err != nil {
		return nil, err
	}
	out := make([]network.SubPortSpec, 0, len(list))
	seen := map[string]bool{}
	for _, o := range list {
		var s network.SubPortSpec
		v, ok := o["port_id"]
		if !ok {
			return nil, badInput("sub_ports", "a subport needs port_id.")
		}
		if s.PortID, err = readString("sub_ports", v); err != nil {
			return nil, err
		}
		if seen[s.PortID] {
			return nil, badInput("sub_ports", "the port '%s' is there twice.", shown(v))
		}
		seen[s.PortID] = true
		if v, ok := o["segmentation_type"]; ok && !isNull(v) {
			if s.Type, err = readString("sub_ports", v); err != nil {
				return nil, err
			}
		}
		id, given := o["segmentation_id"]
		given = given && !isNull(id)
		if given {
			if s.VLAN, err = readInt("sub_ports", id); err != nil {
				return nil, err
			}
		}
		if full && (s.Type == "" || !given && s.Type != network.SubPortInherit) {
			return nil, badInput("sub_ports", "Invalid subport details: missing segmentation information. Must specify both segmentation_id and segmentation_type.")
		}
		out = append(out, s)
	}
	return out, nil
}

// appendSubPorts shows the subports; v given: with their MACs.
func appendSubPorts(b []byte, v *view, t *model.Trunk) []byte {
	b = append(b, '[')
	for i, s := range t.SubPorts {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"port_id":`...)
		b = appendString(b, s.PortID)
		b = append(b, `,"segmentation_type":"vlan","segmentation_id":`...)
		b = strconv.AppendInt(b, int64(s.VLAN), 10)
		if v != nil {
			b = append(b, `,"mac_address":`...)
			mac := ""
			if p, ok := store.Ports.Get(v.r, s.PortID); ok {
				mac = p.MAC
			}
			b = appendStringOrNull(b, mac)
		}
		b = append(b, '}')
	}
	return append(b, ']')
}

// emitTrunk shows on a trunk's parent what it carries.
func emitTrunk(b []byte, v *view, p *model.Port) []byte {
	if p.TrunkID == "" || p.ParentID != "" {
		return append(b, "null"...)
	}
	t, ok := store.Trunks.Get(v.r, p.TrunkID)
	if !ok {
		return append(b, "null"...)
	}
	b = append(b, `{"trunk_id":`...)
	b = appendString(b, t.ID)
	b = append(b, `,"sub_ports":`...)
	return append(appendSubPorts(b, v, t), '}')
}
