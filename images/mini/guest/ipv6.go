package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/ipv6"
)

// The kernel makes addresses and routes from router advertisements by itself (RFC 4862). What it leaves to others is
// done here: name servers that advertisements tell (RFC 8106), and DHCPv6 where their flags ask for it.

// advert is what this program takes from a router advertisement.
type advert struct {
	managed, other bool // addresses, and only other things, are had by DHCPv6 (RFC 4861 section 4.2)
	names          resolver
}

// resolver is what goes into resolv.conf.
type resolver struct {
	servers []netip.Addr
	search  []string
}

// text is lines of resolv.conf(5).
func (r resolver) text() string {
	var b strings.Builder
	if len(r.search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(r.search, " "))
	}
	for _, s := range r.servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	return b.String()
}

// Numbers of ICMPv6 and of options of neighbour discovery.
const (
	routerSolicitation  = 133
	routerAdvertisement = 134
	optionDNSServers    = 25
	optionDNSSearch     = 31
)

// parseAdvert reads an ICMPv6 message that is a router advertisement.
func parseAdvert(b []byte) (advert, error) {
	var a advert
	if len(b) < 16 || b[0] != routerAdvertisement || b[1] != 0 {
		return a, errors.New("no router advertisement")
	}
	a.managed, a.other = b[5]&0x80 != 0, b[5]&0x40 != 0
	for o := b[16:]; len(o) > 0; {
		if len(o) < 8 || o[1] == 0 || int(o[1])*8 > len(o) {
			return a, errors.New("an option of the router advertisement is cut off")
		}
		body := o[:int(o[1])*8]
		o = o[len(body):]
		lifetime := binary.BigEndian.Uint32(body[4:8]) // of the two options below
		switch body[0] {
		case optionDNSServers:
			for rest := body[8:]; len(rest) >= 16 && lifetime > 0; rest = rest[16:] {
				a.names.servers = append(a.names.servers, netip.AddrFrom16([16]byte(rest[:16])))
			}
		case optionDNSSearch:
			if lifetime > 0 {
				a.names.search = append(a.names.search, domains(body[8:])...)
			}
		}
	}
	return a, nil
}

// domains reads names as sequences of labels (RFC 1035 section 3.1, without compression), up to the padding. What is
// no host name ends the list, for it goes into a file.
func domains(b []byte) []string {
	var out []string
	for len(b) > 0 && b[0] != 0 {
		var labels []string
		for len(b) > 0 && b[0] != 0 {
			n := int(b[0])
			if n > 63 || n >= len(b) || strings.ContainsFunc(string(b[1:1+n]), notInName) {
				return out
			}
			labels = append(labels, string(b[1:1+n]))
			b = b[1+n:]
		}
		if len(b) == 0 {
			return out
		}
		out, b = append(out, strings.Join(labels, ".")), b[1:]
	}
	return out
}

func notInName(r rune) bool {
	return !(r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
}

// solicitPauses are those before each solicitation of ours. The kernel has sent its own by then; they are for an
// advertisement that came before we listened.
var solicitPauses = []time.Duration{2 * time.Second, 3 * time.Second, 5 * time.Second, 10 * time.Second}

// attendIPv6 listens for router advertisements until ctx ends.
func attendIPv6(ctx context.Context) error {
	c, err := net.ListenPacket("ip6:58", "::")
	if err != nil {
		return err
	}
	p := ipv6.NewPacketConn(c)
	defer p.Close()
	defer context.AfterFunc(ctx, func() { p.Close() })()
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeRouterAdvertisement)
	if err := errors.Join(p.SetICMPFilter(&filter), p.SetControlMessage(ipv6.FlagInterface|ipv6.FlagHopLimit|ipv6.FlagSrc, true)); err != nil {
		return err
	}
	go solicit(ctx, p)
	links := map[string]*link6{}
	for buf := make([]byte, 2048); ; {
		n, control, _, err := p.ReadFrom(buf)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		// RFC 4861 section 6.1.2: it must come from this link.
		if control == nil || control.HopLimit != 255 || !control.Src.IsLinkLocalUnicast() {
			continue
		}
		a, err := parseAdvert(buf[:n])
		if err != nil {
			continue
		}
		i, err := net.InterfaceByIndex(control.IfIndex)
		if err != nil || !ours(i.Name) {
			continue
		}
		l := links[i.Name]
		if l == nil || l.index != i.Index {
			l = &link6{name: i.Name, index: i.Index, mac: i.HardwareAddr}
			links[i.Name] = l
		}
		l.heard(ctx, a)
	}
}

// ours tells whether the interface is one that this system configures: the start script, or a DHCP client that was
// started by hand, has made its folder.
func ours(name string) bool {
	st, err := os.Stat(filepath.Join("/run/nic", name))
	return err == nil && st.IsDir()
}

func solicit(ctx context.Context, p *ipv6.PacketConn) {
	message := []byte{routerSolicitation, 0, 0, 0, 0, 0, 0, 0} // the kernel fills in the checksum
	for _, pause := range solicitPauses {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		dirs, err := filepath.Glob("/run/nic/*")
		if err != nil {
			return
		}
		for _, d := range dirs {
			name := filepath.Base(d)
			if st, err := os.Stat(filepath.Join(d, "resolv6")); err == nil && !st.IsDir() {
				continue // a router has been heard
			}
			if i, err := net.InterfaceByName(name); err == nil {
				// One that fails is repeated.
				p.WriteTo(message, &ipv6.ControlMessage{HopLimit: 255, IfIndex: i.Index}, &net.IPAddr{IP: net.IPv6linklocalallrouters, Zone: name})
			}
		}
	}
}

// link6 is what is known of an interface with a router.
type link6 struct {
	name  string
	index int
	mac   net.HardwareAddr

	told   resolver // by the advertisement
	dhcp   string   // what runs: "", "stateful" or "stateless"
	cancel context.CancelFunc
}

// heard takes up a router advertisement.
func (l *link6) heard(ctx context.Context, a advert) {
	for i, s := range a.names.servers {
		if s.IsLinkLocalUnicast() {
			a.names.servers[i] = s.WithZone(l.name)
		}
	}
	if l.told.text() != a.names.text() || !fileExists(l.file("resolv6")) {
		l.told = a.names
		l.write("resolv6", a.names)
	}
	want := ""
	switch {
	case a.managed && !fileExists("/run/nic/"+l.name+".fixed6"):
		want = "stateful"
	case a.managed || a.other:
		want = "stateless"
	}
	if len(l.mac) != 6 { // it could not say who it is
		want = ""
	}
	if l.dhcp == want {
		return
	}
	if l.cancel != nil {
		l.cancel()
		l.cancel = nil
	}
	l.dhcp = want
	if want == "" {
		return
	}
	ctx, l.cancel = context.WithCancel(ctx)
	client := &dhcp6{link: l, stateful: want == "stateful"}
	go func() {
		if err := client.run(ctx); err != nil && ctx.Err() == nil {
			say("%s: DHCPv6: %v", l.name, err)
		}
	}()
}

func (l *link6) file(name string) string { return filepath.Join("/run/nic", l.name, name) }

// write writes a part of resolv.conf, and all of it.
func (l *link6) write(part string, r resolver) {
	if err := errors.Join(writeFile(l.file(part), []byte(r.text()), 0o644), mergeResolvers()); err != nil {
		say("%s: %v", l.name, err)
	}
}

// mergeResolvers makes resolv.conf of the interfaces' parts, as udhcpc.script does.
func mergeResolvers() error {
	var lines []string
	for _, pattern := range []string{"/run/nic/*/resolv", "/run/nic/*/resolv6", "/run/nic/*/resolv6.dhcp"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				continue // its interface went meanwhile
			}
			for line := range strings.Lines(string(b)) {
				if !slices.Contains(lines, line) {
					lines = append(lines, line)
				}
			}
		}
	}
	return writeFile("/run/resolv.conf", []byte(strings.Join(lines, "")), 0o644)
}

func fileExists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}
