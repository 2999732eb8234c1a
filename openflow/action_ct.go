package openflow

import (
	"fmt"
	"net/netip"
	"strings"
)

// CT sends the packet through the connection tracker.
type CT struct {
	Commit bool // create the connection
	Force  bool // with Commit: replace one that runs the other way
	Zone   uint16
	// ZoneFrom, where its Field is set, is the 16-bit subfield that gives the zone.
	ZoneFrom Subfield
	// Recirculate continues a copy of the packet, with its ct_ fields filled, in Table.
	Recirculate bool
	Table       uint8
	ALG         uint16 // 21 for FTP, 69 for TFTP, 0 for none
	// Actions are NAT, and SetField or CopyField on ct_mark and ct_label.
	Actions []Action
}

// NAT, inside CT, translates addresses. Without Source and Dest it applies what the
// connection was committed with.
type NAT struct {
	Source, Dest       bool // one of them at most
	Persistent         bool
	Hash, Random       bool       // how to pick ports; one of them at most
	AddrMin, AddrMax   netip.Addr // AddrMax may be the zero Addr
	ProtoMin, ProtoMax uint16     // ports; 0 for none
}

// NATTo makes a source or destination NAT to one address.
func NATTo(source bool, a netip.Addr) NAT { return NAT{Source: source, Dest: !source, AddrMin: a} }

// CTClear takes the packet out of connection tracking.
type CTClear struct{}

const (
	ctCommit = 1 << 0
	ctForce  = 1 << 1
)

func (a CT) encode(e *encoder) {
	start := e.startNicira(nxCT)
	var flags uint16
	if a.Commit {
		flags |= ctCommit
	}
	if a.Force {
		flags |= ctForce
	}
	e.u16(flags)
	if a.ZoneFrom.Field != 0 {
		e.u32(e.shortHeader(a.ZoneFrom.Field))
		e.u16(a.ZoneFrom.ofsNBits(e))
	} else {
		e.u32(0)
		e.u16(a.Zone)
	}
	if a.Recirculate {
		if a.Table == TableAll {
			e.fail(malformed("ct to table %d", a.Table))
		}
		e.u8(a.Table)
	} else {
		e.u8(TableAll)
	}
	e.zeros(3)
	e.u16(a.ALG)
	encodeActions(e, a.Actions)
	e.endAction(start)
}

const (
	natSource     = 1 << 0
	natDest       = 1 << 1
	natPersistent = 1 << 2
	natHash       = 1 << 3
	natRandom     = 1 << 4

	natIPv4Min  = 1 << 0
	natIPv4Max  = 1 << 1
	natIPv6Min  = 1 << 2
	natIPv6Max  = 1 << 3
	natProtoMin = 1 << 4
	natProtoMax = 1 << 5
)

func (a NAT) encode(e *encoder) {
	start := e.startNicira(nxNAT)
	e.u16(0)
	var flags, present uint16
	for _, f := range [...]struct {
		on  bool
		bit uint16
	}{{a.Source, natSource}, {a.Dest, natDest}, {a.Persistent, natPersistent}, {a.Hash, natHash}, {a.Random, natRandom}} {
		if f.on {
			flags |= f.bit
		}
	}
	lo, hi := a.AddrMin.Unmap(), a.AddrMax.Unmap()
	if hi.IsValid() && (!lo.IsValid() || lo.Is4() != hi.Is4()) {
		e.fail(malformed("nat range %v-%v", lo, hi))
	}
	pick := func(a netip.Addr, v4, v6 uint16) {
		if a.Is4() {
			present |= v4
		} else if a.IsValid() {
			present |= v6
		}
	}
	pick(lo, natIPv4Min, natIPv6Min)
	pick(hi, natIPv4Max, natIPv6Max)
	if a.ProtoMin != 0 {
		present |= natProtoMin
	}
	if a.ProtoMax != 0 {
		present |= natProtoMax
	}
	e.u16(flags)
	e.u16(present)
	e.bytes(lo.AsSlice())
	e.bytes(hi.AsSlice())
	if a.ProtoMin != 0 {
		e.u16(a.ProtoMin)
	}
	if a.ProtoMax != 0 {
		e.u16(a.ProtoMax)
	}
	e.endAction(start)
}

func decodeCT(r *reader, depth int) (Action, error) {
	flags := r.u16()
	src := r.u32()
	zone := r.u16()
	a := CT{Commit: flags&ctCommit != 0, Force: flags&ctForce != 0}
	if src != 0 {
		f, ok := fieldByKey[fieldKey{class: uint16(src >> 16), number: uint8(src>>9) & 0x7f}]
		if !ok {
			return nil, r.err
		}
		a.ZoneFrom = fromOfsNBits(f, zone)
	} else {
		a.Zone = zone
	}
	if t := r.u8(); t != TableAll {
		a.Recirculate, a.Table = true, t
	}
	r.skip(3)
	a.ALG = r.u16()
	a.Actions = decodeActions(r, depth+1)
	return a, r.err
}

func decodeNAT(r *reader) (Action, error) {
	r.skip(2)
	flags, present := r.u16(), r.u16()
	a := NAT{
		Source: flags&natSource != 0, Dest: flags&natDest != 0, Persistent: flags&natPersistent != 0,
		Hash: flags&natHash != 0, Random: flags&natRandom != 0,
	}
	if present&natIPv4Min != 0 {
		a.AddrMin = U64(uint64(r.u32())).IPv4()
	}
	if present&natIPv4Max != 0 {
		a.AddrMax = U64(uint64(r.u32())).IPv4()
	}
	if present&natIPv6Min != 0 {
		a.AddrMin = Value{Hi: r.u64(), Lo: r.u64()}.IPv6()
	}
	if present&natIPv6Max != 0 {
		a.AddrMax = Value{Hi: r.u64(), Lo: r.u64()}.IPv6()
	}
	if present&natProtoMin != 0 {
		a.ProtoMin = r.u16()
	}
	if present&natProtoMax != 0 {
		a.ProtoMax = r.u16()
	}
	return a, r.err
}

func (a CT) String() string {
	var p []string
	if a.Commit {
		p = append(p, "commit")
	}
	if a.Force {
		p = append(p, "force")
	}
	if a.Recirculate {
		p = append(p, fmt.Sprintf("table=%d", a.Table))
	}
	if a.ZoneFrom.Field != 0 {
		p = append(p, "zone="+a.ZoneFrom.String())
	} else if a.Zone != 0 {
		p = append(p, fmt.Sprintf("zone=%d", a.Zone))
	}
	var exec []Action
	for _, x := range a.Actions {
		if n, ok := x.(NAT); ok {
			p = append(p, n.String())
		} else {
			exec = append(exec, x)
		}
	}
	if len(exec) > 0 {
		p = append(p, "exec("+ActionsString(exec)+")")
	}
	switch a.ALG {
	case 0:
	case 21:
		p = append(p, "alg=ftp")
	case 69:
		p = append(p, "alg=tftp")
	default:
		p = append(p, fmt.Sprintf("alg=%d", a.ALG))
	}
	if len(p) == 0 {
		return "ct"
	}
	return "ct(" + strings.Join(p, ",") + ")"
}

func (a NAT) String() string {
	side := ""
	switch {
	case a.Source:
		side = "src"
	case a.Dest:
		side = "dst"
	default:
		return "nat"
	}
	var b strings.Builder
	b.WriteString("nat(" + side)
	if a.AddrMin.IsValid() {
		bracket := a.AddrMin.Is6() && a.ProtoMin != 0
		b.WriteByte('=')
		if bracket {
			b.WriteByte('[')
		}
		b.WriteString(a.AddrMin.String())
		if a.AddrMax.IsValid() {
			b.WriteString("-" + a.AddrMax.String())
		}
		if bracket {
			b.WriteByte(']')
		}
		if a.ProtoMin != 0 {
			fmt.Fprintf(&b, ":%d", a.ProtoMin)
			if a.ProtoMax != 0 {
				fmt.Fprintf(&b, "-%d", a.ProtoMax)
			}
		}
	}
	for _, f := range [...]struct {
		on   bool
		name string
	}{{a.Persistent, ",persistent"}, {a.Hash, ",hash"}, {a.Random, ",random"}} {
		if f.on {
			b.WriteString(f.name)
		}
	}
	b.WriteByte(')')
	return b.String()
}
