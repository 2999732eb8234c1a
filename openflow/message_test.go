package openflow_test

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"

	of "yakumo/openflow"
)

// messageCases has a message of every kind that is sent, with what ovs-ofctl ofp-print
// makes of it, and those that a switch sends and this package can encode.
var messageCases = []struct {
	msg  of.Message
	want string // the first line, behind "(OF1.5) (xid=0x7):", and further lines
}{
	{&of.Hello{Versions: 1 << of.Version}, "\n version bitmap: 0x06"},
	{&of.EchoRequest{Data: []byte("abcd")}, " 4 bytes of payload"},
	{&of.EchoReply{}, " 0 bytes of payload"},
	{&of.FeaturesRequest{}, ""},
	{&of.FeaturesReply{DatapathID: 0xabc, Tables: 254, Capabilities: 0x4f}, " dpid:0000000000000abc\nn_tables:254, n_buffers:0\ncapabilities: FLOW_STATS TABLE_STATS PORT_STATS GROUP_STATS QUEUE_STATS"},
	{&of.GetConfigRequest{}, ""},
	{&of.SetConfig{SwitchConfig: of.SwitchConfig{MissSendLen: 0xffff}}, " frags=normal miss_send_len=65535"},
	{&of.GetConfigReply{SwitchConfig: of.SwitchConfig{Fragments: 3, MissSendLen: 128}}, " frags=nx-match miss_send_len=128"},
	{&of.BarrierRequest{}, ""},
	{&of.BarrierReply{}, ""},
	{&of.RoleRequest{Role: of.RolePrimary, GenerationID: 4}, " role=primary generation_id=4"},
	{&of.RoleReply{Role: of.RoleSecondary, GenerationID: 5}, " role=secondary generation_id=5"},
	{&of.RoleStatus{Role: of.RoleSecondary, Reason: 0, GenerationID: 6}, " role=secondary generation_id=6 reason=primary_request"},
	{&of.GetAsyncRequest{}, ""},
	{&of.SetAsync{Async: of.Async{PacketIn: of.AsyncMask{Primary: 7, Secondary: 1}, PortStatus: of.AsyncMask{Primary: 7, Secondary: 2}, FlowRemoved: of.AsyncMask{Primary: 0x3f}}},
		"\n primary:\n       PACKET_IN: no_match action invalid_ttl\n     PORT_STATUS: add delete modify\n    FLOW_REMOVED: idle hard delete group_delete meter_delete eviction\n     ROLE_STATUS: (off)\n    TABLE_STATUS: (off)\n  REQUESTFORWARD: (off)\n\n secondary:\n       PACKET_IN: no_match\n     PORT_STATUS: delete\n    FLOW_REMOVED: (off)\n     ROLE_STATUS: (off)\n    TABLE_STATUS: (off)\n  REQUESTFORWARD: (off)"},
	{&of.SetPacketInFormat{Format: of.PacketInExtended}, " format=nxt_packet_in2"},
	{&of.SetControllerID{ID: 9}, " id=9"},
	{&of.FlushZone{Zone: 5}, " zone_id=5"},
	{&of.FlowMod{Command: of.FlowAdd, Table: 4, Cookie: 0x10, Priority: 5, IdleTimeout: 6, HardTimeout: 7, Importance: 8, Flags: of.FlagSendFlowRemoved | of.FlagCheckOverlap | of.FlagResetCounts | of.FlagNoPacketCounts | of.FlagNoByteCounts,
		Match:        of.MatchOf(of.InPort(1), of.EthType(of.EtherTypeIPv4), of.IPProto(of.ProtoTCP), of.TCPDst(80), of.IPDst(prefix("10.0.0.0/8"))),
		Instructions: of.Instructions{Apply: []of.Action{of.ToPort(2)}, Clear: true, Write: []of.Action{of.Group{ID: 1}}, Metadata: 1, MetadataMask: 3}.ThenGoto(5)},
		" ADD table:4 priority=5,tcp,in_port=1,nw_dst=10.0.0.0/8,tp_dst=80 cookie:0x10 idle:6 hard:7 importance:8 send_flow_rem check_overlap reset_counts no_packet_counts no_byte_counts actions=output:2,clear_actions,write_actions(group:1),write_metadata:0x1/0x3,goto_table:5"},
	{&of.FlowMod{Command: of.FlowModifyStrict, Priority: 5, Instructions: of.Apply(of.ToPort(1))}, " MOD_STRICT priority=5 actions=output:1"},
	{&of.FlowMod{Command: of.FlowDelete, Table: of.TableAll, Cookie: 0x1200, CookieMask: 0xff00, OutPort: 3, OutGroup: 4}, " DEL table:255 priority=0 cookie:0x1200/0xff00 out_port:3 actions=drop"},
	{&of.FlowMod{Command: of.FlowDeleteStrict, Priority: 9}, " DEL_STRICT priority=9 actions=drop"},
	{&of.GroupMod{Command: of.GroupAdd, Kind: of.GroupSelect, ID: 3, Select: &of.Selection{Method: "hash", Param: 1, Fields: []of.FieldValue{of.UDPDst(0xffff)}}, Buckets: []of.Bucket{{ID: 1, Weight: 5, Actions: []of.Action{of.ToPort(1)}}}},
		"\n ADD group_id=3,type=select,selection_method=hash,selection_method_param=1,fields=udp_dst,bucket=bucket_id:1,weight:5,actions=output:1"},
	{&of.GroupMod{Command: of.GroupModify, Kind: of.GroupFailover, ID: 3, Buckets: []of.Bucket{{ID: 0, WatchPort: 2, WatchGroup: 4}}}, "\n MOD group_id=3,type=ff,bucket=bucket_id:0,watch_port:2,watch_group:4,actions=drop"},
	{&of.GroupMod{Command: of.GroupAddOrModify, Kind: of.GroupIndirect, ID: 3, Buckets: []of.Bucket{{Actions: []of.Action{of.DecTTL{}}}}}, "\n ADD_OR_MOD group_id=3,type=indirect,bucket=bucket_id:0,actions=dec_ttl"},
	{&of.GroupMod{Command: of.GroupInsertBucket, Kind: of.GroupAll, ID: 3, CommandBucket: of.BucketLast, Buckets: []of.Bucket{{ID: 8, Actions: []of.Action{of.ToPort(1)}}}}, "\n INSERT_BUCKET command_bucket_id:last,group_id=3,bucket=bucket_id:8,actions=output:1"},
	{&of.GroupMod{Command: of.GroupRemoveBucket, ID: 3, CommandBucket: 8}, "\n REMOVE_BUCKET command_bucket_id:8,group_id=3"},
	{&of.GroupMod{Command: of.GroupDelete, ID: of.GroupEvery}, "\n DEL group_id=4294967292,type=all"},
	{&of.MeterMod{ID: 5, Flags: of.MeterPktps | of.MeterBurst | of.MeterStats, Bands: []of.MeterBand{{Kind: of.BandDrop, Rate: 10, Burst: 20}, {Kind: of.BandDSCPRemark, Rate: 5, Burst: 6, Precedence: 1}}},
		" ADD meter=5 pktps burst stats bands=\ntype=drop rate=10 burst_size=20\ntype=dscp_remark rate=5 burst_size=6 prec_level=1"},
	{&of.MeterMod{Command: of.MeterDelete, ID: of.MeterEvery}, " DEL meter=all bands="},
	{&of.PacketOut{Match: of.MatchOf(of.InPort(3), of.Reg(0, 5)), Actions: []of.Action{of.ToPort(1), of.ToPort(2)}}, " reg0=0x5,in_port=3 actions=output:1,output:2 data_len=0"},
	{&of.PacketOut{Actions: []of.Action{of.ToPort(of.PortTable)}}, " in_port=CONTROLLER actions=TABLE data_len=0"},
	{&of.PortMod{Port: 1, MAC: macA, Config: of.PortDown, Mask: of.PortDown | of.PortNoRecv}, " port: 1: addr:02:11:22:33:44:55\n     config: PORT_DOWN\n     mask:   PORT_DOWN NO_RECV\n     advertise: UNCHANGED"},
	{&of.BundleControl{ID: 1, Kind: of.BundleOpen, Flags: of.BundleAtomic | of.BundleOrdered}, "\n bundle_id=0x1 type=OPEN_REQUEST flags=atomic ordered"},
	{&of.BundleControl{ID: 1, Kind: of.BundleCommitted}, "\n bundle_id=0x1 type=COMMIT_REPLY flags=0"},
	{&of.BundleAdd{ID: 2, Flags: of.BundleAtomic, Message: &of.FlowMod{Priority: 1}}, "\n bundle_id=0x2 flags=atomic\nOFPT_FLOW_MOD (OF1.5) (xid=0x7): ADD priority=1 actions=drop"},
	{&of.MultipartRequest{Kind: of.MultipartDesc}, ""},
	{&of.MultipartRequest{Kind: of.MultipartFlowDesc, Flow: of.FlowFilter{Table: of.TableAll, Cookie: 1, CookieMask: 3, Match: of.MatchOf(of.InPort(1))}}, " in_port=1"},
	{&of.MultipartRequest{Kind: of.MultipartAggregate, Flow: of.FlowFilter{Table: 3}}, " table=3"},
	{&of.MultipartRequest{Kind: of.MultipartTable}, ""},
	{&of.MultipartRequest{Kind: of.MultipartPortStats, Port: 5}, " port_no=5"},
	{&of.MultipartRequest{Kind: of.MultipartPortDesc}, " port=ANY"},
	{&of.MultipartRequest{Kind: of.MultipartQueueStats, Queue: of.AllQueues}, " port=ANY queue=ALL"},
	{&of.MultipartRequest{Kind: of.MultipartGroupStats}, " group_id=ALL"},
	{&of.MultipartRequest{Kind: of.MultipartGroupDesc, Group: 4}, " group_id=4"},
	{&of.MultipartRequest{Kind: of.MultipartGroupFeatures}, ""},
	{&of.MultipartRequest{Kind: of.MultipartMeterStats}, " meter=all"},
	{&of.MultipartRequest{Kind: of.MultipartMeterDesc, Meter: 6}, " meter=6"},
	{&of.MultipartRequest{Kind: of.MultipartMeterFeatures}, ""},
	{&of.FlowRemoved{Table: 3, Reason: of.RemovedHard, Priority: 9, IdleTimeout: 4, HardTimeout: 5, Cookie: 0x22, Match: of.MatchOf(of.InPort(1)),
		Stats: of.Stats{Has: of.HasDuration | of.HasPackets | of.HasBytes, Duration: 3*time.Second + 500*time.Millisecond, Packets: 7, Bytes: 700}},
		" priority=9,in_port=1 reason=hard table_id=3 cookie:0x22 duration3.500s idle4 hard5 pkts7 bytes700"},
	{&of.PortStatus{Reason: of.PortAdded, Port: of.Port{Number: 4, MAC: macA, Name: "tap4", Config: of.PortNoForward, State: of.PortLive}},
		" ADD: 4(tap4): addr:02:11:22:33:44:55\n     config:     NO_FWD\n     state:      LIVE\n     speed: 0 Mbps now, 0 Mbps max"},
	{&of.PacketIn{Reason: of.ReasonNoMatch, Table: 2, Cookie: 0x33, Match: of.MatchOf(of.InPort(6), of.Metadata(4)), TotalLen: 2, Data: []byte{1, 2}, BufferID: of.NoBuffer},
		" table_id=2 cookie=0x33 total_len=2 metadata=0x4,in_port=6 (via no_match) data_len=2 (unbuffered)\n" + noEthernet},
	{&of.PacketIn{Extended: true, Reason: of.ReasonAction, Table: 2, Cookie: 0x33, Match: of.MatchOf(of.InPort(6), of.Reg(2, 9)), TotalLen: 300, Data: []byte{1, 2}, BufferID: of.NoBuffer, UserData: []byte{0xab, 0xcd}},
		" table_id=2 cookie=0x33 total_len=300 reg2=0x9,in_port=6 (via action) data_len=2 (unbuffered) (***total_len != data_len***)\n userdata=ab.cd\n" + noEthernet},
	{&of.Error{Kind: of.ErrBadMatch, Code: 9, Data: []byte{6, 20, 0, 8, 0, 0, 0, 1}}, " OFPBMC_BAD_PREREQ\nOFPT_BARRIER_REQUEST (OF1.5) (xid=0x1):"},
	{&of.Error{Kind: of.ErrExperimenter, Experimenter: 0x2320, Code: 15, Data: []byte{6, 20, 0, 8, 0, 0, 0, 1}}, " NXBAC_BAD_CONJUNCTION\nOFPT_BARRIER_REQUEST (OF1.5) (xid=0x1):"},
	{&of.MultipartReply{Kind: of.MultipartFlowDesc, More: true, Flows: []of.FlowDesc{{Table: 1, Priority: 2, Cookie: 3, Match: of.MatchOf(of.InPort(1)), Instructions: of.Apply(of.ToPort(2)), Stats: of.Stats{Has: of.HasDuration | of.HasPackets | of.HasBytes, Duration: time.Second, Packets: 5}}}}, " flags=[more]\n cookie=0x3, duration=1s, table=1, n_packets=5, n_bytes=0, priority=2,in_port=1 actions=output:2"},
}

// noEthernet is how two bytes look to a tool that expects a frame.
const noEthernet = "vlan_tci=0x0000,dl_src=00:00:00:00:00:00,dl_dst=00:00:00:00:00:00,dl_type=0x0000"

// TestMessagesAgainstOpenvSwitch checks that Open vSwitch prints each message as it was meant.
func TestMessagesAgainstOpenvSwitch(t *testing.T) {
	for _, c := range messageCases {
		b, err := of.Append(nil, 7, c.msg)
		if err != nil {
			t.Errorf("%T: %v", c.msg, err)
			continue
		}
		out := strings.TrimRight(tool(t, "", "ovs-ofctl", "ofp-print", hex.EncodeToString(b), "1"), "\n")
		_, got, ok := strings.Cut(out, "(OF1.5) (xid=0x7):")
		if !ok || got != c.want {
			t.Errorf("%T is printed as\n%s\n%q,\nwant %q", c.msg, out, got, c.want)
		}
	}
}

// TestMessagesRoundTrip checks that what is encoded is decoded as the same, and that its
// encoding is the same again.
func TestMessagesRoundTrip(t *testing.T) {
	for _, c := range messageCases {
		roundTrip(t, c.msg)
	}
	for _, a := range actionCases {
		roundTrip(t, &of.FlowMod{Instructions: of.Apply(a.action)})
	}
	for _, m := range fieldMatches() {
		roundTrip(t, &of.FlowMod{Match: m})
	}
}
