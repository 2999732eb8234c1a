package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"yakumo/lab"
)

// daemons are what may die on a host or on the server's machine (the server holds etcd), and
// whether traffic goes on meanwhile.
var daemons = []struct {
	machine, unit string
	lossless      bool
}{
	{"server", "server", true},
	{"host1", "agent", true},
	{"host1", "libvirtd", true},
	// Nothing is lost, but a user-space datapath stands still for about a second: ovs-vswitchd
	// polls its devices only while it holds the database's lock (bridge_run in its bridge.c).
	{"host1", "ovsdb-server", true},
	{"host1", "ovs-vswitchd", false}, // the switch itself
}

// starts tells how often a unit was started, and whether it runs.
func starts(t *testing.T, machine, unit string) (int, bool) {
	t.Helper()
	for _, m := range fix.lab.Status() {
		for _, u := range m.Units {
			if m.Name == machine && u.Name == unit {
				return u.Starts, u.PID != 0
			}
		}
	}
	t.Fatalf("%s has no unit %s", machine, unit)
	return 0, false
}

// kill is kill -9; the machine's init starts the unit again, which is waited for.
func kill(t *testing.T, machine, unit string) {
	t.Helper()
	before, _ := starts(t, machine, unit)
	if err := fix.lab.Unit(machine, unit, "kill"); err != nil {
		t.Fatal(err)
	}
	await(t, unit+" on "+machine+" to be started again", bootPatience, func(context.Context) string {
		n, runs := starts(t, machine, unit)
		return unless(n > before && runs, "it is not")
	})
}

// healthy waits until server and agents say so themselves: an agent is healthy when a server
// holds its stream.
func healthy(t *testing.T) {
	t.Helper()
	machines := []string{"server"}
	for n := range hosts {
		machines = append(machines, lab.HostName(n+1))
	}
	for _, m := range machines {
		await(t, m+" to be healthy", bootPatience, func(ctx context.Context) string {
			_, err := on(ctx, m, "curl", "-sf", "-m", "5", "http://127.0.0.1:8701/healthz")
			if err != nil {
				return err.Error()
			}
			return ""
		})
	}
	if err := fix.lab.AwaitHosts(t.Context(), "host1", "host2", "host3"); err != nil {
		t.Fatal(err)
	}
}

// TestDeathsAtRest kills each daemon while guests ping each other across hosts.
func TestDeathsAtRest(t *testing.T) {
	w := shared(t)
	healthy(t)
	w.blue1.opens(t, w.blue2.addr)
	for _, d := range daemons {
		there, back := w.blue1.ping(t, w.blue2.addr), w.blue2.ping(t, w.blue1.addr)
		began := time.Now()
		kill(t, d.machine, d.unit)
		if d.unit == "libvirtd" {
			w.blue1.detach() // the console's stream was libvirtd's
		}
		healthy(t)
		took := time.Since(began)
		there.more(t, 50)
		back.more(t, 50)
		for _, p := range []*pinger{there, back} {
			l := p.stop(t)
			measured(t, "kill -9 of %s on %s (healthy again after %.1f s), pings of %s: %s", d.unit, d.machine, took.Seconds(), p.g.name, l)
			if d.lossless && l.lost != 0 {
				t.Errorf("pings of %s are lost when %s on %s dies: %s", p.g.name, d.unit, d.machine, l)
			}
		}
	}
	// The guests are those of before, not started anew.
	for _, g := range []*guest{w.blue1, w.blue2} {
		if s, err := servers.Get(t.Context(), fix.admin.Compute, g.id).Extract(); err != nil || s.Status != "ACTIVE" {
			t.Errorf("%s is %v, %v", g.name, s, err)
		}
		text, err := servers.ShowConsoleOutput(t.Context(), fix.admin.Compute, g.id, servers.ShowConsoleOutputOpts{}).Extract()
		if n := len(readyLine.FindAllString(text, -1)); err != nil || n != 1 {
			t.Errorf("%s has booted %d times: %v", g.name, n, err)
		}
	}
}

// moments are when a daemon dies during a boot: the step of the server's creation that has
// begun or ended last.
var moments = []string{"", "place", "fetch_image", "start"}

// TestDeathsDuringBoot kills each daemon at several moments of a boot on its host; every
// server becomes ACTIVE without help, and the last one of each can be reached.
func TestDeathsDuringBoot(t *testing.T) {
	w := shared(t)
	healthy(t)
	for _, d := range daemons {
		t.Run(d.unit, func(t *testing.T) {
			t.Cleanup(onlyOn(t, "host1"))
			var last *guest
			for i, moment := range moments {
				if last != nil {
					last.remove(t)
				}
				g := w.blue.boot(t, mine{t}, order{name: fmt.Sprintf("boot-%s-%d", d.unit, i), host: "host1", network: w.blueNet.network.ID})
				if moment != "" {
					await(t, "the step "+moment, bootPatience, func(ctx context.Context) string {
						return unless(strings.Contains(steps(ctx, t, g), moment), "not yet")
					})
				}
				kill(t, d.machine, d.unit)
				if d.unit == "libvirtd" {
					w.blue1.detach()
				}
				await(t, g.name+" to be ACTIVE", bootPatience, func(ctx context.Context) string {
					s, err := servers.Get(ctx, fix.admin.Compute, g.id).Extract()
					if err != nil {
						return err.Error() // the server may be away
					}
					if s.Status == "ERROR" {
						t.Fatalf("%s died after %q: %s is in ERROR: %+v", d.unit, moment, g.name, s.Fault)
					}
					return unless(s.Status == "ACTIVE", s.Status)
				})
				measured(t, "%s dies after step %q: ACTIVE after %.1f s", d.unit, moment, time.Since(g.began).Seconds())
				last = g
			}
			measured(t, "%s dies during boot: ready after %.1f s", d.unit, last.up(t, 1).Seconds())
			w.blue2.opens(t, addressOf(t, last))
			healthy(t)
		})
	}
}

// steps gives the names of the events of a server's creation so far.
func steps(ctx context.Context, t *testing.T, g *guest) string {
	t.Helper()
	var list struct {
		Actions []struct {
			Action    string `json:"action"`
			RequestID string `json:"request_id"`
		} `json:"instanceActions"`
	}
	if err := get(ctx, "/servers/"+g.id+"/os-instance-actions", &list); err != nil {
		return ""
	}
	for _, a := range list.Actions {
		if a.Action != "create" {
			continue
		}
		var one struct {
			Action struct {
				Events []struct {
					Event string `json:"event"`
				} `json:"events"`
			} `json:"instanceAction"`
		}
		if err := get(ctx, "/servers/"+g.id+"/os-instance-actions/"+a.RequestID, &one); err != nil {
			return ""
		}
		var names []string
		for _, e := range one.Action.Events {
			names = append(names, e.Event)
		}
		return strings.Join(names, " ")
	}
	return ""
}

// get asks the compute service as the administrator.
func get(ctx context.Context, path string, into any) error {
	c := fix.admin.Compute
	_, err := c.Get(ctx, c.Endpoint+strings.TrimPrefix(path, "/"), into, nil)
	return err
}

// addressOf gives a guest's first address as the API shows it.
func addressOf(t *testing.T, g *guest) string {
	t.Helper()
	s, err := servers.Get(t.Context(), fix.admin.Compute, g.id).Extract()
	if err != nil {
		t.Fatal(err)
	}
	for _, nics := range s.Addresses {
		for _, nic := range nics.([]any) {
			return nic.(map[string]any)["addr"].(string)
		}
	}
	t.Fatalf("%s has no address", g.name)
	return ""
}

// TestSilentHost: a host whose agent says nothing is shown down, its guests talk on, and it
// comes back by itself.
func TestSilentHost(t *testing.T) {
	w := shared(t)
	healthy(t)
	p := w.blue1.ping(t, w.blue2.addr)
	if err := fix.lab.Unit("host2", "agent", "halt"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := fix.lab.AwaitDown(t.Context(), "host2"); err != nil {
		t.Fatal(err)
	}
	measured(t, "a silent host is shown down after %.1f s", time.Since(began).Seconds())
	// Nothing is placed on it meanwhile, and who asks for it is told why.
	g := w.blue.bootOn(t, mine{t}, order{name: "nowhere", host: "host2", network: w.blueNet.network.ID})
	await(t, "a server on a silent host to fail", bootPatience, func(ctx context.Context) string {
		s, err := servers.Get(ctx, fix.admin.Compute, g.id).Extract()
		if err != nil {
			return err.Error()
		}
		return unless(s.Status == "ERROR" && strings.Contains(s.Fault.Message, "No valid host was found"), s.Status+" "+s.Fault.Message)
	})
	if err := fix.lab.Unit("host2", "agent", "start"); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	if err := fix.lab.AwaitHosts(t.Context(), "host2"); err != nil {
		t.Fatal(err)
	}
	measured(t, "it is up %.1f s after its agent's start", time.Since(began).Seconds())
	healthy(t)
	p.more(t, 20)
	if l := p.stop(t); l.lost != 0 {
		t.Errorf("pings to a guest of a silent host are lost: %s", l)
	}
}

// TestPowerCut pulls a host's plug. Its guests are started again when it is back.
func TestPowerCut(t *testing.T) {
	w := shared(t)
	healthy(t)
	w.blue1.opens(t, w.blue2.addr)
	boots := len(readyLine.FindAllString(consoleLog(t, w.blue2), -1))
	w.blue2.detach()
	// One that is to be restarted elsewhere, by the policy of its flavor.
	disk := 0
	size, err := flavors.Create(t.Context(), fix.admin.Compute, flavors.CreateOpts{Name: "ha", RAM: 144, VCPUs: 1, Disk: &disk}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		gone(t, "flavor", flavors.Delete(context.Background(), fix.admin.Compute, size.ID).ExtractErr())
	})
	if _, err := flavors.CreateExtraSpecs(t.Context(), fix.admin.Compute, size.ID, flavors.ExtraSpecsOpts{"yakumo:ha": "restart", "yakumo:ha_lease": "15"}).Extract(); err != nil {
		t.Fatal(err)
	}
	ha := w.blue.bootOn(t, mine{t}, order{name: "ha", host: "host2", network: w.blueNet.network.ID, flavor: size.ID})
	ha.becomes(t, "ACTIVE")
	address := addressOf(t, ha)
	if err := fix.lab.PowerOff("host2"); err != nil {
		t.Fatal(err)
	}
	if n := w.blue1.reaches(t, w.blue2.addr); n != 0 {
		t.Errorf("%d of 5 pings come back from a host without power", n)
	}
	if err := fix.lab.AwaitDown(t.Context(), "host2"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	await(t, "the server with the policy to run elsewhere", bootPatience, func(ctx context.Context) string {
		s, err := servers.Get(ctx, fix.admin.Compute, ha.id).Extract()
		if err != nil {
			return err.Error()
		}
		ha.host = s.Host
		return unless(s.Status == "ACTIVE" && s.Host != "host2" && s.TaskState == "", s.Status+" "+s.TaskState+" on "+s.Host)
	})
	measured(t, "a server with the policy runs elsewhere %.1f s after its host is down", time.Since(began).Seconds())
	w.blue1.opens(t, address)
	began = time.Now()
	if err := fix.lab.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	measured(t, "after a power cut the host is up after %.1f s", time.Since(began).Seconds())
	healthy(t)
	w.blue2.up(t, boots+1)
	measured(t, "after a power cut its guest is ready after %.1f s", time.Since(began).Seconds())
	w.blue1.opens(t, w.blue2.addr)
	w.blue2.opens(t, w.blue1.addr)
	if s, err := servers.Get(t.Context(), fix.admin.Compute, w.blue2.id).Extract(); err != nil || s.Status != "ACTIVE" {
		t.Errorf("%s is %v, %v", w.blue2.name, s, err)
	}
	agrees(t) // the host that is back runs nothing that runs elsewhere now
}

func consoleLog(t *testing.T, g *guest) string {
	t.Helper()
	text, err := servers.ShowConsoleOutput(t.Context(), fix.admin.Compute, g.id, servers.ShowConsoleOutputOpts{}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	return text
}
