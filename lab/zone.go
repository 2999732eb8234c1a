package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// zone is a name server with authority over one small zone (RFC 1035); it refuses questions of others.
//
//	www    A and AAAA   the outside's addresses on the untagged segment
//	alias  CNAME        www
//	text   TXT          a word
//	big    TXT          2,000 bytes: more than a datagram takes, so that clients come by TCP
type zone struct {
	origin dnsmessage.Name
}

// maxDatagram is what a resolver takes without EDNS (RFC 1035 section 4.2.1).
const maxDatagram = 512

// zoneTTL is short, so that nothing of a test is remembered in the next.
const zoneTTL = 5

// answer makes the reply to a query, of at most limit bytes.
func (z zone) answer(query []byte, limit int) ([]byte, error) {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil || h.Response {
		return nil, errors.Join(errors.New("no question"), err)
	}
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: h.ID, Response: true, OpCode: h.OpCode, Authoritative: true, RecursionDesired: h.RecursionDesired},
		Questions: []dnsmessage.Question{q}}
	name := strings.ToLower(q.Name.String())
	label, mine := strings.CutSuffix(name, "."+z.origin.String())
	mine = mine || name == z.origin.String()
	switch {
	case h.OpCode != 0:
		m.RCode = dnsmessage.RCodeNotImplemented
	case !mine:
		m.Authoritative, m.RCode = false, dnsmessage.RCodeRefused
	default:
		all := z.records(label)
		if all == nil && name != z.origin.String() {
			m.RCode = dnsmessage.RCodeNameError
		}
		for _, b := range all {
			if t := recordType(b); t == q.Type || t == dnsmessage.TypeCNAME || q.Type == dnsmessage.TypeALL {
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: zoneTTL}, Body: b})
			}
		}
		if label == "alias" && q.Type != dnsmessage.TypeCNAME { // the target's records come along
			www := dnsmessage.MustNewName("www." + z.origin.String())
			for _, b := range z.records("www") {
				if recordType(b) == q.Type {
					m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: www, Class: dnsmessage.ClassINET, TTL: zoneTTL}, Body: b})
				}
			}
		}
		if len(m.Answers) == 0 { // RFC 2308: how long that may be remembered
			m.Authorities = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: z.origin, Class: dnsmessage.ClassINET, TTL: zoneTTL},
				Body: &dnsmessage.SOAResource{NS: z.origin, MBox: z.origin, Serial: 1, Refresh: 60, Retry: 60, Expire: 60, MinTTL: zoneTTL}}}
		}
	}
	out, err := m.Pack()
	if err == nil && len(out) > limit {
		m.Truncated, m.Answers = true, nil
		return m.Pack()
	}
	return out, err
}

// records are those of a name, nil where there is no such name.
func (z zone) records(label string) []dnsmessage.ResourceBody {
	s := Segments()[0]
	switch label {
	case "www":
		return []dnsmessage.ResourceBody{&dnsmessage.AResource{A: s.V4.Addr().As4()}, &dnsmessage.AAAAResource{AAAA: s.V6.Addr().As16()}}
	case "alias":
		return []dnsmessage.ResourceBody{&dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName("www." + z.origin.String())}}
	case "text":
		return []dnsmessage.ResourceBody{&dnsmessage.TXTResource{TXT: []string{"outside"}}}
	case "big":
		var txt []string
		for range 10 {
			txt = append(txt, strings.Repeat("x", 200))
		}
		return []dnsmessage.ResourceBody{&dnsmessage.TXTResource{TXT: txt}}
	}
	return nil
}

func recordType(b dnsmessage.ResourceBody) dnsmessage.Type {
	switch b.(type) {
	case *dnsmessage.AResource:
		return dnsmessage.TypeA
	case *dnsmessage.AAAAResource:
		return dnsmessage.TypeAAAA
	case *dnsmessage.CNAMEResource:
		return dnsmessage.TypeCNAME
	}
	return dnsmessage.TypeTXT
}

// serve answers by UDP and TCP until ctx ends. Datagrams that are no query get no answer.
func (z zone) serve(ctx context.Context, port int) error {
	pc, err := net.ListenUDP("udp", &net.UDPAddr{Port: port})
	if err != nil {
		return err
	}
	l, err := net.ListenTCP("tcp", &net.TCPAddr{Port: port})
	if err != nil {
		pc.Close()
		return err
	}
	defer context.AfterFunc(ctx, func() { pc.Close(); l.Close() })()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go z.converse(c)
		}
	}()
	for buf := make([]byte, 4096); ; {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return fmt.Errorf("name server: %w", err)
		}
		if out, err := z.answer(buf[:n], maxDatagram); err == nil {
			pc.WriteTo(out, from) // a lost answer is asked for again
		}
	}
}

// converse answers queries of a connection, each with its length before it (RFC 1035 section 4.2.2).
func (z zone) converse(c net.Conn) {
	defer c.Close()
	for {
		c.SetDeadline(time.Now().Add(30 * time.Second))
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		out, err := z.answer(query, 0xffff)
		if err != nil {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...)); err != nil {
			return
		}
	}
}
