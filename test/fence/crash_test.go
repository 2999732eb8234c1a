package fence_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"yakumo/compute"
	"yakumo/hypervisor"
	"yakumo/hypervisor/fake"
	"yakumo/model"
	"yakumo/store"
)

// action is a way in which a server changes its host, as a user would have it, until it rests. It gives what may have become of it:
// whether it has moved.
type action struct {
	name string
	run  func(c *cloud, id model.ID)
	// fresh: the disk is a fresh one afterwards; stays: the server ends where it was, and with the disk that it had.
	fresh, stays bool
}

// rests waits until a server is as it should be.
func (c *cloud) rests(id model.ID, what string) {
	if !c.wait(10*time.Minute, func() bool { return c.settled(id) == nil }) {
		c.blame("%s: %v", what, c.settled(id))
	}
}

// resized waits until a cold move can be confirmed, and gives false where it has failed and the server rests.
func (c *cloud) resized(id model.ID) bool {
	if !c.wait(10*time.Minute, func() bool { return compute.State(c.get(id)) == compute.Resized || c.settled(id) == nil }) {
		c.blame("a cold move neither ends nor fails: %v", c.settled(id))
		return false
	}
	return compute.State(c.get(id)) == compute.Resized
}

// ask makes a request; where the server's process is dead, the API is that of another.
func (c *cloud) ask(f func(tx *store.Tx, sc compute.Scope) error) {
	if err := c.update(func(tx *store.Tx) error { return f(tx, scope()) }); err != nil {
		c.blame("a request is refused: %v", err)
	}
}

var actions = []action{
	{name: "live", run: func(c *cloud, id model.ID) { // with disks that are not shared: a block move
		c.ask(func(tx *store.Tx, sc compute.Scope) error {
			_, err := c.admin.comp.MoveLive(tx, sc, id, compute.MoveRequest{})
			return err
		})
		c.rests(id, "a live move")
	}},
	{name: "cold", run: func(c *cloud, id model.ID) {
		c.ask(func(tx *store.Tx, sc compute.Scope) error {
			_, err := c.admin.comp.Migrate(tx, sc, id, compute.MoveRequest{})
			return err
		})
		if c.resized(id) {
			c.ask(func(tx *store.Tx, sc compute.Scope) error { _, err := c.admin.comp.Confirm(tx, sc, id); return err })
		}
		c.rests(id, "a cold move")
	}},
	{name: "resize, reverted", stays: true, run: func(c *cloud, id model.ID) {
		c.ask(func(tx *store.Tx, sc compute.Scope) error {
			_, err := c.admin.comp.Resize(tx, sc, id, c.other(id))
			return err
		})
		if c.resized(id) {
			c.ask(func(tx *store.Tx, sc compute.Scope) error { _, err := c.admin.comp.Revert(tx, sc, id); return err })
		}
		c.rests(id, "a resize that is taken back")
	}},
	{name: "resize, confirmed", run: func(c *cloud, id model.ID) {
		c.ask(func(tx *store.Tx, sc compute.Scope) error {
			_, err := c.admin.comp.Resize(tx, sc, id, c.other(id))
			return err
		})
		if c.resized(id) {
			c.ask(func(tx *store.Tx, sc compute.Scope) error { _, err := c.admin.comp.Confirm(tx, sc, id); return err })
		}
		c.rests(id, "a resize")
	}},
	{name: "evacuation", fresh: true, run: func(c *cloud, id model.ID) {
		h := c.hostOf(c.get(id).Host)
		h.powerOff()
		down := func() bool {
			_, heard := store.Heartbeats.Get(c.admin.st.Snapshot(), h.id)
			return !heard
		}
		if !c.wait(time.Minute, down) {
			c.blame("a host without power is heard of")
		}
		c.ask(func(tx *store.Tx, sc compute.Scope) error { _, err := c.admin.comp.Fence(tx, h.id); return err })
		c.ask(func(tx *store.Tx, sc compute.Scope) error {
			_, err := c.admin.comp.Evacuate(tx, sc, id, compute.MoveRequest{})
			return err
		})
		if !c.wait(5*time.Minute, func() bool { s := c.get(id); return s.Host != h.id && c.hostOf(s.Host).power(id) == hypervisor.Running }) {
			c.blame("an evacuated server does not run: %v", c.settled(id))
		}
		h.powerOn()
		c.rests(id, "an evacuation")
		if !c.wait(time.Minute, func() bool { return !down() }) {
			c.blame("a host with power is not heard of")
		}
	}},
}

// other gives the flavor that a server does not have.
func (c *cloud) other(id model.ID) *model.Flavor {
	if c.get(id).Flavor.ID == c.flavors[0].ID {
		return c.flavors[1]
	}
	return c.flavors[0]
}

// disk reads a server's disk on its host.
func (c *cloud) disk(id model.ID) string {
	b, err := os.ReadFile(filepath.Join(c.hostOf(c.get(id).Host).dir, "servers", id, "disk.qcow2"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// written writes to a server's disk, as its guest would.
func (c *cloud) written(id model.ID, text string) {
	f, err := os.OpenFile(filepath.Join(c.hostOf(c.get(id).Host).dir, "servers", id, "disk.qcow2"), os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(text)
		f.Close()
	}
	if err != nil {
		c.blame("the disk: %v", err)
	}
}

// crashes does an action again and again, with arm before each, until arm's trap was not reached by all of it.
func crashes(t *testing.T, a action, arm func(c *cloud, id model.ID, n int) (sprung func() bool)) {
	points := 0
	wrong, story := simulate(t, shape{servers: 1, hosts: 2, lease: 30, behaviour: fake.Behaviour{MoveFor: 50 * time.Millisecond, StartFor: 20 * time.Millisecond}}, func(c *cloud) {
		id := c.create("a", nil)
		c.rests(id, "boot")
		for n := 1; c.wrong == ""; n++ {
			c.story = nil
			from, text := c.get(id).Host, fmt.Sprintf("line %d;", n)
			c.written(id, text)
			sprung := arm(c, id, n)
			c.tell("%s, crash point %d", a.name, n)
			a.run(c, id)
			end := sprung()
			c.sleep(10 * time.Second) // what else is on its way
			c.rests(id, "afterwards")
			s := c.get(id)
			switch d := c.disk(id); {
			case a.fresh && strings.Contains(d, text), !a.fresh && !strings.Contains(d, text):
				c.blame("its disk holds %q", d)
			}
			if a.stays && s.Host != from {
				c.blame("it has gone elsewhere")
			}
			for m := range store.Migrations.List(c.admin.st.Snapshot(), "server", id) {
				switch m.Status {
				case compute.MigrationCompleted, compute.MigrationConfirmed, compute.MigrationReverted, compute.MigrationFailed, compute.MigrationCancelled, compute.MigrationDone:
				default:
					c.blame("the record of a move that is over says %s", m.Status)
				}
			}
			if !end {
				break
			}
			points = n
		}
	})
	if wrong != "" {
		t.Fatalf("after %d good crash points: %s\n%s", points, wrong, strings.Join(story, "\n"))
	}
	if points < 4 {
		t.Fatalf("only %d crash points", points)
	}
	t.Logf("%s: %d crash points", a.name, points)
}

// TestServerKilledAfterEveryCommit kills the server's process, with all controllers, after each transaction of each way to move in turn,
// and starts it anew.
func TestServerKilledAfterEveryCommit(t *testing.T) {
	for _, a := range actions {
		t.Run(a.name, func(t *testing.T) {
			crashes(t, a, func(c *cloud, _ model.ID, n int) func() bool {
				left, sprung := n, false
				c.mem.Committed(func(int64) {
					if left--; left == 0 {
						sprung = true
						s := c.servers[0]
						s.kill()
						c.wg.Go(func() { c.sleep(time.Second); s.start() })
					}
				})
				return func() bool { c.mem.Committed(nil); return sprung }
			})
		})
	}
}

// TestAgentKilledAtEveryWrite kills the agent of the server's host, and that of the other, before each write to its ledger in turn.
func TestAgentKilledAtEveryWrite(t *testing.T) {
	for _, a := range actions {
		for _, its := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, its own host %v", a.name, its), func(t *testing.T) {
				crashes(t, a, func(c *cloud, id model.ID, n int) func() bool {
					h := c.hostOf(c.get(id).Host)
					if !its {
						h = c.hosts[1-h.i]
					}
					var left atomic.Int64
					left.Store(int64(n))
					h.arm(func() bool {
						if left.Add(-1) != 0 {
							return false
						}
						c.wg.Go(func() { h.kill(); c.sleep(time.Second); h.start() })
						return true
					})
					return func() bool { h.arm(nil); return left.Load() <= 0 }
				})
			})
		}
	}
}
