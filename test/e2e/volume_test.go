package e2e_test

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// TestVolumes: a volume goes from a guest to one on another host with its bytes, grows, and is copied by way of a
// snapshot.
func TestVolumes(t *testing.T) {
	own := mine{t}
	ten := newTenant(t, own, "volumes", "member")
	n := ten.newNetwork(t, own, "volumes", "10.83.0.0/24")
	user := newStock(t, ten.login)
	one := ten.boot(t, own, order{name: "volumes-1", network: n.network.ID, host: "host1"})
	two := ten.boot(t, own, order{name: "volumes-2", network: n.network.ID, host: "host2"})
	one.becomes(t, "ACTIVE")
	two.becomes(t, "ACTIVE")
	began := time.Now()
	took := func(what string) {
		t.Helper()
		measured(t, "%s: %.2f s", what, time.Since(began).Seconds())
		began = time.Now()
	}
	made := func(kind string, args ...string) string {
		t.Helper()
		id := fmt.Sprint(user.show(t, append([]string{"volume"}, args...)...)["id"])
		await(t, kind+" to be available", bootPatience, func(context.Context) string {
			show := []string{"volume", "show", id}
			if kind != "volume" {
				show = []string{"volume", kind, "show", id}
			}
			status := fmt.Sprint(user.show(t, show...)["status"])
			return unless(status == "available", status)
		})
		return id
	}
	is := func(id, want string) {
		t.Helper()
		await(t, "the volume to be "+want, bootPatience, func(context.Context) string {
			status := fmt.Sprint(user.show(t, "volume", "show", id)["status"])
			return unless(status == want, status)
		})
	}
	v := made("volume", "create", "--size", "1", "data")
	took("a volume is made")

	user.do(t, "server", "add", "volume", one.id, v)
	is(v, "in-use")
	one.until(t, "[ -b /dev/vdb ]", "/proc/partitions")
	sum := one.must(t, "head -c 8388608 /dev/urandom >/tmp/b; dd if=/tmp/b of=/dev/vdb bs=1M 2>/dev/null; sync; md5sum </tmp/b")
	user.do(t, "server", "remove", "volume", one.id, v)
	is(v, "available")
	one.until(t, "[ ! -b /dev/vdb ]", "/proc/partitions")
	user.do(t, "server", "add", "volume", two.id, v)
	two.until(t, "[ -b /dev/vdb ]", "/proc/partitions")
	const read = "head -c 8388608 /dev/vdb | md5sum"
	if got := two.must(t, read); got != sum {
		t.Errorf("the other guest reads %s, want %s", got, sum)
	}
	took("written in one guest, read in one on another host")

	is(v, "in-use")
	user.do(t, "server", "remove", "volume", two.id, v)
	is(v, "available")
	two.until(t, "[ ! -b /dev/vdb ]", "/proc/partitions")
	user.do(t, "volume", "set", "--size", "2", v)
	is(v, "available")
	user.do(t, "server", "add", "volume", two.id, v)
	two.until(t, "[ -b /dev/vdb ] && [ $(cat /sys/block/vdb/size) = 4194304 ]", "/proc/partitions")
	is(v, "in-use")
	user.do(t, "server", "remove", "volume", two.id, v)
	is(v, "available")
	took("grown")

	snap := made("snapshot", "snapshot", "create", "--volume", v, "data-snap")
	fromSnap := made("volume", "create", "--snapshot", snap, "from-snap")
	user.do(t, "server", "add", "volume", one.id, fromSnap)
	one.until(t, "[ -b /dev/vdb ]", "/proc/partitions")
	if got := one.must(t, read); got != sum {
		t.Errorf("a copy holds %s, want %s", got, sum)
	}
	is(fromSnap, "in-use")
	user.do(t, "server", "remove", "volume", one.id, fromSnap)
	is(fromSnap, "available")
	took("copied by a snapshot")
	user.do(t, "volume", "delete", fromSnap)
	user.do(t, "volume", "delete", "--purge", v)
}
