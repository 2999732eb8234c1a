package neutron

import (
	"encoding/json"
	"iter"
	"net/http"
	"strconv"
	"strings"

	"yakumo/api"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

// forwardingRoutes serve the port forwardings of the floating IP in the path.
func (d *dialect) forwardingRoutes() []api.Route {
	type serve = func(*collection[model.PortForwarding, network.ForwardingSpec], *api.Context) error
	of := func(h serve) api.Handler {
		return func(c *api.Context) error {
			id := c.Param("floatingip")
			if _, err := d.net.GetFloatingIP(c.Snapshot(), scope(c), id); err != nil {
				return err
			}
			return h(d.forwardingCollection(id), c)
		}
	}
	const all = "/v2.0/floatingips/{floatingip}/port_forwardings"
	type x = collection[model.PortForwarding, network.ForwardingSpec]
	return []api.Route{
		{Method: http.MethodGet, Pattern: all, Access: api.Reader, Handle: of((*x).serveList)},
		{Method: http.MethodPost, Pattern: all, Access: api.Member, Handle: of((*x).serveCreate)},
		{Method: http.MethodGet, Pattern: all + "/{id}", Access: api.Reader, Handle: of((*x).serveShow)},
		{Method: http.MethodPut, Pattern: all + "/{id}", Access: api.Member, Handle: of((*x).serveUpdate)},
		{Method: http.MethodDelete, Pattern: all + "/{id}", Access: api.Member, Handle: of((*x).serveDelete)},
	}
}

func (d *dialect) forwardingCollection(floating model.ID) *collection[model.PortForwarding, network.ForwardingSpec] {
	type (
		R = model.PortForwarding
		S = network.ForwardingSpec
	)
	meta := func(r *R) *model.Meta { return &r.Meta }
	// side gives the attributes of a range: its one port, or both ends.
	side := func(name string, get func(*R) (int, int), field func(*S) **network.PortRange) []attribute[R, S] {
		take := func(s *S, attr string, r network.PortRange) error {
			if old := *field(s); old != nil && *old != r {
				return badRequest("%s and %s_range contradict each other", name, name)
			}
			*field(s) = &r
			return nil
		}
		values := func(r *R) string { return portRange(get(r)) }
		return []attribute[R, S]{
			{name: name, post: everyone, put: everyone,
				set: func(s *S, raw json.RawMessage) error {
					if isNull(raw) {
						return nil
					}
					n, err := readInt(name, raw)
					if err != nil {
						return err
					}
					if n < 1 || n > 65535 {
						return badInput(name, "'%d' is not from 1 to 65535.", n)
					}
					return take(s, name, network.PortRange{First: n, Last: n})
				},
				emit: func(b []byte, _ *view, r *R) []byte {
					if first, last := get(r); first == last {
						return strconv.AppendInt(b, int64(first), 10)
					}
					return append(b, "null"...)
				},
				match: func(_ *view, r *R) []string {
					if first, last := get(r); first == last {
						return []string{strconv.Itoa(first)}
					}
					return nil
				},
				order: func(r *R) string { first, _ := get(r); return sortable(first) }},
			{name: name + "_range", post: everyone, put: everyone,
				set: func(s *S, raw json.RawMessage) error {
					if isNull(raw) {
						return nil
					}
					r, err := readPortRange(name+"_range", raw)
					if err != nil {
						return err
					}
					return take(s, name+"_range", r)
				},
				emit:  func(b []byte, _ *view, r *R) []byte { return appendString(b, values(r)) },
				match: func(_ *view, r *R) []string { return []string{values(r)} }},
		}
	}
	attrs := []attribute[R, S]{
		textAttr[R, S]("id", readOnly, readOnly, func(r *R) string { return r.ID }, nil),
		textAttr("description", everyone, everyone, func(r *R) string { return r.Description }, func(s *S) **string { return &s.Description }),
		{name: "protocol", post: everyone, put: everyone, required: true,
			set: func(s *S, raw json.RawMessage) error {
				text, err := readString("protocol", raw)
				text = strings.ToLower(text)
				s.Protocol = &text
				return err
			},
			emit:  func(b []byte, _ *view, r *R) []byte { return appendString(b, r.Protocol) },
			match: func(_ *view, r *R) []string { return []string{r.Protocol} },
			norm:  strings.ToLower,
			order: func(r *R) string { return r.Protocol }},
		textAttr("internal_port_id", everyone, everyone, func(r *R) string { return r.PortID }, func(s *S) **string { return &s.PortID }),
		{name: "internal_ip_address", post: everyone, put: everyone,
			set: func(s *S, raw json.RawMessage) error {
				a, err := optionalAddr("internal_ip_address", raw)
				if a.IsValid() {
					s.Address = &a
				}
				return err
			},
			emit:  func(b []byte, _ *view, r *R) []byte { return appendAddr(b, r.InternalAddress) },
			match: func(_ *view, r *R) []string { return addrValues(r.InternalAddress) },
			norm:  addrNorm,
			order: func(r *R) string { return addrOrder(r.InternalAddress) }},
	}
	attrs[3].required = true
	attrs = append(attrs, side("internal_port", func(r *R) (int, int) { return r.InternalPort, r.InternalPortEnd }, func(s *S) **network.PortRange { return &s.Internal })...)
	attrs = append(attrs, side("external_port", func(r *R) (int, int) { return r.ExternalPort, r.ExternalPortEnd }, func(s *S) **network.PortRange { return &s.External })...)
	return &collection[R, S]{
		path: "floatingips/" + floating + "/port_forwardings", single: "port_forwarding", plural: "port_forwardings", attrs: attrs, meta: meta,
		get: func(r store.Reader, sc network.Scope, id string) (*R, error) {
			return d.net.GetForwarding(r, sc, floating, id)
		},
		// The floating IP was looked at before.
		sees: func(*view, *R) bool { return true },
		candidates: func(v *view, _ *query) iter.Seq[*R] {
			return store.PortForwardings.List(v.r, "floating", floating)
		},
		create: func(tx *store.Tx, sc network.Scope, s S) (*R, error) {
			switch {
			case s.Internal == nil:
				return nil, badRequest("Failed to parse request. One of internal_port and internal_port_range is needed")
			case s.External == nil:
				return nil, badRequest("Failed to parse request. One of external_port and external_port_range is needed")
			}
			return d.net.CreateForwarding(tx, sc, floating, s)
		},
		update: func(tx *store.Tx, sc network.Scope, id string, s S) (*R, error) {
			return d.net.UpdateForwarding(tx, sc, floating, id, s)
		},
		remove: func(tx *store.Tx, sc network.Scope, id string) error {
			return d.net.DeleteForwarding(tx, sc, floating, id)
		},
	}
}

// portRange writes one port, or the first and the last with a colon.
func portRange(first, last int) string {
	if first == last {
		return strconv.Itoa(first)
	}
	return strconv.Itoa(first) + ":" + strconv.Itoa(last)
}

// readPortRange reads what portRange writes.
func readPortRange(name string, raw json.RawMessage) (network.PortRange, error) {
	var r network.PortRange
	text, err := readString(name, raw)
	if err != nil {
		return r, err
	}
	first, last, ok := strings.Cut(text, ":")
	if !ok {
		last = first
	}
	var bad error
	if r.First, bad = strconv.Atoi(first); bad == nil {
		r.Last, bad = strconv.Atoi(last)
	}
	if bad != nil || r.First < 1 || r.Last < r.First || r.Last > 65535 {
		return r, badInput(name, "'%s' is not a valid port range.", shown(raw))
	}
	return r, nil
}
