package openflow_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"yakumo/netspace/netspacetest"
	of "yakumo/openflow"
)

// frame is an Ethernet frame that carries an IPv4 UDP packet.
func frame(dst of.MAC, payload string) []byte {
	b := append([]byte{}, dst[:]...)
	b = append(b, macA[:]...)
	b = append(b, 0x08, 0x00)
	total := 20 + 8 + len(payload)
	ip := []byte{0x45, 0, byte(total >> 8), byte(total), 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}
	var sum uint32
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(ip[i])<<8 | uint32(ip[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	ip[10], ip[11] = ^byte(sum>>8), ^byte(sum)
	b = append(b, ip...)
	b = append(b, 0x12, 0x34, 0x00, 0x43, 0, byte(8+len(payload)), 0, 0)
	return append(b, payload...)
}

func TestFlowAttributesInTheSwitch(t *testing.T) {
	sw := startBridge(t)
	ctx := testContext(t)
	c := dial(t, sw, of.Config{})
	add := &of.FlowMod{
		Cookie: 0xabcdef0123456789, Table: 5, Priority: 1000, IdleTimeout: 100, HardTimeout: 200, Importance: 7,
		Flags: of.FlagSendFlowRemoved | of.FlagNoByteCounts,
		Match: of.MatchOf(of.InPort(1), of.EthType(of.EtherTypeIPv4)),
		Instructions: of.Instructions{
			Apply: []of.Action{of.Set(of.Reg(0, 1))}, Clear: true, Write: []of.Action{of.ToPort(2)},
			Metadata: 0x10, MetadataMask: 0xf0,
		}.ThenGoto(9),
	}
	read := func(f of.FlowFilter) []of.FlowDesc {
		t.Helper()
		flows, err := c.Flows(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		return flows
	}
	if err := c.Apply(ctx, add); err != nil {
		t.Fatal(err)
	}
	flows := read(of.AllFlows())
	if len(flows) != 1 {
		t.Fatalf("%d flows", len(flows))
	}
	f := flows[0]
	if f.Stats.Has&of.HasDuration == 0 || f.Stats.Has&of.HasPackets == 0 {
		t.Errorf("statistics are missing: %+v", f.Stats)
	}
	want := of.FlowDesc{
		Table: 5, Priority: 1000, IdleTimeout: 100, HardTimeout: 200, Importance: 7, Flags: add.Flags,
		Cookie: add.Cookie, Match: add.Match, Instructions: add.Instructions, Stats: f.Stats,
	}
	if !reflect.DeepEqual(f, want) {
		t.Errorf("read back %+v\nwant      %+v", f, want)
	}

	// A modify changes actions and keeps the cookie.
	mod := *add
	mod.Command, mod.Cookie, mod.Instructions = of.FlowModifyStrict, 0, of.Apply(of.ToPort(2))
	if err := c.Apply(ctx, &mod); err != nil {
		t.Fatal(err)
	}
	if f := read(of.AllFlows())[0]; f.Cookie != add.Cookie || f.Instructions.String() != "output:2" {
		t.Errorf("after modify: %v", f.String())
	}
	// Flow filters and deletes go by cookie bits.
	if err := c.Apply(ctx, &of.FlowMod{Table: 5, Cookie: 1, Priority: 1, Instructions: of.Apply(of.ToPort(1))}); err != nil {
		t.Fatal(err)
	}
	if got := read(of.FlowFilter{Table: of.TableAll, Cookie: 1, CookieMask: 0xff}); len(got) != 1 || got[0].Priority != 1 {
		t.Errorf("flows with cookie 1: %v", got)
	}
	if got := read(of.FlowFilter{Table: of.TableAll, OutPort: 2}); len(got) != 1 || got[0].Priority != 1000 {
		t.Errorf("flows that output to 2: %v", got)
	}
	if got := read(of.FlowFilter{Table: 0}); len(got) != 0 {
		t.Errorf("flows of table 0: %v", got)
	}
	sum, err := c.Aggregate(ctx, of.AllFlows())
	if err != nil || sum.Flows != 2 || sum.Has&of.HasFlows == 0 {
		t.Errorf("aggregate: %+v, %v", sum, err)
	}
	tables, err := c.Tables(ctx)
	if err != nil || len(tables) < 6 || tables[5].Table != 5 || tables[5].Active != 2 {
		t.Errorf("tables: %d, %v", len(tables), err)
	}
	del := &of.FlowMod{Command: of.FlowDelete, Table: of.TableAll, Cookie: add.Cookie, CookieMask: ^uint64(0)}
	if err := c.Apply(ctx, del); err != nil {
		t.Fatal(err)
	}
	gone := next(t, c.Events(), "flow removed", func(m of.Message) bool { return m.Type() == of.TypeFlowRemoved }).(*of.FlowRemoved)
	if gone.Cookie != add.Cookie || gone.Reason != of.RemovedDelete || gone.Priority != 1000 || gone.Table != 5 ||
		!gone.Match.Equal(add.Match) || gone.Stats.Has&of.HasDuration == 0 {
		t.Errorf("flow removed: %+v", gone)
	}
	if got := read(of.AllFlows()); len(got) != 1 {
		t.Errorf("after delete: %v", got)
	}
}

func TestGroupsInTheSwitch(t *testing.T) {
	sw := startBridge(t)
	ctx := testContext(t)
	c := dial(t, sw, of.Config{})
	groups := []*of.GroupMod{
		{Kind: of.GroupAll, ID: 1, Buckets: []of.Bucket{{ID: 0, Actions: []of.Action{of.ToPort(1)}}, {ID: 1, Actions: []of.Action{of.ToPort(2)}}}},
		{Kind: of.GroupSelect, ID: 2, Select: &of.Selection{Method: "hash", Param: 7, Fields: []of.FieldValue{of.IPSrcAddr(addr("255.255.255.255")), of.Masked(of.FieldIPv4Dst, of.Value{}, of.U64(0xffffff00))}},
			Buckets: []of.Bucket{{ID: 5, Weight: 10, Actions: []of.Action{of.ToPort(1)}}, {ID: 9, Weight: 30, Actions: []of.Action{of.Set(of.Reg(0, 1)), of.ToPort(2)}}}},
		{Kind: of.GroupIndirect, ID: 3, Buckets: []of.Bucket{{ID: 0, Actions: []of.Action{of.Group{ID: 1}}}}},
		{Kind: of.GroupFailover, ID: 4, Buckets: []of.Bucket{{ID: 0, WatchPort: 1, Actions: []of.Action{of.ToPort(1)}}, {ID: 1, WatchGroup: 1, Actions: []of.Action{of.ToPort(2)}}}},
		{Kind: of.GroupSelect, ID: 5, Select: &of.Selection{Method: "dp_hash"}, Buckets: []of.Bucket{{ID: 1, Weight: 1, Actions: []of.Action{of.ResubmitTable(3)}}}},
	}
	var ms []of.Message
	for _, g := range groups {
		ms = append(ms, g)
	}
	if err := c.Bundle(ctx, ms); err != nil {
		t.Fatal(err)
	}
	byID := func() map[uint32]of.GroupDesc {
		t.Helper()
		ds, err := c.Groups(ctx)
		if err != nil {
			t.Fatal(err)
		}
		out := map[uint32]of.GroupDesc{}
		for _, d := range ds {
			out[d.ID] = d
		}
		return out
	}
	got := byID()
	for _, g := range groups {
		d := got[g.ID]
		want := of.GroupDesc{Kind: g.Kind, ID: g.ID, Buckets: g.Buckets, Select: g.Select}
		if g.Select != nil {
			for i := range want.Select.Fields { // the content of a hash field is its mask
				want.Select.Fields[i].Value = want.Select.Fields[i].Mask
			}
		}
		if !reflect.DeepEqual(d, want) {
			t.Errorf("group %d:\nread back %+v %v\nwant      %+v %v", g.ID, d, d.Select, want, want.Select)
		}
	}
	// The tool reads our text as the same group.
	for _, g := range groups {
		if g.ID == 3 || g.ID == 4 { // they name group 1
			continue
		}
		if err := c.Apply(ctx, &of.GroupMod{Command: of.GroupDelete, ID: g.ID}); err != nil {
			t.Fatal(err)
		}
		sw.Ofctl("add-group", "br0", g.String())
		if d := byID()[g.ID]; !reflect.DeepEqual(d, got[g.ID]) {
			t.Errorf("group %d by text %s:\nread back %+v\nwant      %+v", g.ID, g, d, got[g.ID])
		}
	}
	insert := &of.GroupMod{Command: of.GroupInsertBucket, Kind: of.GroupSelect, ID: 2, CommandBucket: 5, Buckets: []of.Bucket{{ID: 6, Weight: 1, Actions: []of.Action{of.ToPort(1)}}}}
	if err := c.Apply(ctx, insert); err != nil {
		t.Fatal(err)
	}
	if d := byID()[2]; len(d.Buckets) != 3 || d.Buckets[1].ID != 6 {
		t.Errorf("after insert: %v", d.String())
	}
	if err := c.Apply(ctx, &of.GroupMod{Command: of.GroupRemoveBucket, ID: 2, CommandBucket: 5}); err != nil {
		t.Fatal(err)
	}
	if d := byID()[2]; len(d.Buckets) != 2 || d.Buckets[0].ID != 6 {
		t.Errorf("after remove: %v", d.String())
	}
	stats, err := c.GroupStats(ctx)
	if err != nil || len(stats) != len(groups) {
		t.Errorf("group statistics: %v, %v", stats, err)
	}
	for _, s := range stats {
		if s.ID == 2 && len(s.Buckets) != 2 {
			t.Errorf("statistics of group 2: %+v", s)
		}
	}
	if err := c.Apply(ctx, &of.GroupMod{Command: of.GroupDelete, ID: of.GroupEvery}); err != nil {
		t.Fatal(err)
	}
	if d := byID(); len(d) != 0 {
		t.Errorf("after delete: %v", d)
	}
}

func TestMetersInTheSwitch(t *testing.T) {
	sw := startBridge(t)
	ctx := testContext(t)
	c := dial(t, sw, of.Config{})
	m := &of.MeterMod{ID: 5, Flags: of.MeterKbps | of.MeterBurst | of.MeterStats, Bands: []of.MeterBand{{Kind: of.BandDrop, Rate: 1000, Burst: 200}}}
	if err := c.Apply(ctx, m); err != nil {
		t.Fatal(err)
	}
	read := func() []of.MeterDesc {
		t.Helper()
		ds, err := c.Meters(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return ds
	}
	want := []of.MeterDesc{{ID: m.ID, Flags: m.Flags, Bands: m.Bands}}
	if got := read(); !reflect.DeepEqual(got, want) {
		t.Errorf("read back %+v, want %+v", got, want)
	}
	m.Command, m.Bands[0].Rate = of.MeterModify, 3000
	if err := c.Apply(ctx, m); err != nil {
		t.Fatal(err)
	}
	if got := read(); len(got) != 1 || got[0].Bands[0].Rate != 3000 {
		t.Errorf("after modify: %+v", got)
	}
	if err := c.Apply(ctx, &of.FlowMod{Priority: 1, Instructions: of.Apply(of.Meter{ID: 5}, of.ToPort(2))}); err != nil {
		t.Fatal(err)
	}
	stats, err := c.MeterStats(ctx)
	if err != nil || len(stats) != 1 || stats[0].ID != 5 || len(stats[0].Bands) != 1 {
		t.Errorf("meter statistics: %+v, %v", stats, err)
	}
	err = c.Apply(ctx, &of.MeterMod{ID: 5, Flags: of.MeterKbps, Bands: m.Bands})
	if !errors.Is(err, &of.Error{Kind: of.ErrMeterMod, Code: of.CodeMeterExists}) {
		t.Errorf("second add: %v", err)
	}
	text := m.String()
	if err := c.Apply(ctx, &of.MeterMod{Command: of.MeterDelete, ID: of.MeterEvery}); err != nil {
		t.Fatal(err)
	}
	sw.Ofctl("add-meter", "br0", strings.ReplaceAll(text, " ", ","))
	if got := read(); len(got) != 1 || got[0].String() != text {
		t.Errorf("by text %q: %v", text, got)
	}
}

func TestPacketsInTheSwitch(t *testing.T) {
	for _, standard := range []bool{false, true} {
		t.Run(fmt.Sprintf("standard=%v", standard), func(t *testing.T) {
			sw := startBridge(t)
			ctx := testContext(t)
			c := dial(t, sw, of.Config{StandardPacketIn: standard})
			if c.ExtendedPacketIn() == standard {
				t.Errorf("ExtendedPacketIn = %v", c.ExtendedPacketIn())
			}
			flow := &of.FlowMod{
				Table: 0, Priority: 10, Cookie: 0x42, Match: of.MatchOf(of.EthType(of.EtherTypeIPv4)),
				Instructions: of.Apply(of.Set(of.Reg(4, 0xfeed)), of.Controller{UserData: []byte("hello"), Reason: of.ReasonAction}),
			}
			if err := c.Apply(ctx, flow); err != nil {
				t.Fatal(err)
			}
			// A packet out carries pipeline fields of its own into the tables.
			data := frame(macA, "ping")
			out := &of.PacketOut{
				Match:   of.MatchOf(of.InPort(2), of.Reg(1, 0x11), of.Metadata(0x77), of.TunnelID(9)),
				Actions: []of.Action{of.ToPort(of.PortTable)}, Data: data,
			}
			if err := c.Apply(ctx, out); err != nil {
				t.Fatal(err)
			}
			in := next(t, c.PacketIns(), "packet in", func(*of.PacketIn) bool { return true })
			if in.Extended == standard || in.InPort() != 2 || in.Cookie != 0x42 || in.Table != 0 || !bytes.Equal(in.Data, data) || in.TotalLen != len(data) {
				t.Errorf("packet in: %+v", in)
			}
			for f, want := range map[of.Field]uint64{of.FieldReg1: 0x11, of.FieldReg4: 0xfeed, of.FieldMetadata: 0x77, of.FieldTunnelID: 9, of.FieldXReg0: 0x11} {
				if got := in.Match.Value(f); got != want {
					t.Errorf("%v = %#x, want %#x (in %v)", f, got, want, in.Match)
				}
			}
			if !standard && string(in.UserData) != "hello" {
				t.Errorf("user data %q", in.UserData)
			}
			// A packet that comes in by a port.
			sw.Receive("p1", data)
			in = next(t, c.PacketIns(), "packet in", func(*of.PacketIn) bool { return true })
			if in.InPort() != 1 || in.Reason != of.ReasonAction {
				t.Errorf("packet in: %+v", in)
			}
			stats, err := c.PortStats(ctx, 1)
			if err != nil || len(stats) != 1 || stats[0].RxPackets != 1 || stats[0].RxBytes != uint64(len(data)) {
				t.Errorf("port statistics: %+v, %v", stats, err)
			}
		})
	}
}

func TestPausedPacketResumes(t *testing.T) {
	sw := startBridge(t)
	ctx := testContext(t)
	c := dial(t, sw, of.Config{})
	if err := c.Apply(ctx,
		&of.FlowMod{Priority: 1, Instructions: of.Apply(of.Controller{UserData: []byte{1}, Pause: true}, of.ResubmitTable(1))},
		&of.FlowMod{Table: 1, Priority: 1, Cookie: 5, Instructions: of.Apply(of.Controller{UserData: []byte{2}})},
	); err != nil {
		t.Fatal(err)
	}
	sw.Receive("p1", frame(macA, "wait"))
	in := next(t, c.PacketIns(), "paused packet", func(p *of.PacketIn) bool { return bytes.Equal(p.UserData, []byte{1}) })
	if len(in.Continuation) == 0 {
		t.Fatal("no continuation")
	}
	in.Match = in.Match.With(of.Reg(9, 0x99))
	if err := c.Apply(ctx, &of.Resume{PacketIn: in}); err != nil {
		t.Fatal(err)
	}
	again := next(t, c.PacketIns(), "resumed packet", func(p *of.PacketIn) bool { return bytes.Equal(p.UserData, []byte{2}) })
	if again.Cookie != 5 || again.Match.Value(of.FieldReg9) != 0x99 {
		t.Errorf("resumed packet: %+v", again)
	}
}

func TestPortsInTheSwitch(t *testing.T) {
	sw := startBridge(t)
	ctx := testContext(t)
	c := dial(t, sw, of.Config{})
	ports, err := c.Ports(ctx)
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]of.Port{}
	for _, p := range ports {
		byName[p.Name] = p
	}
	if len(ports) != 3 || byName["p1"].Number != 1 || byName["p2"].Number != 2 || byName["br0"].Number != of.PortLocal {
		t.Errorf("ports: %+v", ports)
	}
	status := func(what string, reason of.PortReason, config of.PortConfig) *of.PortStatus {
		t.Helper()
		return next(t, c.Events(), what, func(m of.Message) bool {
			s, ok := m.(*of.PortStatus)
			return ok && s.Reason == reason && s.Port.Number == 7 && s.Port.Config == config
		}).(*of.PortStatus)
	}
	sw.AddPort("br0", "p7", 7)
	if s := status("new port", of.PortAdded, 0); s.Port.Name != "p7" {
		t.Errorf("port status: %+v", s)
	}
	ports, err = c.Ports(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var p7 of.Port
	for _, p := range ports {
		if p.Number == 7 {
			p7 = p
		}
	}
	if err := c.Apply(ctx, &of.PortMod{Port: 7, MAC: p7.MAC, Config: of.PortNoForward, Mask: of.PortNoForward}); err != nil {
		t.Fatal(err)
	}
	status("changed port", of.PortModified, of.PortNoForward)
	sw.Vsctl("del-port", "br0", "p7")
	status("deleted port", of.PortDeleted, of.PortNoForward)
}

func TestSessionInTheSwitch(t *testing.T) {
	sw := startBridge(t)
	ctx := testContext(t)
	c := dial(t, sw, of.Config{})
	if c.DatapathID() == 0 || c.Features().Tables != 254 {
		t.Errorf("features: %+v", c.Features())
	}
	d, err := c.Describe(ctx)
	if err != nil || d.Hardware != "Open vSwitch" {
		t.Errorf("description: %+v, %v", d, err)
	}
	if r, err := c.Request(ctx, &of.GetConfigRequest{}); err != nil || r[0].(*of.GetConfigReply).MissSendLen != of.MaxLenAll {
		t.Errorf("configuration: %v, %v", r, err)
	}
	if r, err := c.Request(ctx, &of.EchoRequest{Data: []byte("abc")}); err != nil || string(r[0].(*of.EchoReply).Data) != "abc" {
		t.Errorf("echo: %v, %v", r, err)
	}
	async := of.Async{
		PacketIn:    of.AsyncMask{Primary: 1<<of.ReasonNoMatch | 1<<of.ReasonAction},
		PortStatus:  of.AsyncMask{Primary: 7, Secondary: 7},
		FlowRemoved: of.AsyncMask{Primary: 0xf},
	}
	if err := c.Apply(ctx, &of.SetAsync{Async: async}); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Request(ctx, &of.GetAsyncRequest{}); err != nil || r[0].(*of.GetAsyncReply).Async != async {
		t.Errorf("async: %+v, %v", r, err)
	}
	if err := c.Apply(ctx, &of.SetControllerID{ID: 3}, &of.FlushZone{Zone: 12}); err != nil {
		t.Error(err)
	}
	if r, err := c.Request(ctx, &of.MultipartRequest{Kind: of.MultipartMeterFeatures}); err != nil || r[0].(*of.MultipartReply).MeterFeatures.MaxMeter == 0 {
		t.Errorf("meter features: %v", err)
	}
	if _, err := c.Request(ctx, &of.MultipartRequest{Kind: of.MultipartQueueStats, Queue: of.AllQueues}); err != nil {
		t.Errorf("queue statistics: %v", err)
	}
}

func TestRolesInTheSwitch(t *testing.T) {
	sw := startBridge(t)
	ctx := testContext(t)
	a := dial(t, sw, of.Config{})
	b := dial(t, sw, of.Config{})
	if r, err := a.SetRole(ctx, of.RolePrimary, 10); err != nil || r.Role != of.RolePrimary || r.GenerationID != 10 {
		t.Fatalf("first primary: %+v, %v", r, err)
	}
	if r, err := b.SetRole(ctx, of.RolePrimary, 11); err != nil || r.Role != of.RolePrimary {
		t.Fatalf("second primary: %+v, %v", r, err)
	}
	s := next(t, a.Events(), "role status", func(m of.Message) bool { return m.Type() == of.TypeRoleStatus }).(*of.RoleStatus)
	if s.Role != of.RoleSecondary || s.GenerationID != 11 {
		t.Errorf("role status: %+v", s)
	}
	if _, err := a.SetRole(ctx, of.RolePrimary, 9); !errors.Is(err, &of.Error{Kind: of.ErrRoleRequest, Code: of.CodeRoleStale}) {
		t.Errorf("stale generation: %v", err)
	}
	if err := a.Apply(ctx, &of.FlowMod{Priority: 1}); !errors.Is(err, &of.Error{Kind: of.ErrBadRequest, Code: 10}) {
		t.Errorf("secondary adds a flow: %v", err)
	}
	if r, err := a.SetRole(ctx, of.RoleNoChange, 0); err != nil || r.Role != of.RoleSecondary {
		t.Errorf("question: %+v, %v", r, err)
	}
}

func TestErrorsNameTheMessage(t *testing.T) {
	sw := startBridge(t)
	ctx := testContext(t)
	c := dial(t, sw, of.Config{})
	good := func(p uint16) of.Message { return &of.FlowMod{Priority: p, Instructions: of.Apply(of.ToPort(1))} }
	bad := &of.FlowMod{Priority: 5, Match: of.MatchOf(of.TCPDst(80))} // no eth_type, no ip_proto
	flows := func() int {
		t.Helper()
		fs, err := c.Flows(ctx, of.AllFlows())
		if err != nil {
			t.Fatal(err)
		}
		return len(fs)
	}

	err := c.Apply(ctx, good(1), bad, good(3))
	var me *of.MessageError
	var oe *of.Error
	if !errors.As(err, &me) || me.Index != 1 || me.Message != of.Message(bad) || !errors.As(err, &oe) || oe.Name() != "BMC_BAD_PREREQ" {
		t.Fatalf("apply: %v", err)
	}
	if h, ok := oe.About(); !ok || h.Type != of.TypeFlowMod {
		t.Errorf("error is about %+v", h)
	}
	if n := flows(); n != 2 {
		t.Errorf("%d flows, want the two good ones", n)
	}

	// In a bundle, a message that cannot even be added; then one that fails at commit.
	unknownGroup := &of.FlowMod{Priority: 9, Instructions: of.Apply(of.Group{ID: 99})}
	overlap := &of.FlowMod{Table: 0, Priority: 1, Flags: of.FlagCheckOverlap, Match: of.MatchOf(of.InPort(1)), Instructions: of.Apply(of.ToPort(2))}
	for _, tc := range []struct {
		name string
		bad  of.Message
		want *of.Error
	}{
		{"at add", bad, &of.Error{Kind: of.ErrBadMatch, Code: 9}},
		{"unknown group", unknownGroup, &of.Error{Kind: of.ErrBadAction, Code: 9}},
		{"at commit", overlap, &of.Error{Kind: of.ErrFlowMod, Code: of.CodeFlowModOverlap}},
		{"unknown group deleted bucket", &of.GroupMod{Command: of.GroupModify, ID: 77}, &of.Error{Kind: of.ErrGroupMod, Code: of.CodeUnknownGroup}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := c.Bundle(ctx, []of.Message{good(20), good(21), tc.bad, good(22)})
			var be *of.BundleError
			if !errors.As(err, &be) || len(be.Messages) == 0 {
				t.Fatalf("bundle: %v", err)
			}
			if be.Messages[0].Index != 2 || be.Messages[0].Message != tc.bad || !errors.Is(be.Messages[0], tc.want) {
				t.Errorf("bundle: %v (all: %v / %v)", err, be.Messages, be.Bundle)
			}
			if n := flows(); n != 2 {
				t.Errorf("%d flows: the failed bundle left something", n)
			}
		})
	}
	// The connection is as good as before, and a bundle may mix kinds.
	if err := c.Bundle(ctx, []of.Message{
		&of.GroupMod{Kind: of.GroupAll, ID: 99, Buckets: []of.Bucket{{Actions: []of.Action{of.ToPort(1)}}}}, unknownGroup, good(20),
	}); err != nil {
		t.Error(err)
	}
	if n := flows(); n != 4 {
		t.Errorf("%d flows, want 4", n)
	}
	// An error that nobody waits for is an event.
	xid, err := c.Send(ctx, bad)
	if err != nil {
		t.Fatal(err)
	}
	e := next(t, c.Events(), "error event", func(m of.Message) bool { return m.Type() == of.TypeError }).(*of.Error)
	if e.XID != xid {
		t.Errorf("error about %d, want %d", e.XID, xid)
	}
	// What cannot be encoded never leaves, and is named.
	err = c.Bundle(ctx, []of.Message{good(1), &of.FlowMod{Match: of.MatchOf(of.Reg(16, 0))}})
	if !errors.As(err, &me) || me.Index != 1 {
		t.Errorf("unencodable: %v", err)
	}
	if err := c.Barrier(ctx); err != nil {
		t.Error(err)
	}
}

// TestBigBundle puts more through one bundle than any buffer on the way holds, while the
// switch probes us.
func TestBigBundle(t *testing.T) {
	sw := startBridge(t)
	ctx := testContext(t)
	c := dial(t, sw, of.Config{ProbeInterval: 200 * time.Millisecond, ProbeMisses: 500})
	const n = 20000
	if err := c.Bundle(ctx, manyFlows(n)); err != nil {
		t.Fatal(err)
	}
	flows, err := c.Flows(ctx, of.AllFlows()) // comes in many parts
	if err != nil || len(flows) != n {
		t.Fatalf("%d flows, %v", len(flows), err)
	}
	// The last message of a big bundle fails: nothing remains of it.
	ms := append(manyFlows(n), &of.FlowMod{Match: of.MatchOf(of.TCPDst(1))})
	for _, m := range ms[:n] {
		m.(*of.FlowMod).Table = 3
	}
	var be *of.BundleError
	if err := c.Bundle(ctx, ms); !errors.As(err, &be) || be.Messages[0].Index != n {
		t.Fatalf("bundle: %v", err)
	}
	if s, err := c.Aggregate(ctx, of.AllFlows()); err != nil || s.Flows != n {
		t.Errorf("%+v, %v", s, err)
	}
}

// manyFlows makes n flows with a match of four terms and four actions.
func manyFlows(n int) []of.Message {
	ms := make([]of.Message, n)
	for i := range ms {
		ms[i] = &of.FlowMod{
			Table: 2, Priority: 100, Cookie: uint64(i),
			Match:        of.MatchOf(of.InPort(uint32(i%100+1)), of.Metadata(uint64(i)), of.EthType(of.EtherTypeIPv4), of.IPDst(prefix("10.0.0.0/8"))),
			Instructions: of.Apply(of.Set(of.EthDst(macA)), of.DecTTL{}, of.Set(of.Reg(1, uint32(i))), of.ToPort(2)),
		}
	}
	return ms
}

func TestSwitchRestart(t *testing.T) {
	sw := startBridge(t)
	c := dial(t, sw, of.Config{})
	if err := c.Apply(testContext(t), &of.FlowMod{Priority: 1}); err != nil {
		t.Fatal(err)
	}
	sw.Kill()
	select {
	case <-c.Done():
	case <-time.After(deadline):
		t.Fatal("the death of the switch went unnoticed")
	}
	if err := c.Barrier(testContext(t)); err == nil {
		t.Error("barrier on a dead connection succeeds")
	}
	for range c.Events() { // closes
	}
	for range c.PacketIns() { // closes
	}
	sw.Restart()
	again := dial(t, sw, of.Config{})
	if flows, err := again.Flows(testContext(t), of.AllFlows()); err != nil || len(flows) != 0 {
		t.Errorf("%d flows after restart, %v", len(flows), err)
	}
}

// accept takes one switch from a listener that the bridge is told to connect to.
func accept(t *testing.T, l *of.Listener) *of.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	c, err := l.Accept(ctx)
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

func TestTransports(t *testing.T) {
	sw := startBridge(t)
	ca := newAuthority(t)
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	swCert, swKey := ca.issue(t, "switch")
	sw.Vsctl("set-ssl", file("key", swKey), file("cert", swCert), file("ca", ca.pem))
	ours := ca.config(t, "controller")

	listen := func(addr string) *of.Listener {
		l, err := of.Listen(testContext(t), addr, of.Config{TLS: ours, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
		return l
	}
	sock := filepath.Join(sw.Rundir, "ctl.sock") // Open vSwitch wants it under its run directory
	tcp, tls, unix := listen("tcp:127.0.0.1:0"), listen("tls:127.0.0.1:0"), listen("unix:"+sock)
	port := func(l *of.Listener) string { return l.Addr().String() }
	sw.Vsctl("set-controller", "br0", "tcp:"+port(tcp), "ssl:"+port(tls), "unix:"+sock)
	for name, l := range map[string]*of.Listener{"tcp": tcp, "tls": tls, "unix": unix} {
		c := accept(t, l)
		if err := c.Bundle(testContext(t), manyFlows(100)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if flows, err := c.Flows(testContext(t), of.AllFlows()); err != nil || len(flows) != 100 {
			t.Errorf("%s: %d flows, %v", name, len(flows), err)
		}
	}
	// The other way round: the switch listens.
	free := []uint16{netspacetest.Loopback(t).Port(), netspacetest.Loopback(t).Port()}
	sw.Vsctl("set-controller", "br0", fmt.Sprintf("ptcp:%d:127.0.0.1", free[0]), fmt.Sprintf("pssl:%d:127.0.0.1", free[1]))
	client := ca.config(t, "controller")
	client.ServerName = "switch"
	for _, addr := range []string{fmt.Sprintf("tcp:127.0.0.1:%d", free[0]), fmt.Sprintf("tls:127.0.0.1:%d", free[1])} {
		c := dialAddr(t, addr, of.Config{TLS: client})
		if err := c.Bundle(testContext(t), manyFlows(100)); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	// A switch that does not know our authority, and one that we do not know.
	stranger := newAuthority(t).config(t, "controller")
	stranger.ServerName = "switch"
	if c, err := of.Dial(testContext(t), fmt.Sprintf("tls:127.0.0.1:%d", free[1]), of.Config{TLS: stranger}); err == nil {
		t.Error("a switch of an unknown authority is accepted")
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}
