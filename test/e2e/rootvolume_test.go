package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
)

// TestServersOnVolumes: a server boots from a volume made of an image, is made an image of, and what it had written is there in a server of that image; a
// rebuild fills the volume anew. One of the image's snapshot has two volumes more, of which one goes with it; it moves, and nothing is copied.
func TestServersOnVolumes(t *testing.T) {
	own := mine{t}
	ten := newTenant(t, own, "rooted", "member")
	n := ten.newNetwork(t, own, "rooted", "10.84.0.0/24")
	user := newStock(t, ten.login)
	boot := func(name string, args ...string) *guest {
		t.Helper()
		g := &guest{name: name, began: time.Now()}
		g.id = fmt.Sprint(user.show(t, append(append([]string{"--os-compute-api-version", "2.67", "server", "create", "--flavor", "m1.nano", "--network", n.network.ID}, args...), name)...)["id"])
		own.later(func(t *testing.T) { g.remove(t) })
		g.becomes(t, "ACTIVE")
		return g
	}
	one := boot("rooted-1", "--image", fix.image, "--boot-from-volume", "1")
	const write = "echo something to be kept | dd of=/dev/vda bs=1M seek=1000 conv=notrunc 2>/dev/null; sync"
	const read = "dd if=/dev/vda bs=1M skip=1000 count=1 2>/dev/null | head -c 20"
	one.must(t, write)
	if got := user.show(t, "server", "show", one.id); fmt.Sprint(got["image"]) != "N/A (booted from volume)" {
		t.Errorf("its image is shown as %v", got["image"])
	}
	image := fmt.Sprint(user.show(t, "server", "image", "create", "--name", "rooted-image", one.id)["id"])
	snapshot := ""
	await(t, "the snapshot of its volume", bootPatience, func(context.Context) string {
		l := user.list(t, "volume", "snapshot", "list")
		if len(l) > 0 {
			snapshot = fmt.Sprint(l[0]["ID"])
		}
		return unless(len(l) == 1 && fmt.Sprint(l[0]["Status"]) == "available", fmt.Sprint(l))
	})
	two := boot("rooted-2", "--image", image)
	if got := two.must(t, read); got != "something to be kept" {
		t.Errorf("a server of the image reads %q", got)
	}
	measured(t, "a server on a volume, its image and a server of that: %.2f s", time.Since(one.began).Seconds())

	began := time.Now()
	client := *ten.member.Compute
	client.Microversion = "2.93" // the stock client knows 2.92
	if _, err := servers.Rebuild(t.Context(), &client, two.id, servers.RebuildOpts{ImageRef: fix.image}).Extract(); err != nil {
		t.Fatal(err)
	}
	two.detach()
	two.becomes(t, "ACTIVE")
	if got := two.must(t, "echo up"); got != "up" {
		t.Errorf("after a rebuild it says %q", got)
	}
	measured(t, "its volume filled anew: %.2f s", time.Since(began).Seconds())

	one.remove(t)
	two.remove(t)

	// A server of the snapshot, with two volumes more; it moves, and takes nothing along.
	admin := newStock(t, fix.lab.Credentials())
	kind := fmt.Sprint(admin.show(t, "volume", "type", "create", "--property", "volume_backend_name=nfs", "rooted-nfs")["id"])
	t.Cleanup(func() { admin.cleanup(t, "volume", "type", "delete", kind) })
	const blank = "source_type=blank,destination_type=volume,volume_size=1,"
	three := boot("rooted-3", "--snapshot", snapshot,
		"--block-device", blank+"volume_type=rooted-nfs,delete_on_termination=true", "--block-device", blank+"delete_on_termination=false")
	if got := three.must(t, read); got != "something to be kept" {
		t.Errorf("a server of the snapshot reads %q", got)
	}
	sum := three.must(t, "head -c 4194304 /dev/urandom | tee /dev/vdc >/dev/vdb; sync; head -c 4194304 /dev/vdb | md5sum")
	var volumes []string // vda, vdb, vdc
	for _, v := range user.show(t, "server", "show", three.id)["volumes_attached"].([]any) {
		volumes = append(volumes, fmt.Sprint(v.(map[string]any)["id"]))
	}
	if len(volumes) != 3 {
		t.Fatalf("its volumes are %v", volumes)
	}
	files := func() (out [3]string) {
		t.Helper()
		for i, id := range volumes {
			local, err := filepath.Glob(fix.lab.MachineDir("host*/state/local/" + id + "/disk.qcow2"))
			shared, err2 := filepath.Glob(filepath.Join(fix.lab.Dir(), "shared", id, "disk.qcow2"))
			if err := errors.Join(err, err2); err != nil {
				t.Fatal(err)
			}
			out[i] = strings.Join(append(local, shared...), " ")
		}
		return out
	}
	at, from := files(), three.host
	if slices.Contains(at[:], "") {
		t.Fatalf("its volumes are the files %q", at)
	}
	began = time.Now()
	admin.do(t, "server", "migrate", "--live-migration", three.id)
	three.hops(t, from)
	measured(t, "a live move of a server whose disks are volumes: %.2f s", time.Since(began).Seconds())
	if got := three.must(t, "echo 3 >/proc/sys/vm/drop_caches; head -c 4194304 /dev/vdb | md5sum; head -c 4194304 /dev/vdc | md5sum"); got != sum+"\n"+sum {
		t.Errorf("after a move its volumes hold %s, want %s", got, sum)
	}
	if own, err := filepath.Glob(fix.lab.MachineDir("host*/state/servers/" + three.id + "/disk*")); err != nil || len(own) > 0 || files() != at {
		t.Errorf("its volumes were %q and are %q; besides there are %q, %v", at, files(), own, err)
	}
	three.remove(t)
	var left []map[string]any
	await(t, "the volume to go that goes with its server", bootPatience, func(context.Context) string {
		left = user.list(t, "volume", "list")
		return unless(!strings.Contains(fmt.Sprint(left), volumes[1]), "it is there")
	})
	if now := files(); now != [3]string{at[0], "", at[2]} {
		t.Errorf("the volumes' files were %q, and are %q", at, now)
	}
	user.do(t, "image", "delete", image)
	for _, v := range left { // they were not to go with their servers
		id := fmt.Sprint(v["ID"])
		await(t, "a volume to be free", bootPatience, func(context.Context) string {
			status := fmt.Sprint(user.show(t, "volume", "show", id)["status"])
			return unless(status == "available", status)
		})
		user.do(t, "volume", "delete", "--purge", id)
	}
}
