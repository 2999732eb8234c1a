package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"yakumo/images/mini/probe"
)

// OutsideMachine is the name of the machine that plays the world outside the cloud: what stands
// at the other end of every host's second cable. It has the segments of Segments, routes between
// them, answers probes and HTTP, and is a client through Command.
const OutsideMachine = "outside"

// PhysicalNetwork is the name of the physical network that every host has a bridge to.
const PhysicalNetwork = "physnet1"

// providerBridge is that bridge, on the hosts and on the outside.
const providerBridge = "br-ex"

// Segment is a network outside the cloud, from the documentation's address blocks (RFC 5737, RFC 3849).
type Segment struct {
	VLAN int // as tagged on the physical network; 0: untagged, a flat network
	// V4 and V6 are its prefixes, each with the address of the outside, which is the gateway there.
	V4, V6 netip.Prefix
	device string
	mac    string // of the outside there: as a machine's card it stays the same
}

// Segments are those of the outside.
func Segments() []Segment {
	return []Segment{
		{0, netip.MustParsePrefix("203.0.113.1/24"), netip.MustParsePrefix("2001:db8:113::1/64"), providerBridge, "02:00:cb:00:71:01"},
		{101, netip.MustParsePrefix("198.51.100.1/24"), netip.MustParsePrefix("2001:db8:101::1/64"), "vlan101", "02:00:c6:33:64:01"},
	}
}

// Services of the outside on each of its addresses. HTTP tells the client's address; the zone's
// server speaks DNS, on the underlay too, where hosts reach it.
const (
	OutsideProbePort = 7 // TCP and UDP; see package probe
	OutsideHTTPPort  = 80
	outsideDNSPort   = 53
)

// outsideUnderlay is the outside's address on the underlay, where hosts may ask its name server.
// Nothing is routed between the underlay and the segments.
const outsideUnderlay = underlayPrefix + "2"

// OutsideZone is the zone that the outside's name server at OutsideResolver knows.
const (
	OutsideZone     = "outside.test."
	OutsideResolver = outsideUnderlay
)

// outside describes the machine.
func outside(m Machine, bin string, switchUnits []Unit) Machine {
	b := Bridge{Name: providerBridge, Ports: []string{"host*"}}
	for _, s := range Segments() {
		addrs := []string{s.V4.String(), s.V6.String()}
		if s.device == providerBridge {
			b.MAC, b.Addresses = s.mac, addrs
		} else {
			b.Internal = append(b.Internal, Device{s.device, s.VLAN, s.mac, addrs})
		}
		m.Prepare = append(m.Prepare, []string{"ip", "rule", "add", "iif", s.device, "to", underlayPrefix + "0" + underlayBits, "prohibit"})
	}
	m.Bridges = []Bridge{b}
	m.Devices = []Device{{Name: "eth0", Addresses: []string{outsideUnderlay + underlayBits}}}
	m.Sysctls = map[string]string{"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1", "ipv4/ping_group_range": "0 2147483647",
		"ipv4/icmp_ratelimit": "0", "ipv6/icmp/ratelimit": "0"} // many guests behind one address are one destination
	m.Units = append(switchUnits, Unit{Name: "outside", Argv: []string{bin, "lab-outside"}})
	return m
}

// Outside is the outside's own program: it serves until ctx ends. Sockets stand on every
// address, those that come later too.
func Outside(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	web := &http.Server{Handler: http.HandlerFunc(tellClient), ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	l, err := net.Listen("tcp", ":"+strconv.Itoa(OutsideHTTPPort))
	if err != nil {
		return err
	}
	names := zone{origin: dnsmessage.MustNewName(OutsideZone)}
	for _, serve := range []func() error{
		func() error { return web.Serve(l) },
		func() error {
			return probe.Answer(ctx, OutsideMachine, []probe.Service{{Proto: probe.TCP, Port: OutsideProbePort}, {Proto: probe.UDP, Port: OutsideProbePort}})
		},
		func() error { return names.serve(ctx, outsideDNSPort) },
	} {
		go func() { cancel(serve()) }()
	}
	<-ctx.Done()
	web.Close()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// tellClient answers every path with the client's address; ?bytes=N adds N bytes, at most 1 GiB.
func tellClient(w http.ResponseWriter, r *http.Request) {
	n := 0
	if q := r.URL.Query().Get("bytes"); q != "" {
		var err error
		if n, err = strconv.Atoi(q); err != nil || n < 0 || n > 1<<30 {
			http.Error(w, "bytes is from 0 to 1073741824", http.StatusBadRequest)
			return
		}
	}
	w.Header().Set("Content-Type", "text/plain")
	fmt.Fprintf(w, "%s saw %s\n", OutsideMachine, r.RemoteAddr)
	for buf := make([]byte, 64<<10); n > 0; n -= len(buf) {
		if _, err := w.Write(buf[:min(n, len(buf))]); err != nil {
			return // the client is gone
		}
	}
}
