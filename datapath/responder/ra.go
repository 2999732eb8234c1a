package responder

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"time"

	"yakumo/datapath/pipeline"
	"yakumo/model"
)

// What router advertisements tell (RFC 4861, 6.2.1). They are repeated well before anything in them ends.
const (
	AdvertInterval    = 125 * time.Second // also of questions for multicast listeners (RFC 3376, 8.2)
	routerLifetime    = 30 * time.Minute
	prefixLifetime    = 24 * time.Hour
	preferredLifetime = 4 * time.Hour
)

// serverLinkLocal is where what the cloud itself says by IPv6 comes from.
var serverLinkLocal = pipeline.LinkLocal(pipeline.ServiceMAC)

// advert is one router advertisement: of a router's interface, or of nobody, for blocks that no
// router has.
type advert struct {
	mac     pipeline.MAC
	router  bool // it is the gateway of one of the blocks
	subnets []*model.HostSubnet
}

// adverts gives what is to be said in a network. routers are the interfaces that routers have there.
func adverts(network *model.HostNetwork, routers []*model.HostRouterPort) ([]advert, error) {
	var out []advert
	nobody := advert{mac: pipeline.ServiceMAC}
	for i := range network.Subnets {
		s := &network.Subnets[i]
		if s.RAMode == "" || !s.DHCP || !s.CIDR.Addr().Is6() {
			continue
		}
		mine := false
		for _, r := range routers {
			at := slices.IndexFunc(r.Addresses, func(p netip.Prefix) bool { return s.CIDR.Contains(p.Addr()) })
			if at < 0 {
				continue
			}
			mac, err := pipeline.ParseMAC(r.MAC)
			if err != nil {
				return nil, err
			}
			mine = true
			n := slices.IndexFunc(out, func(a advert) bool { return a.mac == mac })
			if n < 0 {
				n = len(out)
				out = append(out, advert{mac: mac})
			}
			out[n].subnets = append(out[n].subnets, s)
			out[n].router = out[n].router || r.Addresses[at].Addr() == s.Gateway
		}
		if !mine {
			nobody.subnets = append(nobody.subnets, s)
		}
	}
	if len(nobody.subnets) > 0 {
		out = append(out, nobody)
	}
	return out, nil
}

// RA makes the router advertisements of a network (RFC 4861), as a port hears them: one of each
// router's interface that has an IPv6 block there which the cloud advertises, and one of nobody, with
// no lifetime as a router, for the blocks without a router. They go to the address to, or to
// all nodes where that is unspecified or invalid.
func RA(port *model.HostPort, network *model.HostNetwork, routers []*model.HostRouterPort, to netip.Addr) ([][]byte, error) {
	mac, err := pipeline.ParseMAC(port.MAC)
	if err != nil {
		return nil, err
	}
	list, err := adverts(network, routers)
	if err != nil {
		return nil, err
	}
	if !to.IsValid() || to.IsUnspecified() {
		to, mac = pipeline.AllNodes, pipeline.GroupMAC(pipeline.AllNodes)
	}
	alone := !slices.ContainsFunc(addresses(port), func(a netip.Addr) bool { return a.Unmap().Is4() })
	var out [][]byte
	for _, a := range list {
		p := packet6{srcMAC: a.mac, dstMAC: mac, src: pipeline.LinkLocal(a.mac), dst: to, proto: pipeline.ProtoICMPv6, hops: 255, payload: a.message(network, alone), check: 2}
		out = append(out, p.frame())
	}
	return out, nil
}

// SolicitedRA answers a router solicitation (RFC 4861, 6.2.6).
func SolicitedRA(frame []byte, port *model.HostPort, network *model.HostNetwork, routers []*model.HostRouterPort) ([][]byte, error) {
	p, ok := parse6(frame, pipeline.ProtoICMPv6)
	if !ok || p.hops != 255 || len(p.payload) < 8 || p.payload[0] != pipeline.TypeSolicitRouter || p.payload[1] != 0 {
		return nil, ignored("not a router solicitation")
	}
	return RA(port, network, routers, p.src)
}

func seconds(d time.Duration) uint32 { return uint32(d / time.Second) }

// message makes the ICMPv6 message. A guest that has no IPv4 is told of the host's resolver where its
// subnets name no server; one that has is told by DHCP.
func (a *advert) message(network *model.HostNetwork, alone bool) []byte {
	var flags byte
	var dns []netip.Addr
	for _, s := range a.subnets {
		switch s.RAMode {
		case model.DHCPv6Stateful:
			flags |= 0x80 | 0x40 // addresses and all else by DHCPv6
		case model.DHCPv6Stateless:
			flags |= 0x40
		}
		for _, d := range s.DNS {
			if d.Is6() && !slices.Contains(dns, d) {
				dns = append(dns, d)
			}
		}
	}
	if len(dns) == 0 && alone && !network.Bare {
		dns = append(dns, pipeline.ServiceAddr6)
	}
	lifetime := uint16(0)
	if a.router {
		lifetime = uint16(seconds(routerLifetime))
	}
	b := []byte{pipeline.TypeAdvertRouter, 0, 0, 0, 64, flags}
	b = binary.BigEndian.AppendUint16(b, lifetime)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	b = append(append(b, 1, 1), a.mac[:]...) // source link-layer address
	if network.MTU >= 1280 {
		b = binary.BigEndian.AppendUint32(append(b, 5, 1, 0, 0), uint32(network.MTU))
	}
	for _, s := range a.subnets {
		how := byte(0x80) // on link
		if s.RAMode != model.DHCPv6Stateful {
			how |= 0x40 // form addresses by yourself
		}
		b = append(b, 3, 4, byte(s.CIDR.Bits()), how)
		b = binary.BigEndian.AppendUint32(b, seconds(prefixLifetime))
		b = binary.BigEndian.AppendUint32(b, seconds(preferredLifetime))
		b = append(append(b, 0, 0, 0, 0), s.CIDR.Masked().Addr().AsSlice()...)
	}
	if len(dns) > 0 { // RFC 8106, 5.1
		b = append(b, 25, byte(1+2*len(dns)), 0, 0)
		b = binary.BigEndian.AppendUint32(b, seconds(routerLifetime))
		for _, d := range dns {
			b = append(b, d.AsSlice()...)
		}
	}
	if name := nameBytes(network.DNSDomain); name != nil { // RFC 8106, 5.2
		for (8+len(name))%8 != 0 {
			name = append(name, 0)
		}
		b = append(b, 31, byte(1+len(name)/8), 0, 0)
		b = binary.BigEndian.AppendUint32(b, seconds(routerLifetime))
		b = append(b, name...)
	}
	return b
}

// nameBytes gives a domain name as DNS has it on the wire (RFC 1035, 3.1); nil for what is none.
func nameBytes(domain string) []byte {
	domain = strings.TrimSuffix(domain, ".")
	if domain == "" || len(domain) > 253 {
		return nil
	}
	var b []byte
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > 63 {
			return nil
		}
		b = append(append(b, byte(len(label))), label...)
	}
	return append(b, 0)
}
