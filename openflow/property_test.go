package openflow_test

import (
	"bytes"
	"net/netip"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	of "yakumo/openflow"
)

type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// roundTrip encodes, decodes and encodes again.
func roundTrip(t failer, m of.Message) {
	t.Helper()
	first, err := of.Append(nil, 7, m)
	if err != nil {
		t.Fatalf("encode %+v: %v", m, err)
	}
	h, back, err := of.Decode(first)
	if err != nil {
		t.Fatalf("decode %x of %+v: %v", first, m, err)
	}
	if h.XID != 7 || h.Type != m.Type() || int(h.Length) != len(first) {
		t.Fatalf("header %+v of %T", h, m)
	}
	second, err := of.Append(nil, 7, back)
	if err != nil {
		t.Fatalf("encode again %+v: %v", back, err)
	}
	if !bytes.Equal(first, second) {
		t.Fatalf("%T changes on the way:\n%x\n%x\n%+v\n%+v", m, first, second, m, back)
	}
}

func genValue(bits int) *rapid.Generator[of.Value] {
	return rapid.Custom(func(t *rapid.T) of.Value {
		return of.Value{Hi: rapid.Uint64().Draw(t, "hi"), Lo: rapid.Uint64().Draw(t, "lo")}.And(of.Ones(bits))
	})
}

var genField = rapid.SampledFrom(of.Fields())

var genTerm = rapid.Custom(func(t *rapid.T) of.FieldValue {
	f := genField.Draw(t, "field")
	v := genValue(f.Bits).Draw(t, "value")
	if rapid.Bool().Draw(t, "exact") {
		return of.Exact(f.Field, v)
	}
	return of.Masked(f.Field, v, genValue(f.Bits).Draw(t, "mask"))
})

var genMatch = rapid.Custom(func(t *rapid.T) of.Match {
	return of.MatchOf(rapid.SliceOfN(genTerm, 0, 12).Draw(t, "terms")...)
})

var genSub = rapid.Custom(func(t *rapid.T) of.Subfield { return genSubOf(64).Draw(t, "subfield") })

func genSubOf(limit int) *rapid.Generator[of.Subfield] {
	return rapid.Custom(func(t *rapid.T) of.Subfield {
		f := genField.Draw(t, "field")
		n := rapid.IntRange(1, min(limit, f.Bits)).Draw(t, "bits")
		return of.Sub(f.Field, rapid.IntRange(0, f.Bits-n).Draw(t, "offset"), n)
	})
}

func genAddr(v6 bool) *rapid.Generator[netip.Addr] {
	return rapid.Custom(func(t *rapid.T) netip.Addr {
		if v6 {
			return of.Value{Hi: rapid.Uint64Min(1<<60).Draw(t, "hi"), Lo: rapid.Uint64().Draw(t, "lo")}.IPv6()
		}
		return of.U64(uint64(rapid.Uint32().Draw(t, "address"))).IPv4()
	})
}

func genActions(depth int) *rapid.Generator[[]of.Action] {
	return rapid.SliceOfN(genAction(depth), 0, 5)
}

func genAction(depth int) *rapid.Generator[of.Action] {
	return rapid.Custom(func(t *rapid.T) of.Action {
		u8, u16, u32 := rapid.Uint8(), rapid.Uint16(), rapid.Uint32()
		port := rapid.OneOf(rapid.Uint32Range(0, 0xfeff), rapid.Uint32Range(of.PortUnset, of.PortAny))
		kinds := 26
		if depth == 0 {
			kinds = 24
		}
		switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
		case 0:
			return of.Output{Port: u32.Draw(t, "port"), MaxLen: u16.Draw(t, "max")}
		case 1:
			return of.Group{ID: u32.Draw(t, "id")}
		case 2:
			return of.Meter{ID: u32.Draw(t, "id")}
		case 3:
			return of.SetQueue{ID: u32.Draw(t, "id")}
		case 4:
			return of.PushVLAN{EtherType: u16.Draw(t, "type")}
		case 5:
			return of.PopVLAN{}
		case 6:
			return of.PushMPLS{EtherType: u16.Draw(t, "type")}
		case 7:
			return of.PopMPLS{EtherType: u16.Draw(t, "type")}
		case 8:
			return of.DecTTL{}
		case 9:
			return of.Set(genTerm.Draw(t, "term"))
		case 10:
			src := genSubOf(128).Draw(t, "src")
			dst := src
			dst.Field = genField.Draw(t, "dst").Field
			return of.CopyField{Src: src, Dst: dst}
		case 11:
			return of.Resubmit{InPort: port.Draw(t, "port"), Table: u8.Draw(t, "table"), CT: rapid.Bool().Draw(t, "ct")}
		case 12:
			return of.CTClear{}
		case 13:
			n := rapid.Uint8Range(2, 64).Draw(t, "clauses")
			return of.Conjunction{ID: u32.Draw(t, "id"), Clauses: n, Clause: rapid.Uint8Range(1, n).Draw(t, "clause")}
		case 14:
			c := of.Controller{ID: u16.Draw(t, "id"), Reason: of.PacketInReason(u8.Draw(t, "reason")), Pause: rapid.Bool().Draw(t, "pause"), MeterID: u32.Draw(t, "meter")}
			if rapid.Bool().Draw(t, "truncate") {
				c.Truncate, c.MaxLen = true, u16.Draw(t, "max")
			}
			if d := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "data"); len(d) > 0 {
				c.UserData = d
			}
			return c
		case 15:
			return of.OutputTrunc{Port: port.Draw(t, "port"), MaxLen: u32.Draw(t, "max")}
		case 16:
			return of.OutputField{Src: genSub.Draw(t, "src"), MaxLen: u16.Draw(t, "max")}
		case 17:
			return of.CheckPktLarger{Len: u16.Draw(t, "len"), Dst: genSubOf(1).Draw(t, "dst")}
		case 18:
			return of.Note{Data: rapid.SliceOfN(rapid.Byte(), 6, 6).Draw(t, "note")}
		case 19:
			return of.Push{Src: genSubOf(128).Draw(t, "src")}
		case 20:
			return of.Pop{Dst: genSubOf(128).Draw(t, "dst")}
		case 21:
			return of.FinTimeout{Idle: u16.Draw(t, "idle"), Hard: u16.Draw(t, "hard")}
		case 22:
			v6 := rapid.Bool().Draw(t, "v6")
			n := of.NAT{Source: true, Persistent: rapid.Bool().Draw(t, "persistent"), Random: rapid.Bool().Draw(t, "random"), AddrMin: genAddr(v6).Draw(t, "min")}
			if rapid.Bool().Draw(t, "range") {
				n.AddrMax = genAddr(v6).Draw(t, "max")
				n.ProtoMin, n.ProtoMax = u16.Draw(t, "pmin"), u16.Draw(t, "pmax")
			}
			return n
		case 23:
			return genLearn.Draw(t, "learn")
		case 24:
			c := of.CT{Commit: rapid.Bool().Draw(t, "commit"), Force: rapid.Bool().Draw(t, "force"), ALG: u16.Draw(t, "alg"), Actions: genActions(depth-1).Draw(t, "actions")}
			if rapid.Bool().Draw(t, "zone") {
				c.Zone = u16.Draw(t, "zone number")
			} else {
				c.ZoneFrom = of.Sub(of.RegField(rapid.IntRange(0, 15).Draw(t, "reg")), rapid.IntRange(0, 16).Draw(t, "offset"), 16)
			}
			if rapid.Bool().Draw(t, "recirculate") {
				c.Recirculate, c.Table = true, rapid.Uint8Range(0, 254).Draw(t, "table")
			}
			if len(c.Actions) == 0 {
				c.Actions = nil
			}
			return c
		default:
			c := of.Clone{Actions: genActions(depth-1).Draw(t, "actions")}
			if len(c.Actions) == 0 {
				c.Actions = nil
			}
			return c
		}
	})
}

var genLearn = rapid.Custom(func(t *rapid.T) of.Learn {
	u16 := rapid.Uint16()
	l := of.Learn{
		IdleTimeout: u16.Draw(t, "idle"), HardTimeout: u16.Draw(t, "hard"), Priority: u16.Draw(t, "priority"), Cookie: rapid.Uint64().Draw(t, "cookie"),
		Table: rapid.Uint8().Draw(t, "table"), SendFlowRemoved: rapid.Bool().Draw(t, "removed"), DeleteLearned: rapid.Bool().Draw(t, "delete"),
		FinIdleTimeout: u16.Draw(t, "fin idle"), FinHardTimeout: u16.Draw(t, "fin hard"),
	}
	for range rapid.IntRange(0, 6).Draw(t, "specs") {
		dst := genSubOf(128).Draw(t, "dst")
		src := dst
		src.Field = genField.Draw(t, "src").Field
		switch rapid.IntRange(0, 4).Draw(t, "spec") {
		case 0:
			l.Specs = append(l.Specs, of.LearnMatchFrom(dst, src))
		case 1:
			l.Specs = append(l.Specs, of.LearnMatchValue(dst, genValue(int(dst.Bits)).Draw(t, "value")))
		case 2:
			l.Specs = append(l.Specs, of.LearnLoadFrom(dst, src))
		case 3:
			l.Specs = append(l.Specs, of.LearnLoadValue(dst, genValue(int(dst.Bits)).Draw(t, "value")))
		default:
			l.Specs = append(l.Specs, of.LearnOutputTo(src))
		}
	}
	return l
})

// TestActionsRoundTripProperty checks that decoding an encoding gives equal actions.
func TestActionsRoundTripProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		as := genActions(2).Draw(t, "actions")
		b, err := of.AppendActions(nil, as)
		if err != nil {
			t.Fatalf("encode %v: %v", as, err)
		}
		if len(b)%8 != 0 {
			t.Fatalf("%d bytes", len(b))
		}
		back, err := of.DecodeActions(b)
		if err != nil {
			t.Fatalf("decode %x of %v: %v", b, as, err)
		}
		if len(as) == 0 {
			as = nil
		}
		if !reflect.DeepEqual(as, back) {
			t.Fatalf("%#v\nbecame %#v", as, back)
		}
	})
}

// TestMatchIsCanonical checks that the order in which terms are named does not show in the
// encoding, and that decoding gives the same match.
func TestMatchIsCanonical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := genMatch.Draw(t, "match")
		terms := append([]of.FieldValue{}, m.Terms()...)
		shuffled := rapid.Permutation(terms).Draw(t, "order")
		if again := of.MatchOf(shuffled...); again.Key() != m.Key() || !again.Equal(m) {
			t.Fatalf("%v is not %v", again, m)
		}
		b, err := m.AppendBinary(nil)
		if err != nil {
			t.Fatalf("%v: %v", m, err)
		}
		back, err := of.DecodeMatch(b)
		if err != nil || !back.Equal(m) {
			t.Fatalf("%v became %v: %v", m, back, err)
		}
		for _, term := range m.Terms() {
			if got, ok := m.Get(term.Field); !ok || got != term {
				t.Fatalf("Get(%v) = %v, %v", term.Field, got, ok)
			}
			if without := m.Without(term.Field); len(without.Terms()) != len(m.Terms())-1 {
				t.Fatalf("Without(%v) = %v", term.Field, without)
			}
		}
		if other := m.With(of.Reg(3, 1)); len(m.Terms()) > 0 && m.Key() != back.Key() {
			t.Fatalf("With changed its receiver: %v, %v", m, other)
		}
		roundTrip(t, &of.FlowMod{Match: m})
	})
}

func TestRegistersOverlap(t *testing.T) {
	a := of.MatchOf(of.XReg(1, 0x0000000500000006))
	b := of.MatchOf(of.Reg(3, 6), of.Reg(2, 5))
	if a.Key() != b.Key() {
		t.Errorf("%v is not %v", a, b)
	}
	if v := b.Value(of.FieldXReg1); v != 0x500000006 {
		t.Errorf("xreg1 = %#x", v)
	}
	if m := of.MatchOf(of.RegMasked(0, 1, 0xf), of.RegMasked(0, 0x20, 0xf0)); m.String() != "reg0=0x21/0xff" {
		t.Errorf("joined masks: %v", m)
	}
	if m := of.MatchOf(of.RegMasked(0, 1, 0)); len(m.Terms()) != 0 {
		t.Errorf("empty mask: %v", m)
	}
	if _, err := of.MatchOf(of.Reg(16, 1)).AppendBinary(nil); err == nil {
		t.Error("reg16 is encoded")
	}
}

// TestBadTermsAreRefused checks that a term that makes no sense fails to encode: dropped, it
// would widen the match to every packet.
func TestBadTermsAreRefused(t *testing.T) {
	v6 := netip.MustParsePrefix("2001:db8::/32")
	for name, term := range map[string]of.FieldValue{
		"no prefix":            of.IPSrc(netip.Prefix{}),
		"no address":           of.IPDstAddr(netip.Addr{}),
		"IPv6 in ARP":          of.ARPSPA(v6),
		"IPv4 in ND":           of.NDTarget(netip.MustParseAddr("10.0.0.1")),
		"half a mapped prefix": of.IPSrc(netip.MustParsePrefix("::ffff:10.0.0.0/64")),
		"no tunnel end":        of.TunDst(netip.Addr{}),
		"register 16":          of.Reg(16, 1),
		"register -1":          of.XReg(-1, 1),
		"no field":             of.Exact(0, of.U64(1)),
	} {
		if b, err := of.Append(nil, 1, &of.FlowMod{Match: of.MatchOf(term)}); err == nil {
			t.Errorf("%s: encoded as %x", name, b)
		}
		if _, err := of.AppendActions(nil, []of.Action{of.Set(term)}); err == nil {
			t.Errorf("%s: set_field is encoded", name)
		}
	}
	mapped := of.MatchOf(of.IPSrc(netip.MustParsePrefix("::ffff:10.0.0.0/104")))
	if want := "ip_src=10.0.0.0/8"; mapped.String() != want {
		t.Errorf("mapped prefix gives %v, want %v", mapped, want)
	}
	for name, a := range map[string]of.Action{
		"copy of unequal widths":  of.CopyField{Src: of.Whole(of.FieldEthSrc), Dst: of.Whole(of.FieldReg0)},
		"clause 0":                of.Conjunction{ID: 1, Clause: 0, Clauses: 2},
		"one clause":              of.Conjunction{ID: 1, Clause: 1, Clauses: 1},
		"range of both families":  of.NAT{Source: true, AddrMin: netip.MustParseAddr("10.0.0.1"), AddrMax: v6.Addr()},
		"ct to table 255":         of.CT{Recirculate: true, Table: of.TableAll},
		"two bits of check":       of.CheckPktLarger{Len: 1, Dst: of.Sub(of.FieldReg0, 0, 2)},
		"resubmit to a wide port": of.Resubmit{InPort: 70000},
		"user data too long":      of.Controller{UserData: make([]byte, 70000)},
		"nil inside":              of.Clone{Actions: []of.Action{nil}},
	} {
		if b, err := of.AppendActions(nil, []of.Action{a}); err == nil {
			t.Errorf("%s: encoded as %x", name, b[:min(len(b), 64)])
		}
	}
}
