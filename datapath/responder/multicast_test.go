package responder_test

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"yakumo/datapath"
	"yakumo/datapath/pipeline"
	"yakumo/datapath/responder"
	"yakumo/model"
)

// igmp puts an IGMP message into a frame with a router alert.
func igmp(b []byte) []byte {
	f := append([]byte{1, 0, 0x5e, 0, 0, 22}, guestMAC...)
	f = append(f, 8, 0, 0x46, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 10, 0, 0, 5, 224, 0, 0, 22, 0x94, 4, 0, 0)
	binary.BigEndian.PutUint16(f[16:], uint16(24+len(b)))
	return append(f, b...)
}

// mld puts an MLD message behind a hop-by-hop header.
func mld(b []byte) []byte {
	return frame6(linkLocal, netip.MustParseAddr("ff02::16"), 0, 1, append([]byte{58, 0, 5, 2, 0, 0, 1, 0}, b...))
}

// record makes a group record of an IGMPv3 or MLDv2 report.
func record(typ byte, group string, sources ...string) []byte {
	b := append([]byte{typ, 0, 0, byte(len(sources))}, netip.MustParseAddr(group).AsSlice()...)
	for _, s := range sources {
		b = append(b, netip.MustParseAddr(s).AsSlice()...)
	}
	return b
}

func TestListeners(t *testing.T) {
	now := time.Unix(1e9, 0)
	p := &model.HostPort{ID: "p", NetworkID: "n", VNI: 7}
	l := responder.NewListeners()
	for _, c := range []struct {
		name        string
		frame       []byte
		join, leave []string
	}{
		{"IGMPv1", igmp([]byte{0x12, 0, 0, 0, 239, 0, 0, 1}), []string{"239.0.0.1"}, nil},
		{"IGMPv2", igmp([]byte{0x16, 0, 0, 0, 239, 0, 0, 2}), []string{"239.0.0.2"}, nil},
		{"again", igmp([]byte{0x16, 0, 0, 0, 239, 0, 0, 2}), nil, nil},
		{"leave", igmp([]byte{0x17, 0, 0, 0, 239, 0, 0, 2}), nil, []string{"239.0.0.2"}},
		{"leave again", igmp([]byte{0x17, 0, 0, 0, 239, 0, 0, 2}), nil, nil},
		{"control block", igmp([]byte{0x16, 0, 0, 0, 224, 0, 0, 251}), nil, nil},
		{"not a group", igmp([]byte{0x16, 0, 0, 0, 10, 0, 0, 1}), nil, nil},
		{"query", igmp([]byte{0x11, 0, 0, 0, 239, 0, 0, 9}), nil, nil},
		{"IGMPv3", igmp(slices.Concat([]byte{0x22, 0, 0, 0, 0, 0, 0, 4}, record(4, "239.0.0.3"), record(1, "239.0.0.4", "10.0.0.9"), record(3, "239.0.0.1"), record(6, "239.0.0.5", "10.0.0.9"))),
			[]string{"239.0.0.3", "239.0.0.4"}, []string{"239.0.0.1"}},
		{"cut short", igmp(append([]byte{0x22, 0, 0, 0, 0, 0, 0, 9}, 4, 0, 0, 0)), nil, nil},
		{"MLDv1", mld(append([]byte{131, 0, 0, 0, 0, 0, 0, 0}, netip.MustParseAddr("ff05::1").AsSlice()...)), []string{"ff05::1"}, nil},
		{"MLDv1 done", mld(append([]byte{132, 0, 0, 0, 0, 0, 0, 0}, netip.MustParseAddr("ff05::1").AsSlice()...)), nil, []string{"ff05::1"}},
		{"MLDv2", mld(slices.Concat([]byte{143, 0, 0, 0, 0, 0, 0, 2}, record(4, "ff15::2"), record(4, "ff02::fb"))), []string{"ff15::2"}, nil},
		{"in and out", mld(slices.Concat([]byte{143, 0, 0, 0, 0, 0, 0, 2}, record(4, "ff15::3"), record(3, "ff15::3"))), nil, []string{"ff15::3"}},
	} {
		var got responder.Lesson
		l.Hear(p, c.frame, now, &got)
		var join, leave []string
		for _, r := range got.Upserts {
			row := r.(*model.HostListener)
			if row.VNI != 7 || row.NetworkID != "n" || row.PortID != "p" {
				t.Errorf("%s: %+v", c.name, row)
			}
			join = append(join, row.Group.String())
		}
		for _, id := range got.Removes {
			leave = append(leave, id.Key[len("n,p,"):])
		}
		if !slices.Equal(join, c.join) || !slices.Equal(leave, c.leave) {
			t.Errorf("%s: joins %v, leaves %v; want %v, %v", c.name, join, leave, c.join, c.leave)
		}
	}
	// What is said again stays, the rest goes in time.
	var got responder.Lesson
	later := now.Add(responder.ListenerAge / 2)
	l.Hear(p, igmp([]byte{0x16, 0, 0, 0, 239, 0, 0, 3}), later, &got)
	if x := l.Expire(now.Add(responder.ListenerAge)); !x.Empty() {
		t.Errorf("too early: %v", x)
	}
	if x := l.Expire(now.Add(responder.ListenerAge + time.Second)); len(x.Removes) != 2 || len(x.Upserts) != 0 {
		t.Errorf("expired: %v", x)
	}
	if x := l.Forget("p"); len(x) != 1 || x[0].Key != "n,p,239.0.0.3" {
		t.Errorf("forgotten: %v", x)
	}
	// One guest cannot fill the switch.
	total := 0
	for i := range 1000 {
		var got responder.Lesson
		l.Hear(p, igmp([]byte{0x16, 0, 0, 0, 239, 1, byte(i >> 8), byte(i)}), now, &got)
		total += len(got.Upserts)
	}
	if total != 256 {
		t.Errorf("%d groups", total)
	}
}

// What guests are told unasked: which router there is, and questions for their groups.
func TestAnnounce(t *testing.T) {
	ord := datapath.NewMemoryOrdinals()
	prog := pipeline.NewProgram(pipeline.DefaultEnv(), ord)
	p := *port6
	p.NetworkID, p.VNI = "n", 7
	n := network6()
	n.VNI = 7
	if _, err := prog.Apply([]model.HostRow{&p, n}, nil); err != nil {
		t.Fatal(err)
	}
	replies := responder.Announce(prog, ord, "p")
	if len(replies) != 3 {
		t.Fatalf("%d frames, want an advertisement and two questions", len(replies))
	}
	q4, q6 := replies[1].Frame, replies[2].Frame
	if checksum(q4[14:38]) != 0 || checksum(q4[38:]) != 0 || q4[22] != 1 || q4[38] != 0x11 || len(q4) != 50 {
		t.Errorf("IGMP question %x", q4)
	}
	sum := slices.Concat(q6[22:54], []byte{0, 0, 0, byte(len(q6) - 62), 0, 0, 0, 58}, q6[62:])
	if checksum(sum) != 0 || q6[20] != 0 || q6[21] != 1 || q6[62] != 130 || len(q6) != 62+28 || !netip.AddrFrom16([16]byte(q6[22:38])).IsLinkLocalUnicast() {
		t.Errorf("MLD question %x", q6)
	}
	// A port of IPv4 alone is not asked by IPv6.
	p4 := p
	p4.FixedIPs = p.FixedIPs[:1]
	if got := responder.Announce(prog, ord, "nobody"); len(got) != 0 {
		t.Errorf("%d frames to nobody", len(got))
	}
	p4.ID = "p4"
	if _, err := prog.Apply([]model.HostRow{&p4}, nil); err != nil {
		t.Fatal(err)
	}
	for _, r := range responder.Announce(prog, ord, "p4") {
		if len(r.Frame) == len(q6) && r.Frame[62] == 130 {
			t.Error("an MLD question")
		}
	}
}

func FuzzListeners(f *testing.F) {
	f.Add(igmp([]byte{0x16, 0, 0, 0, 239, 0, 0, 2}))
	f.Add(igmp(append([]byte{0x22, 0, 0, 0, 0, 0, 0, 1}, record(1, "239.0.0.4", "10.0.0.9")...)))
	f.Add(mld(append([]byte{143, 0, 0, 0, 0, 0, 0, 1}, record(4, "ff15::2")...)))
	f.Fuzz(func(t *testing.T, b []byte) {
		l := responder.NewListeners()
		var got responder.Lesson
		p := &model.HostPort{ID: "p", NetworkID: "n", VNI: 7}
		l.Hear(p, b, time.Unix(0, 0), &got)
		if n := len(l.Forget("p")); n != len(got.Upserts) {
			t.Fatalf("%d rows told, %d held", len(got.Upserts), n)
		}
		for _, r := range got.Upserts {
			if !pipeline.Snooped(r.(*model.HostListener).Group) {
				t.Fatalf("listens to %v", r.RowID())
			}
		}
	})
}

func BenchmarkListeners(b *testing.B) {
	l, in := responder.NewListeners(), igmp(append([]byte{0x22, 0, 0, 0, 0, 0, 0, 1}, record(4, "239.0.0.4")...))
	p := &model.HostPort{ID: "p", NetworkID: "n", VNI: 7}
	for b.Loop() {
		var got responder.Lesson
		l.Hear(p, in, time.Unix(0, 0), &got)
	}
}
