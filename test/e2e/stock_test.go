package e2e_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestStockClient does what a user's first hour does, with the client that Debian ships.
func TestStockClient(t *testing.T) {
	admin := newStock(t, fix.lab.Credentials())

	if id := fmt.Sprint(admin.show(t, "token", "issue")["id"]); len(id) < 20 {
		t.Errorf("the token is %q", id)
	}
	catalog := admin.list(t, "catalog", "list")
	for _, typ := range []string{"identity", "image", "compute", "network"} {
		has(t, catalog, "Type", typ)
	}

	// A project with a user.
	project := admin.show(t, "project", "create", "--description", "made by a test", "stock")
	want(t, project, "name", "stock", "description", "made by a test", "enabled", "true")
	t.Cleanup(func() { admin.cleanup(t, "project", "delete", "stock") })
	admin.show(t, "user", "create", "--password", "s3cret-stock", "--project", "stock", "stock-user")
	t.Cleanup(func() { admin.cleanup(t, "user", "delete", "stock-user") })
	admin.do(t, "role", "add", "--project", "stock", "--user", "stock-user", "member")
	for _, name := range []string{"admin", "member", "reader"} {
		has(t, admin.list(t, "role", "list"), "Name", name)
	}
	has(t, admin.list(t, "role", "assignment", "list", "--names", "--project", "stock"), "Role", "member", "User", "stock-user@Default")
	has(t, admin.list(t, "user", "list", "--long"), "Name", "stock-user", "Enabled", "true")
	has(t, admin.list(t, "project", "list"), "Name", "stock")

	admin.show(t, "flavor", "create", "--ram", "144", "--disk", "1", "--vcpus", "1", "stock.small")
	t.Cleanup(func() { admin.cleanup(t, "flavor", "delete", "stock.small") })
	has(t, admin.list(t, "flavor", "list"), "Name", "stock.small", "RAM", "144", "Disk", "1", "VCPUs", "1")

	// From here on as the user.
	cred := fix.lab.Credentials()
	cred.Username, cred.Password, cred.Project = "stock-user", "s3cret-stock", "stock"
	user := newStock(t, cred)
	user.refused(t, "403", "user", "list")
	user.refused(t, "403", "hypervisor", "list")

	user.images(t)
	user.networks(t)
	user.servers(t, admin)

	// What an operator looks at.
	hypervisors := admin.list(t, "hypervisor", "list")
	agents := admin.list(t, "network", "agent", "list")
	services := admin.list(t, "compute", "service", "list")
	for n := range hosts {
		host := fmt.Sprintf("host%d", n+1)
		has(t, hypervisors, "Hypervisor Hostname", host, "State", "up")
		has(t, services, "Binary", "nova-compute", "Host", host, "State", "up", "Status", "enabled")
		has(t, agents, "Host", host, "Alive", "true", "State", "true")
	}
	want(t, admin.show(t, "hypervisor", "show", "host1"), "hypervisor_hostname", "host1", "state", "up", "status", "enabled")
	has(t, admin.list(t, "availability", "zone", "list"), "Zone Name", "nova", "Zone Status", "available")
}

// cleanup removes something when a test ends; what the test removed itself is not there.
func (s *stock) cleanup(t *testing.T, args ...string) {
	// The test's context is over here.
	out, errs, err := s.exec(context.Background(), args...)
	if err != nil && !strings.Contains(errs, "No ") && !strings.Contains(errs, "not find") && !strings.Contains(errs, "404") {
		t.Errorf("openstack %s: %v\n%s%s", strings.Join(args, " "), err, out, errs)
	}
}

func (s *stock) images(t *testing.T) {
	dir := t.TempDir()
	data := []byte(strings.Repeat("a raw image that nobody boots\n", 40000))
	file, copied := filepath.Join(dir, "raw.img"), filepath.Join(dir, "copy.img")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	img := s.show(t, "image", "create", "--disk-format", "raw", "--container-format", "bare", "--file", file, "--property", "purpose=test", "stock-raw")
	t.Cleanup(func() { s.cleanup(t, "image", "delete", fmt.Sprint(img["id"])) })
	shown := s.show(t, "image", "show", "stock-raw")
	want(t, shown, "status", "active", "size", fmt.Sprint(len(data)), "visibility", "shared", "disk_format", "raw")
	has(t, s.list(t, "image", "list"), "Name", "stock-raw", "Status", "active")
	has(t, s.list(t, "image", "list"), "Name", "yakumo-mini", "Status", "active")
	s.do(t, "image", "save", "--file", copied, "stock-raw")
	got, err := os.ReadFile(copied)
	if err != nil {
		t.Fatal(err)
	}
	if sha256.Sum256(got) != sha256.Sum256(data) {
		t.Errorf("%d bytes came back of %d, or others", len(got), len(data))
	}
	s.do(t, "image", "set", "--name", "stock-renamed", "stock-raw")
	s.do(t, "image", "delete", "stock-renamed")
	hasNot(t, s.list(t, "image", "list"), "Name", "stock-renamed")
}

func (s *stock) networks(t *testing.T) {
	s.show(t, "network", "create", "stock-net")
	t.Cleanup(func() { s.cleanup(t, "network", "delete", "stock-net") })
	s.show(t, "subnet", "create", "--network", "stock-net", "--subnet-range", "10.60.0.0/24", "--dns-nameserver", "192.0.2.53",
		"--allocation-pool", "start=10.60.0.10,end=10.60.0.99", "--host-route", "destination=10.99.0.0/16,gateway=10.60.0.5", "stock-subnet")
	has(t, s.list(t, "network", "list"), "Name", "stock-net")
	want(t, s.show(t, "network", "show", "stock-net"), "status", "ACTIVE", "name", "stock-net")
	has(t, s.list(t, "subnet", "list"), "Name", "stock-subnet", "Subnet", "10.60.0.0/24")
	want(t, s.show(t, "subnet", "show", "stock-subnet"), "gateway_ip", "10.60.0.1", "enable_dhcp", "true")
	s.do(t, "subnet", "set", "--name", "stock-subnet2", "--no-dhcp", "stock-subnet")
	want(t, s.show(t, "subnet", "show", "stock-subnet2"), "enable_dhcp", "false")
	s.do(t, "subnet", "set", "--dhcp", "stock-subnet2")
	s.do(t, "network", "set", "--description", "a network", "stock-net")
	want(t, s.show(t, "network", "show", "stock-net"), "description", "a network")

	s.show(t, "security", "group", "create", "--description", "web servers", "stock-web")
	t.Cleanup(func() { s.cleanup(t, "security", "group", "delete", "stock-web") })
	rule := s.show(t, "security", "group", "rule", "create", "--protocol", "tcp", "--dst-port", "80", "--remote-ip", "10.60.0.0/24", "stock-web")
	want(t, rule, "protocol", "tcp", "port_range_min", "80", "port_range_max", "80", "direction", "ingress")
	rules := s.list(t, "security", "group", "rule", "list", "stock-web")
	has(t, rules, "ID", fmt.Sprint(rule["id"]))
	s.show(t, "security", "group", "rule", "show", fmt.Sprint(rule["id"]))
	has(t, s.list(t, "security", "group", "list"), "Name", "stock-web")
	has(t, s.list(t, "security", "group", "list"), "Name", "default")
	s.do(t, "security", "group", "set", "--name", "stock-www", "stock-web")
	want(t, s.show(t, "security", "group", "show", "stock-www"), "name", "stock-www", "description", "web servers")
	t.Cleanup(func() { s.cleanup(t, "security", "group", "delete", "stock-www") })

	s.show(t, "port", "create", "--network", "stock-net", "--fixed-ip", "subnet=stock-subnet2,ip-address=10.60.0.20", "--security-group", "stock-www", "stock-port")
	t.Cleanup(func() { s.cleanup(t, "port", "delete", "stock-port") })
	has(t, s.list(t, "port", "list", "--network", "stock-net"), "Name", "stock-port", "Status", "DOWN")
	s.do(t, "port", "set", "--name", "stock-port2", "stock-port")
	want(t, s.show(t, "port", "show", "stock-port2"), "port_security_enabled", "true", "name", "stock-port2")
	s.refused(t, "409", "subnet", "delete", "stock-subnet2")
	s.do(t, "port", "delete", "stock-port2")
	s.do(t, "security", "group", "rule", "delete", fmt.Sprint(rule["id"]))
	s.do(t, "security", "group", "delete", "stock-www")
	hasNot(t, s.list(t, "security", "group", "list"), "Name", "stock-www")
}

func (s *stock) servers(t *testing.T, admin *stock) {
	key := filepath.Join(t.TempDir(), "key.pub")
	if err := os.WriteFile(key, []byte(blueKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.show(t, "keypair", "create", "--public-key", key, "stock-key")
	t.Cleanup(func() { s.cleanup(t, "keypair", "delete", "stock-key") })
	has(t, s.list(t, "keypair", "list"), "Name", "stock-key")

	began := time.Now()
	srv := s.show(t, "server", "create", "--image", "yakumo-mini", "--flavor", "stock.small", "--network", "stock-net", "--key-name", "stock-key", "--wait", "stock-server")
	measured(t, "openstack server create --wait: %.2f s", time.Since(began).Seconds())
	id := fmt.Sprint(srv["id"])
	t.Cleanup(func() { s.cleanup(t, "server", "delete", "--wait", id) })
	want(t, srv, "status", "ACTIVE", "name", "stock-server", "OS-EXT-STS:vm_state", "active")
	has(t, s.list(t, "server", "list"), "Name", "stock-server", "Status", "ACTIVE", "Image", "yakumo-mini")
	shown := s.show(t, "server", "show", "stock-server")
	want(t, shown, "key_name", "stock-key", "OS-EXT-STS:power_state", "1")
	if addr := fmt.Sprint(shown["addresses"]); !strings.Contains(addr, "10.60.0.") {
		t.Errorf("the server's addresses are %s", addr)
	}
	g := &guest{id: id, name: "stock-server", began: began}
	measured(t, "openstack server create to ready: %.2f s", g.up(t, 1).Seconds())
	if log := s.do(t, "console", "log", "show", "stock-server"); !strings.Contains(log, "yakumo-mini: ready in") {
		t.Errorf("the console log is %q", log)
	}
	if lines := strings.Count(strings.TrimSpace(s.do(t, "console", "log", "show", "--lines", "5", "stock-server")), "\n"); lines > 5 {
		t.Errorf("five lines of the console log are %d", lines)
	}

	// The boot's five steps, with times.
	events := admin.list(t, "server", "event", "list", id)
	create := has(t, events, "Action", "create")
	if create == nil {
		t.FailNow()
	}
	action := admin.show(t, "server", "event", "show", id, fmt.Sprint(create["Request ID"]))
	steps := fmt.Sprint(action["events"])
	for _, step := range []string{"receive", "place", "fetch_image", "start", "use"} {
		if !strings.Contains(steps, step) {
			t.Errorf("the creation shows no step %s: %s", step, steps)
		}
	}
	if !strings.Contains(steps, "start_time") || !strings.Contains(steps, "finish_time") {
		t.Errorf("the steps have no times: %s", steps)
	}

	s.do(t, "server", "stop", "stock-server")
	s.awaitServer(t, "SHUTOFF")
	s.do(t, "server", "start", "stock-server")
	s.awaitServer(t, "ACTIVE")
	g.up(t, 2)
	s.do(t, "server", "reboot", "--wait", "stock-server")
	g.up(t, 3)
	s.do(t, "server", "reboot", "--hard", "--wait", "stock-server")
	g.up(t, 4)
	s.awaitServer(t, "ACTIVE")
	events = s.list(t, "server", "event", "list", id)
	for _, a := range []string{"create", "stop", "start", "reboot"} {
		has(t, events, "Action", a)
	}
	s.do(t, "server", "delete", "--wait", "stock-server")
	hasNot(t, s.list(t, "server", "list"), "ID", id)
	hasNot(t, s.list(t, "port", "list"), "Device ID", id)
	s.do(t, "network", "delete", "stock-net")
}

func (s *stock) awaitServer(t *testing.T, status string) {
	t.Helper()
	var got string
	for end := time.Now().Add(bootPatience); time.Now().Before(end); {
		if got = fmt.Sprint(s.show(t, "server", "show", "stock-server")["status"]); got == status {
			return
		}
	}
	t.Fatalf("the server is %s, not %s", got, status)
}
