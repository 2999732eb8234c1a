package e2e_test

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestEnvironmentMoves: a tenant's whole environment moves to another place by one call of his own, and back by another: the running server goes on,
// its network and address are the same, and so is what its volume holds. Others stay where they are.
func TestEnvironmentMoves(t *testing.T) {
	own := mine{t}
	w := shared(t)
	admin := newStock(t, fix.lab.Credentials())
	zone := fmt.Sprint(admin.show(t, "aggregate", "create", "--zone", "far", "far")["id"])
	defer func() {
		admin.do(t, "aggregate", "remove", "host", zone, "host3")
		admin.do(t, "aggregate", "delete", zone)
	}()
	admin.do(t, "aggregate", "add", "host", zone, "host3")

	ten := newTenant(t, own, "nomads", "member")
	n := ten.newNetwork(t, own, "nomads", "10.85.0.0/24")
	user := newStock(t, ten.login)
	g := ten.bootOn(t, own, order{name: "nomad", network: n.network.ID, host: "host2"})
	v := fmt.Sprint(user.show(t, "volume", "create", "--size", "1", "baggage")["id"])
	g.becomes(t, "ACTIVE")
	volume := func(what string, ok func(status, host string) bool) {
		t.Helper()
		await(t, "the volume to be "+what, bootPatience, func(context.Context) string {
			x := admin.show(t, "volume", "show", v)
			status, host := fmt.Sprint(x["status"]), fmt.Sprint(x["os-vol-host-attr:host"])
			return unless(ok(status, host), status+" on "+host)
		})
	}
	available := func(status, _ string) bool { return status == "available" }
	volume("available", available)
	user.do(t, "server", "add", "volume", g.id, v)
	g.until(t, "[ -b /dev/vdb ]", "/proc/partitions")
	sum := g.must(t, "head -c 4194304 /dev/urandom >/tmp/b; dd if=/tmp/b of=/dev/vdb bs=1M 2>/dev/null; sync; md5sum </tmp/b")
	const life = "cat /proc/sys/kernel/random/boot_id /sys/class/net/eth0/address; ip -4 -o addr show dev eth0"
	before := g.must(t, life)

	yakumo := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), fix.binary, append([]string{"environment"}, args...)...)
		cmd.Env = user.env
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := yakumo("move", "nowhere"); err == nil || !strings.Contains(out, "no availability zone") {
		t.Errorf("to a zone that is not: %v: %s", err, out)
	}
	for _, to := range []string{"far", "nova"} {
		began := time.Now()
		if out, err := yakumo("move", to, "--wait", "--every", "200ms", "--timeout", "5m"); err != nil || !strings.Contains(out, "is in "+to) {
			t.Fatalf("to %s: %v: %s", to, err, out)
		}
		measured(t, "an environment of a running server and its volume moves to another zone: %.2f s", time.Since(began).Seconds())
		g.detach()
		g.becomes(t, "ACTIVE")
		if (g.host == "host3") != (to == "far") {
			t.Errorf("in %s, the server is on %s", to, g.host)
		}
		if got := g.must(t, life); got != before {
			t.Errorf("in %s it is\n%s\nand not\n%s", to, got, before)
		}
		volume("there, under its server", func(status, host string) bool {
			return status == "in-use" && strings.HasPrefix(host, "host3@") == (to == "far")
		})
	}
	if got := g.must(t, "sync; echo 3 >/proc/sys/vm/drop_caches; head -c 4194304 /dev/vdb | md5sum"); got != sum {
		t.Errorf("the volume holds %s, not %s", got, sum)
	}
	user.do(t, "server", "remove", "volume", g.id, v)
	volume("available", available)
	user.do(t, "volume", "delete", v)
	if out, err := yakumo("release"); err != nil {
		t.Errorf("release: %v: %s", err, out)
	}
	w.blue1.opens(t, w.blue2.addr) // nobody else has moved or been cut off
	agrees(t)
}
