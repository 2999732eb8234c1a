package openflow_test

import (
	"bytes"
	"testing"

	of "yakumo/openflow"
)

// seedMessages encodes every message that the other tests know.
func seedMessages(f *testing.F) {
	add := func(m of.Message) {
		b, err := of.Append(nil, 7, m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, c := range messageCases {
		add(c.msg)
	}
	for _, a := range actionCases {
		add(&of.FlowMod{Instructions: of.Apply(a.action)})
	}
	for _, m := range fieldMatches() {
		add(&of.PacketIn{Extended: true, Match: m, Data: []byte{1}, TotalLen: 1, BufferID: of.NoBuffer})
	}
}

// FuzzMessage checks that no bytes make Decode panic, and that what it accepts can be
// written out and read again as the same.
func FuzzMessage(f *testing.F) {
	seedMessages(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, m, err := of.Decode(b)
		if err != nil {
			return
		}
		if int(h.Length) != len(b) || m == nil {
			t.Fatalf("accepted %x as %+v %v", b, h, m)
		}
		if s, ok := m.(interface{ String() string }); ok {
			_ = s.String()
		}
		first, err := of.Append(nil, h.XID, m)
		if err != nil {
			return // what cannot be written in canonical form, such as a conjunction of one clause
		}
		_, again, err := of.Decode(first)
		if err != nil {
			t.Fatalf("decode of own encoding %x of %+v: %v", first, m, err)
		}
		second, err := of.Append(nil, h.XID, again)
		if err != nil || !bytes.Equal(first, second) {
			t.Fatalf("%+v is not stable:\n%x\n%x\n%v", m, first, second, err)
		}
	})
}

// FuzzMatch checks that a match that is accepted has one canonical form.
func FuzzMatch(f *testing.F) {
	for _, m := range fieldMatches() {
		b, err := m.AppendBinary(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := of.DecodeMatch(b)
		if err != nil {
			return
		}
		_ = m.String()
		first, err := m.AppendBinary(nil)
		if err != nil {
			t.Fatalf("%v cannot be encoded: %v", m, err)
		}
		again, err := of.DecodeMatch(first)
		if err != nil || !again.Equal(m) || again.Key() != m.Key() {
			t.Fatalf("%v became %v: %v", m, again, err)
		}
	})
}

// FuzzActions checks that an action list that is accepted means the same after a round trip.
func FuzzActions(f *testing.F) {
	for _, a := range actionCases {
		b, err := of.AppendActions(nil, []of.Action{a.action})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		as, err := of.DecodeActions(b)
		if err != nil {
			return
		}
		_ = of.ActionsString(as)
		first, err := of.AppendActions(nil, as)
		if err != nil {
			return
		}
		again, err := of.DecodeActions(first)
		if err != nil {
			t.Fatalf("decode of own encoding %x of %v: %v", first, as, err)
		}
		if second, err := of.AppendActions(nil, again); err != nil || !bytes.Equal(first, second) {
			t.Fatalf("%v is not stable:\n%x\n%x\n%v", as, first, second, err)
		}
	})
}

// FuzzPacketIn checks packet-ins of both forms behind a sound header.
func FuzzPacketIn(f *testing.F) {
	for _, m := range fieldMatches() {
		for _, extended := range []bool{false, true} {
			b, err := of.Append(nil, 0, &of.PacketIn{Extended: extended, Match: m, Data: []byte{1, 2, 3}, TotalLen: 3, BufferID: of.NoBuffer, UserData: []byte{9}, Continuation: make([]byte, 8)})
			if err != nil {
				f.Fatal(err)
			}
			f.Add(extended, b[8:])
		}
	}
	f.Fuzz(func(t *testing.T, extended bool, body []byte) {
		typ := of.TypePacketIn
		if extended {
			typ = of.TypeExperimenter
		}
		n := len(body) + 8
		if n > of.MaxMessage {
			return
		}
		b := append([]byte{of.Version, byte(typ), byte(n >> 8), byte(n), 0, 0, 0, 0}, body...)
		_, m, err := of.Decode(b)
		if err != nil {
			return
		}
		p, ok := m.(*of.PacketIn)
		if !ok {
			return
		}
		if p.TotalLen < 0 || len(p.Data) > len(body) {
			t.Fatalf("packet of %d bytes, %d in all, from %d", len(p.Data), p.TotalLen, len(body))
		}
		_ = p.InPort()
		_ = p.Match.String()
	})
}
