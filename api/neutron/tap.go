package neutron

import (
	"encoding/json"
	"iter"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

func (d *dialect) tapServiceCollection() *collection[model.TapService, network.TapServiceSpec] {
	type (
		R = model.TapService
		S = network.TapServiceSpec
	)
	meta := func(t *R) *model.Meta { return &t.Meta }
	attrs := metaAttrs(meta, func(s *S) **string { return &s.ProjectID })
	attrs = append(attrs,
		textAttr("name", everyone, everyone, func(t *R) string { return t.Name }, func(s *S) **string { return &s.Name }),
		textAttr("description", everyone, everyone, func(t *R) string { return t.Description }, func(s *S) **string { return &s.Description }),
		refAttr("port_id", func(t *R) string { return t.PortID }, func(s *S) *string { return &s.PortID }),
		attribute[R, S]{name: "status",
			emit:  func(b []byte, v *view, t *R) []byte { return appendString(b, network.TapState(v.r, t.PortID)) },
			match: func(v *view, t *R) []string { return []string{network.TapState(v.r, t.PortID)} }},
	)
	return &collection[R, S]{
		path: "taas/tap_services", single: "tap_service", plural: "tap_services", attrs: attrs, meta: meta,
		get:  d.net.GetTapService,
		sees: func(v *view, t *R) bool { return v.scope.Owns(t.ProjectID) },
		candidates: func(v *view, q *query) iter.Seq[*R] {
			if ids := q.filters["id"]; len(ids) > 0 {
				return byID(store.TapServices, v, ids)
			}
			if ids := q.filters["port_id"]; len(ids) > 0 {
				return anyOf(store.TapServices, v, "port", ids)
			}
			return owned(store.TapServices, v, q)
		},
		create: d.net.CreateTapService, update: d.net.UpdateTapService, remove: d.net.DeleteTapService,
	}
}

func (d *dialect) tapFlowCollection() *collection[model.TapFlow, network.TapFlowSpec] {
	type (
		R = model.TapFlow
		S = network.TapFlowSpec
	)
	meta := func(f *R) *model.Meta { return &f.Meta }
	state := func(v *view, f *R) string {
		if t, ok := store.TapServices.Get(v.r, f.ServiceID); ok {
			return network.TapState(v.r, f.SourcePort, t.PortID)
		}
		return model.PortDown
	}
	attrs := metaAttrs(meta, func(s *S) **string { return &s.ProjectID })
	attrs = append(attrs,
		textAttr("name", everyone, everyone, func(f *R) string { return f.Name }, func(s *S) **string { return &s.Name }),
		textAttr("description", everyone, everyone, func(f *R) string { return f.Description }, func(s *S) **string { return &s.Description }),
		refAttr("tap_service_id", func(f *R) string { return f.ServiceID }, func(s *S) *string { return &s.ServiceID }),
		refAttr("source_port", func(f *R) string { return f.SourcePort }, func(s *S) *string { return &s.SourcePort }),
		refAttr("direction", func(f *R) string { return f.Direction }, func(s *S) *string { return &s.Direction }),
		attribute[R, S]{name: "status",
			emit:  func(b []byte, v *view, f *R) []byte { return appendString(b, state(v, f)) },
			match: func(v *view, f *R) []string { return []string{state(v, f)} }},
		// Which of a guest's own tags are copied cannot be chosen.
		attribute[R, S]{name: "vlan_filter", post: everyone, set: func(_ *S, raw json.RawMessage) error {
			if isDefault(raw) {
				return nil
			}
			return fault.Coded(fault.NotImplemented, "HTTPNotImplemented", "The attribute 'vlan_filter' is not offered: every frame of the port is copied.")
		}},
	)
	return &collection[R, S]{
		path: "taas/tap_flows", single: "tap_flow", plural: "tap_flows", attrs: attrs, meta: meta,
		get:  d.net.GetTapFlow,
		sees: func(v *view, f *R) bool { return v.scope.Owns(f.ProjectID) },
		candidates: func(v *view, q *query) iter.Seq[*R] {
			if ids := q.filters["id"]; len(ids) > 0 {
				return byID(store.TapFlows, v, ids)
			}
			for filter, index := range map[string]string{"tap_service_id": "service", "source_port": "source"} {
				if ids := q.filters[filter]; len(ids) > 0 {
					return anyOf(store.TapFlows, v, index, ids)
				}
			}
			return owned(store.TapFlows, v, q)
		},
		create: d.net.CreateTapFlow, update: d.net.UpdateTapFlow, remove: d.net.DeleteTapFlow,
	}
}

// refAttr is a text that a new resource needs and that never changes.
func refAttr[R, S any](name string, get func(*R) string, field func(*S) *string) attribute[R, S] {
	a := textAttr[R, S](name, everyone, readOnly, get, nil)
	a.required = true
	a.set = func(s *S, raw json.RawMessage) (err error) {
		*field(s), err = readString(name, raw)
		return err
	}
	return a
}

// owned gives the rows of the caller's project, for an administrator all or those of the
// project asked for.
func owned[R any](t *store.Table[R], v *view, q *query) iter.Seq[*R] {
	if p, ok := q.project(); ok {
		return t.List(v.r, "project", p)
	}
	if v.scope.Admin {
		return t.All(v.r)
	}
	return t.List(v.r, "project", v.scope.ProjectID)
}
