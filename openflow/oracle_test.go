package openflow_test

import (
	"bytes"
	"fmt"
	"net/netip"

	"os/exec"
	"strings"
	"testing"

	of "yakumo/openflow"
)

// tool runs one of Open vSwitch's tools, which need no switch for what is asked here.
func tool(t testing.TB, stdin, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, errs.String())
	}
	return out.String()
}

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

var macA = of.MAC{0x02, 0x11, 0x22, 0x33, 0x44, 0x55}

type actionCase struct {
	action of.Action
	want   string // what ovs-ofctl makes of the encoding
	text   string // what String gives, where it differs from want
}

var actionCases = []actionCase{
	{of.ToPort(3), "output:3", ""},
	{of.ToPort(of.PortInPort), "IN_PORT", ""},
	{of.ToPort(of.PortLocal), "LOCAL", ""},
	{of.ToPort(of.PortNormal), "NORMAL", ""},
	{of.ToPort(of.PortAll), "ALL", ""},
	{of.ToPort(of.PortFlood), "FLOOD", ""},
	{of.ToPort(of.PortTable), "TABLE", ""},
	{of.ToController(), "CONTROLLER:65535", ""},
	{of.Output{Port: of.PortController, MaxLen: 128}, "CONTROLLER:128", ""},
	{of.Group{ID: 7}, "group:7", ""},
	{of.Meter{ID: 9}, "meter:9", ""},
	{of.SetQueue{ID: 4}, "set_queue:4", ""},
	{of.PopQueue{}, "pop_queue", ""},
	{of.DecTTL{}, "dec_ttl", ""},
	{of.DecMPLSTTL{}, "dec_mpls_ttl", ""},
	{of.PushVLAN{EtherType: of.EtherTypeVLAN}, "push_vlan:0x8100", ""},
	{of.PopVLAN{}, "pop_vlan", ""},
	{of.PushMPLS{EtherType: of.EtherTypeMPLS}, "push_mpls:0x8847", ""},
	{of.PopMPLS{EtherType: of.EtherTypeIPv4}, "pop_mpls:0x0800", ""},
	{of.Set(of.Reg(3, 0xdeadbeef)), "set_field:0xdeadbeef->reg3", ""},
	{of.Set(of.RegMasked(0, 0x1200, 0xff00)), "set_field:0x1200/0xff00->reg0", ""},
	{of.Set(of.XReg(1, 0x123456789abcdef0)), "set_field:0x123456789abcdef0->xreg1", ""},
	{of.Set(of.XXReg(0, of.Value{Hi: 1, Lo: 2})), "set_field:0x10000000000000002->xxreg0", ""},
	{of.Set(of.MetadataMasked(0x5, 0xf)), "set_field:0x5/0xf->metadata", ""},
	{of.Set(of.EthSrc(macA)), "set_field:02:11:22:33:44:55->eth_src", ""},
	{of.Set(of.EthDst(macA)), "set_field:02:11:22:33:44:55->eth_dst", ""},
	{of.Set(of.VLANVID(12)), "set_field:4108->vlan_vid", "set_field:0x100c->vlan_vid"},
	{of.Set(of.IPSrcAddr(addr("10.0.0.1"))), "set_field:10.0.0.1->ip_src", ""},
	{of.Set(of.IPDstAddr(addr("2001:db8::1"))), "set_field:2001:db8::1->ipv6_dst", ""},
	{of.Set(of.IPTTL(64)), "set_field:64->nw_ttl", ""},
	{of.Set(of.IPDSCP(46)), "set_field:46->ip_dscp", ""},
	{of.Set(of.IPECN(1)), "set_field:1->nw_ecn", "set_field:1->ip_ecn"},
	{of.Set(of.TCPDst(443)), "set_field:443->tcp_dst", ""},
	{of.Set(of.UDPSrc(53)), "set_field:53->udp_src", ""},
	{of.Set(of.ICMPv4Type(0)), "set_field:0->icmp_type", ""},
	{of.Set(of.ICMPv6Type(136)), "set_field:136->icmpv6_type", ""},
	{of.Set(of.ARPOp(of.ARPReply)), "set_field:2->arp_op", ""},
	{of.Set(of.ARPSHA(macA)), "set_field:02:11:22:33:44:55->arp_sha", ""},
	{of.Set(of.NDTarget(addr("fe80::1"))), "set_field:fe80::1->nd_target", ""},
	{of.Set(of.NDTLL(macA)), "set_field:02:11:22:33:44:55->nd_tll", ""},
	{of.Set(of.TunnelID(0x123456)), "set_field:0x123456->tun_id", ""},
	{of.Set(of.TunDst(addr("192.0.2.9"))), "set_field:192.0.2.9->tun_dst", ""},
	{of.Set(of.TunDst(addr("2001:db8::9"))), "set_field:2001:db8::9->tun_ipv6_dst", ""},
	{of.Set(of.PktMark(0x10)), "set_field:0x10->pkt_mark", ""},
	{of.Set(of.MPLSLabel(1000)), "set_field:1000->mpls_label", ""},
	{of.Set(of.Exact(of.FieldNDReserved, of.U64(0x60000000))), "set_field:1610612736->nd_reserved", ""},
	{of.CopyField{Src: of.Whole(of.FieldEthSrc), Dst: of.Whole(of.FieldEthDst)}, "move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[]", "move:eth_src[]->eth_dst[]"},
	{of.CopyField{Src: of.Sub(of.FieldReg0, 0, 16), Dst: of.Sub(of.FieldReg1, 16, 16)}, "move:NXM_NX_REG0[0..15]->NXM_NX_REG1[16..31]", "move:reg0[0..15]->reg1[16..31]"},
	{of.CopyField{Src: of.Sub(of.FieldReg2, 3, 1), Dst: of.Sub(of.FieldMetadata, 63, 1)}, "move:NXM_NX_REG2[3]->OXM_OF_METADATA[63]", "move:reg2[3]->metadata[63]"},
	{of.ResubmitTable(12), "resubmit(,12)", ""},
	{of.Resubmit{InPort: 4, Table: of.TableAll}, "resubmit:4", "resubmit(4,)"},
	{of.Resubmit{InPort: of.PortInPort, Table: 5, CT: true}, "resubmit(,5,ct)", ""},
	{of.CTClear{}, "ct_clear", ""},
	{of.CT{}, "ct()", "ct"},
	{of.CT{Recirculate: true, Table: 20, Zone: 100}, "ct(table=20,zone=100)", ""},
	{of.CT{Recirculate: true, Table: 0}, "ct(table=0)", ""},
	{of.CT{Commit: true, Force: true, ZoneFrom: of.Sub(of.FieldReg6, 0, 16)}, "ct(commit,force,zone=NXM_NX_REG6[0..15])", "ct(commit,force,zone=reg6[0..15])"},
	{of.CT{Commit: true, ALG: 21}, "ct(commit,alg=ftp)", ""},
	{of.CT{Commit: true, Zone: 5, Actions: []of.Action{
		of.NAT{Source: true, AddrMin: addr("10.0.0.1"), AddrMax: addr("10.0.0.9"), ProtoMin: 1000, ProtoMax: 2000, Random: true},
		of.Set(of.CTMarkMasked(1, 3)), of.Set(of.CTLabelMasked(of.Value{Hi: 1}, of.Value{Hi: 0xff})),
	}}, "ct(commit,zone=5,nat(src=10.0.0.1-10.0.0.9:1000-2000,random),exec(set_field:0x1/0x3->ct_mark,set_field:0x10000000000000000/0xff0000000000000000->ct_label))", ""},
	{of.CT{Commit: true, Actions: []of.Action{of.NATTo(false, addr("192.0.2.1"))}}, "ct(commit,nat(dst=192.0.2.1))", ""},
	{of.CT{Commit: true, Actions: []of.Action{of.NAT{Dest: true, AddrMin: addr("2001:db8::1"), ProtoMin: 80, Persistent: true, Hash: true}}},
		"ct(commit,nat(dst=[2001:db8::1]:80,persistent,hash))", ""},
	{of.CT{Recirculate: true, Table: 3, Actions: []of.Action{of.NAT{}}}, "ct(table=3,nat)", ""},
	{of.CT{Commit: true, Actions: []of.Action{of.CopyField{Src: of.Whole(of.FieldReg1), Dst: of.Whole(of.FieldCTMark)}}},
		"ct(commit,exec(move:NXM_NX_REG1[]->NXM_NX_CT_MARK[]))", "ct(commit,exec(move:reg1[]->ct_mark[]))"},
	{of.Conjunction{ID: 1234, Clause: 2, Clauses: 3}, "conjunction(1234,2/3)", ""},
	{of.Controller{UserData: []byte{1, 2, 0xff}}, "controller(userdata=01.02.ff)", ""},
	{of.Controller{Truncate: true, MaxLen: 64, ID: 7, Reason: of.ReasonInvalidTTL, MeterID: 3, Pause: true},
		"controller(reason=invalid_ttl,max_len=64,id=7,pause,meter_id=3)", ""},
	{of.OutputTrunc{Port: 2, MaxLen: 100}, "output(port=2,max_len=100)", ""},
	{of.OutputField{Src: of.Sub(of.FieldReg7, 0, 16), MaxLen: of.MaxLenAll}, "output:NXM_NX_REG7[0..15]", "output:reg7[0..15]"},
	{of.CheckPktLarger{Len: 1500, Dst: of.Sub(of.FieldReg0, 31, 1)}, "check_pkt_larger(1500)->NXM_NX_REG0[31]", "check_pkt_larger(1500)->reg0[31]"},
	{of.Note{Data: []byte{0xca, 0xfe, 1, 2, 3, 4}}, "note:ca.fe.01.02.03.04", ""},
	{of.Clone{Actions: []of.Action{of.ToPort(1), of.DecTTL{}}}, "clone(output:1,dec_ttl)", ""},
	{of.Push{Src: of.Whole(of.FieldReg1)}, "push:NXM_NX_REG1[]", "push:reg1[]"},
	{of.Pop{Dst: of.Sub(of.FieldReg2, 0, 8)}, "pop:NXM_NX_REG2[0..7]", "pop:reg2[0..7]"},
	{of.FinTimeout{Idle: 10, Hard: 20}, "fin_timeout(idle_timeout=10,hard_timeout=20)", ""},
	{of.Exit{}, "exit", ""},
	{of.Multipath{Fields: 1, Basis: 50, Algorithm: 0, Links: 4, Dst: of.Sub(of.FieldReg0, 0, 8)},
		"multipath(symmetric_l4,50,modulo_n,4,0,NXM_NX_REG0[0..7])", "multipath(symmetric_l4,50,modulo_n,4,0,reg0[0..7])"},
	{of.Learn{Table: 10, IdleTimeout: 60, HardTimeout: 300, Priority: 100, Cookie: 0x77, SendFlowRemoved: true, DeleteLearned: true, FinIdleTimeout: 2, FinHardTimeout: 4, Specs: []of.LearnSpec{
		of.LearnMatchFrom(of.Whole(of.FieldEthDst), of.Whole(of.FieldEthSrc)),
		of.LearnMatchValue(of.Whole(of.FieldEthType), of.U64(0x800)),
		of.LearnMatchFrom(of.Sub(of.FieldReg0, 0, 16), of.Sub(of.FieldReg0, 0, 16)),
		of.LearnLoadFrom(of.Sub(of.FieldReg1, 0, 16), of.Sub(of.FieldReg2, 16, 16)),
		of.LearnLoadValue(of.Sub(of.FieldReg4, 8, 4), of.U64(5)),
		of.LearnOutputTo(of.Sub(of.FieldReg3, 0, 16)),
	}}, "learn(table=10,idle_timeout=60,hard_timeout=300,fin_idle_timeout=2,fin_hard_timeout=4,priority=100,send_flow_rem,delete_learned,cookie=0x77," +
		"NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],eth_type=0x800,NXM_NX_REG0[0..15],load:NXM_NX_REG2[16..31]->NXM_NX_REG1[0..15]," +
		"load:0x5->NXM_NX_REG4[8..11],output:NXM_NX_REG3[0..15])",
		"learn(table=10,idle_timeout=60,hard_timeout=300,fin_idle_timeout=2,fin_hard_timeout=4,priority=100,send_flow_rem,delete_learned,cookie=0x77," +
			"eth_dst[]=eth_src[],eth_type=0x800,reg0[0..15],load:reg2[16..31]->reg1[0..15],load:0x5->reg4[8..11],output:reg3[0..15])"},
}

// TestActionsAgainstOpenvSwitch checks that Open vSwitch reads each action's encoding as it
// was meant, and would encode it in the same bytes (the tool prints a line per difference).
func TestActionsAgainstOpenvSwitch(t *testing.T) {
	var in strings.Builder
	for _, c := range actionCases {
		b, err := of.AppendActions(nil, []of.Action{c.action})
		if err != nil {
			t.Fatalf("%v: %v", c.action, err)
		}
		fmt.Fprintf(&in, "%x\n", b)
	}
	got := nonEmptyLines(tool(t, in.String(), "ovs-ofctl", "parse-actions", "OpenFlow15"))
	if len(got) != len(actionCases) {
		t.Fatalf("%d lines for %d actions:\n%s", len(got), len(actionCases), strings.Join(got, "\n"))
	}
	for i, c := range actionCases {
		if want := "actions=" + c.want; got[i] != want {
			t.Errorf("Open vSwitch reads %v\nas   %s\nwant %s", c.action, got[i], want)
		}
	}
}

// TestActionTextAgainstOpenvSwitch checks that Open vSwitch reads String's text, and that
// it means the same.
func TestActionTextAgainstOpenvSwitch(t *testing.T) {
	var in strings.Builder
	for _, c := range actionCases {
		want := c.text
		if want == "" {
			want = c.want
		}
		if got := c.action.String(); got != want {
			t.Errorf("String gives %s, want %s", got, want)
		}
		fmt.Fprintf(&in, "%sactions=%s\n", prerequisites(c.want), c.action)
	}
	got := nonEmptyLines(tool(t, in.String(), "ovs-ofctl", "-O", "OpenFlow15", "parse-flows", "-"))
	i := 0
	for _, line := range got {
		if !strings.Contains(line, "OFPT_FLOW_MOD") {
			continue
		}
		if _, as, _ := strings.Cut(line, "actions="); i < len(actionCases) && as != actionCases[i].want {
			t.Errorf("Open vSwitch reads %v\nas   %s\nwant %s", actionCases[i].action, as, actionCases[i].want)
		}
		i++
	}
	if i != len(actionCases) {
		t.Errorf("%d flows for %d actions", i, len(actionCases))
	}
}

// TestFlowTextAgainstOpenvSwitch checks that Open vSwitch reads a flow's text as the flow.
func TestFlowTextAgainstOpenvSwitch(t *testing.T) {
	for _, c := range messageCases {
		m, ok := c.msg.(*of.FlowMod)
		if !ok || m.Command != of.FlowAdd {
			continue
		}
		out := nonEmptyLines(tool(t, "", "ovs-ofctl", "-O", "OpenFlow15", "parse-flow", m.String()))
		_, got, _ := strings.Cut(out[len(out)-1], "(xid=0x1):")
		if got != c.want {
			t.Errorf("%v\nis read as %s\nwant       %s", m, got, c.want)
		}
	}
	del := &of.FlowMod{Command: of.FlowDelete, Table: 3, Cookie: 1, CookieMask: 3, OutPort: of.PortLocal, OutGroup: 2, Match: of.MatchOf(of.VLANNone())}
	if want := "delete cookie=0x1/0x3,table=3,out_port=LOCAL,out_group=2,vlan_vid=0x0"; del.String() != want {
		t.Errorf("%v, want %s", del, want)
	}
}

// prerequisites gives the match that Open vSwitch's parser wants in front of some actions.
func prerequisites(action string) string {
	for _, p := range []struct{ word, match string }{
		{",ct)", "ct_state=+trk+est,ip,"}, {"pop_vlan", "vlan_tci=0x1000/0x1000,"}, {"pop_mpls", "mpls,"}, {"vlan_vid", "vlan_tci=0x1000/0x1000,"}, {"nd_t", "icmp6,icmp_type=136,"}, {"nd_r", "icmp6,icmp_type=136,"}, {"icmpv6", "icmp6,"},
		{"icmp_type", "icmp,"}, {"->ipv6", "ipv6,"}, {"arp", "arp,"}, {"tcp_dst", "tcp,"}, {"udp_src", "udp,"},
		{"mpls:0x8", "mpls,"}, {"mpls_l", "mpls,"}, {"dec_mpls", "mpls,"}, {"fin_timeout", "tcp,"}, {"push_mpls", ""}, {"2001:db8::1]", "tcp6,"}, {"alg=ftp", "tcp,"},
	} {
		if strings.Contains(action, p.word) && action != "push_mpls:0x8847" {
			return p.match
		}
	}
	return "ip,"
}

func nonEmptyLines(s string) []string {
	var out []string
	for l := range strings.Lines(s) {
		if l = strings.TrimSpace(l); l != "" {
			out = append(out, l)
		}
	}
	return out
}
