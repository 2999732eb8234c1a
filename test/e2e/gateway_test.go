package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/rules"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"

	"yakumo/lab"
)

// placeGateway moves a router's gateway to a host, as an administrator does with the stock
// client's `network agent add router --l3`.
func placeGateway(t *testing.T, router, host string) {
	t.Helper()
	c := fix.admin.Network
	var agents struct {
		Agents []struct{ ID, Host string } `json:"agents"`
	}
	call := func(method, path string, in, out any, codes ...int) error {
		_, err := c.Request(t.Context(), method, c.ServiceURL(strings.Split(path, "/")...), &gophercloud.RequestOpts{JSONBody: in, JSONResponse: out, OkCodes: codes})
		return err
	}
	if err := call("GET", "agents", nil, &agents, http.StatusOK); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(agents.Agents, func(a struct{ ID, Host string }) bool { return a.Host == host })
	if i < 0 {
		t.Fatalf("no agent on %s: %+v", host, agents)
	}
	await(t, "the gateway to be on "+host, bootPatience, func(context.Context) string {
		// A host that was suspect a moment ago is not taken at once.
		err := call("POST", "agents/"+agents.Agents[i].ID+"/l3-routers", map[string]any{"router_id": router}, nil, http.StatusCreated)
		if err != nil {
			return err.Error()
		}
		return ""
	})
}

// outsidePing is a ping from the outside that goes on, ten times a second.
type outsidePing struct{ pid, file string }

func pingFromOutside(t *testing.T, addr string) *outsidePing {
	t.Helper()
	p := &outsidePing{file: filepath.Join(t.TempDir(), "ping")}
	out, err := on(t.Context(), lab.OutsideMachine, "sh", "-c", fmt.Sprintf("ping -i 0.1 %s >%s 2>&1 & echo $!", addr, p.file))
	if err != nil {
		t.Fatal(err)
	}
	p.pid = strings.TrimSpace(out)
	return p
}

var sequenceRE = regexp.MustCompile(`bytes from .*icmp_seq=(\d+) `)

// stop gives how many were asked from the first answer to the last, and how many of them were not answered: those
// behind the last may be on their way.
func (p *outsidePing) stop(t *testing.T) (asked, lost int) {
	t.Helper()
	if _, err := on(t.Context(), lab.OutsideMachine, "kill", "-INT", p.pid); err != nil {
		t.Fatal(err)
	}
	var text []byte
	await(t, "ping to end", commandPatience, func(context.Context) string {
		b, err := os.ReadFile(p.file)
		if err != nil {
			return err.Error()
		}
		text = b
		return unless(receivedRE.Match(b), "it runs still")
	})
	first, last, seen := 0, 0, map[int]bool{}
	for _, m := range sequenceRE.FindAllSubmatch(text, -1) {
		n, err := strconv.Atoi(string(m[1]))
		if err != nil {
			t.Fatal(err)
		}
		if first == 0 {
			first = n
		}
		last = max(last, n)
		seen[n] = true
	}
	if len(seen) == 0 {
		t.Fatalf("nothing came back: %s", text)
	}
	return last - first + 1, last - first + 1 - len(seen)
}

// regroup sets the groups of a port.
func regroup(t *testing.T, ten *tenant, port string, groups []string) {
	t.Helper()
	if _, err := ports.Update(context.Background(), ten.member.Network, port, ports.UpdateOpts{SecurityGroups: &groups}).Extract(); err != nil {
		t.Fatal(err)
	}
}

// TestDeathsOnTheWayOut: one guest speaks to the outside by source NAT on a gateway host, another by its
// floating IP on its own host, while everything on the way dies in turn, the gateway host last. What is
// lost is measured; nothing needs help; what does not go through the dead does not notice.
func TestDeathsOnTheWayOut(t *testing.T) {
	w := shared(t)
	healthy(t)
	segment := lab.Segments()[1]
	outside := segment.V4.Addr().String()
	x := newExternal(t, mine{t}, "vlan101", segment)
	r := w.blue.newRouter(t, mine{t}, "way-out", x, w.blueNet.subnet)
	// The group of the shared guests lets nobody in from outside.
	g := w.blue.newGroupOf(t, mine{t}, "pinged", rules.CreateOpts{Protocol: rules.ProtocolICMP, EtherType: rules.EtherType4})
	groups := append([]string{g.ID}, w.port1.SecurityGroups...)
	regroup(t, w.blue, w.port1.ID, groups)
	t.Cleanup(func() { regroup(t, w.blue, w.port1.ID, w.port1.SecurityGroups) })
	f := w.blue.newFloating(t, mine{t}, x, w.port1.ID)
	w.blue2.opens(t, outside) // source NAT on a gateway host
	w.blue1.opens(t, outside) // its floating IP on host1
	await(t, "the floating IP to answer the outside", bootPatience, func(ctx context.Context) string {
		if _, err := on(ctx, lab.OutsideMachine, "ping", "-c", "1", "-W", "1", f.FloatingIP); err != nil {
			return err.Error()
		}
		return ""
	})
	for _, d := range []struct {
		machine, unit string
		nat, floating bool // whether these may lose nothing
	}{
		{"server", "server", true, true},
		{"host3", "agent", true, true},
		{"host3", "libvirtd", true, true},
		// With the user-space datapath all of the host stands still for a moment with its database. Its gateways
		// may have moved by then, which is faster.
		{"host3", "ovsdb-server", false, true},
		{"host3", "ovs-vswitchd", false, true},
	} {
		placeGateway(t, r.ID, "host3") // it may have left
		w.blue2.opens(t, outside)
		out, in := w.blue2.ping(t, outside), pingFromOutside(t, f.FloatingIP)
		kill(t, d.machine, d.unit)
		healthy(t)
		out.more(t, 30)
		l := out.stop(t)
		asked, lost := in.stop(t)
		measured(t, "kill -9 of %s on %s: pings by source NAT: %s; to the floating IP: %d of %d lost", d.unit, d.machine, l, lost, asked)
		if d.nat && l.lost > 0 {
			t.Errorf("%s on %s dies, and pings by source NAT are lost: %s", d.unit, d.machine, l)
		}
		if d.floating && lost > 0 {
			t.Errorf("%s on %s dies, and %d of %d pings to a floating IP on host1 are lost", d.unit, d.machine, lost, asked)
		}
	}

	placeGateway(t, r.ID, "host3")
	w.blue2.opens(t, outside)
	out, in := w.blue2.ping(t, outside), pingFromOutside(t, f.FloatingIP)
	if err := fix.lab.PowerOff("host3"); err != nil {
		t.Fatal(err)
	}
	out.more(t, 30)
	l := out.stop(t)
	asked, lost := in.stop(t)
	measured(t, "the gateway host loses power: pings by source NAT: %s; to the floating IP elsewhere: %d of %d lost", l, lost, asked)
	if l.gap > 10*time.Second {
		t.Errorf("the gateway took %s to move", l.gap)
	}
	if lost > 0 {
		t.Errorf("%d of %d pings to a floating IP on host1 are lost when host3 dies", lost, asked)
	}
	if err := fix.lab.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	healthy(t)
	w.blue2.opens(t, outside)
}
