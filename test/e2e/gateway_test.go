package e2e_test

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/agents"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/routers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/rules"

	"yakumo/lab"
)

// gatewayHost tells where a router's gateway is; "" while it is nowhere.
func gatewayHost(ctx context.Context, router string) (string, error) {
	page, err := routers.ListL3Agents(fix.admin.Network, router).AllPages(ctx)
	if err != nil {
		return "", err
	}
	list, err := routers.ExtractL3Agents(page)
	if err != nil || len(list) == 0 {
		return "", err
	}
	return list[0].Host, nil
}

// moveGateway has an administrator move a router's gateway, and waits until it is there.
func moveGateway(t *testing.T, router, host string) {
	t.Helper()
	page, err := agents.List(fix.admin.Network, agents.ListOpts{Host: host}).AllPages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list, err := agents.ExtractAgents(page)
	if err != nil || len(list) == 0 {
		t.Fatalf("agents of %s: %+v, %v", host, list, err)
	}
	if now, err := gatewayHost(t.Context(), router); err != nil || now == host {
		return
	}
	if err := agents.ScheduleL3Router(t.Context(), fix.admin.Network, list[0].ID, agents.ScheduleL3RouterOpts{RouterID: router}).ExtractErr(); err != nil {
		t.Fatalf("move the gateway to %s: %v", host, err)
	}
	awaitGateway(t, router, func(now string) bool { return now == host })
}

func awaitGateway(t *testing.T, router string, ok func(host string) bool) (host string) {
	t.Helper()
	await(t, "the gateway to move", 30*time.Second, func(ctx context.Context) string {
		var err error
		if host, err = gatewayHost(ctx, router); err != nil {
			return err.Error()
		}
		return unless(ok(host), "it is on "+host)
	})
	return host
}

// outsidePing is a ping from the outside that goes on, ten times a second.
type outsidePing struct {
	cmd *exec.Cmd
	out strings.Builder
}

func pingOutside(t *testing.T, addr string) *outsidePing {
	t.Helper()
	p := &outsidePing{cmd: fix.lab.Command(t.Context(), lab.OutsideMachine, "timeout", "-s", "INT", "600", "ping", "-D", "-i", fmt.Sprintf("%.1f", interval.Seconds()), addr)}
	p.cmd.Stdout = &p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// stop ends the ping and counts as pinger.sum does.
func (p *outsidePing) stop(t *testing.T) losses {
	t.Helper()
	if _, err := on(t.Context(), lab.OutsideMachine, "sh", "-c", "kill -INT $(pgrep -x ping)"); err != nil {
		t.Fatal(err)
	}
	p.cmd.Wait() // its status tells of losses
	var l losses
	first, high, last, seen := 0, 0, 0.0, map[int]bool{}
	for line := range strings.Lines(p.out.String()) {
		_, rest, ok := strings.Cut(line, "icmp_seq=")
		if !ok || !strings.Contains(line, "bytes from") {
			continue
		}
		seq, err := strconv.Atoi(strings.Fields(rest)[0])
		at, err2 := strconv.ParseFloat(strings.Trim(strings.Fields(line)[0], "[]"), 64)
		if err != nil || err2 != nil {
			t.Fatalf("ping says %q", line)
		}
		if len(seen) == 0 {
			first = seq
		} else if gap := time.Duration((at - last) * float64(time.Second)); gap > l.gap {
			l.gap = gap
		}
		seen[seq], high, last = true, max(high, seq), at
	}
	l.asked = high - first + 1
	l.lost = l.asked - len(seen)
	if len(seen) == 0 {
		t.Fatalf("the outside's ping got no answer: %s", p.out.String())
	}
	return l
}

// TestGatewayDies kills, one after the other and under flowing traffic, the gateway's host, the server,
// agents and switch daemons. Three flows are watched: a guest's through the gateway, another guest's floating
// IP from outside, and between the two guests across hosts. Everything comes back without help; what must not
// be touched is not.
func TestGatewayDies(t *testing.T) {
	own := mine{t}
	healthy(t)
	public := newExternal(t, own, "public", lab.Segments()[0])
	ten := newTenant(t, own, "gateway", "member")
	n := ten.newNetwork(t, own, "gateway", "10.70.0.0/24")
	r := ten.newRouter(t, own, "gateway", public, n.subnet)
	group := ten.newGroupOf(t, own, "ping", rules.CreateOpts{EtherType: rules.EtherType4, Protocol: rules.ProtocolICMP})
	p1, p2 := ten.newPort(t, own, n, "10.70.0.11", "", group.ID), ten.newPort(t, own, n, "10.70.0.12", "", group.ID)
	g1 := ten.bootOn(t, own, order{name: "gw-1", host: "host1", port: p1.ID})
	g2 := ten.bootOn(t, own, order{name: "gw-2", host: "host2", port: p2.ID})
	f := ten.newFloating(t, own, public, p2.ID)
	moveGateway(t, r.ID, "host3")
	g1.up(t, 1)
	g2.up(t, 1)
	outside := lab.Segments()[0].V4.Addr().String()
	g1.opens(t, outside)
	await(t, "the floating IP", 30*time.Second, func(ctx context.Context) string {
		_, err := on(ctx, lab.OutsideMachine, "ping", "-c", "3", "-i", "0.2", "-W", "1", f.FloatingIP)
		if err != nil {
			return err.Error()
		}
		return ""
	})

	// watch runs the three flows while something dies.
	watch := func(what string, die func()) (through, floating, between losses) {
		t.Helper()
		a, b, c := g1.ping(t, outside), pingOutside(t, f.FloatingIP), g1.ping(t, "10.70.0.12")
		die()
		a.more(t, 20)
		c.more(t, 20)
		through, between, floating = a.stop(t), c.stop(t), b.stop(t)
		measured(t, "%s: through the gateway %s", what, through)
		measured(t, "%s: floating IP from outside %s", what, floating)
		measured(t, "%s: guest to guest %s", what, between)
		return through, floating, between
	}
	within := func(what string, l losses, limit time.Duration) {
		t.Helper()
		if l.gap > limit {
			t.Errorf("%s: away for %s, more than %s", what, l.gap, limit)
		}
	}

	through, floating, between := watch("the gateway's host loses power", func() {
		began := time.Now()
		if err := fix.lab.PowerOff("host3"); err != nil {
			t.Fatal(err)
		}
		now := awaitGateway(t, r.ID, func(h string) bool { return h != "" && h != "host3" })
		measured(t, "the API shows the gateway on %s after %.2f s", now, time.Since(began).Seconds())
	})
	within("through the gateway", through, 5*time.Second)
	if floating.lost > 0 || between.lost > 0 {
		t.Errorf("flows that the dead host had no part in lost %d and %d packets", floating.lost, between.lost)
	}
	if err := fix.lab.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	healthy(t)
	moveGateway(t, r.ID, "host3")
	g1.opens(t, outside)

	for _, d := range []struct {
		machine, unit string
		lossless      bool
	}{
		{"server", "server", true}, {"host1", "agent", true}, {"host2", "agent", true}, {"host3", "agent", true},
		{"host1", "ovsdb-server", true}, {"host3", "ovsdb-server", true}, {"host1", "ovs-vswitchd", false}, {"host2", "ovs-vswitchd", false}, {"host3", "ovs-vswitchd", false},
	} {
		what := d.unit + " on " + d.machine + " is killed"
		through, floating, between := watch(what, func() {
			kill(t, d.machine, d.unit)
			healthy(t)
		})
		for _, l := range []losses{through, floating, between} {
			if d.lossless && l.lost > 0 {
				t.Errorf("%s: %s", what, l)
			}
			within(what, l, 10*time.Second)
		}
	}
}
