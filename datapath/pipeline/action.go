package pipeline

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
)

// Action is one step of an entry's action list. The types below are the only ones. Actions
// are taken in order; an entry without any drops the packet.
type Action interface {
	appendKey(b []byte) []byte
	String() string
}

// Set writes a field. High is the upper half of one that is wider than 64 bits.
type Set struct {
	Field Field
	Value uint64
	High  uint64
}

// Put writes a field of at most 64 bits.
func Put(f Field, v uint64) Set { return Set{Field: f, Value: v} }

// SetAddr writes an address into a field of its family.
func SetAddr(f Field, a netip.Addr) Set {
	high, low := AddrNumbers(a)
	return Set{Field: f, Value: low, High: high}
}

// Copy writes the content of Src into Dst, which is as wide.
type Copy struct{ Src, Dst Field }

// Goto continues in a later stage.
type Goto struct{ Stage Stage }

// Track looks the connection up in the conntrack zone whose number stands in Zone (From or
// To or Router), and continues in Stage with TrackState and TrackMark filled. With NAT a
// packet of a translated connection is translated, either way, before it goes on.
type Track struct {
	Zone  Field
	Stage Stage
	NAT   bool
}

// Translate creates the connection in the zone whose number stands in Zone, with its source
// (Source) or destination translated to Addr and the mark Mark, translates the packet, and continues in
// Stage. MinPort and MaxPort bound the port; 0: kept where it can be, else any.
type Translate struct {
	Zone             Field
	Source           bool
	Addr             netip.Addr
	MinPort, MaxPort uint16
	Mark             uint32
	Stage            Stage
}

// DecTTL lowers the time to live (hop limit) by one. Entries before it have seen to those that run out.
type DecTTL struct{}

// CheckSize sets Large to whether the packet's IP part has more than Bytes bytes.
type CheckSize struct{ Bytes uint16 }

// AnswerEcho turns an echo request into its reply: addresses change places, the type becomes a reply's and
// the time to live 64. V6: ICMPv6 (RFC 4443), else ICMP (RFC 792). The packet goes on.
type AnswerEcho struct{ V6 bool }

// AnswerND turns a neighbour solicitation into the advertisement that MAC owns the target (RFC 4861,
// 4.4), but for its option, and goes on in Advertise. Router sets the flag of that name. All: the asker
// has no address yet, so the answer goes to all nodes.
type AnswerND struct {
	MAC    MAC
	Router bool
	All    bool
}

// AdvertiseND makes the option of such an advertisement tell the frame's source MAC. It has an entry of its own because a switch must know that it is an advertisement.
type AdvertiseND struct{}

// PushVLAN puts an 802.1Q tag on the frame; PopVLAN takes the outer one off.
type PushVLAN struct{ ID uint16 }

// PopVLAN takes the outer 802.1Q tag off.
type PopVLAN struct{}

// Reenter makes the packet as good as new: where it came in is forgotten, so that it may leave there.
type Reenter struct{}

// Branch sends a copy through another stage; the packet itself goes on with the next action. With Reenter
// the copy may leave where the packet came in; it must not be tracked.
type Branch struct {
	Stage   Stage
	Reenter bool
}

// Limit drops what exceeds a rate: Rate in kilobits (1,000) a second, or packets a second; Burst in
// kilobits, or packets. ID is an ordinal of kind OrdinalLimit.
type Limit struct {
	ID          uint32
	Rate, Burst uint32
	Packets     bool
}

// Commit creates the connection in the zone whose number stands in Zone, or finds it, and
// sets its mark.
type Commit struct {
	Zone Field
	Mark uint32
}

// Untrack forgets what Track has found: TrackState and TrackMark are zero again.
type Untrack struct{}

// Deliver sends to the device of a local port, given by its ordinal, or to the metadata
// device (PortService). It never sends a packet back where it came in.
type Deliver struct{ Port uint64 }

// Hand sends a copy to the device of a local port, given by its ordinal, with a tag where VLAN is not 0,
// even where the packet came in there. The packet itself stays as it is.
type Hand struct {
	Port uint64
	VLAN uint16
}

// Tunnel sends to another host. Via is PortTunnel, also where it is 0, PortTunnelGRE or
// PortTunnelGeneve.
type Tunnel struct {
	Host netip.Addr
	VNI  uint32
	Via  uint64
}

// Place gives the tunnel's place.
func (a Tunnel) Place() uint64 {
	if a.Via == 0 {
		return PortTunnel
	}
	return a.Via
}

// TurnBack sends the packet back where it came in, as it is.
type TurnBack struct{}

// AnswerARP turns a request into the reply that MAC owns the address asked for, and sends
// it back by stage Return.
type AnswerARP struct{ MAC MAC }

// ToAgent hands the packet to a responder in the agent, at a limited rate for each port; where actions follow it is a copy, and
// the packet goes on whatever the rate.
type ToAgent struct {
	Responder Responder
	Port      uint32 // ordinal of the asking port, or of the router
	Arg       uint32 // what the responder must know besides: an MTU in bytes for ResponderTooBig, a VNI for ResponderResolve and ResponderLearn
}

// Conj says that the packet meets clause Clause (from 1) of the Of clauses of conjunction ID.
// An entry with several of them counts for several conjunctions.
type Conj struct {
	ID         uint32
	Clause, Of uint8
}

// Leg sends a copy on to stage Stage for the receiving port To.
type Leg struct {
	To    uint32
	Stage Stage
}

// Responder names a responder in the agent.
type Responder uint8

// The responders.
const (
	ResponderDHCP         Responder = 1
	ResponderDHCPv6       Responder = 2
	ResponderRA           Responder = 3 // router solicitations
	ResponderND           Responder = 4 // neighbour solicitations that the switch cannot answer by itself
	ResponderDNS          Responder = 5
	ResponderTimeExceeded Responder = 6 // a routed packet whose time to live ran out
	ResponderTooBig       Responder = 7
	ResponderUnreachable  Responder = 8
	ResponderResolve      Responder = 9  // who has the next hop outside?
	ResponderLearn        Responder = 10 // answers of neighbours outside
	ResponderMulticast    Responder = 11 // IGMP and MLD reports
	ResponderHeld         Responder = 12 // what a guest says of an address in its allowed address pairs
)

var responderNames = [...]string{"", "dhcp", "dhcpv6", "ra", "nd", "dns", "time-exceeded", "too-big", "unreachable", "resolve", "learn", "multicast", "held"}

// String gives the responder's name.
func (r Responder) String() string {
	if r > 0 && int(r) < len(responderNames) {
		return responderNames[r]
	}
	return fmt.Sprintf("responder-%d", uint8(r))
}

func (a Set) appendKey(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(append(b, 1, byte(a.Field)), a.Value)
	if fields[a.Field].bits > 64 {
		b = binary.BigEndian.AppendUint64(b, a.High)
	}
	return b
}
func (a Goto) appendKey(b []byte) []byte { return append(b, 2, byte(a.Stage)) }
func (a Track) appendKey(b []byte) []byte {
	return append(b, 3, byte(a.Zone), byte(a.Stage), bit(a.NAT))
}
func (a Commit) appendKey(b []byte) []byte {
	return binary.BigEndian.AppendUint32(append(b, 4, byte(a.Zone)), a.Mark)
}
func (a Deliver) appendKey(b []byte) []byte {
	return binary.BigEndian.AppendUint64(append(b, 5), a.Port)
}
func (a Tunnel) appendKey(b []byte) []byte {
	h := a.Host.As16()
	return append(binary.BigEndian.AppendUint32(append(append(b, 6), h[:]...), a.VNI), byte(a.Place()))
}
func (a AnswerARP) appendKey(b []byte) []byte { return append(append(b, 7), a.MAC[:]...) }
func (a ToAgent) appendKey(b []byte) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(append(b, 8, byte(a.Responder)), a.Port), a.Arg)
}
func (a Conj) appendKey(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(append(b, 9), a.ID), a.Clause, a.Of)
}
func (a Leg) appendKey(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(append(b, 10), a.To), byte(a.Stage))
}

func bit(on bool) byte {
	if on {
		return 1
	}
	return 0
}

func (a Copy) appendKey(b []byte) []byte { return append(b, 11, byte(a.Src), byte(a.Dst)) }
func (a Translate) appendKey(b []byte) []byte {
	h := a.Addr.As16()
	b = append(append(b, 12, byte(a.Zone), byte(a.Stage), bit(a.Source)), h[:]...)
	b = binary.BigEndian.AppendUint32(b, a.Mark)
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, a.MinPort), a.MaxPort)
}
func (a DecTTL) appendKey(b []byte) []byte { return append(b, 13) }
func (a CheckSize) appendKey(b []byte) []byte {
	return binary.BigEndian.AppendUint16(append(b, 14), a.Bytes)
}
func (a AnswerEcho) appendKey(b []byte) []byte { return append(b, 15, bit(a.V6)) }
func (a AnswerND) appendKey(b []byte) []byte {
	return append(append(b, 16, bit(a.Router)<<1|bit(a.All)), a.MAC[:]...)
}
func (a PushVLAN) appendKey(b []byte) []byte {
	return binary.BigEndian.AppendUint16(append(b, 17), a.ID)
}
func (a PopVLAN) appendKey(b []byte) []byte     { return append(b, 18) }
func (a AdvertiseND) appendKey(b []byte) []byte { return append(b, 23) }
func (a Untrack) appendKey(b []byte) []byte     { return append(b, 24) }
func (a Reenter) appendKey(b []byte) []byte     { return append(b, 19) }
func (a Hand) appendKey(b []byte) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint64(append(b, 23), a.Port), a.VLAN)
}
func (a TurnBack) appendKey(b []byte) []byte { return append(b, 22) }
func (a Branch) appendKey(b []byte) []byte {
	return append(b, 20, byte(a.Stage), bit(a.Reenter))
}
func (a Limit) appendKey(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, 21, bit(a.Packets)), a.ID)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, a.Rate), a.Burst)
}

func (a Set) String() string {
	return "set " + a.Field.String() + "=" + formatValue(a.Field, a.High, a.Value)
}
func (a Goto) String() string { return "goto " + a.Stage.String() }
func (a Track) String() string {
	if a.NAT {
		return fmt.Sprintf("track zone=%v nat then %v", a.Zone, a.Stage)
	}
	return fmt.Sprintf("track zone=%v then %v", a.Zone, a.Stage)
}
func (a Commit) String() string  { return fmt.Sprintf("commit zone=%v mark=%d", a.Zone, a.Mark) }
func (a Deliver) String() string { return "deliver " + portText(a.Port) }
func (a Tunnel) String() string {
	if a.Place() == PortTunnel {
		return fmt.Sprintf("tunnel %v vni=%d", a.Host, a.VNI)
	}
	return fmt.Sprintf("%s %v vni=%d", portText(a.Place()), a.Host, a.VNI)
}
func (a AnswerARP) String() string { return "answer-arp " + a.MAC.String() }
func (a ToAgent) String() string {
	if a.Arg != 0 {
		return fmt.Sprintf("to-agent %v port-%d %d", a.Responder, a.Port, a.Arg)
	}
	return fmt.Sprintf("to-agent %v port-%d", a.Responder, a.Port)
}
func (a Copy) String() string { return fmt.Sprintf("copy %v to %v", a.Src, a.Dst) }
func (a Translate) String() string {
	side := "dst"
	if a.Source {
		side = "src"
	}
	ports := ""
	if a.MinPort != 0 {
		ports = fmt.Sprintf(" port %d-%d", a.MinPort, max(a.MinPort, a.MaxPort))
	}
	return fmt.Sprintf("translate zone=%v %s=%v%s mark=%d then %v", a.Zone, side, a.Addr, ports, a.Mark, a.Stage)
}
func (a DecTTL) String() string    { return "dec-ttl" }
func (a CheckSize) String() string { return fmt.Sprintf("check-size %d", a.Bytes) }
func (a AnswerEcho) String() string {
	if a.V6 {
		return "answer-echo6"
	}
	return "answer-echo"
}
func (a AnswerND) String() string {
	text := "answer-nd " + a.MAC.String()
	if a.Router {
		text += " router"
	}
	if a.All {
		text += " to all"
	}
	return text
}
func (a PushVLAN) String() string    { return fmt.Sprintf("push-vlan %d", a.ID) }
func (a PopVLAN) String() string     { return "pop-vlan" }
func (a AdvertiseND) String() string { return "advertise-nd" }
func (a Untrack) String() string     { return "untrack" }
func (a Reenter) String() string     { return "reenter" }
func (a Hand) String() string {
	if a.VLAN == 0 {
		return "hand " + portText(a.Port)
	}
	return fmt.Sprintf("hand %s vlan=%d", portText(a.Port), a.VLAN)
}
func (a TurnBack) String() string { return "turn-back" }
func (a Branch) String() string   { return fmt.Sprintf("branch %v", a.Stage) }
func (a Limit) String() string {
	unit := "kbps"
	if a.Packets {
		unit = "pps"
	}
	return fmt.Sprintf("limit %d %d%s burst=%d", a.ID, a.Rate, unit, a.Burst)
}
func (a Conj) String() string { return fmt.Sprintf("conj %d %d/%d", a.ID, a.Clause, a.Of) }
func (a Leg) String() string  { return fmt.Sprintf("leg port-%d %v", a.To, a.Stage) }

func actionsString(as []Action) string {
	if len(as) == 0 {
		return "drop"
	}
	parts := make([]string, len(as))
	for i, a := range as {
		parts[i] = a.String()
	}
	return strings.Join(parts, "; ")
}
