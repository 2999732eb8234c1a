package main

import (
	"encoding/hex"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
)

// advertHead is a router advertisement without options: hop limit 64, no flags, a lifetime of 1800 s.
const advertHead = "86000000" + "40000708" + "00000000" + "00000000"

func TestAdverts(t *testing.T) {
	const server1, server2 = "20010db8000000000000000000000001", "20010db8000000000000000000000002"
	a1, a2 := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	for name, c := range map[string]struct {
		hex  string
		want advert
		bad  bool
	}{
		"plain":              {advertHead, advert{}, false},
		"managed":            {strings.Replace(advertHead, "40000708", "40800708", 1), advert{managed: true}, false},
		"other":              {strings.Replace(advertHead, "40000708", "40400708", 1), advert{other: true}, false},
		"servers":            {advertHead + "1905000000000e10" + server1 + server2, advert{names: resolver{servers: []netip.Addr{a1, a2}}}, false},
		"dead servers":       {advertHead + "1903000000000000" + server1, advert{}, false},
		"search":             {advertHead + "1f03000000000e10" + "0361626304746573740000000000" + "0000", advert{names: resolver{search: []string{"abc.test"}}}, false},
		"evil search":        {advertHead + "1f03000000000e10" + "03610a6304746573740000000000" + "0000", advert{}, false},
		"search cut off":     {advertHead + "1f02000000000e10" + "3f61626304746573", advert{}, false},
		"unknown option":     {advertHead + "c8010000000000001903000000000e10" + server1, advert{names: resolver{servers: []netip.Addr{a1}}}, false},
		"option of length 0": {advertHead + "1900000000000e10", advert{}, true},
		"option cut off":     {advertHead + "1905000000000e10" + server1, advert{}, true},
		"short":              {advertHead[:30], advert{}, true},
		"solicitation":       {"8500000000000000" + advertHead, advert{}, true},
		"other code":         {strings.Replace(advertHead, "8600", "8601", 1), advert{}, true},
	} {
		b, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseAdvert(b)
		if (err != nil) != c.bad || (!c.bad && !reflect.DeepEqual(got, c.want)) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func FuzzAdvert(f *testing.F) {
	b, err := hex.DecodeString(advertHead + "1903000000000e1020010db80000000000000000000000011f03000000000e1003616263047465737400000000000000")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseAdvert(b)
		if err != nil {
			return
		}
		for line := range strings.Lines(a.names.text()) {
			if kind, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " "); (kind != "search" && kind != "nameserver") || rest == "" || strings.ContainsAny(rest, "\n\t#") {
				t.Errorf("%x makes the line %q", b, line)
			}
		}
	})
}

func TestLeaseTimes(t *testing.T) {
	reply := func(t1, t2, preferred, valid time.Duration, status *dhcpv6.OptStatusCode) *dhcpv6.Message {
		ia := &dhcpv6.OptIANA{IaId: [4]byte{1}, T1: t1, T2: t2}
		ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP("2001:db8::5"), PreferredLifetime: preferred, ValidLifetime: valid})
		if status != nil {
			ia.Options.Add(status)
		}
		m := &dhcpv6.Message{MessageType: dhcpv6.MessageTypeReply}
		m.AddOption(ia)
		return m
	}
	now := time.Unix(1000, 0)
	for name, c := range map[string]struct {
		m           *dhcpv6.Message
		t1, t2, end time.Duration
	}{
		"as told":              {reply(100*time.Second, 200*time.Second, 300*time.Second, 400*time.Second, nil), 100 * time.Second, 200 * time.Second, 400 * time.Second},
		"left to us":           {reply(0, 0, 100*time.Second, 400*time.Second, nil), 50 * time.Second, 80 * time.Second, 400 * time.Second},
		"later than preferred": {reply(500*time.Second, 900*time.Second, 100*time.Second, 400*time.Second, nil), 50 * time.Second, 80 * time.Second, 400 * time.Second},
		"no storm":             {reply(1, 1, 100*time.Second, 400*time.Second, nil), time.Second, time.Second, 400 * time.Second},
		"for ever":             {reply(0xffffffff*time.Second, 0xffffffff*time.Second, 0xffffffff*time.Second, 0xffffffff*time.Second, nil), 0xffffffff * time.Second / 2, 0xffffffff * time.Second / 5 * 4, 0xffffffff * time.Second},
	} {
		t1, t2, end := times(c.m, now)
		if t1 != now.Add(c.t1) || t2 != now.Add(c.t2) || end != now.Add(c.end) {
			t.Errorf("%s: %v %v %v", name, t1.Sub(now), t2.Sub(now), end.Sub(now))
		}
		if l := leases(c.m); len(l) != 1 || l[0].addr != netip.MustParseAddr("2001:db8::5") {
			t.Errorf("%s: %+v", name, l)
		}
	}
	if l := leases(reply(1, 1, 1, 1, &dhcpv6.OptStatusCode{StatusCode: iana.StatusNoAddrsAvail})); len(l) != 0 {
		t.Errorf("a refusal gives %+v", l)
	}
	if l := leases(reply(1, 1, 0, 0, nil)); len(l) != 0 {
		t.Errorf("a lifetime of 0 gives %+v", l)
	}
	for d, want := range map[time.Duration]string{90 * time.Second: "90", 0xffffffff * time.Second: "forever"} {
		if got := seconds(d); got != want {
			t.Errorf("%v is %s, not %s", d, got, want)
		}
	}
}
