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
