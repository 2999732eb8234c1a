package e2e_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/mtu"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/portsecurity"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/groups"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/rules"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
)

// TestGuestsReachEachOtherAcrossHosts: pings, full-size packets that must not be cut, and a
// megabyte each way.
func TestGuestsReachEachOtherAcrossHosts(t *testing.T) {
	w := shared(t)
	a, b := w.blue1, w.blue2
	a.opens(t, b.addr)
	b.opens(t, a.addr)
	out := a.must(t, "ping -c 20 -i 0.1 -q "+b.addr)
	if received(t, out) != 20 {
		t.Errorf("pings were lost: %s", out)
	}
	measured(t, "ping %s to %s: %s", a.name, b.name, out[strings.LastIndex(out, "\n")+1:])

	size := networkMTU(t, w)
	if out, _ := a.run(t, fmt.Sprintf("ping -c 5 -i 0.2 -W 2 -M do -s %d %s", size-28, b.addr)); received(t, out) != 5 {
		t.Errorf("packets of %d bytes are lost: %s", size, out)
	}
	if out, status := a.run(t, fmt.Sprintf("ping -c 1 -W 2 -M do -s %d %s", size-27, b.addr)); status == 0 {
		t.Errorf("a packet larger than the MTU %d passed uncut: %s", size, out)
	}
	if out, _ := a.run(t, fmt.Sprintf("ping -c 3 -i 0.2 -W 2 -M dont -s 8000 %s", b.addr)); received(t, out) != 3 {
		t.Errorf("packets in fragments are lost: %s", out)
	}

	// Busybox's nc ends when either side has no more to say, so the listener's silence lasts.
	carry(t, a, b, "sleep 60 | nc -l -p 5001", "nc %s 5001")
	carry(t, b, a, "sleep 60 | nc -l -p 5002", "nc %s 5002")
	carry(t, a, b, "ncat --recv-only -l 5003", "ncat --send-only %s 5003")
	carry(t, b, a, "ncat --recv-only -l 5004", "ncat --send-only %s 5004")

	b.must(t, "iperf3 -s -1 -D --logfile /tmp/iperf </dev/null")
	b.until(t, "ss -ltn | grep -q :5201", "/tmp/iperf")
	out = a.must(t, "iperf3 -c "+b.addr+" -t 3 -f m | grep receiver")
	m := regexp.MustCompile(`([0-9.]+) Mbits/sec`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("iperf3 said: %s", out)
	}
	measured(t, "iperf3 TCP between hosts: %s Mbit/s", m[1])
}

// networkMTU is what the API says of the blue network.
func networkMTU(t *testing.T, w *world) int {
	t.Helper()
	var n struct {
		networks.Network
		mtu.NetworkMTUExt
	}
	if err := networks.Get(t.Context(), w.blue.member.Network, w.blueNet.network.ID).ExtractInto(&n); err != nil {
		t.Fatal(err)
	}
	if n.MTU < 1280 || n.MTU > 1500 {
		t.Fatalf("the network's MTU is %d", n.MTU)
	}
	return n.MTU
}

// carry sends a megabyte of noise and compares sums.
func carry(t *testing.T, from, to *guest, listen, send string) {
	t.Helper()
	port := listen[strings.LastIndex(listen, " ")+1:]
	to.must(t, fmt.Sprintf("rm -f /tmp/in; %s >/tmp/in 2>/tmp/in.log &", listen))
	to.until(t, "ss -ltn | grep -q :"+port, "/tmp/in.log")
	sum := from.must(t, "dd if=/dev/urandom of=/tmp/out bs=1024 count=1024 2>/dev/null; sha256sum </tmp/out")
	from.must(t, "timeout 30 "+fmt.Sprintf(send, to.addr)+" </tmp/out")
	to.until(t, "[ $(wc -c </tmp/in) -ge 1048576 ]", "/tmp/in.log")
	if got := to.must(t, "sha256sum </tmp/in"); got != sum {
		t.Errorf("%s: a megabyte from %s to %s has the sum %s, not %s", listen, from.name, to.name, got, sum)
	}
}

// watcher is a tcpdump in a guest.
type watcher struct {
	g    *guest
	file string
	pid  string
}

// watch starts to count packets that match a filter of pcap-filter(7).
func (g *guest) watch(t *testing.T, filter string) *watcher {
	t.Helper()
	g.attach(t)
	w := &watcher{g: g, file: fmt.Sprintf("/tmp/dump.%d", g.n)}
	w.pid = g.must(t, fmt.Sprintf("tcpdump -lne -Q in -i eth0 '%s' >%[2]s 2>%[2]s.log & echo $!", filter, w.file))
	g.until(t, "grep -q 'listening on' "+w.file+".log", w.file+".log")
	return w
}

// stop gives the packets, a line each.
func (w *watcher) stop(t *testing.T) []string {
	t.Helper()
	w.g.must(t, "kill -INT "+w.pid)
	w.g.until(t, "grep -q 'packets captured' "+w.file+".log", w.file+".log")
	out := w.g.must(t, fmt.Sprintf("head -n 20 %s; rm %[1]s %[1]s.log", w.file))
	if out == "" {
		return nil
	}
	return strings.Split(out, "\n")
}

// TestTenantsDoNotSeeEachOther: the red guest has the address and the MAC of a blue one, on the
// same host, in a network with the same subnet.
func TestTenantsDoNotSeeEachOther(t *testing.T) {
	w := shared(t)
	w.blue1.opens(t, w.blue2.addr)
	if mac := w.red1.must(t, "cat /sys/class/net/eth0/address"); mac != w.port1.MACAddress {
		t.Fatalf("the red guest has the MAC %s, not %s", mac, w.port1.MACAddress)
	}
	// Blue talks, broadcasts and asks for strangers; red hears none of it.
	seen := w.red1.watch(t, "arp or icmp")
	if n := w.blue1.reaches(t, w.blue2.addr); n != 5 {
		t.Errorf("%d of 5 pings of blue-1 come back while a stranger has its addresses", n)
	}
	if n := w.blue2.reaches(t, w.blue1.addr); n != 5 {
		t.Errorf("%d of 5 pings of blue-2 come back while a stranger has the addresses of blue-1", n)
	}
	w.blue1.run(t, "ping -b -c 3 -i 0.2 -W 1 10.50.0.255; arping -A -c 2 -I eth0 10.50.0.11; arping -c 2 -w 2 -I eth0 10.50.0.77")
	if lines := seen.stop(t); len(lines) > 0 {
		t.Errorf("red sees blue:\n%s", strings.Join(lines, "\n"))
	}
	// And the other way round. Blue's own talk is over, so whatever comes from its address is red's, but for answers to what
	// blue-2's kernel asks by itself.
	seen = w.blue2.watch(t, "icmp or (arp and ether broadcast)")
	if n := w.red1.reaches(t, w.blue2.addr); n != 0 {
		t.Errorf("%d of 5 pings of red reach blue-2's address", n)
	}
	// The address is nobody's in red's network. With the neighbour's MAC known, too, nothing comes.
	w.red1.must(t, "ip neigh replace 10.50.0.12 lladdr "+w.port2.MACAddress+" dev eth0 nud permanent")
	if n := w.red1.reaches(t, w.blue2.addr); n != 0 {
		t.Errorf("%d of 5 pings of red reach blue-2 by its MAC", n)
	}
	w.red1.must(t, "ip neigh del 10.50.0.12 dev eth0")
	w.red1.run(t, "ping -b -c 3 -i 0.2 -W 1 10.50.0.255; arping -A -c 2 -I eth0 10.50.0.11")
	if lines := seen.stop(t); len(lines) > 0 {
		t.Errorf("blue sees red:\n%s", strings.Join(lines, "\n"))
	}
}

// newGroup makes a security group of the tenant, without rules for ingress.
func (ten *tenant) newGroup(t *testing.T, own owner, name string) string {
	t.Helper()
	g, err := groups.Create(t.Context(), ten.member.Network, groups.CreateOpts{Name: name}).Extract()
	if err != nil {
		t.Fatalf("create the security group %s: %v", name, err)
	}
	own.later(func(t *testing.T) {
		gone(t, "security group "+name, groups.Delete(context.Background(), ten.member.Network, g.ID).ExtractErr())
	})
	return g.ID
}

// allow adds a rule for ingress.
func (ten *tenant) allow(t *testing.T, group string, r rules.CreateOpts) string {
	t.Helper()
	r.SecGroupID, r.Direction, r.EtherType = group, rules.DirIngress, rules.EtherType4
	made, err := rules.Create(t.Context(), ten.member.Network, r).Extract()
	if err != nil {
		t.Fatalf("add a rule: %v", err)
	}
	return made.ID
}

// join gives a port its security groups; at the test's end it has those of before.
func (ten *tenant) join(t *testing.T, p *ports.Port, ids ...string) {
	t.Helper()
	set := func(t *testing.T, ids []string) {
		if _, err := ports.Update(context.Background(), ten.member.Network, p.ID, ports.UpdateOpts{SecurityGroups: &ids}).Extract(); err != nil {
			t.Errorf("set the groups of port %s: %v", p.ID, err)
		}
	}
	set(t, ids)
	t.Cleanup(func() { set(t, p.SecurityGroups) })
}

// TestSecurityGroups: what no rule allows is silent; a rule opens and closes while it talks.
func TestSecurityGroups(t *testing.T) {
	w := shared(t)
	a, b := w.blue1, w.blue2
	group := w.blue.newGroup(t, mine{t}, "quiet")
	a.opens(t, b.addr) // the default group lets its members in
	w.blue.join(t, w.port2, group)
	a.closes(t, b.addr)
	b.closes(t, a.addr) // the default group knows only its members, and b is none now
	seen := b.watch(t, "icmp[icmptype] == icmp-echo or tcp dst port 8080")
	a.reaches(t, b.addr)
	b.must(t, "nc -ll -p 8080 -e cat </dev/null & echo $! >/tmp/web.pid")
	b.until(t, "ss -ltn | grep -q :8080", "/dev/null")
	knock := "echo hello | nc -w 2 " + b.addr + " 8080"
	if out, status := a.run(t, knock); status == 0 {
		t.Errorf("a port that no rule opens took a connection: %s", out)
	}
	if lines := seen.stop(t); len(lines) > 0 {
		t.Errorf("what no rule allows comes in:\n%s", strings.Join(lines, "\n"))
	}

	rule := w.blue.allow(t, group, rules.CreateOpts{Protocol: rules.ProtocolICMP})
	a.opens(t, b.addr)
	if _, status := a.run(t, knock); status == 0 {
		t.Error("a rule for ICMP opens TCP")
	}
	web := w.blue.allow(t, group, rules.CreateOpts{Protocol: rules.ProtocolTCP, PortRangeMin: 8080, PortRangeMax: 8080, RemoteIPPrefix: "10.50.0.0/24"})
	await(t, "port 8080 to open", bootPatience, func(context.Context) string {
		out, status := a.run(t, knock)
		return unless(status == 0 && out == "hello", "no echo: "+out)
	})
	// A connection that talks is cut when its rule goes: the ping that is under way, too.
	p := a.ping(t, b.addr)
	if err := rules.Delete(t.Context(), w.blue.member.Network, rule).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	a.closes(t, b.addr)
	before := p.replies(t)
	a.reaches(t, b.addr)
	if after := p.replies(t); after != before {
		t.Errorf("a ping that was under way gets %d replies after its rule is gone", after-before)
	}
	a.must(t, "kill -9 "+p.pid+"; rm "+p.file)
	if err := rules.Delete(t.Context(), w.blue.member.Network, web).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	await(t, "port 8080 to close", bootPatience, func(context.Context) string {
		_, status := a.run(t, knock)
		return unless(status != 0, "it takes connections")
	})
	b.must(t, "kill $(cat /tmp/web.pid)")
}

// TestForgeries: a guest with another MAC, another address or lies in ARP is not heard, unless
// its port security is off.
func TestForgeries(t *testing.T) {
	w := shared(t)
	a, b := w.blue1, w.blue2
	open := w.blue.newGroup(t, mine{t}, "open")
	w.blue.allow(t, open, rules.CreateOpts{Protocol: rules.ProtocolICMP})
	def := w.port2.SecurityGroups
	w.blue.join(t, w.port2, append([]string{open}, def...)...)
	a.opens(t, b.addr)

	const fakeMAC, fakeIP = "02:00:00:00:66:66", "10.50.0.66"
	mac := w.port1.MACAddress
	forgeries := []struct{ name, filter, do string }{
		{"IP address", "icmp and src host " + fakeIP,
			"ip addr add " + fakeIP + "/32 dev eth0; ping -c 3 -i 0.2 -W 1 -I " + fakeIP + " " + b.addr + "; ip addr del " + fakeIP + "/32 dev eth0"},
		{"MAC address", "ether src " + fakeMAC,
			"ip neigh replace " + b.addr + " lladdr " + w.port2.MACAddress + " dev eth0 nud permanent; ip link set dev eth0 address " + fakeMAC +
				"; ping -c 3 -i 0.2 -W 1 " + b.addr + "; arping -A -c 2 -I eth0 " + a.addr + "; ip link set dev eth0 address " + mac + "; ip neigh del " + b.addr + " dev eth0"},
		{"ARP sender", "arp and src host " + fakeIP,
			"ip addr add " + fakeIP + "/32 dev eth0; arping -A -c 3 -I eth0 " + fakeIP + "; ip addr del " + fakeIP + "/32 dev eth0"},
	}
	forge := func(filter, do string) []string {
		seen := b.watch(t, filter)
		a.run(t, do)
		// An honest ping that arrives shows that what went before has arrived or is dropped.
		a.opens(t, b.addr)
		return seen.stop(t)
	}
	for _, f := range forgeries {
		if lines := forge(f.filter, f.do); len(lines) > 0 {
			t.Errorf("a forged %s passes:\n%s", f.name, strings.Join(lines, "\n"))
		}
	}

	off, on := false, true
	none := []string{}
	if _, err := ports.Update(t.Context(), w.blue.member.Network, w.port1.ID, portsecurity.PortUpdateOptsExt{
		UpdateOptsBuilder: ports.UpdateOpts{SecurityGroups: &none}, PortSecurityEnabled: &off}).Extract(); err != nil {
		t.Fatalf("switch port security off: %v", err)
	}
	restore := func(t *testing.T) {
		if _, err := ports.Update(context.Background(), w.blue.member.Network, w.port1.ID, portsecurity.PortUpdateOptsExt{
			UpdateOptsBuilder: ports.UpdateOpts{SecurityGroups: &w.port1.SecurityGroups}, PortSecurityEnabled: &on}).Extract(); err != nil {
			t.Errorf("switch port security on: %v", err)
		}
	}
	t.Cleanup(func() { restore(t) })
	for _, f := range forgeries {
		await(t, "a "+f.name+" of one's own choice to pass without port security", bootPatience, func(context.Context) string {
			return unless(len(forge(f.filter, f.do)) > 0, "nothing arrives")
		})
	}
	restore(t)
	await(t, "port security to be on again", bootPatience, func(context.Context) string {
		return unless(len(forge(forgeries[0].filter, forgeries[0].do)) == 0, "a forged address passes")
	})
}
