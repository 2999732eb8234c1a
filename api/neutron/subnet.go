package neutron

import (
	"encoding/json"
	"net/netip"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
)

// nullAttr is an attribute that clients may send as null, and whose feature is not offered.
func nullAttr[R, S any](name string) attribute[R, S] {
	return attribute[R, S]{
		name: name, post: everyone,
		set: func(_ *S, raw json.RawMessage) error {
			if isNull(raw) || isDefault(raw) {
				return nil
			}
			return fault.Coded(fault.NotImplemented, "HTTPNotImplemented", "The attribute '%s' is not offered yet.", name)
		},
		emit:  func(b []byte, _ *view, _ *R) []byte { return append(b, "null"...) },
		match: func(_ *view, _ *R) []string { return nil },
	}
}

// modeAttr is how guests of an IPv6 subnet get their addresses; null: not by the cloud.
func modeAttr(name string, get func(*model.Subnet) string, field func(*network.SubnetSpec) **string) attribute[model.Subnet, network.SubnetSpec] {
	return attribute[model.Subnet, network.SubnetSpec]{
		name: name, post: everyone,
		set: func(s *network.SubnetSpec, raw json.RawMessage) error {
			if isNull(raw) {
				return nil
			}
			mode, err := readString(name, raw)
			*field(s) = &mode
			return err
		},
		emit: func(b []byte, _ *view, r *model.Subnet) []byte { return appendStringOrNull(b, get(r)) },
		match: func(_ *view, r *model.Subnet) []string {
			if mode := get(r); mode != "" {
				return []string{mode}
			}
			return nil
		},
		order: get,
	}
}

func setCIDR(s *network.SubnetSpec, raw json.RawMessage) error {
	if isNull(raw) {
		return nil
	}
	text, err := readString("cidr", raw)
	if err != nil {
		return err
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return badInput("cidr", "'%s' is not a valid IP subnet.", shown(raw))
	}
	s.CIDR = p
	return nil
}

// setGateway: null means none, an empty text too.
func setGateway(s *network.SubnetSpec, raw json.RawMessage) error {
	s.Gateway = &netip.Addr{}
	if isNull(raw) {
		return nil
	}
	text, err := readString("gateway_ip", raw)
	if err != nil || text == "" {
		return err
	}
	a, err := readAddr("gateway_ip", text)
	s.Gateway = &a
	return err
}

func setPools(s *network.SubnetSpec, raw json.RawMessage) error {
	if isNull(raw) {
		return nil
	}
	list, err := readObjects("allocation_pools", raw, "start", "end")
	if err != nil {
		return err
	}
	pools := make([]model.AddrRange, 0, len(list))
	for _, o := range list {
		var r model.AddrRange
		for key, dst := range map[string]*netip.Addr{"start": &r.Start, "end": &r.End} {
			text, err := readString("allocation_pools", o[key])
			if err != nil {
				return err
			}
			if *dst, err = readAddr("allocation_pools", text); err != nil {
				return err
			}
		}
		pools = append(pools, r)
	}
	s.Pools = &pools
	return nil
}

func emitPools(b []byte, _ *view, r *model.Subnet) []byte {
	b = append(b, '[')
	for i, p := range r.Pools {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"start":`...)
		b = appendAddr(b, p.Start)
		b = append(b, `,"end":`...)
		b = appendAddr(b, p.End)
		b = append(b, '}')
	}
	return append(b, ']')
}

func setDNS(s *network.SubnetSpec, raw json.RawMessage) error {
	list, err := readStrings("dns_nameservers", raw)
	if err != nil {
		return err
	}
	out := make([]netip.Addr, 0, len(list))
	for _, text := range list {
		a, err := readAddr("dns_nameservers", text)
		if err != nil {
			return err
		}
		out = append(out, a)
	}
	s.DNS = &out
	return nil
}

func setRoutes(s *network.SubnetSpec, raw json.RawMessage) error {
	routes, err := readRoutes("host_routes", raw)
	s.HostRoutes = &routes
	return err
}

// readRoutes reads a list of destinations and next hops; null is an empty list.
func readRoutes(name string, raw json.RawMessage) ([]model.Route, error) {
	list, err := readObjects(name, raw, "destination", "nexthop")
	if err != nil {
		return nil, err
	}
	out := make([]model.Route, 0, len(list))
	for _, o := range list {
		dest, err := readString(name, o["destination"])
		if err != nil {
			return nil, err
		}
		hop, err := readString(name, o["nexthop"])
		if err != nil {
			return nil, err
		}
		var r model.Route
		if r.Destination, err = readPrefix(name, dest); err != nil {
			return nil, err
		}
		if r.NextHop, err = readAddr(name, hop); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func emitRoutes(b []byte, _ *view, r *model.Subnet) []byte { return appendRoutes(b, r.HostRoutes) }

func appendRoutes(b []byte, routes []model.Route) []byte {
	b = append(b, '[')
	for i, x := range routes {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"destination":`...)
		b = appendPrefix(b, x.Destination)
		b = append(b, `,"nexthop":`...)
		b = appendAddr(b, x.NextHop)
		b = append(b, '}')
	}
	return append(b, ']')
}

// addrOrder makes addresses sort as bytes.
func addrOrder(a netip.Addr) string {
	b, err := a.MarshalBinary()
	if err != nil {
		return ""
	}
	return string(b)
}

func addrValues(a netip.Addr) []string {
	if !a.IsValid() {
		return nil
	}
	return []string{a.String()}
}
