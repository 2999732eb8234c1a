package e2e_test

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/rules"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"

	"yakumo/lab"
)

// vrrpImage is yakumo-mini with Debian's keepalived, made here, for no other test needs it.
func vrrpImage(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "vrrp.qcow2")
	if out, err := exec.CommandContext(t.Context(), "../../images/mini/build.sh", file, "keepalived").CombinedOutput(); err != nil {
		t.Fatalf("build the image: %v: %s", err, out)
	}
	id, err := lab.EnsureImage(t.Context(), fix.admin, "vrrp", file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { gone(t, "image vrrp", images.Delete(context.Background(), fix.admin.Image, id).ExtractErr()) })
	return id
}

// TestVRRP runs the real keepalived in two guests on two hosts, whose ports may use one more address.
// The address is where the master is; when the master's keepalived dies, or its guest is cut off, the
// other one has it soon, for a client on a third host too.
func TestVRRP(t *testing.T) {
	const shared = "10.60.0.100"
	own := mine{t}
	image := vrrpImage(t)
	ten := newTenant(t, own, "vrrp", "member")
	n := ten.newNetwork(t, own, "vrrp", "10.60.0.0/24")
	g := ten.newGroupOf(t, own, "vrrp", rules.CreateOpts{EtherType: rules.EtherType4, Protocol: rules.ProtocolICMP})
	ten.permit(t, g.ID, rules.CreateOpts{EtherType: rules.EtherType4, Protocol: rules.ProtocolVRRP, RemoteGroupID: g.ID})
	pair := []ports.AddressPair{{IPAddress: shared}}
	var router [2]*guest
	for i, priority := range []int{100, 90} {
		p := ten.newPort(t, own, n, fmt.Sprintf("10.60.0.1%d", i+1), "", g.ID)
		if _, err := ports.Update(t.Context(), ten.member.Network, p.ID, ports.UpdateOpts{AllowedAddressPairs: &pair}).Extract(); err != nil {
			t.Fatal(err)
		}
		conf := fmt.Sprintf("vrrp_instance V {\n state BACKUP\n interface eth0\n virtual_router_id 51\n priority %d\n advert_int 1\n virtual_ipaddress {\n  %s/24\n }\n}\n", priority, shared)
		data := "#!/bin/sh\nmkdir -p /etc/keepalived\ncat >/etc/keepalived/keepalived.conf <<'END'\n" + conf + "END\n"
		router[i] = ten.bootOn(t, own, order{name: fmt.Sprintf("vrrp-%d", i+1), host: lab.HostName(i + 1), port: p.ID, userData: data, image: image})
	}
	client := ten.bootOn(t, own, order{name: "vrrp-client", host: "host3", port: ten.newPort(t, own, n, "10.60.0.20", "", g.ID).ID})
	for _, g := range []*guest{router[0], router[1], client} {
		g.up(t, 1)
		g.attach(t)
	}
	start := func(g *guest) {
		g.until(t, "[ -s /etc/keepalived/keepalived.conf ]", "/var/log/user-data.log")
		g.must(t, "keepalived -P -l -D -p /run/keepalived.pid -r /run/vrrp.pid >/tmp/keepalived 2>&1")
	}
	holds := func(g *guest) bool {
		_, status := g.run(t, "ip -4 addr show dev eth0 | grep -q 'inet "+shared+"/'")
		return status == 0
	}
	master := func(when string, want, other *guest) {
		t.Helper()
		began := time.Now()
		await(t, want.name+" to be master "+when, bootPatience, func(context.Context) string {
			if !holds(want) {
				out, _ := want.run(t, "tail -n 20 /var/log/messages | grep -i keepalived")
				return "it has not the address: " + out
			}
			return unless(!holds(other), other.name+" has the address too")
		})
		client.opens(t, shared)
		measured(t, "%s is master %s, and reached, after %.1f s", want.name, when, time.Since(began).Seconds())
	}
	start(router[0])
	start(router[1])
	master("at first", router[0], router[1])

	// The daemon dies without a word; then it comes back and takes over by its priority.
	p := client.ping(t, shared)
	router[0].must(t, "kill -9 $(cat /run/keepalived.pid) $(cat /run/vrrp.pid); ip addr del "+shared+"/24 dev eth0; rm -f /run/*.pid")
	master("after the first one's death", router[1], router[0])
	start(router[0])
	master("when the first one is back", router[0], router[1])
	l := p.stop(t)
	measured(t, "client's ping of the shared address over both moves: %s", l)
	if l.gap > 15*time.Second {
		t.Errorf("the shared address was away for %s", l.gap)
	}

	// A guest without the pair has no use of the address, whatever it claims.
	if out, _ := client.run(t, "ip addr add "+shared+"/32 dev eth0; ping -c 3 -i 0.3 -W 1 -I "+shared+" 10.60.0.11; ip addr del "+shared+"/32 dev eth0"); !strings.Contains(out, " 0 received") {
		t.Errorf("a guest sends from an address that is not its own: %s", out)
	}
}
