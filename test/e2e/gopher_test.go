package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/hypervisors"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/instanceactions"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/keypairs"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/projects"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/imagedata"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/agents"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/groups"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/rules"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"

	"yakumo/lab"
)

// TestGophercloud is the flow of TestStockClient in Go, as a tenant's member, with a reader of
// the same project who may look and not touch.
func TestGophercloud(t *testing.T) {
	ctx := t.Context()
	ten := newTenant(t, mine{t}, "gopher", "member")
	c := ten.member
	_, login := newUser(t, mine{t}, &projects.Project{ID: ten.id, Name: ten.name}, "gopher-reader", "reader")
	reader := connect(t, login)
	may := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	mayNot := func(what string, err error) {
		t.Helper()
		if !gophercloud.ResponseCodeIs(err, 403) {
			t.Errorf("a reader may %s: %v", what, err)
		}
	}

	// Images.
	data := bytes.Repeat([]byte("gopher"), 100000)
	opts := images.CreateOpts{Name: "gopher-raw", DiskFormat: "raw", ContainerFormat: "bare"}
	img, err := images.Create(ctx, c.Image, opts).Extract()
	may("create an image", err)
	t.Cleanup(func() {
		gone(t, "image", images.Delete(context.Background(), c.Image, img.ID).ExtractErr())
	})
	may("upload an image", imagedata.Upload(ctx, c.Image, img.ID, bytes.NewReader(data)).ExtractErr())
	body, err := imagedata.Download(ctx, c.Image, img.ID).Extract()
	may("download an image", err)
	got, err := io.ReadAll(body)
	may("download an image", err)
	if !bytes.Equal(got, data) {
		t.Errorf("%d bytes of an image came back of %d, or others", len(got), len(data))
	}
	if img, err = images.Get(ctx, reader.Image, img.ID).Extract(); err != nil || img.Status != images.ImageStatusActive || img.SizeBytes != int64(len(data)) {
		t.Errorf("the reader is shown %+v, %v", img, err)
	}
	_, err = images.Create(ctx, reader.Image, opts).Extract()
	mayNot("create images", err)
	mayNot("delete images", images.Delete(ctx, reader.Image, img.ID).ExtractErr())

	// Networks.
	n := ten.newNetwork(t, mine{t}, "gopher", "10.90.0.0/24")
	_, err = networks.Create(ctx, reader.Network, networks.CreateOpts{Name: "no"}).Extract()
	mayNot("create networks", err)
	_, err = subnets.Update(ctx, reader.Network, n.subnet.ID, subnets.UpdateOpts{DNSNameservers: &[]string{}}).Extract()
	mayNot("change subnets", err)
	if seen, err := networks.Get(ctx, reader.Network, n.network.ID).Extract(); err != nil || seen.Name != "gopher" {
		t.Errorf("the reader is shown %+v, %v", seen, err)
	}
	sg := ten.newGroup(t, mine{t}, "gopher-sg")
	ten.allow(t, sg, rules.CreateOpts{Protocol: rules.ProtocolTCP, PortRangeMin: 22, PortRangeMax: 22})
	if g, err := groups.Get(ctx, c.Network, sg).Extract(); err != nil || len(g.Rules) != 3 { // two for egress
		t.Errorf("the group is %+v, %v", g, err)
	}
	p := ten.newPort(t, mine{t}, n, "10.90.0.30", "", sg)
	name := "renamed"
	if p, err = ports.Update(ctx, c.Network, p.ID, ports.UpdateOpts{Name: &name}).Extract(); err != nil || p.Name != name {
		t.Errorf("the port is %+v, %v", p, err)
	}
	mayNot("delete ports", ports.Delete(ctx, reader.Network, p.ID).ExtractErr())

	// Servers.
	newKey(t, mine{t}, ten, "gopher", blueKey)
	if k, err := keypairs.Get(ctx, c.Compute, "gopher", nil).Extract(); err != nil || k.PublicKey != blueKey {
		t.Errorf("the key pair is %+v, %v", k, err)
	}
	g := ten.boot(t, mine{t}, order{name: "gopher-1", port: p.ID, key: "gopher", userData: "#!/bin/sh\necho gopher was here\n"})
	measured(t, "create to ACTIVE: %.2f s", g.active(t).Seconds())
	measured(t, "create to ready: %.2f s", g.up(t, 1).Seconds())
	// User data runs once the guest is ready.
	await(t, "user data writes to the console", commandPatience, func(ctx context.Context) string {
		log, err := servers.ShowConsoleOutput(ctx, c.Compute, g.id, servers.ShowConsoleOutputOpts{}).Extract()
		if err != nil || !strings.Contains(log, "gopher was here") {
			return fmt.Sprintf("%v: %s", err, log)
		}
		return ""
	})
	_, err = servers.Create(ctx, reader.Compute, servers.CreateOpts{Name: "no", ImageRef: fix.image, FlavorRef: flavor(t, "m1.nano"), Networks: []servers.Network{{UUID: n.network.ID}}}, nil).Extract()
	mayNot("create servers", err)
	_, err = servers.ShowConsoleOutput(ctx, reader.Compute, g.id, servers.ShowConsoleOutputOpts{}).Extract()
	mayNot("read consoles", err) // Nova's default, too
	if s, err := servers.Get(ctx, reader.Compute, g.id).Extract(); err != nil || s.Status != "ACTIVE" {
		t.Errorf("the reader is shown %+v, %v", s, err)
	}
	mayNot("stop servers", servers.Stop(ctx, reader.Compute, g.id).ExtractErr())
	mayNot("delete servers", servers.Delete(ctx, reader.Compute, g.id).ExtractErr())

	page, err := instanceactions.List(c.Compute, g.id, nil).AllPages(ctx)
	may("list actions", err)
	actions, err := instanceactions.ExtractInstanceActions(page)
	if err != nil || len(actions) != 1 {
		t.Fatalf("%d actions: %v", len(actions), err)
	}
	detail, err := instanceactions.Get(ctx, c.Compute, g.id, actions[0].RequestID).Extract()
	may("show an action", err)
	if detail.Events != nil {
		for _, e := range *detail.Events {
			measured(t, "step %-12s %6.0f ms", e.Event, float64(e.FinishTime.Sub(e.StartTime).Milliseconds()))
		}
	}

	may("stop", servers.Stop(ctx, c.Compute, g.id).ExtractErr())
	_, err = lab.AwaitServer(ctx, c, g.id, "SHUTOFF")
	may("stop", err)
	may("start", servers.Start(ctx, c.Compute, g.id).ExtractErr())
	_, err = lab.AwaitServer(ctx, c, g.id, "ACTIVE")
	may("start", err)
	g.up(t, 2)
	may("reboot", servers.Reboot(ctx, c.Compute, g.id, servers.RebootOpts{Type: servers.HardReboot}).ExtractErr())
	g.up(t, 3)
	_, err = lab.AwaitServer(ctx, c, g.id, "ACTIVE")
	may("reboot", err)
	g.remove(t)

	// What an operator looks at, and a tenant may not.
	page, err = hypervisors.List(fix.admin.Compute, nil).AllPages(ctx)
	may("list hypervisors", err)
	if hv, err := hypervisors.ExtractHypervisors(page); err != nil || len(hv) != hosts {
		t.Errorf("%d hypervisors: %v", len(hv), err)
	}
	page, err = agents.List(fix.admin.Network, nil).AllPages(ctx)
	may("list agents", err)
	if all, err := agents.ExtractAgents(page); err != nil || len(all) < hosts {
		t.Errorf("%d agents: %v", len(all), err)
	}
	_, err = hypervisors.List(c.Compute, nil).AllPages(ctx)
	if !gophercloud.ResponseCodeIs(err, 403) {
		t.Errorf("a member may list hypervisors: %v", err)
	}
}
