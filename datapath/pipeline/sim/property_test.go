package sim_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"yakumo/datapath"
	"yakumo/datapath/pipeline"
	"yakumo/datapath/pipeline/sim"
	"yakumo/model"
)

// cloud is two hosts with two networks of the same addresses, and what the API would say.
type cloud struct {
	t      *rapid.T
	hosts  [2]*site
	ports  []*guest
	groups map[string]*model.HostGroup
	set    *model.HostAddresses
}

type site struct {
	sw   *sim.Switch
	prog *pipeline.Program
	ord  *datapath.MemoryOrdinals
}

type guest struct {
	row  *model.HostPort
	host int
	mac  pipeline.MAC
	ip   netip.Addr
	ip6  netip.Addr
}

// at gives the guest's address of a family.
func (g *guest) at(etherType string) netip.Addr {
	if etherType == model.IPv6 {
		return g.ip6
	}
	return g.ip
}

func tunnelIP(host int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(host + 1)}) }

func drawCloud(t *rapid.T) *cloud {
	c := &cloud{t: t, groups: map[string]*model.HostGroup{}}
	for i := range c.hosts {
		ord := datapath.NewMemoryOrdinals()
		c.hosts[i] = &site{sim.New(), pipeline.NewProgram(pipeline.DefaultEnv(), ord), ord}
	}
	for g := range 3 {
		id := fmt.Sprintf("g%d", g)
		row := &model.HostGroup{ID: id, Stateful: g < 2} // the third one only for ports of its own kind
		for r := range rapid.IntRange(0, 4).Draw(t, "rules") {
			rule := model.HostRule{ID: fmt.Sprintf("%s-r%d", id, r), EtherType: rapid.SampledFrom([]string{model.IPv4, model.IPv6}).Draw(t, "family"), Direction: rapid.SampledFrom([]string{model.Ingress, model.Egress}).Draw(t, "direction")}
			switch rapid.IntRange(0, 3).Draw(t, "remote") {
			case 1:
				rule.RemoteGroupID = fmt.Sprintf("g%d", rapid.IntRange(0, 2).Draw(t, "remote group"))
			case 2:
				prefixes := []string{"10.0.0.0/30", "10.0.0.2/31", "0.0.0.0/0"}
				if rule.EtherType == model.IPv6 {
					prefixes = []string{"fd00::/126", "fd00::2/127", "::/0"}
				}
				rule.RemotePrefix = netip.MustParsePrefix(rapid.SampledFrom(prefixes).Draw(t, "prefix"))
			case 3:
				rule.AddressGroupID = "set"
			}
			rule.Protocol = rapid.SampledFrom([]string{"", "tcp", "udp", "6", "icmp"}).Draw(t, "protocol")
			if rule.Protocol == "icmp" && rule.EtherType == model.IPv6 {
				rule.Protocol = rapid.SampledFrom([]string{"ipv6-icmp", "icmpv6", "58", "icmp"}).Draw(t, "name")
			}
			if icmp(rule.Protocol) && rapid.Bool().Draw(t, "types") {
				typ := rapid.SampledFrom([]int{8, 128, 3}).Draw(t, "type")
				rule.PortMin = &typ
			} else if rule.Protocol != "" && !icmp(rule.Protocol) && rapid.Bool().Draw(t, "ports") {
				lo := rapid.IntRange(0, 65535).Draw(t, "low")
				hi := rapid.IntRange(lo, 65535).Draw(t, "high")
				rule.PortMin, rule.PortMax = &lo, &hi
			}
			row.Rules = append(row.Rules, rule)
		}
		c.groups[id] = row
	}
	c.set = &model.HostAddresses{ID: "set"}
	for _, p := range []string{"10.0.0.1/32", "10.0.0.2/31", "fd00::1/128", "fd00::3/128"} {
		if rapid.Bool().Draw(t, "in set") {
			c.set.Prefixes = append(c.set.Prefixes, netip.MustParsePrefix(p))
		}
	}
	for i := range rapid.IntRange(2, 6).Draw(t, "ports") {
		net := i % 2
		n := byte(i/2 + 1) // the same addresses in both networks
		p := &guest{host: rapid.IntRange(0, 1).Draw(t, "host"), mac: pipeline.MAC{0xfa, 0x16, 0x3e, 0, 0, n}, ip: netip.AddrFrom4([4]byte{10, 0, 0, n}),
			ip6: netip.AddrFrom16([16]byte{0: 0xfd, 15: n})}
		p.row = &model.HostPort{ID: fmt.Sprintf("p%d", i), NetworkID: fmt.Sprintf("n%d", net), VNI: uint32(5000 + net), MAC: p.mac.String(), AdminStateUp: true, PortSecurity: true,
			FixedIPs: []model.FixedIP{{Address: p.ip}, {Address: p.ip6}}}
		if rapid.IntRange(0, 3).Draw(t, "stateless") == 0 {
			p.row.Groups = []string{"g2"}
		} else {
			for id := range 2 {
				if rapid.Bool().Draw(t, "member") {
					p.row.Groups = append(p.row.Groups, fmt.Sprintf("g%d", id))
				}
			}
		}
		c.ports = append(c.ports, p)
	}
	for h, s := range c.hosts {
		rows := []model.HostRow{c.set}
		for net := range 2 {
			rows = append(rows, &model.HostNetwork{ID: fmt.Sprintf("n%d", net), VNI: uint32(5000 + net), MTU: 1450, Flood: []netip.Addr{tunnelIP(1 - h)}})
		}
		for _, g := range c.groups {
			rows = append(rows, g)
		}
		for _, p := range c.ports {
			if p.host == h {
				rows = append(rows, p.row)
			} else {
				rows = append(rows, &model.HostPeer{ID: p.row.ID, NetworkID: p.row.NetworkID, VNI: p.row.VNI, MAC: p.row.MAC, Addresses: []netip.Addr{p.ip, p.ip6}, TunnelIP: tunnelIP(p.host)})
			}
			for _, g := range p.row.Groups {
				rows = append(rows, &model.HostMember{GroupID: g, PortID: p.row.ID, Prefixes: []netip.Prefix{netip.PrefixFrom(p.ip, 32), netip.PrefixFrom(p.ip6, 128)}})
			}
		}
		for _, r := range rapid.Permutation(rows).Draw(t, "order") { // rows arrive in any order, one by one
			d, err := s.prog.Apply([]model.HostRow{r}, nil)
			if err != nil {
				t.Fatalf("apply: %v", err)
			}
			s.sw.Load(d)
		}
		if n := s.prog.Conflicts(); n != 0 {
			t.Fatalf("%d conflicts on host %d", n, h)
		}
	}
	return c
}

// send gives the ids of the ports that get the packet.
func (c *cloud) send(from *guest, p sim.Packet) []string {
	var got []string
	host := from.host
	n, err := c.hosts[host].ord.Get(pipeline.OrdinalPort, from.row.ID, pipeline.MaxPort)
	if err != nil {
		c.t.Fatalf("ordinal: %v", err)
	}
	type hop struct {
		host int
		a    sim.Arrival
	}
	for queue := []hop{{host, sim.Arrival{In: uint64(n), Packet: p}}}; len(queue) > 0; queue = queue[1:] {
		h := queue[0]
		for _, d := range c.hosts[h.host].sw.Run(h.a).Out {
			switch {
			case d.To == pipeline.PortTunnel:
				if h.a.In == pipeline.PortTunnel {
					c.t.Fatalf("from a tunnel into a tunnel: %s", p.Summary())
				}
				queue = append(queue, hop{1 - h.host, sim.Arrival{In: pipeline.PortTunnel, VNI: d.VNI, Packet: d.Packet}})
			case d.To < pipeline.PortTunnel:
				id, _ := c.hosts[h.host].ord.Find(pipeline.OrdinalPort, uint32(d.To))
				got = append(got, id)
			}
		}
	}
	slices.Sort(got)
	return got
}

func icmp(protocol string) bool {
	return slices.Contains([]string{"icmp", "ipv6-icmp", "icmpv6", "58"}, protocol)
}

// allows is Neutron's meaning of a port's rules, straight from the rows. Of ICMP, port is the type.
func (c *cloud) allows(p *guest, direction string, remote *guest, etherType, proto string, port int) bool {
	for _, g := range p.row.Groups {
		for _, r := range c.groups[g].Rules {
			number := map[string]string{"6": "tcp", "tcp": "tcp", "udp": "udp", "icmp": "icmp", "ipv6-icmp": "icmp", "icmpv6": "icmp", "58": "icmp"}[r.Protocol]
			at := remote.at(etherType)
			switch {
			case r.Direction != direction || r.EtherType != etherType:
			case r.Protocol != "" && number != proto:
			case r.PortMin != nil && (port < *r.PortMin || r.PortMax != nil && port > *r.PortMax || r.PortMax == nil && port != *r.PortMin):
			case r.RemotePrefix.IsValid() && !r.RemotePrefix.Contains(at):
			// A remote group is a set of addresses: a port elsewhere with the same address counts.
			case r.RemoteGroupID != "" && !slices.ContainsFunc(c.ports, func(o *guest) bool { return o.at(etherType) == at && slices.Contains(o.row.Groups, r.RemoteGroupID) }):
			case r.AddressGroupID != "" && !slices.ContainsFunc(c.set.Prefixes, func(q netip.Prefix) bool { return q.Contains(at) }):
			default:
				return true
			}
		}
	}
	return false
}

func (p *guest) stateless() bool { return slices.Contains(p.row.Groups, "g2") }

// Exactly what the rules allow arrives, at exactly the right port, whatever the topology
// and the order of rows; answers pass, and answers to nothing do not. At a port whose group is
// not stateful the answers need rules too.
func TestReachability(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCloud(t)
		for _, a := range c.ports {
			for _, b := range c.ports {
				if a == b || a.row.NetworkID != b.row.NetworkID {
					continue
				}
				family := rapid.SampledFrom([]string{model.IPv4, model.IPv6}).Draw(t, "family")
				proto := rapid.SampledFrom([]string{"tcp", "udp", "icmp"}).Draw(t, "protocol")
				port := rapid.IntRange(0, 65535).Draw(t, "port")
				p := sim.Packet{EthSrc: a.mac, EthDst: b.mac, EthType: pipeline.TypeIPv4, Src: a.at(family), Dst: b.at(family), Proto: pipeline.ProtoUDP, SrcPort: uint16(40000 + len(c.ports)), DstPort: uint16(port)}
				back := sim.Packet{EthSrc: b.mac, EthDst: a.mac, EthType: pipeline.TypeIPv4, Src: p.Dst, Dst: p.Src, Proto: pipeline.ProtoUDP, SrcPort: p.DstPort, DstPort: p.SrcPort}
				if family == model.IPv6 {
					p.EthType, back.EthType = pipeline.TypeIPv6, pipeline.TypeIPv6
				}
				backPort := int(p.SrcPort) // what the rules see of the answer
				switch proto {
				case "tcp":
					p.Proto, p.Flags, back.Proto, back.Flags = pipeline.ProtoTCP, sim.SYN, pipeline.ProtoTCP, sim.SYN|sim.ACK
				case "icmp":
					p.Proto, p.ICMPType, p.SrcPort, p.DstPort = pipeline.ProtoICMP, 8, uint16(port), 0
					back.Proto, back.ICMPType, back.SrcPort, back.DstPort = pipeline.ProtoICMP, 0, uint16(port), 0
					port, backPort = 8, 0
					if family == model.IPv6 {
						p.Proto, p.ICMPType, back.Proto, back.ICMPType = pipeline.ProtoICMPv6, 128, pipeline.ProtoICMPv6, 129
						port, backPort = 128, 129
					}
				}
				out := c.allows(b, model.Egress, a, family, proto, backPort)
				in := c.allows(a, model.Ingress, b, family, proto, backPort)
				if proto != "udp" {
					want := b.stateless() && out && a.stateless() && in
					if got := c.send(b, back); want != (len(got) == 1) {
						t.Fatalf("an answer to nothing reaches %v, allowed %v: %s", got, want, back.Summary())
					}
				}
				want := c.allows(a, model.Egress, b, family, proto, port) && c.allows(b, model.Ingress, a, family, proto, port)
				got := c.send(a, p)
				if want && !slices.Equal(got, []string{b.row.ID}) || !want && len(got) != 0 {
					t.Fatalf("%s to %s %s %s/%d: allowed %v, reaches %v", a.row.ID, b.row.ID, family, proto, port, want, got)
				}
				if !want {
					continue
				}
				answered := (!b.stateless() || out) && (!a.stateless() || in)
				if got := c.send(b, back); answered && !slices.Equal(got, []string{a.row.ID}) || !answered && len(got) != 0 {
					t.Fatalf("the answer %s reaches %v, allowed %v", back.Summary(), got, answered)
				}
			}
		}
	})
}

// Nothing forged leaves, and nothing ever reaches a port of another network.
func TestForged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCloud(t)
		a := rapid.SampledFrom(c.ports).Draw(t, "sender")
		b := rapid.SampledFrom(c.ports).Draw(t, "receiver")
		mac := func(name string) pipeline.MAC {
			return rapid.SampledFrom([]pipeline.MAC{a.mac, b.mac, {255, 255, 255, 255, 255, 255}, {2, 0, 0, 0, 0, 1}, pipeline.ServiceMAC, pipeline.DeviceMAC}).Draw(t, name)
		}
		ip := func(name string) netip.Addr {
			return rapid.SampledFrom([]netip.Addr{a.ip, b.ip, netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("255.255.255.255"), pipeline.ServiceAddr, netip.MustParseAddr("169.254.64.1")}).Draw(t, name)
		}
		port := func(name string) uint16 { return rapid.SampledFrom([]uint16{22, 53, 67, 68, 80, 8775}).Draw(t, name) }
		p := sim.Packet{EthSrc: mac("source MAC"), EthDst: mac("destination MAC"), EthType: rapid.SampledFrom([]uint16{pipeline.TypeIPv4, pipeline.TypeARP, 0x86dd}).Draw(t, "type"),
			Src: ip("source"), Dst: ip("destination"), Proto: rapid.SampledFrom([]uint8{1, 6, 17}).Draw(t, "protocol"), SrcPort: port("source port"), DstPort: port("destination port"),
			ARPOp: rapid.SampledFrom([]uint16{1, 2}).Draw(t, "op"), ARPSHA: mac("sender"), ARPSPA: ip("sender address"), ARPTPA: ip("target address")}
		for _, id := range c.send(a, p) {
			i := slices.IndexFunc(c.ports, func(g *guest) bool { return g.row.ID == id })
			if c.ports[i].row.NetworkID != a.row.NetworkID {
				t.Fatalf("%s of %s reaches %s in another network", p.Summary(), a.row.ID, id)
			}
			own := p.EthSrc == a.mac
			switch p.EthType {
			case pipeline.TypeIPv4:
				own = own && p.Src == a.ip
			case pipeline.TypeARP:
				own = own && p.ARPSHA == a.mac && (p.ARPSPA == a.ip || p.ARPOp == pipeline.ARPRequest && p.ARPSPA.IsUnspecified())
			default:
				own = false
			}
			if !own && id != a.row.ID {
				t.Fatalf("forged %s of %s reaches %s", p.Summary(), a.row.ID, id)
			}
		}
	})
}

// The same for IPv6: no forged source, no forged neighbour, no router, no server.
func TestForged6(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCloud(t)
		a := rapid.SampledFrom(c.ports).Draw(t, "sender")
		b := rapid.SampledFrom(c.ports).Draw(t, "receiver")
		mac := func(name string) pipeline.MAC {
			return rapid.SampledFrom([]pipeline.MAC{a.mac, b.mac, pipeline.GroupMAC(pipeline.AllNodes), {}, pipeline.ServiceMAC}).Draw(t, name)
		}
		lla := pipeline.LinkLocal(a.mac)
		ip := func(name string) netip.Addr {
			return rapid.SampledFrom([]netip.Addr{a.ip6, b.ip6, lla, pipeline.LinkLocal(b.mac), netip.IPv6Unspecified(), pipeline.AllNodes, pipeline.AllServers}).Draw(t, name)
		}
		port := func(name string) uint16 { return rapid.SampledFrom([]uint16{22, 546, 547}).Draw(t, name) }
		p := sim.Packet{EthSrc: mac("source MAC"), EthDst: mac("destination MAC"), EthType: pipeline.TypeIPv6, Src: ip("source"), Dst: ip("destination"),
			Proto: rapid.SampledFrom([]uint8{6, 17, 58, 58, 58}).Draw(t, "protocol"), SrcPort: port("source port"), DstPort: port("destination port"), TTL: 255,
			ICMPType: uint8(rapid.IntRange(127, 144).Draw(t, "type")), NDTarget: ip("target"), NDMAC: mac("said")}
		for _, id := range c.send(a, p) {
			if id == a.row.ID { // the switch answered
				continue
			}
			i := slices.IndexFunc(c.ports, func(g *guest) bool { return g.row.ID == id })
			if c.ports[i].row.NetworkID != a.row.NetworkID {
				t.Fatalf("%s of %s reaches %s in another network", p.Summary(), a.row.ID, id)
			}
			own := p.EthSrc == a.mac && (p.Src == a.ip6 || p.Src == lla)
			if p.Proto == pipeline.ProtoICMPv6 {
				said := p.NDMAC == a.mac || p.NDMAC == pipeline.MAC{}
				switch p.ICMPType {
				case pipeline.TypeAdvertRouter, pipeline.TypeRedirect, pipeline.TypeSolicit: // nobody here has a pair, so a solicitation is answered or dropped
					own = false
				case pipeline.TypeAdvert:
					own = own && said && (p.NDTarget == a.ip6 || p.NDTarget == lla)
				case pipeline.TypeSolicitRouter, pipeline.TypeMLDReport, pipeline.TypeMLDDone, pipeline.TypeMLDReport2:
					own = own || p.EthSrc == a.mac && p.Src.IsUnspecified()
				}
			}
			if !own || p.Proto == pipeline.ProtoUDP && p.SrcPort == 547 && p.DstPort == 546 {
				t.Fatalf("forged %s target %v said %v of %s reaches %s", p.Summary(), p.NDTarget, p.NDMAC, a.row.ID, id)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	p := sim.Packet{EthType: pipeline.TypeIPv4, Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), Proto: 6, Flags: sim.SYN, Payload: []byte("x")}
	f.Add(p.Frame())
	p.Proto, p.VLAN = 17, 0x1005
	f.Add(p.Frame())
	p.Proto = 1
	f.Add(p.Frame())
	f.Add((&sim.Packet{EthType: pipeline.TypeARP, ARPSPA: p.Src, ARPTPA: p.Dst}).Frame())
	p.EthType, p.Src, p.Dst, p.Proto, p.ICMPType, p.NDTarget = pipeline.TypeIPv6, netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), 58, 135, netip.MustParseAddr("fd00::2")
	f.Add(p.Frame())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := sim.Parse(b)
		if err != nil || p.Frag != 0 || p.EthType == pipeline.TypeIPv4 && !p.Src.IsValid() || // no fragment is put together
			p.EthType == pipeline.TypeIPv6 && !p.Src.IsValid() || p.EthType == pipeline.TypeARP && !p.ARPSPA.IsValid() {
			return
		}
		// What was understood survives a round trip.
		q, err := sim.Parse(p.Frame())
		if err != nil {
			t.Fatalf("own frame: %v", err)
		}
		if p.TTL == 0 {
			q.TTL = 0
		}
		if fmt.Sprint(p) != fmt.Sprint(q) {
			t.Fatalf("%+v\nbecame\n%+v", p, q)
		}
	})
}
