package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestVolumes: a volume goes from a guest to one on another host with its bytes, grows under it, is copied by way of a snapshot, a backup and an image, and given
// to another project.
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

	// It grows under the guest, which goes on: as a guest of the volume's host, or of another.
	is(v, "in-use")
	user.do(t, "--os-volume-api-version", "3.42", "volume", "set", "--size", "2", v)
	two.until(t, "[ $(cat /sys/block/vdb/size) = 4194304 ]", "/proc/partitions")
	is(v, "in-use")
	if got := two.must(t, "dd if=/dev/zero of=/dev/vdb bs=1M seek=2047 count=1 2>/dev/null; sync; echo 3 >/proc/sys/vm/drop_caches; "+read); got != sum {
		t.Errorf("after its growth the volume holds %s, want %s", got, sum)
	}
	two.becomes(t, "ACTIVE")
	took("grown under a guest")

	// It goes from host to host, to the shared folder and to the guest's own host under the guest, which goes on writing to it.
	admin := newStock(t, fix.lab.Credentials())
	for kind, engine := range map[string]string{"volumes-files": "local", "volumes-shared": "nfs"} {
		admin.show(t, "volume", "type", "create", "--property", "volume_backend_name="+engine, kind)
		t.Cleanup(func() { admin.cleanup(t, "volume", "type", "delete", kind) })
	}
	two.must(t, "touch /tmp/on; (i=0; while [ -e /tmp/on ]; do i=$((i+1)); echo $i | dd of=/dev/vdb bs=512 seek=3000000 conv=sync,fsync 2>/dev/null && echo $i >/tmp/last; done) >/dev/null 2>&1 &")
	counts := "n=$(cat /tmp/last); [ $n -gt 0 ]; until [ $(cat /tmp/last) -gt $n ]; do sleep 0.1; done"
	two.until(t, "[ -s /tmp/last ]", "/proc/partitions")
	boot := two.must(t, "cat /proc/sys/kernel/random/boot_id")
	place := func() string { return fmt.Sprint(admin.show(t, "volume", "show", v)["os-vol-host-attr:host"]) }
	goes := func(to string, args ...string) {
		t.Helper()
		admin.do(t, append([]string{"volume"}, args...)...)
		await(t, "the volume to be at "+to, bootPatience, func(context.Context) string {
			x := admin.show(t, "volume", "show", v)
			return unless(x["status"] == "in-use" && x["migration_status"] == "success" && strings.HasPrefix(fmt.Sprint(x["os-vol-host-attr:host"]), to), fmt.Sprint(x["status"], x["migration_status"], x["os-vol-host-attr:host"]))
		})
		two.must(t, counts)
		if got := two.must(t, "echo 3 >/proc/sys/vm/drop_caches; "+read); got != sum {
			t.Errorf("at %s the volume holds %s, want %s", to, got, sum)
		}
		// The place where it was is cleared beside.
		await(t, "nothing to be left elsewhere", bootPatience, func(context.Context) string {
			_, errs, err := admin.try(t, "volume", "migrate", "--host", "nobody@local#local", v)
			return unless(err != nil && !strings.Contains(errs, "still clears"), errs)
		})
	}
	next := "host3"
	if strings.HasPrefix(place(), next) {
		next = "host1"
	}
	goes(next, "migrate", "--host", next+"@local#local", v)
	goes("host2@nfs", "set", "--type", "volumes-shared", "--retype-policy", "on-demand", v)
	goes("host2@local", "set", "--type", "volumes-files", "--retype-policy", "on-demand", v)
	took("from host to host, to a shared folder and back under a guest that writes")
	if got := two.must(t, "rm /tmp/on; wait; sleep 1; cat /proc/sys/kernel/random/boot_id"); got != boot {
		t.Errorf("the guest was started anew: %s, %s", got, boot)
	}
	if got := two.must(t, "sync; echo 3 >/proc/sys/vm/drop_caches; [ $(dd if=/dev/vdb bs=512 skip=3000000 count=1 2>/dev/null | tr -d '\\0') = $(cat /tmp/last) ] && echo same; dmesg | grep -c 'I/O error'; true"); got != "same\n0" {
		t.Errorf("the last number on the volume is not the guest's last, or it has seen errors: %q", got)
	}
	user.do(t, "server", "remove", "volume", two.id, v)
	is(v, "available")

	// All ways to copy it, read by one guest.
	snap := made("snapshot", "snapshot", "create", "--volume", v, "data-snap")
	fromSnap := made("volume", "create", "--snapshot", snap, "from-snap")
	backup := made("backup", "backup", "create", "--name", "data-backup", v)
	// This client asks, and then fails to show what it was told.
	if _, errs, err := user.try(t, "volume", "backup", "restore", backup, "restored"); err != nil && !strings.Contains(errs, "cannot unpack") {
		t.Fatalf("restore a backup: %v\n%s", err, errs)
	}
	restored := fmt.Sprint(user.show(t, "volume", "show", "restored")["id"])
	is(restored, "available")
	is(v, "available")
	uploaded := fmt.Sprint(user.show(t, "image", "create", "--volume", v, "--disk-format", "qcow2", "data-image")["image_id"])
	t.Cleanup(func() { user.cleanup(t, "image", "delete", uploaded) })
	await(t, "the image of the volume", bootPatience, func(context.Context) string {
		status := fmt.Sprint(user.show(t, "image", "show", uploaded)["status"])
		return unless(status == "active", status)
	})
	fromImage := made("volume", "create", "--image", uploaded, "--size", "2", "from-image")
	for i, copied := range []string{fromSnap, restored, fromImage} {
		is(copied, "available")
		user.do(t, "server", "add", "volume", one.id, copied)
		dev := "/dev/vd" + string(rune('b'+i))
		one.until(t, "[ -b "+dev+" ]", "/proc/partitions")
		if got := one.must(t, "head -c 8388608 "+dev+" | md5sum"); got != sum {
			t.Errorf("%s holds %s, want %s", []string{"a volume of a snapshot", "a restored backup", "a volume of an image"}[i], got, sum)
		}
		is(copied, "in-use")
	}
	for _, copied := range []string{fromSnap, restored, fromImage} {
		user.do(t, "server", "remove", "volume", one.id, copied)
	}
	for _, copied := range []string{fromSnap, restored, fromImage} {
		is(copied, "available")
	}
	user.do(t, "volume", "backup", "delete", backup)
	user.do(t, "volume", "delete", restored, fromImage)
	took("copied by a snapshot, a backup and an image")

	// It goes to another project, with its bytes and snapshots.
	other := newTenant(t, own, "volumes-other", "member")
	taker := newStock(t, other.login)
	offer := user.show(t, "volume", "transfer", "request", "create", fromSnap)
	taker.do(t, "volume", "transfer", "request", "accept", "--auth-key", fmt.Sprint(offer["auth_key"]), fmt.Sprint(offer["id"]))
	user.refused(t, "No volume", "volume", "show", fromSnap)
	want(t, taker.show(t, "volume", "show", fromSnap), "status", "available", "size", "2")
	taker.do(t, "volume", "delete", fromSnap)
	user.do(t, "volume", "delete", "--purge", v)
	took("given away")
}
