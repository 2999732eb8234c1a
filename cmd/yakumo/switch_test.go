package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"yakumo/openflow/ovstest"
)

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func namespace(t *testing.T, name string) string {
	t.Helper()
	ip(t, "netns", "add", name)
	t.Cleanup(func() { ip(t, "netns", "del", name) })
	ip(t, "-n", name, "link", "set", "lo", "up")
	return name
}

// What an administrator does for a physical machine, by the API of a server that reaches the switch by TLS: register the
// switch, bind a port; the machine gets its address and reaches its router.
func TestSwitchByAPI(t *testing.T) {
	t.Parallel() // servers wait for their etcd, and tests for servers
	pid := os.Getpid()
	tor, machine := namespace(t, fmt.Sprintf("yks%d", pid)), namespace(t, fmt.Sprintf("ykm%d", pid))
	// A link for management, of addresses that only tests use (RFC 2544).
	near, far := net.IPv4(198, 18, byte(pid>>6), byte(pid<<2)|1), net.IPv4(198, 18, byte(pid>>6), byte(pid<<2)|2)
	link := fmt.Sprintf("yks%d", pid)
	ip(t, "link", "add", link, "type", "veth", "peer", "name", "mgmt", "netns", tor)
	t.Cleanup(func() { ip(t, "link", "del", link) }) // with its namespace it would go only some time later
	ip(t, "addr", "add", near.String()+"/30", "dev", link)
	ip(t, "link", "set", link, "up")
	ip(t, "-n", tor, "addr", "add", far.String()+"/30", "dev", "mgmt")
	ip(t, "-n", tor, "link", "set", "mgmt", "up")
	ip(t, "-n", tor, "link", "add", "eth3", "type", "veth", "peer", "name", "eth0", "netns", machine)
	ip(t, "-n", tor, "link", "set", "eth3", "up")

	sw := ovstest.Start(t, ovstest.InNetns(tor))
	theirs, theirKey, _ := writePair(t, t.TempDir(), 1, time.Now(), far)
	ours, ourKey, _ := writePair(t, t.TempDir(), 2, time.Now())
	sw.Vsctl("set-ssl", theirKey, theirs, ours)
	sw.Vsctl("set-manager", "pssl:6640")

	sh, p := newShared(t, nil), newProc(t, "switches")
	p.start(sh, func(cmd *exec.Cmd) {
		cmd.Args = append(cmd.Args, "--switch-ca", theirs, "--switch-cert", ours, "--switch-key", ourKey)
	})
	p.ready()
	token := p.login("admin", password, "admin")
	p.at("POST", "/yakumo/v1/switches", token, fmt.Sprintf(`{"name":"tor-1","ovsdb":"ssl:%s:6640","openflow":"ssl:%s:6653","tunnel_ip":"192.0.2.1","datapath":"netdev"}`, far, far), 201)
	network := id(t, p.at("POST", "/network/v2.0/networks", token, `{"network":{"name":"net"}}`, 201), "network")
	subnet := id(t, p.at("POST", "/network/v2.0/subnets", token, `{"subnet":{"network_id":"`+network+`","ip_version":4,"cidr":"10.5.0.0/24"}}`, 201), "subnet")
	router := id(t, p.at("POST", "/network/v2.0/routers", token, `{"router":{"name":"r"}}`, 201), "router")
	p.at("PUT", "/network/v2.0/routers/"+router+"/add_router_interface", token, `{"subnet_id":"`+subnet+`"}`, 200)
	made := p.at("POST", "/network/v2.0/ports", token, `{"port":{"network_id":"`+network+`"}}`, 201)["port"].(map[string]any)
	port, mac := "/network/v2.0/ports/"+made["id"].(string), made["mac_address"].(string)
	address := made["fixed_ips"].([]any)[0].(map[string]any)["ip_address"].(string)
	p.at("PUT", port, token, `{"port":{"binding:host_id":"tor-1","binding:profile":{"device":"eth3"}}}`, 200)
	status := func() any { return p.at("GET", port, token, "", 200)["port"].(map[string]any)["status"] }
	p.until(patience, "wiring the port", func() bool { return status() == "ACTIVE" })
	p.until(patience, "showing the switch's agent alive", func() bool {
		agents := p.at("GET", "/network/v2.0/agents?host=tor-1", token, "", 200)["agents"].([]any)
		return len(agents) == 1 && agents[0].(map[string]any)["alive"] == true
	})

	ip(t, "-n", machine, "link", "set", "eth0", "address", mac, "mtu", "1400", "up")
	p.until(patience, "giving the machine its address", func() bool {
		out, err := exec.Command("ip", "netns", "exec", machine, "busybox", "udhcpc", "-f", "-n", "-q", "-i", "eth0", "-s", "/bin/true").CombinedOutput()
		return err == nil && strings.Contains(string(out), address)
	})
	ip(t, "-n", machine, "addr", "add", address+"/24", "dev", "eth0")
	p.until(patience, "letting the machine reach its router", func() bool {
		return exec.Command("ip", "netns", "exec", machine, "ping", "-n", "-c", "1", "-W", "1", "10.5.0.1").Run() == nil
	})

	p.at("DELETE", "/yakumo/v1/switches/tor-1", token, "", 409)
	p.at("PUT", port, token, `{"port":{"binding:host_id":""}}`, 200)
	p.until(patience, "unplugging the device", func() bool { return !strings.Contains(sw.Vsctl("list-ports", "br-int"), "eth3") })
	p.at("DELETE", "/yakumo/v1/switches/tor-1", token, "", 204)
	p.at("GET", "/yakumo/v1/switches/tor-1", token, "", 404)
}
