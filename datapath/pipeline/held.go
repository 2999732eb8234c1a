package pipeline

import (
	"net/netip"

	"yakumo/model"
)

// An address in an allowed address pair has no port of its own: it is where a guest says that it is, by ARP or by
// neighbour discovery, and moves when another guest says so. In its network everybody hears that, and asks by flooding. Routers
// do not, so who holds the address is in the rows (model.Held): the switch hands what a guest says of an address
// that its port does not hold to the agent, whose server puts it into the rows of all.

const (
	prioPair = prioSource - 1  // anti-spoof, discover: what a port may say of a pair's address, which somebody must learn
	prioHeld = prioNextHop - 1 // resolve: below the addresses that ports own
)

// pairSource lets a port send from a MAC and the addresses of a pair.
func (c *compiler) pairSource(from Term, ord uint32, mac MAC, p netip.Prefix, next Stage) {
	c.add(AntiSpoof, prioSource, FeatureAntiSpoof, MatchOf(from, IsMAC(EthSrc, mac), Is(EthType, TypeIPv4), Within(IPSrc, p)), Goto{next})
	c.add(AntiSpoof, prioPair, FeatureHeld, MatchOf(from, IsMAC(EthSrc, mac), Is(EthType, TypeARP), IsMAC(ARPSenderMAC, mac), Within(ARPSenderIP, p)),
		ToAgent{Responder: ResponderHeld, Port: ord}, Goto{next})
}

// said lets pass what a port says of the addresses that it holds: nobody has to learn it.
func (c *compiler) said(r *model.HostPort, from Term) {
	for _, h := range r.Held {
		a, mac := h.Address.Unmap(), c.mac(h.MAC)
		if a.Is4() {
			c.source(from, mac, netip.PrefixFrom(a, 32), Next(AntiSpoof))
			continue
		}
		for _, told := range [...]MAC{mac, {}} {
			c.add(Discover, prioSource, FeatureHeld, MatchOf(icmp6(TypeAdvert, from, IsMAC(EthSrc, mac), IsAddr(NDTarget, a), IsMAC(NDTargetMAC, told))...), Goto{Next(Discover)})
		}
	}
}

// heldHere lets routers find the addresses that a port here holds. A MAC that is not the port's own may be several ports', so
// the frame goes straight to the one. The guest behind a port in stand-by is elsewhere.
func (c *compiler) heldHere(r *model.HostPort, ord uint32, net Term, own MAC) {
	for _, h := range r.Held {
		mac := c.mac(h.MAC)
		switch {
		case mac == own:
			c.held(net, h, Put(EthDst, mac.Number()), Goto{Lookup})
		case !r.Standby:
			c.held(net, h, Put(EthDst, mac.Number()), Put(To, uint64(ord)), Goto{Next(Lookup)})
		}
	}
}

// heldThere is heldHere for a port on another host; in a network without tunnels the frame finds its way.
func (c *compiler) heldThere(r *model.HostPeer, net Term, own MAC, to Tunnel) {
	for _, h := range r.Held {
		mac := c.mac(h.MAC)
		if mac == own || !r.TunnelIP.IsValid() {
			c.held(net, h, Put(EthDst, mac.Number()), Goto{Lookup})
			continue
		}
		c.held(net, h, Put(EthDst, mac.Number()), to)
	}
}

func (c *compiler) held(net Term, h model.Held, as ...Action) {
	a := h.Address.Unmap()
	if !a.IsValid() {
		return
	}
	f := versionOf(a)
	c.add(Resolve, prioHeld, FeatureHeld, MatchOf(net, f.typ, IsAddr(f.nextHop, a)), as...)
}

// heldKey names an address of a network among those that are held.
func heldKey(network model.ID, a netip.Addr) string { return network + "," + a.Unmap().String() }

// Holder tells who holds an address of a network, as far as is known here; the zero Held and "" where nobody does.
func (p *Program) Holder(network model.ID, a netip.Addr) (port model.ID, held model.Held) {
	a = a.Unmap()
	for id := range p.heldBy[heldKey(network, a)] {
		var list []model.Held
		switch r := p.Row(id).(type) {
		case *model.HostPort:
			list = r.Held
		case *model.HostPeer:
			list = r.Held
		}
		for _, h := range list {
			if h.Address.Unmap() == a && h.Turn >= held.Turn {
				port, held = id.Key, h
			}
		}
	}
	return port, held
}

func (p *Program) linkHeld(network model.ID, list []model.Held, id model.RowID) {
	for _, h := range list {
		linkTo(p.heldBy, heldKey(network, h.Address), id)
	}
}

func (p *Program) unlinkHeld(network model.ID, list []model.Held, id model.RowID) {
	for _, h := range list {
		unlinkFrom(p.heldBy, heldKey(network, h.Address), id)
	}
}
