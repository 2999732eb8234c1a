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
	zones   map[uint64]map[tuple]direction
}

// New makes a switch without entries: it drops everything.
func New() *Switch {
	return &Switch{entries: map[pipeline.Key]*pipeline.Installed{}, zones: map[uint64]map[tuple]direction{}}
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
	In     uint64 // ordinal of a local port, or a place beyond those
	VNI    uint32 // of a packet from a tunnel
	Packet Packet
}

// Departure is a packet that leaves the switch.
type Departure struct {
	To        uint64             // ordinal of a local port, or a place beyond those; as In where the switch answered
	Host      netip.Addr         // with a tunnel
	VNI       uint32             // with a tunnel
	Responder pipeline.Responder // not 0: it went to the agent, on behalf of port or router To
	Arg       uint32             // with Responder
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
	s     *Switch
	in    uint64
	own   [pipeline.ConjID + 1]number // the pipeline's own fields
	p     Packet
	res   *Result
	depth int
}

// number is a field's content; high is 0 but in those wider than 64 bits.
type number struct{ high, low uint64 }

// maxDepth is how many stages a packet may walk through: a loop of routers ends by the time to
// live, and a real switch gives up long before.
const maxDepth = 4096

// sort makes the stages' lists anew where entries have changed.
func (s *Switch) sort() {
	if s.stages == nil {
		s.stages = map[pipeline.Stage][]*pipeline.Installed{}
		for _, in := range s.entries {
			s.stages[in.Entry.Stage] = append(s.stages[in.Entry.Stage], in)
		}
		for _, list := range s.stages {
			slices.SortFunc(list, pipeline.CompareInstalled)
		}
	}
}

// Run walks a packet from its arrival to all of its ends.
func (s *Switch) Run(a Arrival) Result {
	s.sort()
	var res Result
	w := walk{s: s, in: a.In, p: a.Packet, res: &res}
	w.own[pipeline.InPort].low, w.own[pipeline.TunnelID].low = a.In, uint64(a.VNI)
	w.stage(pipeline.Classify)
	return res
}

// Inject walks a packet that an agent has made from a stage on, with fields of the pipeline set.
func (s *Switch) Inject(st pipeline.Stage, fields []pipeline.Set, p Packet) Result {
	s.sort()
	var res Result
	w := walk{s: s, p: p, res: &res}
	for _, f := range fields {
		w.set(f.Field, number{f.High, f.Value})
	}
	w.stage(st)
	return res
}

// field gives a field's content; false where the packet has no such field.
func (w *walk) field(f pipeline.Field) (number, bool) {
	p := &w.p
	if int(f) < len(w.own) {
		return w.own[f], true
	}
	arp, ip4, ip6 := p.EthType == pipeline.TypeARP, p.EthType == pipeline.TypeIPv4, p.EthType == pipeline.TypeIPv6
	ip := ip4 || ip6
	tcp, udp, sctp := ip && p.Proto == pipeline.ProtoTCP, ip && p.Proto == pipeline.ProtoUDP, ip && p.Proto == pipeline.ProtoSCTP
	icmp, icmp6 := ip4 && p.Proto == pipeline.ProtoICMP, ip6 && p.Proto == pipeline.ProtoICMPv6
	nd := icmp6 && (p.ICMPType == 135 || p.ICMPType == 136)
	low := func(v uint64, ok bool) (number, bool) { return number{low: v}, ok }
	addr := func(a netip.Addr, ok bool) (number, bool) {
		h, l := pipeline.AddrNumbers(a)
		return number{h, l}, ok
	}
	switch f {
	case pipeline.EthSrc:
		return low(p.EthSrc.Number(), true)
	case pipeline.EthDst:
		return low(p.EthDst.Number(), true)
	case pipeline.EthType:
		return low(uint64(p.EthType), true)
	case pipeline.VLAN:
		return low(uint64(p.VLAN), true)
	case pipeline.ARPOp:
		return low(uint64(p.ARPOp), arp)
	case pipeline.ARPSenderMAC:
		return low(p.ARPSHA.Number(), arp)
	case pipeline.ARPSenderIP:
		return low(pipeline.AddrNumber(p.ARPSPA), arp)
	case pipeline.ARPTargetIP:
		return low(pipeline.AddrNumber(p.ARPTPA), arp)
	case pipeline.IPSrc:
		return addr(p.Src, ip4)
	case pipeline.IPDst:
		return addr(p.Dst, ip4)
	case pipeline.IP6Src:
		return addr(p.Src, ip6)
	case pipeline.IP6Dst:
		return addr(p.Dst, ip6)
	case pipeline.IPProto:
		return low(uint64(p.Proto), ip)
	case pipeline.IPTTL:
		return low(uint64(p.TTL), ip)
	case pipeline.IPDSCP:
		return low(uint64(p.DSCP), ip)
	case pipeline.IPFrag:
		return low(uint64(p.Frag), ip)
	case pipeline.TCPSrc:
		return low(uint64(p.SrcPort), tcp)
	case pipeline.TCPDst:
		return low(uint64(p.DstPort), tcp)
	case pipeline.UDPSrc:
		return low(uint64(p.SrcPort), udp)
	case pipeline.UDPDst:
		return low(uint64(p.DstPort), udp)
	case pipeline.SCTPSrc:
		return low(uint64(p.SrcPort), sctp)
	case pipeline.SCTPDst:
		return low(uint64(p.DstPort), sctp)
	case pipeline.ICMPType:
		return low(uint64(p.ICMPType), icmp)
	case pipeline.ICMPCode:
		return low(uint64(p.ICMPCode), icmp)
	case pipeline.ICMP6Type:
		return low(uint64(p.ICMPType), icmp6)
	case pipeline.ICMP6Code:
		return low(uint64(p.ICMPCode), icmp6)
	case pipeline.NDTarget:
		return addr(p.NDTarget, nd)
	case pipeline.NDSourceMAC:
		return low(p.NDMAC.Number(), nd && p.ICMPType == 135)
	case pipeline.NDTargetMAC:
		return low(p.NDMAC.Number(), nd && p.ICMPType == 136)
	}
	return number{}, false
}

func (w *walk) set(f pipeline.Field, v number) {
	p := &w.p
	if int(f) < len(w.own) {
		w.own[f] = v
		return
	}
	switch f {
	case pipeline.EthSrc:
		p.EthSrc = pipeline.NumberMAC(v.low)
	case pipeline.EthDst:
		p.EthDst = pipeline.NumberMAC(v.low)
	case pipeline.IPSrc:
		p.Src = pipeline.NumberAddr(v.low)
	case pipeline.IPDst:
		p.Dst = pipeline.NumberAddr(v.low)
	case pipeline.IP6Src:
		p.Src = pipeline.NumbersAddr6(v.high, v.low)
	case pipeline.IP6Dst:
		p.Dst = pipeline.NumbersAddr6(v.high, v.low)
	case pipeline.IPDSCP:
		p.DSCP = uint8(v.low)
	case pipeline.IPTTL:
		p.TTL = uint8(v.low)
	case pipeline.TCPSrc, pipeline.UDPSrc:
		p.SrcPort = uint16(v.low)
	case pipeline.TCPDst, pipeline.UDPDst:
		p.DstPort = uint16(v.low)
	case pipeline.ICMPType, pipeline.ICMP6Type:
		p.ICMPType = uint8(v.low)
	default:
		panic(fmt.Sprintf("sim: set of field %v is not known", f)) // a defect: the pipeline grew and this did not
	}
}

func (w *walk) meets(m pipeline.Match) bool {
	for _, t := range m {
		if v, ok := w.field(t.Field); !ok || v.low&t.Mask != t.Value || v.high&t.HighMask != t.High {
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
			w.own[pipeline.ConjID].low = uint64(id)
			for _, in := range list {
				if t, ok := in.Entry.Match.Get(pipeline.ConjID); ok && t.Value == uint64(id) && w.meets(in.Entry.Match) {
					w.own[pipeline.ConjID].low = 0
					return in.Entry
				}
			}
			w.own[pipeline.ConjID].low = 0
		}
	}
	return nil
}

// stage takes the packet through a stage and all that follow from it.
func (w *walk) stage(st pipeline.Stage) {
	if w.depth++; w.depth > maxDepth {
		return
	}
	e := w.find(st)
	w.res.Steps = append(w.res.Steps, Step{st, e})
	if e == nil {
		return
	}
	for _, a := range e.Actions {
		switch a := a.(type) {
		case pipeline.Set:
			w.set(a.Field, number{a.High, a.Value})
		case pipeline.Copy:
			v, _ := w.field(a.Src)
			w.set(a.Dst, v)
		case pipeline.Goto:
			w.stage(a.Stage)
		case pipeline.Leg:
			w.own[pipeline.To].low = uint64(a.To)
			leg := *w
			leg.stage(a.Stage)
		case pipeline.Track:
			next := *w
			next.track(w.own[a.Zone].low, a.NAT)
			next.stage(a.Stage)
		case pipeline.Translate:
			next := *w
			next.translate(w.own[a.Zone].low, a)
			next.stage(a.Stage)
		case pipeline.Commit:
			w.commit(w.own[a.Zone].low, uint64(a.Mark))
		case pipeline.Untrack:
			w.own[pipeline.TrackState].low, w.own[pipeline.TrackMark].low = 0, 0
		case pipeline.Deliver:
			if a.Port != w.in {
				w.depart(Departure{To: a.Port})
			}
		case pipeline.Tunnel:
			if w.in != a.Place() {
				w.depart(Departure{To: a.Place(), Host: a.Host, VNI: a.VNI})
			}
		case pipeline.AnswerARP:
			p := &w.p
			p.EthDst, p.EthSrc, p.ARPOp = p.EthSrc, a.MAC, pipeline.ARPReply
			p.ARPTHA, p.ARPSHA = p.ARPSHA, a.MAC
			p.ARPTPA, p.ARPSPA = p.ARPSPA, p.ARPTPA
			w.stage(pipeline.Return)
		case pipeline.Hand:
			d := Departure{To: a.Port, Packet: w.p}
			if a.VLAN != 0 {
				d.Packet.VLAN = a.VLAN | 0x1000
			}
			w.res.Out = append(w.res.Out, d)
		case pipeline.TurnBack:
			w.depart(Departure{To: w.in})
		case pipeline.ToAgent:
			w.depart(Departure{To: uint64(a.Port), Responder: a.Responder, Arg: a.Arg})
		case pipeline.DecTTL:
			if w.p.TTL <= 1 {
				return // as a switch does: the rest of the list is not taken
			}
			w.p.TTL--
		case pipeline.CheckSize:
			w.own[pipeline.Large].low = 0
			if w.p.ipSize() > int(a.Bytes) {
				w.own[pipeline.Large].low = 1
			}
		case pipeline.AnswerEcho:
			p := &w.p
			p.Src, p.Dst, p.TTL, p.ICMPType = p.Dst, p.Src, 64, 0
			if a.V6 {
				p.ICMPType = 129
			}
		case pipeline.AnswerND:
			p := &w.p
			p.EthDst, p.EthSrc, p.Dst, p.Src = p.EthSrc, a.MAC, p.Src, p.NDTarget
			p.ICMPType, p.NDFlags = 136, 0x60
			if a.All {
				p.EthDst, p.Dst, p.NDFlags = pipeline.GroupMAC(pipeline.AllNodes), pipeline.AllNodes, 0x20
			}
			if a.Router {
				p.NDFlags |= 0x80
			}
			w.stage(pipeline.Advertise)
		case pipeline.AdvertiseND:
			if w.p.NDMAC != (pipeline.MAC{}) { // a switch turns the option into the answer's, and makes none
				w.p.NDMAC = w.p.EthSrc
			}
		case pipeline.PushVLAN:
			w.p.VLAN = a.ID | 0x1000
		case pipeline.PopVLAN:
			w.p.VLAN = 0
		case pipeline.Reenter:
			w.in, w.own[pipeline.InPort] = 0, number{}
		case pipeline.Branch:
			branch := *w
			if a.Reenter {
				branch.in, branch.own[pipeline.InPort] = 0, number{}
			}
			branch.stage(a.Stage)
		case pipeline.Limit: // a simulated packet has no rate
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
