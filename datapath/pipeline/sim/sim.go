// Package sim walks packets through the entries of package pipeline without a switch: the
// same stages, priorities, conjunctions and connection tracking, in memory. It serves the
// fake driver, property tests, and explanations of what would happen to a packet. It owns
// no rows and imports nothing of the project but pipeline.
package sim

import (
	"fmt"
	"net/netip"
	"slices"

	"yakumo/datapath/pipeline"
)

// Switch is a simulated switch. It is not safe for use by several goroutines.
type Switch struct {
	entries map[pipeline.Key]*pipeline.Installed
	stages  map[pipeline.Stage][]*pipeline.Installed // by falling priority; nil where stale
	zones   map[uint64]map[tuple]*connection
}

type tuple struct {
	proto    uint8
	src, dst netip.Addr
	sp, dp   uint16
}

func (t tuple) reverse() tuple { return tuple{t.proto, t.dst, t.src, t.dp, t.sp} }

type connection struct{ mark uint64 }

// New makes a switch without entries: it drops everything.
func New() *Switch {
	return &Switch{entries: map[pipeline.Key]*pipeline.Installed{}, zones: map[uint64]map[tuple]*connection{}}
}

// Load changes entries.
func (s *Switch) Load(d pipeline.Delta) {
	for _, in := range d.Delete {
		delete(s.entries, in.Key)
	}
	for _, in := range d.Put {
		s.entries[in.Key] = in
	}
	s.stages = nil
}

// Replace makes the entries those of list; connections stay.
func (s *Switch) Replace(list []*pipeline.Installed) {
	clear(s.entries)
	s.Load(pipeline.Delta{Put: list})
}

// Len gives the number of entries.
func (s *Switch) Len() int { return len(s.entries) }

// Flush forgets the connections of a zone.
func (s *Switch) Flush(zone uint32) { delete(s.zones, uint64(zone)) }

// Arrival is a packet and where it comes in.
type Arrival struct {
	In     uint64 // ordinal of a local port, PortTunnel or PortService
	VNI    uint32 // of a packet from a tunnel
	Packet Packet
}

// Departure is a packet that leaves the switch.
type Departure struct {
	To        uint64             // ordinal of a local port, PortTunnel or PortService; as In where the switch answered
	Host      netip.Addr         // with PortTunnel
	VNI       uint32             // with PortTunnel
	Responder pipeline.Responder // not 0: it went to the agent, on behalf of port To
	Packet    Packet
}

// Step is one stage that a packet met.
type Step struct {
	Stage pipeline.Stage
	Entry *pipeline.Entry // nil: no entry matched, and the packet was dropped
}

// String gives the entry that acted.
func (s Step) String() string {
	if s.Entry == nil {
		return s.Stage.String() + " miss -> drop"
	}
	return s.Entry.String()
}

// Result is what became of a packet: the copies that left, and each stage of each copy.
type Result struct {
	Out   []Departure
	Steps []Step
}

// walk is one packet on its way.
type walk struct {
	s   *Switch
	in  uint64
	own [pipeline.ConjID + 1]uint64 // the pipeline's own fields
	p   Packet
	res *Result
}

// Run walks a packet from its arrival to all of its ends.
func (s *Switch) Run(a Arrival) Result {
	if s.stages == nil {
		s.stages = map[pipeline.Stage][]*pipeline.Installed{}
		for _, in := range s.entries {
			s.stages[in.Entry.Stage] = append(s.stages[in.Entry.Stage], in)
		}
		for _, list := range s.stages {
			slices.SortFunc(list, pipeline.CompareInstalled)
		}
	}
	var res Result
	w := walk{s: s, in: a.In, p: a.Packet, res: &res}
	w.own[pipeline.InPort], w.own[pipeline.TunnelID] = a.In, uint64(a.VNI)
	w.stage(pipeline.Classify)
	return res
}

// field gives a field's content; false where the packet has no such field.
func (w *walk) field(f pipeline.Field) (uint64, bool) {
	p := &w.p
	if int(f) < len(w.own) {
		return w.own[f], true
	}
	arp, ip := p.EthType == pipeline.TypeARP, p.EthType == pipeline.TypeIPv4
	tcp, udp, sctp, icmp := ip && p.Proto == pipeline.ProtoTCP, ip && p.Proto == pipeline.ProtoUDP, ip && p.Proto == pipeline.ProtoSCTP, ip && p.Proto == pipeline.ProtoICMP
	switch f {
	case pipeline.EthSrc:
		return p.EthSrc.Number(), true
	case pipeline.EthDst:
		return p.EthDst.Number(), true
	case pipeline.EthType:
		return uint64(p.EthType), true
	case pipeline.VLAN:
		return uint64(p.VLAN), true
	case pipeline.ARPOp:
		return uint64(p.ARPOp), arp
	case pipeline.ARPSenderMAC:
		return p.ARPSHA.Number(), arp
	case pipeline.ARPSenderIP:
		return pipeline.AddrNumber(p.ARPSPA), arp
	case pipeline.ARPTargetIP:
		return pipeline.AddrNumber(p.ARPTPA), arp
	case pipeline.IPSrc:
		return pipeline.AddrNumber(p.Src), ip
	case pipeline.IPDst:
		return pipeline.AddrNumber(p.Dst), ip
	case pipeline.IPProto:
		return uint64(p.Proto), ip
	case pipeline.TCPSrc:
		return uint64(p.SrcPort), tcp
	case pipeline.TCPDst:
		return uint64(p.DstPort), tcp
	case pipeline.UDPSrc:
		return uint64(p.SrcPort), udp
	case pipeline.UDPDst:
		return uint64(p.DstPort), udp
	case pipeline.SCTPSrc:
		return uint64(p.SrcPort), sctp
	case pipeline.SCTPDst:
		return uint64(p.DstPort), sctp
	case pipeline.ICMPType:
		return uint64(p.ICMPType), icmp
	case pipeline.ICMPCode:
		return uint64(p.ICMPCode), icmp
	}
	return 0, false
}

func (w *walk) set(f pipeline.Field, v uint64) {
	p := &w.p
	if int(f) < len(w.own) {
		w.own[f] = v
		return
	}
	switch f {
	case pipeline.EthSrc:
		p.EthSrc = pipeline.NumberMAC(v)
	case pipeline.EthDst:
		p.EthDst = pipeline.NumberMAC(v)
	case pipeline.IPSrc:
		p.Src = pipeline.NumberAddr(v)
	case pipeline.IPDst:
		p.Dst = pipeline.NumberAddr(v)
	case pipeline.TCPSrc, pipeline.UDPSrc:
		p.SrcPort = uint16(v)
	case pipeline.TCPDst, pipeline.UDPDst:
		p.DstPort = uint16(v)
	default:
		panic(fmt.Sprintf("sim: set of field %v is not known", f)) // a defect: the pipeline grew and this did not
	}
}

func (w *walk) meets(m pipeline.Match) bool {
	for _, t := range m {
		if v, ok := w.field(t.Field); !ok || v&t.Mask != t.Value {
			return false
		}
	}
	return true
}

// find gives the entry that acts in a stage.
func (w *walk) find(st pipeline.Stage) *pipeline.Entry {
	list := w.s.stages[st]
	for i := 0; i < len(list); {
		prio := list[i].Entry.Priority
		clauses := map[uint32]uint64{}
		of := map[uint32]uint8{}
		for ; i < len(list) && list[i].Entry.Priority == prio; i++ {
			e := list[i].Entry
			if !w.meets(e.Match) {
				continue
			}
			if len(e.Actions) > 0 {
				if _, conj := e.Actions[0].(pipeline.Conj); conj {
					for _, a := range e.Actions {
						c := a.(pipeline.Conj)
						clauses[c.ID] |= 1 << (c.Clause - 1)
						of[c.ID] = c.Of
					}
					continue
				}
			}
			return e
		}
		var ids []uint32
		for id, seen := range clauses {
			if seen == 1<<of[id]-1 {
				ids = append(ids, id)
			}
		}
		slices.Sort(ids)
		for _, id := range ids {
			w.own[pipeline.ConjID] = uint64(id)
			for _, in := range list {
				if t, ok := in.Entry.Match.Get(pipeline.ConjID); ok && t.Value == uint64(id) && w.meets(in.Entry.Match) {
					w.own[pipeline.ConjID] = 0
					return in.Entry
				}
			}
			w.own[pipeline.ConjID] = 0
		}
	}
	return nil
}

// stage takes the packet through a stage and all that follow from it.
func (w *walk) stage(st pipeline.Stage) {
	e := w.find(st)
	w.res.Steps = append(w.res.Steps, Step{st, e})
	if e == nil {
		return
	}
	for _, a := range e.Actions {
		switch a := a.(type) {
		case pipeline.Set:
			w.set(a.Field, a.Value)
		case pipeline.Goto:
			w.stage(a.Stage)
		case pipeline.Leg:
			w.own[pipeline.To] = uint64(a.To)
			leg := *w
			leg.stage(a.Stage)
		case pipeline.Track:
			next := *w
			next.track(w.own[a.Zone])
			next.stage(a.Stage)
		case pipeline.Commit:
			w.commit(w.own[a.Zone], uint64(a.Mark))
		case pipeline.Deliver:
			if a.Port != w.in {
				w.depart(Departure{To: a.Port})
			}
		case pipeline.Tunnel:
			if w.in != pipeline.PortTunnel {
				w.depart(Departure{To: pipeline.PortTunnel, Host: a.Host, VNI: a.VNI})
			}
		case pipeline.AnswerARP:
			p := &w.p
			p.EthDst, p.EthSrc, p.ARPOp = p.EthSrc, a.MAC, pipeline.ARPReply
			p.ARPTHA, p.ARPSHA = p.ARPSHA, a.MAC
			p.ARPTPA, p.ARPSPA = p.ARPSPA, p.ARPTPA
			w.depart(Departure{To: w.in})
		case pipeline.ToAgent:
			w.depart(Departure{To: uint64(a.Port), Responder: a.Responder})
		case pipeline.Conj: // met only as a clause
		default:
			panic(fmt.Sprintf("sim: action %T is not known", a)) // a defect: the pipeline grew and this did not
		}
	}
}

func (w *walk) depart(d Departure) {
	d.Packet = w.p
	w.res.Out = append(w.res.Out, d)
}

// tuple gives what identifies the packet's connection. An echo and its reply are one.
func (w *walk) tuple() tuple {
	p := &w.p
	t := tuple{p.Proto, p.Src, p.Dst, p.SrcPort, p.DstPort}
	if p.Proto == pipeline.ProtoICMP {
		t.sp, t.dp = p.SrcPort, p.SrcPort
	}
	return t
}

func (w *walk) lookup(zone uint64) (c *connection, reply bool) {
	t := w.tuple()
	if c := w.s.zones[zone][t]; c != nil {
		return c, false
	}
	return w.s.zones[zone][t.reverse()], true
}

// opens tells whether a packet may be the first of a connection.
func (w *walk) opens() bool {
	p := &w.p
	switch p.Proto {
	case pipeline.ProtoTCP:
		return p.Flags&RST == 0 && p.Flags&(SYN|ACK) != SYN|ACK && p.Flags&(SYN|FIN) != SYN|FIN
	case pipeline.ProtoICMP:
		return p.ICMPType != 0 // an echo reply answers something
	}
	return true
}

func (w *walk) track(zone uint64) {
	c, reply := w.lookup(zone)
	state, mark := pipeline.Tracked, uint64(0)
	switch {
	case c == nil && w.opens():
		state |= pipeline.New
	case c == nil:
		state |= pipeline.Invalid
	default:
		state |= pipeline.Established
		mark = c.mark
		if reply {
			state |= pipeline.Reply
		}
	}
	w.own[pipeline.TrackState], w.own[pipeline.TrackMark] = state, mark
}

func (w *walk) commit(zone, mark uint64) {
	c, _ := w.lookup(zone)
	if c == nil {
		c = &connection{}
		if w.s.zones[zone] == nil {
			w.s.zones[zone] = map[tuple]*connection{}
		}
		w.s.zones[zone][w.tuple()] = c
	}
	c.mark = mark
}
