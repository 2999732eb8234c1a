package pipeline_test

import (
	"fmt"
	"net/netip"

	"yakumo/model"
)

// The rows that the tests of this package use.

func num(n int) *int { return &n }

func network(id string, vni uint32, flood ...string) *model.HostNetwork {
	n := &model.HostNetwork{ID: id, VNI: vni, MTU: 1450, Subnets: []model.HostSubnet{{ID: id + "-s", CIDR: netip.MustParsePrefix("10.0.0.0/24"), Gateway: netip.MustParseAddr("10.0.0.1"), DHCP: true}}}
	for _, f := range flood {
		n.Flood = append(n.Flood, netip.MustParseAddr(f))
	}
	return n
}

func port(id, net string, vni uint32, n int, groups ...string) *model.HostPort {
	return &model.HostPort{
		ID: id, NetworkID: net, VNI: vni, MAC: fmt.Sprintf("fa:16:3e:00:%02x:%02x", n>>8, n&255), AdminStateUp: true, PortSecurity: true, Groups: groups,
		FixedIPs: []model.FixedIP{{SubnetID: net + "-s", Address: netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)})}},
	}
}

func peer(id, net string, vni uint32, n int, host string) *model.HostPeer {
	return &model.HostPeer{
		ID: id, NetworkID: net, VNI: vni, MAC: fmt.Sprintf("fa:16:3e:00:%02x:%02x", n>>8, n&255),
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)})}, TunnelIP: netip.MustParseAddr(host),
	}
}

func rule(id, direction string, change func(*model.HostRule)) model.HostRule {
	r := model.HostRule{ID: id, Direction: direction, EtherType: model.IPv4}
	if change != nil {
		change(&r)
	}
	return r
}

func group(id string, rules ...model.HostRule) *model.HostGroup {
	return &model.HostGroup{ID: id, Stateful: true, Rules: rules}
}

func member(g, p string, prefixes ...string) *model.HostMember {
	m := &model.HostMember{GroupID: g, PortID: p}
	for _, x := range prefixes {
		m.Prefixes = append(m.Prefixes, netip.MustParsePrefix(x))
	}
	return m
}

// router is one with an interface of each address, and a gateway that is active here.
func router(id string, addrs ...string) *model.HostRouter {
	r := &model.HostRouter{ID: id, AdminStateUp: true, Gateway: &model.HostGateway{PortID: id + "-g", NetworkID: "e", VNI: 100000, MAC: mac(id, 255),
		Addresses: []netip.Prefix{netip.MustParsePrefix("203.0.113.2/24")}, Subnets: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")},
		NextHops: []netip.Addr{netip.MustParseAddr("203.0.113.1")}, MTU: 1500, SNAT: true, Transit: 100001, Active: true, TunnelIP: netip.MustParseAddr("192.0.2.9")}}
	for i, a := range addrs {
		r.Interfaces = append(r.Interfaces, model.HostRouterPort{PortID: fmt.Sprintf("%s-%d", id, i), NetworkID: fmt.Sprintf("n%d", i+1), VNI: uint32(70001 + i), MAC: mac(id, i),
			Addresses: []netip.Prefix{netip.MustParsePrefix(a)}, MTU: 1450})
	}
	return r
}

func mac(id string, n int) string {
	h := 0
	for _, c := range id {
		h = h*31 + int(c)
	}
	return fmt.Sprintf("fa:16:3f:%02x:%02x:%02x", h>>8&255, h&255, n)
}
