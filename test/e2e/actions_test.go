package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
)

// becomes waits until a guest's server has the status and no task, and learns its host. The console of one that ran
// from another disk, or on another host, is opened anew.
func (g *guest) becomes(t *testing.T, status string) {
	t.Helper()
	await(t, g.name+" to be "+status, bootPatience, func(ctx context.Context) string {
		s, err := servers.Get(ctx, fix.admin.Compute, g.id).Extract()
		if err != nil {
			return err.Error()
		}
		if s.Status == "ERROR" && status != "ERROR" {
			t.Fatalf("%s is in error: %+v", g.name, s.Fault)
		}
		g.host = s.Host
		return unless(s.Status == status && s.TaskState == "", s.Status+" "+s.TaskState)
	})
}

// passwords has the agent in the guest set the password that people know, after another one; and it is refused while the agent
// does not answer, which harms nothing.
func (g *guest) passwords(t *testing.T, user *stock) {
	t.Helper()
	hash := func() string { return strings.Split(g.must(t, "grep ^cirros: /etc/shadow"), ":")[1] }
	set := func(word string) {
		t.Helper()
		await(t, "the agent to set a password", commandPatience, func(context.Context) string { // a busy machine's guest may be late to answer
			_, errs, err := user.try(t, "server", "set", "--password", word, g.id)
			return unless(err == nil, errs)
		})
	}
	set("new: one")
	if got := hash(); got != g.must(t, "mkpasswd -m sha512 -S '"+strings.Split(got, "$")[2]+"' 'new: one'") {
		t.Errorf("the password's hash is %s", got)
	}
	// The agent may do later what it did not answer to.
	g.must(t, "kill -STOP $(pidof yakumo-guest)")
	user.refused(t, "The guest agent of "+g.id+" does not answer", "server", "set", "--password", "another", g.id)
	g.must(t, "kill -CONT $(pidof yakumo-guest)")
	g.becomes(t, "ACTIVE")
	set("gocubsgo")
}

// stoodStill looks whether the guest, of which an image was made, has held its writers for that. Where its agent was too
// late to answer, as on a busy machine, another image is made.
func (g *guest) stoodStill(t *testing.T, user *stock) {
	t.Helper()
	still := func() bool {
		return strings.Contains(user.do(t, "console", "log", "show", g.id), "guest agent: file systems stood still for")
	}
	for n := 0; !still(); n++ {
		if n == 5 {
			t.Fatal("the guest was not quiesced for any of its images")
		}
		name := fmt.Sprintf("actions-again-%d", n)
		user.do(t, "server", "image", "create", "--name", name, g.id)
		g.becomes(t, "ACTIVE")
		user.do(t, "image", "delete", name)
	}
}

// TestActions does with a real guest what Nova's users do with servers, by the stock client: what the guest had in memory
// survives a pause and a suspension, and what it has written a rescue, a shelf and an image, but no rebuild.
func TestActions(t *testing.T) {
	own := mine{t}
	ten := newTenant(t, own, "actions", "member")
	n := ten.newNetwork(t, own, "actions", "10.81.0.0/24")
	side := ten.newNetwork(t, own, "actions-side", "10.82.0.0/24")
	user := newStock(t, ten.login)
	g := ten.boot(t, own, order{name: "actions-1", network: n.network.ID})
	g.becomes(t, "ACTIVE")
	began := time.Now()
	took := func(what string) {
		t.Helper()
		measured(t, "%s, with the stock client: %.2f s", what, time.Since(began).Seconds())
		began = time.Now()
	}
	boot := g.must(t, "echo kept >/root/kept; sync; cat /proc/sys/kernel/random/boot_id")
	uptime := func() float64 {
		t.Helper()
		up, err := strconv.ParseFloat(strings.Fields(g.must(t, "cat /proc/uptime"))[0], 64)
		if err != nil {
			t.Fatal(err)
		}
		return up
	}
	same := func() {
		t.Helper()
		if got := g.must(t, "cat /proc/sys/kernel/random/boot_id"); got != boot {
			t.Errorf("the guest was started anew: boot id %s, was %s", got, boot)
		}
	}
	kept := func(g *guest) {
		t.Helper()
		if got := g.must(t, "cat /root/kept"); got != "kept" {
			t.Errorf("%s: the file holds %q", g.name, got)
		}
	}
	took("the first shell")

	user.do(t, "server", "pause", g.id)
	g.becomes(t, "PAUSED")
	user.refused(t, "while it is in vm_state paused", "server", "suspend", g.id)
	user.do(t, "server", "unpause", g.id)
	g.becomes(t, "ACTIVE")
	same()
	took("paused and on again")

	before := uptime()
	user.do(t, "server", "suspend", g.id)
	g.becomes(t, "SUSPENDED")
	g.detach()
	user.do(t, "server", "resume", g.id)
	g.becomes(t, "ACTIVE")
	same()
	if after := uptime(); after < before {
		t.Errorf("uptime %.2f s after the suspension, %.2f s before", after, before)
	}
	took("suspended and resumed")

	user.do(t, "server", "add", "network", g.id, side.network.ID)
	g.until(t, "[ -e /sys/class/net/eth1 ]", "/proc/net/dev")
	var plugged string
	for _, p := range user.list(t, "port", "list", "--server", g.id, "--network", side.network.ID) {
		plugged = fmt.Sprint(p["ID"])
	}
	await(t, "the port to be wired", commandPatience, func(context.Context) string {
		return unless(user.show(t, "port", "show", plugged)["status"] == "ACTIVE", "not yet")
	})
	user.do(t, "server", "remove", "port", g.id, plugged)
	g.until(t, "[ ! -e /sys/class/net/eth1 ]", "/proc/net/dev")
	await(t, "the port to go", commandPatience, func(context.Context) string {
		return unless(len(user.list(t, "port", "list", "--network", side.network.ID)) == 0, "it stays")
	})
	same()
	took("an interface plugged in and out")

	g.passwords(t, user)
	took("its password changed")

	user.do(t, "server", "image", "create", "--name", "actions-image", g.id)
	g.becomes(t, "ACTIVE")
	g.stoodStill(t, user)
	image := user.show(t, "image", "show", "actions-image")
	if image["status"] != "active" {
		t.Errorf("the image: %v", image)
	}
	t.Cleanup(func() { user.cleanup(t, "image", "delete", fmt.Sprint(image["id"])) })
	took("an image made of it")
	copied := ten.boot(t, own, order{name: "actions-2", network: n.network.ID, image: fmt.Sprint(image["id"])})

	g.detach()
	user.do(t, "server", "rescue", g.id)
	g.becomes(t, "RESCUE")
	if out, status := g.run(t, "[ ! -e /root/kept ] && mkdir -p /mnt/own && for d in /dev/vdb /dev/vdb?*; do mount $d /mnt/own 2>/dev/null && [ -e /mnt/own/root/kept ] && break; umount /mnt/own 2>/dev/null; done; cat /mnt/own/root/kept && umount /mnt/own"); status != 0 || out != "kept" {
		t.Errorf("the rescue does not see the guest's own disk: %d %s", status, out)
	}
	g.detach()
	user.do(t, "server", "unrescue", g.id)
	g.becomes(t, "ACTIVE")
	kept(g)
	took("rescued and unrescued")

	copied.becomes(t, "ACTIVE")
	kept(copied)
	copied.detach()
	took("the server of the image")

	g.must(t, "echo more >/root/more; sync")
	g.detach()
	user.do(t, "server", "shelve", g.id)
	g.becomes(t, "SHELVED_OFFLOADED")
	if g.host != "" {
		t.Errorf("a server on its shelf is on %s", g.host)
	}
	user.do(t, "server", "unshelve", g.id)
	g.becomes(t, "ACTIVE")
	kept(g)
	if got := g.must(t, "cat /root/more"); got != "more" {
		t.Errorf("after the shelf the file holds %q", got)
	}
	took("shelved and unshelved")

	g.detach()
	user.do(t, "server", "rebuild", "--image", fix.image, g.id)
	g.becomes(t, "ACTIVE")
	if _, status := g.run(t, "[ ! -e /root/kept ] && [ ! -e /root/more ]"); status != 0 {
		t.Error("the rebuilt guest has what it had before")
	}
	took("rebuilt")

	var actions []string
	for _, e := range user.list(t, "server", "event", "list", g.id) {
		actions = append(actions, fmt.Sprint(e["Action"]))
	}
	for _, want := range []string{"create", "pause", "unpause", "suspend", "resume", "attach_interface", "detach_interface", "changePassword", "createImage", "rescue", "unrescue", "shelve", "unshelve", "rebuild"} {
		if !slices.Contains(actions, want) {
			t.Errorf("the events do not tell of %s: %v", want, actions)
		}
	}
}
