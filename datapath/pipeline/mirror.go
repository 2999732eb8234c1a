package pipeline

import "yakumo/model"

// Priorities of the stage Mirror: a packet that has a receiver is copied as one that the receiver gets.
const (
	prioMirrorIn  = 100
	prioMirrorOut = 50
)

// mirror compiles a tap flow, where its source is here and where its sink is. What the source sends is
// copied once it is known to be no forgery, before rules of groups; what it receives, behind
// them. Copies go straight to the sink's device, whatever its groups say, and so are
// never copied again. Answers of the switch and the agent are not copied.
func (c *compiler) mirror(r *model.HostMirror) {
	vni := c.vni(r.VNI)
	source, end := c.rows.Port(r.Source), c.rows.Port(r.Sink)
	// Copies go to a sink's host until the sink runs here; what is sent here is for it all the same.
	sink := end != nil && (!end.Standby || source == nil)
	if sink && source == nil {
		to := uint64(c.own(OrdinalPort, r.Sink))
		c.add(Classify, prioClassify, FeatureMirror, MatchOf(Is(InPort, PortTunnel), Is(TunnelID, vni)), Put(To, to), Goto{Output})
		return
	}
	if source == nil || !sink && !r.TunnelIP.IsValid() {
		return
	}
	from := uint64(c.own(OrdinalPort, r.Source))
	var copied Action = Tunnel{Host: r.TunnelIP, VNI: r.VNI}
	if sink {
		copied = Leg{c.own(OrdinalPort, r.Sink), Output}
	}
	if r.Out {
		c.add(TapOut, prioLocal, FeatureMirror, MatchOf(Is(From, from)), Branch{Stage: Mirror, Reenter: true}, Goto{Next(TapOut)})
		c.add(Mirror, prioMirrorOut, FeatureMirror, MatchOf(Is(From, from), Is(To, 0)), copied)
	}
	if r.In {
		c.add(TapIn, prioLocal, FeatureMirror, MatchOf(Is(To, from)), Branch{Stage: Mirror, Reenter: true}, Goto{Next(TapIn)})
		// Its own broadcast is on its way to all of the network, and ends before it gets back to it.
		c.add(TapIn, prioLocal+1, FeatureMirror, MatchOf(Is(InPort, c.device(source, from)), Is(From, from), Is(To, from)), Goto{Next(TapIn)})
		c.add(Mirror, prioMirrorIn, FeatureMirror, MatchOf(Is(To, from)), copied)
	}
}
