package e2e_test

import (
	"context"
	"flag"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
)

var idleCount = flag.Int("idle", 1, "how often TestMoves moves an idle guest")

var moveCount = flag.Int("moves", 4, "how often TestMoves moves a running guest")

// hops waits until a guest that moves is on another host, with nothing left to do.
func (g *guest) hops(t *testing.T, from string) {
	t.Helper()
	await(t, g.name+" to be on another host", bootPatience, func(ctx context.Context) string {
		s, err := servers.Get(ctx, fix.admin.Compute, g.id).Extract()
		if err != nil {
			return err.Error()
		}
		if s.TaskState == "" && s.Status == "ACTIVE" && s.Host == from { // the attempt is over
			var list struct {
				Migrations []struct {
					Status string `json:"status"`
				} `json:"migrations"`
			}
			if err := get(ctx, "/os-migrations?instance_uuid="+g.id, &list); err == nil && len(list.Migrations) > 0 {
				t.Fatalf("%s stays on %s: migrations %+v", g.name, from, list.Migrations)
			}
		}
		return unless(s.TaskState == "" && s.Status == "ACTIVE" && s.Host != from, fmt.Sprintf("%s, task %q, on %s", s.Status, s.TaskState, s.Host))
	})
	g.detach()
	g.becomes(t, "ACTIVE")
}

// TestMoves pauses and suspends a real guest, and moves it from host to host, while it writes to its disk and talks over TCP, with nothing shared
// between the hosts: nothing that it wrote or was sent is lost, it is not started anew, and its address stays. Then it is
// moved while off, resized and taken back, and its host is drained.
func TestMoves(t *testing.T) {
	own := mine{t}
	healthy(t)
	ten := newTenant(t, own, "moves", "member")
	n := ten.newNetwork(t, own, "moves", "10.84.0.0/24")
	admin := newStock(t, fix.lab.Credentials())
	user := newStock(t, ten.login)
	peer := ten.bootOn(t, own, order{name: "moves-peer", host: "host3", network: n.network.ID})
	g := ten.boot(t, own, order{name: "moves-1", network: n.network.ID})
	peer.up(t, 1)
	g.becomes(t, "ACTIVE")
	g.addr = addressOf(t, g)
	peer.opens(t, g.addr)

	// Idle, seen from outside every 10 ms.
	probe := func() func() losses {
		t.Helper()
		p := &pinger{g: peer, addr: g.addr, file: fmt.Sprintf("/tmp/moves.%d", peer.n)}
		p.pid = peer.must(t, fmt.Sprintf("ping -D -i 0.01 %s >%s 2>&1 & echo $!", g.addr, p.file))
		p.more(t, 5)
		return func() losses { peer.must(t, "kill -INT "+p.pid); return p.sum(t) }
	}
	for range *idleCount {
		idle := probe()
		from := g.host
		admin.do(t, "server", "migrate", "--live-migration", "--wait", g.id)
		g.hops(t, from)
		l := idle()
		measured(t, "a live move of an idle guest, pings at one every 10 ms: %d of %d lost, longest gap %s", l.lost, l.asked, l.gap)
	}

	boot := g.must(t, "cat /proc/sys/kernel/random/boot_id")
	sum := g.must(t, "head -c 4194304 /dev/urandom >/root/big; sync; md5sum </root/big")
	g.must(t, "touch /root/heard; (sleep 100000 | ncat -l -k 7777 >>/root/heard) 2>/dev/null & echo")
	g.until(t, "grep -q ':1E61 ' /proc/net/tcp /proc/net/tcp6", "/proc/net/tcp") // 7777
	g.must(t, `(n=0; while [ ! -e /tmp/stop ]; do echo $n; n=$((n+1)); [ $((n%20)) != 0 ] || { dd if=/dev/urandom of=/root/junk bs=64k count=4; sync; sleep 0.05; }; done >/root/count) 2>/dev/null & echo`)
	peer.must(t, `(n=0; while [ ! -e /tmp/stop ]; do echo $n; n=$((n+1)); sleep 0.05; done | ncat `+g.addr+` 7777) >/dev/null 2>&1 & echo`)
	// The connection is the one of before all through: everything comes by it, in order.
	heard := func() int {
		t.Helper()
		var lines, bad int
		if _, err := fmt.Sscan(g.must(t, `awk '$1!=NR-1 {bad++} END {print NR, bad+0}' /root/heard`), &lines, &bad); err != nil || bad != 0 {
			t.Fatalf("over TCP came %d lines, %d of them out of order: %v", lines, bad, err)
		}
		return lines
	}
	more := func() {
		t.Helper()
		before := heard()
		await(t, "more to come over the connection of before", commandPatience, func(context.Context) string {
			return unless(heard() > before+10, "nothing more")
		})
	}
	more()
	// Held in memory, and kept on disk: it goes on where it was, and so does the connection.
	for _, hold := range []struct {
		off, on func(context.Context, *gophercloud.ServiceClient, string) error
		status  string
	}{
		{func(ctx context.Context, c *gophercloud.ServiceClient, id string) error {
			return servers.Pause(ctx, c, id).Err
		},
			func(ctx context.Context, c *gophercloud.ServiceClient, id string) error {
				return servers.Unpause(ctx, c, id).Err
			}, "PAUSED"},
		{func(ctx context.Context, c *gophercloud.ServiceClient, id string) error {
			return servers.Suspend(ctx, c, id).Err
		},
			func(ctx context.Context, c *gophercloud.ServiceClient, id string) error {
				return servers.Resume(ctx, c, id).Err
			}, "SUSPENDED"},
	} {
		if err := hold.off(t.Context(), fix.admin.Compute, g.id); err != nil {
			t.Fatal(err)
		}
		g.becomes(t, hold.status)
		g.detach()
		if err := hold.on(t.Context(), fix.admin.Compute, g.id); err != nil {
			t.Fatal(err)
		}
		g.becomes(t, "ACTIVE")
		more()
	}
	busy := probe()
	for i := range *moveCount {
		from, began := g.host, time.Now()
		if _, err := fix.admin.Compute.Post(t.Context(), fix.admin.Compute.Endpoint+"servers/"+g.id+"/action",
			map[string]any{"os-migrateLive": map[string]any{"host": nil, "block_migration": true, "disk_over_commit": false}}, nil, nil); err != nil {
			t.Fatal(err)
		}
		g.hops(t, from)
		measured(t, "live move %d, memory and disk, from %s to %s under load: %.2f s", i+1, from, g.host, time.Since(began).Seconds())
	}
	l := busy()
	measured(t, "%d live moves of a guest under load, pings at one every 10 ms: %d of %d lost, longest gap %s", *moveCount, l.lost, l.asked, l.gap)
	if got := g.must(t, "cat /proc/sys/kernel/random/boot_id"); got != boot {
		t.Errorf("it was started anew: %s, was %s", got, boot)
	}
	if got := addressOf(t, g); got != g.addr {
		t.Errorf("its address is %s, was %s", got, g.addr)
	}
	more()
	peer.must(t, "touch /tmp/stop")
	await(t, "enough lines on its disk", bootPatience, func(context.Context) string {
		n := g.must(t, "wc -l </root/count")
		lines, err := strconv.Atoi(strings.TrimSpace(n))
		return unless(err == nil && lines >= 1000, n+" lines")
	})
	g.must(t, "touch /tmp/stop; sleep 1; sync; echo 3 >/proc/sys/vm/drop_caches")
	var lines, bad int
	if _, err := fmt.Sscan(g.must(t, `awk '$1!=NR-1 {bad++} END {print NR, bad+0}' /root/count`), &lines, &bad); err != nil || bad != 0 || lines < 1000 {
		t.Errorf("of %d lines that it wrote to its disk meanwhile %d are wrong: %v", lines, bad, err)
	}
	if got := g.must(t, "md5sum </root/big"); got != sum {
		t.Errorf("its disk holds %s, was %s", got, sum)
	}
	if out, _ := g.run(t, "dmesg | grep -i -e 'not a head' -e 'I/O error' -e 'EXT4-fs error'"); out != "" {
		t.Errorf("its kernel complains: %s", out)
	}
	agrees(t)

	// Off, by the stock client; confirmed.
	from := g.host
	admin.do(t, "server", "migrate", "--wait", g.id)
	g.detach()
	g.becomes(t, "VERIFY_RESIZE")
	if g.host == from {
		t.Errorf("after a cold migration it is on %s as before", g.host)
	}
	user.do(t, "server", "migrate", "confirm", g.id)
	g.becomes(t, "ACTIVE")
	if got := g.must(t, "md5sum </root/big"); got != sum {
		t.Errorf("after a cold migration its disk holds %s, was %s", got, sum)
	}
	// Resized, and back.
	g.must(t, "echo small >/root/size; sync")
	user.do(t, "server", "resize", "--flavor", "m1.tiny", "--wait", g.id)
	g.detach()
	g.becomes(t, "VERIFY_RESIZE")
	if got := g.must(t, "awk '/MemTotal/ {print ($2 > 400000)}' /proc/meminfo"); got != "1" {
		t.Error("it has not the memory of its new flavor")
	}
	g.must(t, "echo large >/root/size; sync")
	user.do(t, "server", "resize", "revert", g.id)
	g.detach()
	g.becomes(t, "ACTIVE")
	if got := g.must(t, "cat /root/size; md5sum </root/big"); got != "small\n"+sum && strings.ReplaceAll(got, "\r", "") != "small\n"+sum {
		t.Errorf("taken back, its disk holds %q", got)
	}

	// Its host is to be repaired: the one on which none of the guests is that tests share, which are to stay where they are.
	const repaired = "host3"
	if from = g.host; from != repaired {
		if _, err := fix.admin.Compute.Post(t.Context(), fix.admin.Compute.Endpoint+"servers/"+g.id+"/action",
			map[string]any{"os-migrateLive": map[string]any{"host": repaired, "block_migration": true, "disk_over_commit": false}}, nil, nil); err != nil {
			t.Fatal(err)
		}
		g.hops(t, from)
	}
	if from = g.host; from != repaired {
		t.Fatalf("it is on %s, not on the host that was asked for", from)
	}
	boot = g.must(t, "cat /proc/sys/kernel/random/boot_id")
	g.detach()
	yakumo := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), fix.binary, args...)
		cmd.Env = admin.env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("yakumo %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	began := time.Now()
	yakumo("host", "drain", from, "--wait")
	measured(t, "a host is drained: %.2f s", time.Since(began).Seconds())
	g.becomes(t, "ACTIVE")
	if g.host == from {
		t.Errorf("it is still on %s, which was drained", from)
	}
	if got := g.must(t, "cat /proc/sys/kernel/random/boot_id"); got != boot {
		t.Error("a drain has started it anew")
	}
	yakumo("host", "undrain", from)
	agrees(t)
}
