package e2e_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
)

// TestServersOnVolumes: a server boots from a volume made of an image, is made an image of, and what it had written is there in a server of that image; a
// rebuild fills the volume anew.
func TestServersOnVolumes(t *testing.T) {
	own := mine{t}
	ten := newTenant(t, own, "rooted", "member")
	n := ten.newNetwork(t, own, "rooted", "10.84.0.0/24")
	user := newStock(t, ten.login)
	boot := func(name string, args ...string) *guest {
		t.Helper()
		g := &guest{name: name, began: time.Now()}
		g.id = fmt.Sprint(user.show(t, append(append([]string{"server", "create", "--flavor", "m1.nano", "--network", n.network.ID}, args...), name)...)["id"])
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
	await(t, "the snapshot of its volume", bootPatience, func(context.Context) string {
		l := user.list(t, "volume", "snapshot", "list")
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
	user.do(t, "image", "delete", image)
	for _, v := range user.list(t, "volume", "list") { // they were not to go with their servers
		id := fmt.Sprint(v["ID"])
		await(t, "a volume to be free", bootPatience, func(context.Context) string {
			status := fmt.Sprint(user.show(t, "volume", "show", id)["status"])
			return unless(status == "available", status)
		})
		user.do(t, "volume", "delete", "--purge", id)
	}
}
