package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"yakumo/cli"
	"yakumo/lab"
)

var chaosTime = flag.Duration("chaos", 45*time.Second, "how long TestChaos does what it likes")

// chaos does random things to servers while random processes die.
type chaos struct {
	t      *testing.T
	ten    *tenant
	net    *subnet
	sizes  []string // flavors
	mu     sync.Mutex
	rnd    *rand.Rand
	done   map[string]int // answers by what was asked and the status
	killed map[string]int
}

func (c *chaos) pick(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rnd.IntN(n)
}

func (c *chaos) note(what string, err error) {
	status := "ok"
	var code gophercloud.ErrUnexpectedResponseCode
	if errors.As(err, &code) {
		status = fmt.Sprint(code.Actual)
	} else if err != nil {
		status = "no answer"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done[what+" "+status]++
	if status == "500" {
		c.t.Errorf("%s: %v", what, err)
	}
}

// state is a server as the administrator sees it.
type state struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	Task   string `json:"OS-EXT-STS:task_state"`
	Host   string `json:"OS-EXT-SRV-ATTR:host"`
	Fault  struct {
		Message string `json:"message"`
	} `json:"fault"`
}

func (c *chaos) servers(ctx context.Context) ([]state, error) {
	var list struct {
		Servers []state `json:"servers"`
	}
	err := get(ctx, "/servers/detail?all_tenants=1&project_id="+c.ten.id, &list)
	return list.Servers, err
}

// act does one thing.
func (c *chaos) act(ctx context.Context) {
	list, err := c.servers(ctx)
	if err != nil {
		return // the server is away
	}
	if len(list) < 3 || len(list) < 5 && c.pick(4) == 0 {
		_, err := servers.Create(ctx, c.ten.member.Compute, servers.CreateOpts{Name: "chaos", ImageRef: fix.image, FlavorRef: c.sizes[0],
			Networks: []servers.Network{{UUID: c.net.network.ID}}}, nil).Extract()
		c.note("create", err)
		return
	}
	s := list[c.pick(len(list))]
	do := func(name string, arg any) {
		admin := *fix.admin.Compute
		admin.Microversion = "2.67"
		_, err := admin.Post(ctx, admin.Endpoint+"servers/"+s.ID+"/action", map[string]any{name: arg}, nil, &gophercloud.RequestOpts{OkCodes: []int{200, 202, 204}})
		c.note(name, err)
	}
	switch s.Status {
	case "PAUSED":
		do("unpause", nil)
	case "SUSPENDED":
		do("resume", nil)
	case "SHUTOFF":
		switch c.pick(4) {
		case 0:
			do("migrate", nil)
		default:
			do("os-start", nil)
		}
	case "VERIFY_RESIZE":
		do([]string{"confirmResize", "revertResize"}[c.pick(2)], nil)
	case "SHELVED", "SHELVED_OFFLOADED":
		do("unshelve", nil)
	case "ERROR":
		if c.pick(2) == 0 {
			do("reboot", map[string]any{"type": "HARD"})
		} else {
			c.note("delete", servers.Delete(ctx, fix.admin.Compute, s.ID).ExtractErr())
		}
	default:
		switch c.pick(12) {
		case 0:
			do("os-stop", nil)
		case 1:
			do("pause", nil)
		case 2:
			do("suspend", nil)
		case 3:
			do("reboot", map[string]any{"type": "SOFT"})
		case 4:
			do("reboot", map[string]any{"type": "HARD"})
		case 5, 6, 7:
			do("os-migrateLive", map[string]any{"host": nil, "block_migration": "auto"})
		case 8:
			do("resize", map[string]any{"flavorRef": c.sizes[c.pick(len(c.sizes))]})
		case 9:
			do("rebuild", map[string]any{"imageRef": fix.image})
		case 10:
			do("shelve", nil)
		case 11:
			c.note("delete", servers.Delete(ctx, fix.admin.Compute, s.ID).ExtractErr())
		}
	}
}

// strike kills one process, and does not wait for what becomes of it.
func (c *chaos) strike() {
	victims := []struct{ machine, unit string }{{"server", "server"}}
	for n := range hosts {
		for _, unit := range []string{"agent", "agent", "libvirtd", "ovs-vswitchd"} {
			victims = append(victims, struct{ machine, unit string }{lab.HostName(n + 1), unit})
		}
	}
	v := victims[c.pick(len(victims))]
	if err := fix.lab.Unit(v.machine, v.unit, "kill"); err == nil { // it may be on its way up
		c.mu.Lock()
		c.killed[v.unit]++
		c.mu.Unlock()
	}
}

// TestChaos does random things to real guests while random processes are killed. Then everything comes to rest without
// help, and nothing contradicts anything: no guest runs twice, none without a row, no disk, tap or volume is left over.
func TestChaos(t *testing.T) {
	healthy(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := &chaos{t: t, ten: newTenant(t, mine{t}, "chaos", "member"), rnd: rand.New(rand.NewPCG(seed, 1)), done: map[string]int{}, killed: map[string]int{}}
	c.net = c.ten.newNetwork(t, mine{t}, "chaos", "10.77.0.0/24")
	disk := 0
	f, err := flavors.Create(t.Context(), fix.admin.Compute, flavors.CreateOpts{Name: "chaos-2", RAM: 160, VCPUs: 1, Disk: &disk}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { gone(t, "flavor", flavors.Delete(context.Background(), fix.admin.Compute, f.ID).ExtractErr()) })
	c.sizes = []string{flavor(t, "m1.nano"), f.ID}
	t.Cleanup(func() { // whatever happens, nothing of it stays for the tests after it
		list, err := c.servers(context.Background())
		if err != nil {
			t.Error(err)
		}
		for _, s := range list {
			(&guest{id: s.ID, name: "chaos"}).remove(t)
		}
	})

	ctx, cancel := context.WithTimeout(t.Context(), *chaosTime)
	defer cancel()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			tick := time.NewTicker(700 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					c.act(ctx)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	wg.Go(func() {
		tick := time.NewTicker(6 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				c.strike()
			case <-ctx.Done():
				return
			}
		}
	})
	wg.Wait()
	healthy(t)
	began := time.Now()
	rests := []string{"ACTIVE", "SHUTOFF", "PAUSED", "SUSPENDED", "ERROR", "VERIFY_RESIZE", "SHELVED_OFFLOADED", "RESCUE"}
	await(t, "every server to come to rest", 4*time.Minute, func(ctx context.Context) string {
		list, err := c.servers(ctx)
		if err != nil {
			return err.Error()
		}
		for _, s := range list {
			if s.Task != "" || !slices.Contains(rests, s.Status) {
				return fmt.Sprintf("%+v", s)
			}
		}
		return ""
	})
	list, err := c.servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]int{}
	for _, s := range list {
		states[s.Status]++
		if s.Status == "ERROR" && s.Fault.Message == "" {
			t.Errorf("%s is in ERROR and does not say why", s.ID)
		}
	}
	var moved struct {
		Migrations []struct {
			Type   string `json:"migration_type"`
			Status string `json:"status"`
		} `json:"migrations"`
	}
	admin := *fix.admin.Compute
	admin.Microversion = "2.59"
	if _, err := admin.Get(t.Context(), admin.Endpoint+"os-migrations", &moved, nil); err != nil {
		t.Error(err)
	}
	moves := map[string]int{}
	for _, m := range moved.Migrations {
		moves[m.Type+" "+m.Status]++
		if slices.Contains([]string{"accepted", "queued", "preparing", "running", "pre-migrating", "migrating", "post-migrating"}, m.Status) {
			t.Errorf("a move is %s though all is at rest", m.Status)
		}
	}
	measured(t, "chaos of %s: answers %v, killed %v; moves %v; at rest %.1f s later: %v", *chaosTime, c.done, c.killed, moves, time.Since(began).Seconds(), states)
	agrees(t)
	for _, s := range list {
		(&guest{id: s.ID, name: "chaos"}).remove(t)
	}
	agrees(t)
}

// agrees has the cloud check itself: rows among each other, and what every host really has.
func agrees(t *testing.T) {
	t.Helper()
	var out cli.Checked
	await(t, "yakumo check to find nothing", bootPatience, func(ctx context.Context) string {
		cmd := exec.CommandContext(ctx, fix.binary, "check", "-o", "json")
		cmd.Env = newStock(t, fix.lab.Credentials()).env
		var errs strings.Builder
		cmd.Stderr = &errs
		b, err := cmd.Output()
		if bad := json.Unmarshal(b, &out); bad != nil {
			return fmt.Sprintf("%v: %s%s", err, b, errs.String())
		}
		if len(out.Findings) > 0 || err != nil {
			return fmt.Sprintf("%v: %+v", err, out.Findings)
		}
		return unless(out.Hosts == hosts, fmt.Sprintf("%d hosts answered; silent: %v", out.Hosts, out.Silent))
	})
}
