package openflow_test

import (
	"context"
	"errors"

	"fmt"
	"reflect"

	"slices"

	"testing"
	"time"

	of "yakumo/openflow"
	"yakumo/openflow/ovstest"
)

// deadline bounds each wait for the switch.
const deadline = 90 * time.Second

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// dial connects to the management socket of bridge br0.
func dial(t testing.TB, sw *ovstest.Switch, cfg of.Config) *of.Conn {
	t.Helper()
	return dialAddr(t, sw.Mgmt("br0"), cfg)
}

func dialAddr(t testing.TB, addr string, cfg of.Config) *of.Conn {
	t.Helper()
	c, err := of.Dial(testContext(t), addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func startBridge(t testing.TB) *ovstest.Switch {
	t.Helper()
	sw := ovstest.Start(t)
	sw.AddBridge("br0")
	sw.AddPort("br0", "p1", 1)
	sw.AddPort("br0", "p2", 2)
	return sw
}

// next takes one thing from a channel that meets want, passing over others.
func next[T any](t testing.TB, ch <-chan T, what string, want func(T) bool) T {
	t.Helper()
	timeout := time.After(deadline)
	for {
		select {
		case v, ok := <-ch:
			if !ok {
				t.Fatalf("channel closed while waiting for %s", what)
			}
			if want(v) {
				return v
			}
		case <-timeout:
			t.Fatalf("no %s within %v", what, deadline)
		}
	}
}

// fieldMatches has one match for every field, with the prerequisites that it needs.
func fieldMatches() map[of.Field]of.Match {
	ip := of.EthType(of.EtherTypeIPv4)
	ip6 := of.EthType(of.EtherTypeIPv6)
	arp := of.EthType(of.EtherTypeARP)
	mpls := of.EthType(of.EtherTypeMPLS)
	ns := []of.FieldValue{ip6, of.IPProto(of.ProtoICMPv6), of.ICMPv6Type(135), of.ICMPv6Code(0)}
	na := []of.FieldValue{ip6, of.IPProto(of.ProtoICMPv6), of.ICMPv6Type(136), of.ICMPv6Code(0)}
	est := of.CTState(of.CTTracked|of.CTEstablished, of.CTTracked|of.CTEstablished)
	ms := map[of.Field]of.Match{}
	put := func(f of.Field, terms ...of.FieldValue) { ms[f] = of.MatchOf(terms...) }
	exact := func(f of.Field, v uint64) of.FieldValue { return of.Exact(f, of.U64(v)) }
	masked := func(f of.Field, v, m uint64) of.FieldValue { return of.Masked(f, of.U64(v), of.U64(m)) }

	put(of.FieldInPort, of.InPort(1))
	put(of.FieldMetadata, of.MetadataMasked(0x1234, 0xffff))
	put(of.FieldTunnelID, masked(of.FieldTunnelID, 0xab0000, 0xff0000))
	put(of.FieldTunSrc, of.TunSrc(addr("192.0.2.1")))
	put(of.FieldTunDst, of.TunDst(addr("192.0.2.2")))
	put(of.FieldTunIPv6Src, of.TunSrc(addr("2001:db8::1")))
	put(of.FieldTunIPv6Dst, of.TunDst(addr("2001:db8::2")))
	put(of.FieldTunFlags, exact(of.FieldTunFlags, 1))
	put(of.FieldTunGBPID, exact(of.FieldTunGBPID, 7))
	put(of.FieldTunGBPFlags, masked(of.FieldTunGBPFlags, 0x8, 0x8))
	put(of.FieldPktMark, masked(of.FieldPktMark, 0x100, 0xff00))
	put(of.FieldDPHash, masked(of.FieldDPHash, 0x3, 0xf))
	put(of.FieldRecircID, exact(of.FieldRecircID, 5))
	put(of.FieldConjID, of.ConjID(77))
	put(of.FieldActsetOutput, exact(of.FieldActsetOutput, 3))
	put(of.FieldCTState, of.CTState(of.CTTracked|of.CTNew, of.CTTracked|of.CTNew|of.CTInvalid))
	put(of.FieldCTZone, of.CTZone(0x1ff))
	put(of.FieldCTMark, of.CTMarkMasked(0x5, 0xf))
	put(of.FieldCTLabel, of.CTLabelMasked(of.Value{Hi: 0x12, Lo: 0x34}, of.Value{Hi: 0xff, Lo: 0xff}))
	for i := range 16 {
		put(of.RegField(i), of.Reg(i, uint32(0x01010101*(i+1))))
	}
	for i := range 8 {
		put(of.FieldXReg0+of.Field(i), of.XReg(i, 0x1122334455667700+uint64(i)))
	}
	for i := range 4 {
		put(of.FieldXXReg0+of.Field(i), of.Masked(of.FieldXXReg0+of.Field(i), of.Value{Hi: 0xff00, Lo: uint64(i + 1)}, of.Value{Hi: 0xff00, Lo: 0xff}))
	}
	put(of.FieldEthDst, of.EthMulticast())
	put(of.FieldEthSrc, of.EthSrc(macA))
	put(of.FieldEthType, of.EthType(of.EtherTypeLLDP))
	put(of.FieldVLANVID, of.VLANVID(100))
	put(of.FieldVLANPCP, of.VLANVID(100), of.VLANPCP(5))
	put(of.FieldMPLSLabel, mpls, of.MPLSLabel(99))
	put(of.FieldMPLSTC, mpls, exact(of.FieldMPLSTC, 3))
	put(of.FieldMPLSBOS, mpls, exact(of.FieldMPLSBOS, 1))
	put(of.FieldMPLSTTL, mpls, exact(of.FieldMPLSTTL, 64))
	put(of.FieldIPv4Src, ip, of.IPSrc(prefix("10.1.0.0/16")))
	put(of.FieldIPv4Dst, ip, of.IPDstAddr(addr("10.1.2.3")))
	put(of.FieldIPv6Src, ip6, of.IPSrc(prefix("2001:db8::/32")))
	put(of.FieldIPv6Dst, ip6, of.IPDstAddr(addr("2001:db8::1")))
	put(of.FieldIPv6FLabel, ip6, exact(of.FieldIPv6FLabel, 0x12345))
	put(of.FieldIPProto, ip, of.IPProto(47))
	put(of.FieldIPDSCP, ip, of.IPDSCP(46))
	put(of.FieldIPECN, ip, of.IPECN(2))
	put(of.FieldIPTTL, ip, of.IPTTL(1))
	put(of.FieldIPFrag, ip, of.IPFrag(of.FragLater))
	put(of.FieldARPOp, arp, of.ARPOp(of.ARPRequest))
	put(of.FieldARPSPA, arp, of.ARPSPA(prefix("10.0.0.0/24")))
	put(of.FieldARPTPA, arp, of.ARPTPA(prefix("10.0.0.1/32")))
	put(of.FieldARPSHA, arp, of.ARPSHA(macA))
	put(of.FieldARPTHA, arp, of.ARPTHA(macA))
	put(of.FieldTCPSrc, ip, of.IPProto(of.ProtoTCP), masked(of.FieldTCPSrc, 0x400, 0xfc00))
	put(of.FieldTCPDst, ip, of.IPProto(of.ProtoTCP), of.TCPDst(443))
	put(of.FieldTCPFlags, ip, of.IPProto(of.ProtoTCP), of.TCPFlags(0x002, 0x012))
	put(of.FieldUDPSrc, ip6, of.IPProto(of.ProtoUDP), of.UDPSrc(68))
	put(of.FieldUDPDst, ip, of.IPProto(of.ProtoUDP), of.UDPDst(67))
	put(of.FieldSCTPSrc, ip, of.IPProto(of.ProtoSCTP), of.SCTPSrc(1))
	put(of.FieldSCTPDst, ip, of.IPProto(of.ProtoSCTP), of.SCTPDst(2))
	put(of.FieldICMPv4Type, ip, of.IPProto(of.ProtoICMP), of.ICMPv4Type(8))
	put(of.FieldICMPv4Code, ip, of.IPProto(of.ProtoICMP), of.ICMPv4Code(4))
	put(of.FieldICMPv6Type, ip6, of.IPProto(of.ProtoICMPv6), of.ICMPv6Type(128))
	put(of.FieldICMPv6Code, ip6, of.IPProto(of.ProtoICMPv6), of.ICMPv6Type(1), of.ICMPv6Code(4))
	put(of.FieldNDTarget, append(slices.Clone(ns), of.NDTarget(addr("fe80::1")))...)
	put(of.FieldNDSLL, append(slices.Clone(ns), of.NDSLL(macA))...)
	put(of.FieldNDTLL, append(slices.Clone(na), of.NDTLL(macA))...)
	put(of.FieldNDReserved, append(slices.Clone(na), exact(of.FieldNDReserved, 0x60000000))...)
	put(of.FieldNDOptionsType, append(slices.Clone(na), exact(of.FieldNDOptionsType, 2))...)
	put(of.FieldCTNWProto, est, ip, exact(of.FieldCTNWProto, 6))
	put(of.FieldCTNWSrc, est, ip, of.Masked(of.FieldCTNWSrc, of.AddrValue(addr("10.0.0.0")), of.U64(0xffffff00)))
	put(of.FieldCTNWDst, est, ip, of.Exact(of.FieldCTNWDst, of.AddrValue(addr("10.0.0.9"))))
	put(of.FieldCTIPv6Src, est, ip6, of.Exact(of.FieldCTIPv6Src, of.AddrValue(addr("2001:db8::5"))))
	put(of.FieldCTIPv6Dst, est, ip6, of.Exact(of.FieldCTIPv6Dst, of.AddrValue(addr("2001:db8::6"))))
	put(of.FieldCTTPSrc, est, ip, exact(of.FieldCTNWProto, 6), exact(of.FieldCTTPSrc, 1000))
	put(of.FieldCTTPDst, est, ip, exact(of.FieldCTNWProto, 17), exact(of.FieldCTTPDst, 53))
	put(of.FieldVLANTCI, masked(of.FieldVLANTCI, 0x1000, 0x1000))
	put(of.FieldPacketType, exact(of.FieldPacketType, 0))
	return ms
}

// Of the two fields that hold the ingress port, the switch takes only the short one in an action.
func TestInPortCanBeSet(t *testing.T) {
	c := dial(t, startBridge(t), of.Config{})
	ctx := testContext(t)
	set := func(f of.Field, v uint64) error {
		return c.Apply(ctx, &of.FlowMod{Table: 4, Priority: 1, Instructions: of.Apply(of.Set(of.Exact(f, of.U64(v))), of.ToPort(1))})
	}
	if err := set(of.FieldInPort16, 0xffff); err != nil {
		t.Errorf("set in_port16: %v", err)
	}
	if err := set(of.FieldInPort, 1); err == nil {
		t.Error("the switch takes in_port of 32 bits")
	}
}

// TestEveryFieldInTheSwitch installs a flow for every field and reads it back: the switch
// must give a match that encodes to the same bytes.
func TestEveryFieldInTheSwitch(t *testing.T) {
	sw := startBridge(t)
	ctx := testContext(t)
	c := dial(t, sw, of.Config{})
	matches := fieldMatches()
	for _, f := range of.Fields() {
		if f.Field == of.FieldInPort16 { // the switch gives in_port back; see TestInPortCanBeSet
			continue
		}
		m, ok := matches[f.Field]
		if !ok {
			t.Errorf("no match for %v", f.Field)
			continue
		}
		mod := &of.FlowMod{Cookie: uint64(f.Field), Table: 3, Priority: 100, Match: m}
		err := c.Apply(ctx, mod)
		if f.Field == of.FieldDPHash || f.Field == of.FieldRecircID {
			if !errors.Is(err, &of.Error{Kind: of.ErrBadRequest, Code: 5}) { // permissions
				t.Errorf("%v, which is the switch's own: %v", f.Field, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%v: %v", f.Field, err)
			continue
		}
		flows, err := c.Flows(ctx, of.FlowFilter{Table: 3, Cookie: uint64(f.Field), CookieMask: ^uint64(0)})
		if err != nil {
			t.Fatal(err)
		}
		if len(flows) != 1 {
			t.Errorf("%v: %d flows", f.Field, len(flows))
			continue
		}
		want := m
		if f.Field == of.FieldVLANTCI { // the switch knows the VID form of the same thing
			want = of.MatchOf(of.VLANAny())
		}
		if got := flows[0].Match; got.Key() != want.Key() {
			t.Errorf("%v: installed %v, read back %v (unknown: %x)", f.Field, want, got, got.Unknown())
		}
		// The tool must agree that our text names the same flow.
		if err := c.Apply(ctx, &of.FlowMod{Command: of.FlowDelete, Table: of.TableAll}); err != nil {
			t.Fatal(err)
		}
		sw.Ofctl("add-flow", "br0", fmt.Sprintf("table=3,cookie=%d,priority=100,%v,actions=drop", f.Field, m))
		flows, err = c.Flows(ctx, of.FlowFilter{Table: 3, Cookie: uint64(f.Field), CookieMask: ^uint64(0)})
		if err != nil {
			t.Fatal(err)
		}
		if len(flows) != 1 || flows[0].Match.Key() != want.Key() {
			t.Errorf("%v: text %v was read as %v", f.Field, m, flows)
		}
	}
}

// flowActions gives, for each action of actionCases, a match under which the switch takes it.
func matchFor(want string) of.Match {
	ip, ip6 := of.EthType(of.EtherTypeIPv4), of.EthType(of.EtherTypeIPv6)
	nd := []of.FieldValue{ip6, of.IPProto(of.ProtoICMPv6), of.ICMPv6Type(136), of.ICMPv6Code(0)}
	switch p := prerequisites(want); p {
	case "vlan_tci=0x1000/0x1000,":
		return of.MatchOf(of.VLANAny())
	case "icmp6,icmp_type=136,":
		return of.MatchOf(nd...)
	case "icmp6,":
		return of.MatchOf(ip6, of.IPProto(of.ProtoICMPv6))
	case "icmp,":
		return of.MatchOf(ip, of.IPProto(of.ProtoICMP))
	case "ipv6,":
		return of.MatchOf(ip6)
	case "arp,":
		return of.MatchOf(of.EthType(of.EtherTypeARP))
	case "tcp,":
		return of.MatchOf(ip, of.IPProto(of.ProtoTCP))
	case "tcp6,":
		return of.MatchOf(ip6, of.IPProto(of.ProtoTCP))
	case "udp,":
		return of.MatchOf(ip, of.IPProto(of.ProtoUDP))
	case "mpls,":
		return of.MatchOf(of.EthType(of.EtherTypeMPLS))
	case "ct_state=+trk+est,ip,":
		return of.MatchOf(of.CTState(of.CTTracked|of.CTEstablished, of.CTTracked|of.CTEstablished), ip)
	case "ip,":
		return of.MatchOf(ip)
	default:
		panic("no match for " + p)
	}
}

// TestEveryActionInTheSwitch installs a flow for every action and reads it back: the switch
// must give the same action.
func TestEveryActionInTheSwitch(t *testing.T) {
	sw := startBridge(t)
	ctx := testContext(t)
	c := dial(t, sw, of.Config{})
	if err := c.Apply(ctx,
		&of.GroupMod{Kind: of.GroupAll, ID: 7},
		&of.MeterMod{ID: 9, Flags: of.MeterKbps, Bands: []of.MeterBand{{Kind: of.BandDrop, Rate: 1000}}},
		&of.MeterMod{ID: 3, Flags: of.MeterKbps, Bands: []of.MeterBand{{Kind: of.BandDrop, Rate: 1000}}},
	); err != nil {
		t.Fatal(err)
	}
	var mods []of.Message
	for i, a := range actionCases {
		mods = append(mods, &of.FlowMod{
			Cookie: uint64(i + 1), Table: 1, Priority: uint16(i), Match: matchFor(a.want), Instructions: of.Apply(a.action),
		})
	}
	if err := c.Bundle(ctx, mods); err != nil {
		t.Fatal(err)
	}
	flows, err := c.Flows(ctx, of.AllFlows())
	if err != nil {
		t.Fatal(err)
	}
	got := map[uint64]of.FlowDesc{}
	for _, f := range flows {
		got[f.Cookie] = f
	}
	for i, a := range actionCases {
		f, ok := got[uint64(i+1)]
		if !ok {
			t.Errorf("%v: no flow", a.action)
			continue
		}
		if !reflect.DeepEqual(f.Instructions, of.Apply(a.action)) {
			t.Errorf("installed %v\nread back %v\n%#v\n%#v", a.action, f.Instructions, a.action, f.Instructions)
		}
		if f.Table != 1 || f.Priority != uint16(i) || f.Match.Key() != matchFor(a.want).Key() {
			t.Errorf("%v: table %d priority %d match %v", a.action, f.Table, f.Priority, f.Match)
		}
	}
}
