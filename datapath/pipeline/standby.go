package pipeline

import "yakumo/model"

// Priorities in lookup, above prioRemote: what came by a tunnel ends there.
const (
	prioMoved   = 170 // what came by a tunnel for a port that has just left is sent on
	prioStandby = 160 // what comes by a tunnel for a port in stand-by is for the guest that comes
)

// A server that moves has its port on two hosts: at the one it stands by. Both rows of the port, that of a
// port and that of a peer, are then on that host, and their entries are the same where they share a match, so
// neither has anything of the other's: the peer's row says where frames go, and the port's row has all else of a port.
//
// What is sent here by others goes to a port in stand-by though: they send it because they know more than this
// host does yet, and a guest that is on its way finds it when it gets here.

// attract compiles which frames go to a port here.
func (c *compiler) attract(r *model.HostPort, ord uint32, net Term, mac MAC) {
	dst, here := IsMAC(EthDst, mac), []Action{Put(To, uint64(ord)), Goto{Next(Lookup)}}
	if !r.Standby {
		c.add(Lookup, prioLocal, FeatureLookup, MatchOf(net, dst), here...)
		c.add(FloodIn, prioNetwork, FeatureFlood, MatchOf(net), Leg{ord, Next(Lookup)})
		return
	}
	// On a physical network frames come to every host whose MAC the wire does not know.
	if n := c.rows.Network(r.NetworkID); n != nil && !n.Provider() {
		c.add(Lookup, prioStandby, FeatureStandby, MatchOf(net, dst, Is(Landed, 1)), here...)
	}
}

// sendOn compiles what becomes of frames that others still send here for a port that has left. It ends there:
// that host has the port, or stands by for it, and has no such row.
func (c *compiler) sendOn(r *model.HostPeer, net Term, mac MAC, to Tunnel) {
	if r.Moved {
		c.add(Lookup, prioMoved, FeatureStandby, MatchOf(net, IsMAC(EthDst, mac), Is(Landed, 1)), Reenter{}, to)
	}
}

// announcements lets a port tell a physical network where it is: by RARP (RFC 903), as hypervisors do for
// a guest that has come, and by ARP for its own address, which nobody here needs to hear.
func (c *compiler) announcements(r *model.HostPort, from, src Term) {
	if n := c.rows.Network(r.NetworkID); n != nil && n.Provider() {
		if out := c.leave(n); len(out) > 0 {
			c.add(AntiSpoof, prioOpen+1, FeatureStandby, MatchOf(from, src, Is(EthType, TypeRARP)), out...)
		}
	}
}

// ownARP compiles what becomes of a guest's question for an address of its own: it must not hear itself.
// On a physical network it goes out, where somebody else may have the address.
func (c *compiler) ownARP(r *model.HostPort) []Action {
	if n := c.rows.Network(r.NetworkID); n != nil && n.Provider() {
		return c.leave(n)
	}
	return nil
}
