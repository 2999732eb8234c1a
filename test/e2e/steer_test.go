package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
)

// throttle has what a host sends to others go out at a rate as tc(8) writes it; "": as fast as it can.
func throttle(t *testing.T, host, rate string) {
	t.Helper()
	argv := []string{"tc", "qdisc", "del", "dev", "eth2", "root"}
	if rate != "" {
		argv = []string{"tc", "qdisc", "replace", "dev", "eth2", "root", "tbf", "rate", rate, "burst", "64kb", "latency", "500ms"}
	}
	if _, err := on(context.WithoutCancel(t.Context()), host, argv...); err != nil {
		t.Fatal(err)
	}
}

// underWay is a live move as the API shows it.
type underWay struct {
	ID     int64  `json:"id"`
	Status string `json:"status"`
	Memory int64  `json:"memory_processed_bytes"`
	Disk   int64  `json:"disk_total_bytes"`
}

// sets has a guest begin a live move, by a way so narrow that it does not end, and gives its number when the phase has come.
func (g *guest) sets(t *testing.T, phase string) string {
	t.Helper()
	throttle(t, g.host, "4mbit")
	if _, err := fix.admin.Compute.Post(t.Context(), fix.admin.Compute.Endpoint+"servers/"+g.id+"/action",
		map[string]any{"os-migrateLive": map[string]any{"host": nil, "block_migration": true, "disk_over_commit": false}}, nil, nil); err != nil {
		t.Fatal(err)
	}
	var m underWay
	await(t, g.name+"'s move to copy its "+phase, bootPatience, func(ctx context.Context) string {
		var list struct {
			Migrations []underWay `json:"migrations"`
		}
		c := *fix.admin.Compute
		c.Microversion = "2.23" // the first with migrations of a server
		if _, err := c.Get(ctx, c.Endpoint+"servers/"+g.id+"/migrations", &list, nil); err != nil {
			return err.Error()
		}
		if len(list.Migrations) != 1 {
			return fmt.Sprintf("%d moves are under way", len(list.Migrations))
		}
		m = list.Migrations[0]
		return unless(m.Status == "running" && (phase == "disk" && m.Disk > 0 && m.Memory == 0 || phase == "memory" && m.Memory > 0), fmt.Sprintf("%+v", m))
	})
	throttle(t, g.host, "256kbit")
	return fmt.Sprint(m.ID)
}

// steered moves a guest live, shows how far that has come, ends it while its disk and while its memory is copied, and has it
// complete at once: with the stock client.
func (g *guest) steered(t *testing.T, admin *stock) {
	t.Helper()
	migration := func(verb ...string) []string {
		return append([]string{"--os-compute-api-version", "2.80", "server", "migration"}, verb...)
	}
	boot := g.must(t, "head -c 8388608 /dev/urandom >/root/ballast; sync; cat /proc/sys/kernel/random/boot_id")
	from := g.host
	for _, phase := range []string{"disk", "memory"} {
		id := g.sets(t, phase)
		shown := admin.show(t, migration("show", g.id, id)...)
		copied := false
		for name, value := range shown {
			copied = copied || strings.Contains(strings.ToLower(name), phase) && strings.Contains(strings.ToLower(name), "bytes") && fmt.Sprint(value) != "0"
		}
		if fmt.Sprint(shown["Status"]) != "running" || !copied {
			t.Errorf("while its %s is copied the client shows %v", phase, shown)
		}
		admin.do(t, migration("abort", g.id, id)...)
		throttle(t, from, "")
		g.becomes(t, "ACTIVE")
		has(t, admin.list(t, migration("list", "--server", g.id, "--status", "cancelled")...), "Id", id)
		if g.host != from {
			t.Fatalf("its move was ended, and it is on %s, was on %s", g.host, from)
		}
		if got := g.must(t, "cat /proc/sys/kernel/random/boot_id"); got != boot {
			t.Errorf("a move that was ended has started it anew")
		}
	}
	id := g.sets(t, "memory")
	admin.do(t, migration("force", "complete", g.id, id)...)
	throttle(t, from, "")
	g.hops(t, from)
	if got := g.must(t, "cat /proc/sys/kernel/random/boot_id"); got != boot {
		t.Error("a move that was to complete has started it anew")
	}
	g.must(t, "rm /root/ballast")
}

// movesHeld moves a guest that its user has paused: it is paused where it comes, and goes on there.
func (g *guest) movesHeld(t *testing.T, admin, user *stock) {
	t.Helper()
	boot, from := g.must(t, "cat /proc/sys/kernel/random/boot_id"), g.host
	user.do(t, "server", "pause", g.id)
	g.becomes(t, "PAUSED")
	admin.do(t, "--os-compute-api-version", "2.30", "server", "migrate", "--live-migration", g.id)
	await(t, g.name+" to be paused on another host", bootPatience, func(ctx context.Context) string {
		s, err := servers.Get(ctx, fix.admin.Compute, g.id).Extract()
		if err != nil {
			return err.Error()
		}
		return unless(s.Status == "PAUSED" && s.TaskState == "" && s.Host != from, fmt.Sprintf("%s, task %q, on %s", s.Status, s.TaskState, s.Host))
	})
	user.do(t, "server", "unpause", g.id)
	g.detach()
	g.becomes(t, "ACTIVE")
	if got := g.must(t, "cat /proc/sys/kernel/random/boot_id"); got != boot {
		t.Error("a move while it was paused has started it anew")
	}
}

// TestMovesSteered is what an administrator may do to a live move, on a real guest.
func TestMovesSteered(t *testing.T) {
	own := mine{t}
	healthy(t)
	ten := newTenant(t, own, "steered", "member")
	n := ten.newNetwork(t, own, "steered", "10.85.0.0/24")
	g := ten.boot(t, own, order{name: "steered-1", network: n.network.ID})
	g.becomes(t, "ACTIVE")
	t.Cleanup(func() {
		for _, h := range []string{"host1", "host2", "host3"} {
			_, _ = on(context.Background(), h, "tc", "qdisc", "del", "dev", "eth2", "root") // there may be none
		}
	})
	admin := newStock(t, fix.lab.Credentials())
	g.steered(t, admin)
	g.movesHeld(t, admin, newStock(t, ten.login))
	agrees(t)
}
