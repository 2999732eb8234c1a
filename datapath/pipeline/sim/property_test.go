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
		row := &model.HostGroup{ID: id, Stateful: true}
		for r := range rapid.IntRange(0, 4).Draw(t, "rules") {
			rule := model.HostRule{ID: fmt.Sprintf("%s-r%d", id, r), EtherType: model.IPv4, Direction: rapid.SampledFrom([]string{model.Ingress, model.Egress}).Draw(t, "direction")}
			switch rapid.IntRange(0, 2).Draw(t, "remote") {
			case 1:
				rule.RemoteGroupID = fmt.Sprintf("g%d", rapid.IntRange(0, 2).Draw(t, "remote group"))
			case 2:
				rule.RemotePrefix = netip.MustParsePrefix(rapid.SampledFrom([]string{"10.0.0.0/30", "10.0.0.2/31", "0.0.0.0/0"}).Draw(t, "prefix"))
			}
			rule.Protocol = rapid.SampledFrom([]string{"", "tcp", "udp", "6"}).Draw(t, "protocol")
			if rule.Protocol != "" && rapid.Bool().Draw(t, "ports") {
				lo := rapid.IntRange(0, 65535).Draw(t, "low")
				hi := rapid.IntRange(lo, 65535).Draw(t, "high")
				rule.PortMin, rule.PortMax = &lo, &hi
			}
			row.Rules = append(row.Rules, rule)
		}
		c.groups[id] = row
	}
	for i := range rapid.IntRange(2, 6).Draw(t, "ports") {
		net := i % 2
		n := byte(i/2 + 1) // the same addresses in both networks
		p := &guest{host: rapid.IntRange(0, 1).Draw(t, "host"), mac: pipeline.MAC{0xfa, 0x16, 0x3e, 0, 0, n}, ip: netip.AddrFrom4([4]byte{10, 0, 0, n})}
		p.row = &model.HostPort{ID: fmt.Sprintf("p%d", i), NetworkID: fmt.Sprintf("n%d", net), VNI: uint32(5000 + net), MAC: p.mac.String(), AdminStateUp: true, PortSecurity: true,
			FixedIPs: []model.FixedIP{{Address: p.ip}}}
		for id := range 3 {
			if rapid.Bool().Draw(t, "member") {
				p.row.Groups = append(p.row.Groups, fmt.Sprintf("g%d", id))
			}
		}
		c.ports = append(c.ports, p)
	}
	for h, s := range c.hosts {
		var rows []model.HostRow
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
				rows = append(rows, &model.HostPeer{ID: p.row.ID, NetworkID: p.row.NetworkID, VNI: p.row.VNI, MAC: p.row.MAC, Addresses: []netip.Addr{p.ip}, TunnelIP: tunnelIP(p.host)})
			}
			for _, g := range p.row.Groups {
				rows = append(rows, &model.HostMember{GroupID: g, PortID: p.row.ID, Prefixes: []netip.Prefix{netip.PrefixFrom(p.ip, 32)}})
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

// allows is Neutron's meaning of a port's rules, straight from the rows.
func (c *cloud) allows(p *guest, direction string, remote *guest, proto string, port int) bool {
	for _, g := range p.row.Groups {
		for _, r := range c.groups[g].Rules {
			number := map[string]string{"6": "tcp", "tcp": "tcp", "udp": "udp"}[r.Protocol]
			switch {
			case r.Direction != direction:
			case r.Protocol != "" && number != proto:
			case r.PortMin != nil && (port < *r.PortMin || port > *r.PortMax):
			case r.RemotePrefix.IsValid() && !r.RemotePrefix.Contains(remote.ip):
			// A remote group is a set of addresses: a port elsewhere with the same address counts.
			case r.RemoteGroupID != "" && !slices.ContainsFunc(c.ports, func(o *guest) bool { return o.ip == remote.ip && slices.Contains(o.row.Groups, r.RemoteGroupID) }):
			default:
				return true
			}
		}
	}
	return false
}

// Exactly what the rules allow arrives, at exactly the right port, whatever the topology
// and the order of rows; answers pass, and answers to nothing do not.
func TestReachability(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCloud(t)
		for _, a := range c.ports {
			for _, b := range c.ports {
				if a == b || a.row.NetworkID != b.row.NetworkID {
					continue
				}
				proto := rapid.SampledFrom([]string{"tcp", "udp"}).Draw(t, "protocol")
				port := rapid.IntRange(0, 65535).Draw(t, "port")
				p := sim.Packet{EthSrc: a.mac, EthDst: b.mac, EthType: pipeline.TypeIPv4, Src: a.ip, Dst: b.ip, Proto: pipeline.ProtoUDP, SrcPort: uint16(40000 + len(c.ports)), DstPort: uint16(port)}
				back := sim.Packet{EthSrc: b.mac, EthDst: a.mac, EthType: pipeline.TypeIPv4, Src: b.ip, Dst: a.ip, Proto: pipeline.ProtoUDP, SrcPort: p.DstPort, DstPort: p.SrcPort}
				if proto == "tcp" {
					p.Proto, p.Flags, back.Proto, back.Flags = pipeline.ProtoTCP, sim.SYN, pipeline.ProtoTCP, sim.SYN|sim.ACK
					if got := c.send(b, back); len(got) != 0 {
						t.Fatalf("an answer to nothing reaches %v: %s", got, back.Summary())
					}
				}
				want := c.allows(a, model.Egress, b, proto, port) && c.allows(b, model.Ingress, a, proto, port)
				got := c.send(a, p)
				if want && !slices.Equal(got, []string{b.row.ID}) || !want && len(got) != 0 {
					t.Fatalf("%s to %s %s/%d: allowed %v, reaches %v", a.row.ID, b.row.ID, proto, port, want, got)
				}
				if got := c.send(b, back); want && !slices.Equal(got, []string{a.row.ID}) {
					t.Fatalf("the answer reaches %v", got)
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

func FuzzParse(f *testing.F) {
	p := sim.Packet{EthType: pipeline.TypeIPv4, Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), Proto: 6, Flags: sim.SYN, Payload: []byte("x")}
	f.Add(p.Frame())
	p.Proto, p.VLAN = 17, 0x1005
	f.Add(p.Frame())
	p.Proto = 1
	f.Add(p.Frame())
	f.Add((&sim.Packet{EthType: pipeline.TypeARP, ARPSPA: p.Src, ARPTPA: p.Dst}).Frame())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := sim.Parse(b)
		if err != nil || p.EthType == pipeline.TypeIPv4 && !p.Src.IsValid() || p.EthType == pipeline.TypeARP && !p.ARPSPA.IsValid() {
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
