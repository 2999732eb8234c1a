package e2e_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/keypairs"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/services"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/projects"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/roles"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/users"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"

	"yakumo/cli"
	"yakumo/lab"
)

// tenant is a project with a user of its own.
type tenant struct {
	name, id string
	userID   string
	login    cli.Credentials // of the member
	member   *lab.Cloud
}

// owner is whose end removes what is made: a test, or the shared world.
type owner interface{ later(func(t *testing.T)) }

// mine makes a test the owner.
type mine struct{ *testing.T }

func (m mine) later(f func(*testing.T)) { m.Cleanup(func() { f(m.T) }) }

// newTenant makes a project with a user that has the role; the project goes at cleanup.
func newTenant(t *testing.T, own owner, name, role string) *tenant {
	t.Helper()
	ctx := t.Context()
	p, err := projects.Create(ctx, fix.admin.Identity, projects.CreateOpts{Name: name}).Extract()
	if err != nil {
		t.Fatalf("create the project %s: %v", name, err)
	}
	own.later(func(t *testing.T) {
		gone(t, "project "+name, projects.Delete(context.Background(), fix.admin.Identity, p.ID).Err)
	})
	ten := &tenant{name: name, id: p.ID}
	ten.userID, ten.login = newUser(t, own, p, name+"-user", role)
	ten.member = connect(t, ten.login)
	return ten
}

// newUser makes a user with a role in a project.
func newUser(t *testing.T, own owner, p *projects.Project, name, role string) (string, cli.Credentials) {
	t.Helper()
	pass := rand.Text()
	u, err := users.Create(t.Context(), fix.admin.Identity, users.CreateOpts{Name: name, Password: pass, DefaultProjectID: p.ID}).Extract()
	if err != nil {
		t.Fatalf("create the user %s: %v", name, err)
	}
	own.later(func(t *testing.T) {
		gone(t, "user "+name, users.Delete(context.Background(), fix.admin.Identity, u.ID).Err)
	})
	grant(t, p.ID, u.ID, role)
	return u.ID, cli.Credentials{AuthURL: fix.lab.Credentials().AuthURL, Username: name, Password: pass, Project: p.Name, UserDomain: "Default", ProjectDomain: "Default"}
}

// grant gives a user a role in a project.
func grant(t *testing.T, project, user, role string) {
	t.Helper()
	page, err := roles.List(fix.admin.Identity, roles.ListOpts{Name: role}).AllPages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all, err := roles.ExtractRoles(page)
	if err != nil || len(all) != 1 {
		t.Fatalf("%d roles are called %s: %v", len(all), role, err)
	}
	if err := roles.Assign(t.Context(), fix.admin.Identity, all[0].ID, roles.AssignOpts{UserID: user, ProjectID: project}).ExtractErr(); err != nil {
		t.Fatalf("give the role %s: %v", role, err)
	}
}

func connect(t *testing.T, c cli.Credentials) *lab.Cloud {
	t.Helper()
	cl, err := fix.lab.Connect(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return cl
}

// gone reports a deletion that failed; what is gone already is fine.
func gone(t *testing.T, what string, err error) {
	if err != nil && !gophercloud.ResponseCodeIs(err, 404) {
		t.Errorf("delete the %s: %v", what, err)
	}
}

// subnet is a network with one subnet.
type subnet struct {
	network *networks.Network
	subnet  *subnets.Subnet
}

// newNetwork makes a network of the tenant with a subnet.
func (ten *tenant) newNetwork(t *testing.T, own owner, name, cidr string) *subnet {
	t.Helper()
	n, err := networks.Create(t.Context(), ten.member.Network, networks.CreateOpts{Name: name}).Extract()
	if err != nil {
		t.Fatalf("create the network %s: %v", name, err)
	}
	own.later(func(t *testing.T) {
		gone(t, "network "+name, networks.Delete(context.Background(), ten.member.Network, n.ID).ExtractErr())
	})
	s, err := subnets.Create(t.Context(), ten.member.Network, subnets.CreateOpts{NetworkID: n.ID, Name: name + "-v4", CIDR: cidr, IPVersion: gophercloud.IPv4,
		DNSNameservers: []string{"192.0.2.53"}}).Extract()
	if err != nil {
		t.Fatalf("create a subnet of %s: %v", name, err)
	}
	return &subnet{n, s}
}

// newPort makes a port with an address; mac and groups may be empty.
func (ten *tenant) newPort(t *testing.T, own owner, n *subnet, addr, mac string, groups ...string) *ports.Port {
	t.Helper()
	opts := ports.CreateOpts{NetworkID: n.network.ID, MACAddress: mac, FixedIPs: []ports.IP{{SubnetID: n.subnet.ID, IPAddress: addr}}}
	if groups != nil {
		opts.SecurityGroups = &groups
	}
	p, err := ports.Create(t.Context(), ten.member.Network, opts).Extract()
	if err != nil {
		t.Fatalf("create a port with %s: %v", addr, err)
	}
	own.later(func(t *testing.T) {
		gone(t, "port "+addr, ports.Delete(context.Background(), ten.member.Network, p.ID).ExtractErr())
	})
	return p
}

// order is a guest to be made.
type order struct {
	name, host  string
	port        string // id; or
	network     string // id
	flavor      string // id; empty: the smallest
	image       string // id; empty: yakumo-mini
	key         string
	userData    string
	configDrive bool
}

// boot asks for a guest; it is removed at cleanup.
func (ten *tenant) boot(t *testing.T, own owner, o order) *guest {
	t.Helper()
	opts := servers.CreateOpts{Name: o.name, ImageRef: fix.image, FlavorRef: o.flavor, UserData: []byte(o.userData)}
	if o.image != "" {
		opts.ImageRef = o.image
	}
	if o.flavor == "" {
		opts.FlavorRef = flavor(t, "m1.nano")
	}
	nic := servers.Network{UUID: o.network, Port: o.port}
	opts.Networks = []servers.Network{nic}
	if o.configDrive {
		opts.ConfigDrive = &o.configDrive
	}
	var create servers.CreateOptsBuilder = opts
	if o.key != "" {
		create = keypairs.CreateOptsExt{CreateOptsBuilder: opts, KeyName: o.key}
	}
	g := &guest{name: o.name, host: o.host, began: time.Now()}
	s, err := servers.Create(t.Context(), ten.member.Compute, create, nil).Extract()
	if err != nil {
		t.Fatalf("create the server %s: %v", o.name, err)
	}
	g.id = s.ID
	own.later(func(t *testing.T) { g.remove(t) })
	return g
}

// bootOn asks for a guest on the host that the order names. Tenants have no say in that, so
// every other host is closed to new guests until this one has its place.
func (ten *tenant) bootOn(t *testing.T, own owner, o order) *guest {
	t.Helper()
	defer onlyOn(t, o.host)()
	g := ten.boot(t, own, o)
	await(t, o.name+" to be placed", bootPatience, func(ctx context.Context) string {
		s, err := servers.Get(ctx, fix.admin.Compute, g.id).Extract()
		if err != nil {
			return err.Error()
		}
		if s.Host != "" && s.Host != o.host {
			t.Fatalf("%s is on %s, not on %s", o.name, s.Host, o.host)
		}
		return unless(s.Host != "" || s.Status == "ERROR", s.Status)
	})
	return g
}

// onlyOn closes every other host to new guests; what it gives opens them again.
func onlyOn(t *testing.T, host string) (undo func()) {
	t.Helper()
	c := *fix.admin.Compute
	c.Microversion = "2.53" // services are known by UUID
	page, err := services.List(&c, services.ListOpts{Binary: "nova-compute"}).AllPages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all, err := services.ExtractServices(page)
	if err != nil || len(all) != hosts {
		t.Fatalf("%d compute services: %v", len(all), err)
	}
	set := func(status services.ServiceStatus) {
		for _, s := range all {
			if s.Host == host {
				continue
			}
			if _, err := services.Update(context.Background(), &c, s.ID, services.UpdateOpts{Status: status}).Extract(); err != nil {
				t.Errorf("%s the compute service of %s: %v", status, s.Host, err)
			}
		}
	}
	set(services.ServiceDisabled)
	return func() { set(services.ServiceEnabled) }
}

// remove deletes a guest and waits until the API forgets it.
func (g *guest) remove(t *testing.T) {
	t.Helper()
	g.detach()
	gone(t, "server "+g.name, servers.Delete(context.Background(), fix.admin.Compute, g.id).ExtractErr())
	ctx, cancel := context.WithTimeout(context.Background(), bootPatience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		s, err := servers.Get(ctx, fix.admin.Compute, g.id).Extract()
		if gophercloud.ResponseCodeIs(err, 404) {
			return
		}
		select {
		case <-ctx.Done():
			t.Errorf("the server %s is still there: %+v, %v", g.name, s, err)
			return
		case <-tick.C:
		}
	}
}

// flavor finds a flavor's id.
func flavor(t *testing.T, name string) string {
	t.Helper()
	page, err := flavors.ListDetail(fix.admin.Compute, nil).AllPages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all, err := flavors.ExtractFlavors(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.Name == name {
			return f.ID
		}
	}
	t.Fatalf("there is no flavor %s", name)
	return ""
}

// world is what tests share, since guests take seconds to boot: two tenants whose networks
// have the same addresses.
//
//	host1  blue-1 10.50.0.11    red-1 10.50.0.11, with blue-1's MAC too
//	host2  blue-2 10.50.0.12
//	host3  empty
type world struct {
	blue, red           *tenant
	blueNet, redNet     *subnet
	blue1, blue2, red1  *guest
	port1, port2, portR *ports.Port
	undo                []func(*testing.T)
}

// later keeps what is to be undone by end.
func (w *world) later(f func(*testing.T)) { w.undo = append(w.undo, f) }

// end removes the world.
func (w *world) end(t *testing.T) {
	fix.world = nil
	for _, f := range slices.Backward(w.undo) {
		f(t)
	}
}

// What the world's guests are given.
const (
	blueData = "#!/bin/sh\necho blue data as $(id -un) >/root/user-data\n"
	redData  = "#!/bin/sh\necho red data >/root/user-data\n"
	blueKey  = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJv4bXTAGOf/LgQXuoqRGLFMWHaLdFhRNrbLdTz1BGlL blue@e2e"
)

// shared gives the world, which the first caller makes.
func shared(t *testing.T) *world {
	t.Helper()
	if fix.world != nil {
		return fix.world
	}
	w := &world{}
	fix.world = w
	w.blue, w.red = newTenant(t, w, "blue", "member"), newTenant(t, w, "red", "member")
	w.blueNet, w.redNet = w.blue.newNetwork(t, w, "blue", "10.50.0.0/24"), w.red.newNetwork(t, w, "red", "10.50.0.0/24")
	w.port1, w.port2 = w.blue.newPort(t, w, w.blueNet, "10.50.0.11", ""), w.blue.newPort(t, w, w.blueNet, "10.50.0.12", "")
	w.portR = w.red.newPort(t, w, w.redNet, "10.50.0.11", w.port1.MACAddress)
	newKey(t, w, w.blue, "blue", blueKey)
	w.blue1 = w.blue.bootOn(t, w, order{name: "blue-1", host: "host1", port: w.port1.ID, key: "blue", userData: blueData})
	w.blue2 = w.blue.bootOn(t, w, order{name: "blue-2", host: "host2", port: w.port2.ID, key: "blue", userData: blueData, configDrive: true})
	w.red1 = w.red.bootOn(t, w, order{name: "red-1", host: "host1", port: w.portR.ID, userData: redData})
	w.blue1.addr, w.blue2.addr, w.red1.addr = "10.50.0.11", "10.50.0.12", "10.50.0.11"
	for _, g := range []*guest{w.blue1, w.blue2, w.red1} {
		measured(t, "%s create to ACTIVE (three at once): %.2f s", g.name, g.active(t).Seconds())
	}
	for _, g := range []*guest{w.blue1, w.blue2, w.red1} {
		measured(t, "%s create to ready: %.2f s", g.name, g.up(t, 1).Seconds())
	}
	return w
}

// newKey gives a tenant's user a key pair.
func newKey(t *testing.T, own owner, ten *tenant, name, public string) {
	t.Helper()
	if _, err := keypairs.Create(t.Context(), ten.member.Compute, keypairs.CreateOpts{Name: name, PublicKey: public}).Extract(); err != nil {
		t.Fatalf("create the key pair %s: %v", name, err)
	}
	own.later(func(t *testing.T) {
		gone(t, "key pair "+name, keypairs.Delete(context.Background(), ten.member.Compute, name, nil).ExtractErr())
	})
}

// String names a tenant in messages.
func (ten *tenant) String() string { return fmt.Sprintf("%s (%s)", ten.name, ten.id) }
