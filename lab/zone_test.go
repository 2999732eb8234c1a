package lab

import (
	"encoding/binary"
	"io"
	"net"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

func question(t testing.TB, name string, kind dnsmessage.Type) []byte {
	t.Helper()
	n, err := dnsmessage.NewName(name)
	if err != nil {
		t.Fatal(err)
	}
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 4711, RecursionDesired: true}, Questions: []dnsmessage.Question{{Name: n, Type: kind, Class: dnsmessage.ClassINET}}}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestZone(t *testing.T) {
	z := zone{origin: dnsmessage.MustNewName(OutsideZone)}
	for _, c := range []struct {
		name      string
		kind      dnsmessage.Type
		rcode     dnsmessage.RCode
		answers   []dnsmessage.Type
		truncated bool
	}{
		{"www.outside.test.", dnsmessage.TypeA, 0, []dnsmessage.Type{dnsmessage.TypeA}, false},
		{"WWW.Outside.test.", dnsmessage.TypeAAAA, 0, []dnsmessage.Type{dnsmessage.TypeAAAA}, false},
		{"www.outside.test.", dnsmessage.TypeTXT, 0, nil, false},
		{"alias.outside.test.", dnsmessage.TypeA, 0, []dnsmessage.Type{dnsmessage.TypeCNAME, dnsmessage.TypeA}, false},
		{"alias.outside.test.", dnsmessage.TypeCNAME, 0, []dnsmessage.Type{dnsmessage.TypeCNAME}, false},
		{"text.outside.test.", dnsmessage.TypeTXT, 0, []dnsmessage.Type{dnsmessage.TypeTXT}, false},
		{"big.outside.test.", dnsmessage.TypeTXT, 0, nil, true},
		{"outside.test.", dnsmessage.TypeA, 0, nil, false},
		{"none.outside.test.", dnsmessage.TypeA, dnsmessage.RCodeNameError, nil, false},
		{"wwwoutside.test.", dnsmessage.TypeA, dnsmessage.RCodeRefused, nil, false},
		{"example.com.", dnsmessage.TypeA, dnsmessage.RCodeRefused, nil, false},
	} {
		out, err := z.answer(question(t, c.name, c.kind), maxDatagram)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		var m dnsmessage.Message
		if err := m.Unpack(out); err != nil || m.ID != 4711 || !m.Response || m.RCode != c.rcode || m.Truncated != c.truncated || len(m.Answers) != len(c.answers) {
			t.Errorf("%s %v: %+v, %v", c.name, c.kind, m, err)
			continue
		}
		for i, a := range m.Answers {
			if a.Header.Type != c.answers[i] {
				t.Errorf("%s %v: answer %d is %v", c.name, c.kind, i, a)
			}
		}
		nothing := len(c.answers) == 0 && c.rcode != dnsmessage.RCodeRefused && !c.truncated
		if (len(m.Authorities) == 1) != nothing {
			t.Errorf("%s %v: authorities %v", c.name, c.kind, m.Authorities)
		}
	}
}

func TestZoneByStream(t *testing.T) {
	z := zone{origin: dnsmessage.MustNewName(OutsideZone)}
	ours, theirs := net.Pipe()
	go z.converse(theirs)
	defer ours.Close()
	for range 2 { // a connection takes more than one question
		q := question(t, "big.outside.test.", dnsmessage.TypeTXT)
		if _, err := ours.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...)); err != nil {
			t.Fatal(err)
		}
		var size [2]byte
		if _, err := io.ReadFull(ours, size[:]); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(ours, b); err != nil {
			t.Fatal(err)
		}
		var m dnsmessage.Message
		if err := m.Unpack(b); err != nil || m.Truncated || len(m.Answers) != 1 || len(m.Answers[0].Body.(*dnsmessage.TXTResource).TXT) != 10 {
			t.Errorf("%+v, %v", m, err)
		}
	}
}

func FuzzZone(f *testing.F) {
	f.Add(question(f, "www.outside.test.", dnsmessage.TypeA))
	f.Add(question(f, "alias.outside.test.", dnsmessage.TypeALL))
	z := zone{origin: dnsmessage.MustNewName(OutsideZone)}
	f.Fuzz(func(t *testing.T, query []byte) {
		out, err := z.answer(query, maxDatagram)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(out); err != nil || len(out) > maxDatagram {
			t.Errorf("%x is answered by %x: %v", query, out, err)
		}
	})
}
