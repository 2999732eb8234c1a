package fence_test

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"yakumo/compute"
	"yakumo/hypervisor"
	"yakumo/hypervisor/fake"
	"yakumo/model"
	"yakumo/store"
)

// event is something that befalls a cloud, or is asked of it.
type event struct {
	at   time.Duration // since the plan's begin
	kind string
	a, b int // which machine, or server; what else the kind needs
	d    time.Duration
}

func (e event) String() string {
	return fmt.Sprintf("%v %s %d %d %v", e.at, e.kind, e.a, e.b, e.d)
}

// plan is what a property test draws.
type plan struct {
	shape  shape
	guests int
	events []event
	lost   int // the host that never comes back; -1: none
}

const (
	hosts, servers = 3, 2
	span           = 3 * time.Minute // of the events
)

// drawPlan draws clouds whose clocks run apart by no more than rate, of leases of 15 s.
func drawPlan(t *rapid.T, rate float64) plan {
	p := plan{shape: shape{servers: servers, hosts: hosts, lease: model.MinLease, behaviour: fake.Behaviour{MoveFor: rapid.SampledFrom([]time.Duration{0, 100 * time.Millisecond, 5 * time.Second}).Draw(t, "move for"),
		StartFor: rapid.SampledFrom([]time.Duration{0, time.Second}).Draw(t, "start for")}}, guests: rapid.IntRange(1, 3).Draw(t, "guests")}
	for range hosts {
		p.shape.rates = append(p.shape.rates, rapid.SampledFrom([]float64{1, 1 - rate, 1 + rate}).Draw(t, "rate"))
	}
	machines := hosts + servers
	kinds := []string{"cut", "cut both", "isolate", "mend", "slow", "kill server", "cut store", "mend store", "kill agent", "kill keeper", "power", "fence", "live", "cold", "resize", "policy", "stop", "start"}
	for range rapid.IntRange(1, 14).Draw(t, "events") {
		p.events = append(p.events, event{at: time.Duration(rapid.IntRange(0, int(span/time.Millisecond)).Draw(t, "at")) * time.Millisecond,
			kind: rapid.SampledFrom(kinds).Draw(t, "kind"), a: rapid.IntRange(0, machines-1).Draw(t, "a"), b: rapid.IntRange(0, machines-1).Draw(t, "b"),
			d: time.Duration(rapid.IntRange(1, 90).Draw(t, "d")) * time.Second})
	}
	slices.SortStableFunc(p.events, func(x, y event) int { return int(x.at - y.at) })
	p.lost = rapid.IntRange(-1, hosts-1).Draw(t, "lost")
	return p
}

func (c *cloud) machine(i int) string {
	if i < hosts {
		return c.hosts[i%len(c.hosts)].name
	}
	return c.servers[(i-hosts)%len(c.servers)].name
}

// befall does an event, and what ends it later.
func (c *cloud) befall(e event, ids []model.ID) {
	c.tell("EVENT %v", e)
	later := func(f func()) { c.wg.Go(func() { c.sleep(e.d); f() }) }
	cut := func(on bool, ways ...[2]string) {
		c.net.set(func() {
			for _, w := range ways {
				c.net.cut[w] = on
			}
		})
	}
	h, s, id := c.hosts[e.a%len(c.hosts)], c.servers[e.a%len(c.servers)], ids[e.a%len(ids)]
	x, y := c.machine(e.a), c.machine(e.b)
	// What a user asks may be refused: the state is what it is.
	ask := func(f func(tx *store.Tx, sc compute.Scope) error) {
		if err := c.update(func(tx *store.Tx) error { return f(tx, scope()) }); err != nil {
			c.tell("refused: %v", err)
		}
	}
	switch e.kind {
	case "cut":
		cut(true, [2]string{x, y})
		later(func() { cut(false, [2]string{x, y}) })
	case "cut both":
		cut(true, [2]string{x, y}, [2]string{y, x})
		later(func() { cut(false, [2]string{x, y}, [2]string{y, x}) })
	case "isolate": // a host from everything
		var ways [][2]string
		for i := range hosts + servers {
			if o := c.machine(i); o != h.name && !slices.Contains(ways, [2]string{h.name, o}) {
				ways = append(ways, [2]string{h.name, o}, [2]string{o, h.name})
			}
		}
		cut(true, ways...)
		later(func() { cut(false, ways...) })
	case "mend":
		c.net.set(func() { clear(c.net.cut) })
	case "slow":
		c.net.set(func() { c.net.slow[[2]string{x, y}] = e.d / 10 })
		later(func() { c.net.set(func() { delete(c.net.slow, [2]string{x, y}) }) })
	case "kill server":
		s.kill()
		later(s.start)
	case "cut store":
		s.reachable(false)
		later(func() { s.reachable(true) })
	case "mend store":
		s.reachable(true)
	case "kill agent": // where its keeper lives, it may be away for long; else its supervisor starts it anew
		h.kill()
		if !h.kept() {
			e.d = time.Second
		}
		later(h.start)
	case "kill keeper":
		if h.lives() {
			h.killKeeper()
		}
	case "power":
		h.powerOff()
		later(h.powerOn)
	case "fence":
		h.powerOff()
		if c.wait(20*time.Second, func() bool { _, heard := store.Heartbeats.Get(c.admin.st.Snapshot(), h.id); return !heard }) {
			ask(func(tx *store.Tx, _ compute.Scope) error { _, err := c.admin.comp.Fence(tx, h.id); return err })
		}
		later(h.powerOn)
	case "live":
		ask(func(tx *store.Tx, sc compute.Scope) error {
			_, err := c.admin.comp.MoveLive(tx, sc, id, compute.MoveRequest{})
			return err
		})
	case "cold":
		ask(func(tx *store.Tx, sc compute.Scope) error {
			_, err := c.admin.comp.Migrate(tx, sc, id, compute.MoveRequest{})
			return err
		})
	case "resize":
		ask(func(tx *store.Tx, sc compute.Scope) error {
			_, err := c.admin.comp.Resize(tx, sc, id, c.other(id))
			return err
		})
	case "policy": // taken away, and given back
		policy := func(with string) {
			ask(func(tx *store.Tx, sc compute.Scope) error {
				_, err := c.admin.comp.SetMetadata(tx, sc, id, map[string]string{model.HAKey: with}, false)
				return err
			})
		}
		policy("none")
		later(func() { policy(model.HARestart) })
	case "stop":
		ask(func(tx *store.Tx, sc compute.Scope) error { _, err := c.admin.comp.Stop(tx, sc, id); return err })
	case "start":
		ask(func(tx *store.Tx, sc compute.Scope) error { _, err := c.admin.comp.Start(tx, sc, id); return err })
	}
}

// play runs a plan and gives what was wrong.
func play(t *testing.T, p plan) (string, []string) {
	return simulate(t, p.shape, func(c *cloud) {
		var ids []model.ID
		for i := range p.guests {
			ids = append(ids, c.create(fmt.Sprint("g", i), func(n *compute.NewServer) { n.Metadata = map[string]string{model.HAKey: model.HARestart} }))
		}
		for _, id := range ids {
			c.rests(id, "boot")
		}
		begin := time.Now()
		for _, e := range p.events {
			if d := time.Until(begin.Add(e.at)); d > 0 {
				c.sleep(d)
			}
			c.befall(e, ids)
		}
		c.sleep(time.Until(begin.Add(span)))
		c.sleep(91 * time.Second) // everything that was to be undone is
		c.net.set(func() { clear(c.net.cut); clear(c.net.slow) })
		for _, s := range c.servers {
			s.reachable(true)
			s.start()
		}
		for _, h := range c.hosts {
			if h.i == p.lost {
				h.powerOff()
			} else {
				h.powerOn()
				h.start()
			}
		}
		c.tell("all is well again, but for host %d", p.lost)
		c.finish(ids)
		if p.lost >= 0 {
			c.hosts[p.lost].powerOn()
			c.tell("the lost host is back")
			c.finish(ids)
		}
	})
}

// finish is what must be so some time after all that can be mended is: servers run, each once, on hosts that live, and nothing is left of
// them on others.
func (c *cloud) finish(ids []model.ID) {
	for _, id := range ids {
		confirm := func() {
			if s := c.get(id); compute.State(s) == compute.Resized && s.Status.Task == "" {
				if err := c.update(func(tx *store.Tx) error { _, err := c.admin.comp.Confirm(tx, scope(), id); return err }); err != nil {
					c.tell("refused: %v", err)
				}
			}
		}
		if !c.wait(10*time.Minute, func() bool { confirm(); return c.fine(id) == nil }) {
			c.blame("server %.8s: %v", id, c.fine(id))
		}
	}
}

// fine is settled, but that hosts without power do not count, nor one whose guest was stopped.
func (c *cloud) fine(id model.ID) error {
	s := c.get(id)
	if h := c.hostOf(s.Host); h != nil && !h.powered() && (s.Power == model.PowerOff || s.Lease() == 0) {
		return nil // nobody wants it to run, or to be restarted elsewhere
	}
	return c.settled(id)
}

// TestNoGuestRunsTwice: whatever becomes of processes, machines and the ways between them, no two guests of one server run at any
// instant, and once things are mended each server runs again.
func TestNoGuestRunsTwice(t *testing.T) {
	drawn := rapid.Custom(func(t *rapid.T) plan { return drawPlan(t, 0.1) })
	for seed := *first; seed < *first+*plans; seed++ {
		p := drawn.Example(seed)
		if wrong, story := play(t, p); wrong != "" {
			t.Fatalf("plan %d: %s\n%v\n%s", seed, wrong, p.events, strings.Join(story, "\n"))
		}
	}
}

// The plans are the same in each run; a longer run is another -first, or more -plans.
var (
	first = flag.Int("first", 0, "the first plan that is played")
	plans = flag.Int("plans", 80, "how many plans are played")
)

// partition cuts the host of a server off from everything, and tells for how long two guests of the server may have run.
func partition(t *testing.T, lease int, rate float64) (wrong string, moved bool, story []string) {
	wrong, story = simulate(t, shape{servers: 1, hosts: 2, lease: lease, rates: []float64{rate, rate}}, func(c *cloud) {
		id := c.create("a", func(n *compute.NewServer) { n.Metadata = map[string]string{model.HAKey: model.HARestart} })
		c.rests(id, "boot")
		h := c.hostOf(c.get(id).Host)
		c.befall(event{kind: "isolate", a: h.i, d: time.Duration(3*lease)*time.Second + 5*time.Minute}, []model.ID{id})
		moved = c.wait(time.Duration(2*lease)*time.Second+4*time.Minute, func() bool {
			o := c.hosts[1-h.i]
			return c.get(id).Host == o.id && o.power(id) == hypervisor.Running
		})
	})
	return wrong, moved, story
}

// TestBound: the rates of clocks that docs/design/0023-fencing.md gives as the bound are borne, and ones far beyond are not: the
// simulation sees what it is to see.
func TestBound(t *testing.T) {
	for _, x := range []struct {
		lease int
		rate  float64
		twice bool
	}{
		{15, 1, false}, {15, 0.8, false}, {30, 0.9, false}, {model.MaxLease, 0.9985, false}, {15, 1.2, false}, {model.MaxLease, 1.01, false},
		{15, 0.4, true}, {model.MaxLease, 0.98, true},
	} {
		t.Run(fmt.Sprintf("%d s, rate %v", x.lease, x.rate), func(t *testing.T) {
			wrong, moved, story := partition(t, x.lease, x.rate)
			if !moved || (wrong != "") != x.twice {
				t.Errorf("restarted: %v, wrong: %q, want that it runs twice: %v\n%s", moved, wrong, x.twice, strings.Join(story, "\n"))
			}
		})
	}
}

// TestPolicyComesBack: a host that was told that a server's guest is leased no more, and cannot say so, is not counted on when the
// policy is given back.
func TestPolicyComesBack(t *testing.T) {
	wrong, story := simulate(t, shape{servers: 1, hosts: 2, lease: model.MinLease}, func(c *cloud) {
		id := c.create("a", func(n *compute.NewServer) { n.Metadata = map[string]string{model.HAKey: model.HARestart} })
		c.rests(id, "boot")
		h := c.hostOf(c.get(id).Host)
		policy := func(with string) {
			c.ask(func(tx *store.Tx, sc compute.Scope) error {
				_, err := c.admin.comp.SetMetadata(tx, sc, id, map[string]string{model.HAKey: with}, false)
				return err
			})
		}
		there, back := [2]string{c.servers[0].name, h.name}, [2]string{h.name, c.servers[0].name}
		c.net.set(func() { c.net.cut[back] = true })
		policy("none")
		c.sleep(time.Second)
		c.net.set(func() { c.net.cut[there] = true })
		policy(model.HARestart)
		c.sleep(3 * time.Minute)
		if h.power(id) != hypervisor.Running || c.get(id).Host != h.id {
			c.blame("it does not run on where it is")
		}
		c.net.set(func() { clear(c.net.cut) })
		if !c.wait(time.Minute, func() bool { return c.get(id).Status.Lease == model.MinLease }) {
			c.blame("the host does not say that it holds to the lease again")
		}
		c.befall(event{kind: "isolate", a: h.i, d: 10 * time.Minute}, []model.ID{id})
		if !c.wait(2*time.Minute, func() bool { return c.get(id).Host != h.id }) {
			c.blame("it is leased again, and is not restarted elsewhere")
		}
	})
	if wrong != "" {
		t.Fatalf("%s\n%s", wrong, strings.Join(story, "\n"))
	}
}
