package hypertest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
)

// MoveHost is a Host whose guests can move to another one.
type MoveHost interface {
	Host
	// Twin gives the definition here of a guest of another host. Its disks are files of this host, of the same sizes.
	Twin(t *testing.T, g hypervisor.Guest) hypervisor.Guest
}

// RunMoves runs the part of the suite that is about moves, between two hosts.
func RunMoves(t *testing.T, a, b MoveHost) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, MoveHost, MoveHost)
	}{
		{"Moves", testMoves},
		{"BackAndForth", testBackAndForth},
		{"MovesPaused", testMovesPaused},
		{"MoveAborted", testMoveAborted},
		{"MoveGivenUp", testMoveGivenUp},
		{"MoveHurried", testMoveHurried},
		{"MoveCut", testMoveCut},
		{"MoveRefused", testMoveRefused},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, a, b) })
	}
}

// waitRunning waits until the guest runs and has greeted.
func startAndGreet(t *testing.T, d hypervisor.Driver, g hypervisor.Guest) {
	t.Helper()
	define(t, d, g)
	must(t, d.Start(testContext(t), g.ID))
	waitLog(t, d, g.ID, greetings(1))
}

// echo tells whether the guest answers on its console.
func echo(t *testing.T, d hypervisor.Driver, id string) {
	t.Helper()
	ctx := testContext(t)
	var c io.ReadWriteCloser
	for tick := time.NewTicker(50 * time.Millisecond); ; { // libvirt lets go of an earlier reader in its own time
		var err error
		if c, err = d.(hypervisor.Consoler).Console(ctx, id); err == nil {
			tick.Stop()
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		<-tick.C
	}
	defer c.Close()
	said := "are you " + NewID()[:8]
	got := make(chan string, 1)
	go func() {
		var all []byte
		b := make([]byte, 256)
		for !bytes.Contains(all, []byte(said)) {
			n, err := c.Read(b)
			all = append(all, b[:n]...)
			if err != nil {
				break
			}
		}
		got <- string(all)
	}()
	if _, err := io.WriteString(c, said); err != nil {
		t.Fatal(err)
	}
	select {
	case all := <-got:
		if !bytes.Contains([]byte(all), []byte(said)) {
			t.Fatalf("the guest echoed %q, not %q", all, said)
		}
	case <-ctx.Done():
		t.Fatal("the guest does not answer")
	}
}

// content is a digest of a disk's file.
func content(t *testing.T, d hypervisor.Disk) [32]byte {
	t.Helper()
	data, err := os.ReadFile(d.Path)
	must(t, err)
	return sha256.Sum256(data)
}

// copied gives the serial numbers of a guest's disks.
func copied(g hypervisor.Guest) (serials []string) {
	for _, d := range g.Disks {
		serials = append(serials, d.Serial)
	}
	return serials
}

// passage leads to a reception at d, for g's twin there. dial may be nil.
func passage(t *testing.T, d hypervisor.Driver, twin hypervisor.Guest, wrap func(kind string, c io.ReadWriteCloser) io.ReadWriteCloser) hypervisor.Passage {
	t.Helper()
	r, err := d.(hypervisor.Migrator).Receive(testContext(t), twin)
	must(t, err)
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return hypervisor.Passage{Guest: twin, CopyDisks: copied(twin), AutoConverge: true, Dial: func(ctx context.Context, kind string) (io.ReadWriteCloser, error) {
		c, err := r.Dial(ctx, kind)
		if err == nil && wrap != nil {
			c = wrap(kind, c)
		}
		return c, err
	}}
}

func testMoves(t *testing.T, a, b MoveHost) {
	from, to := a.Open(t), b.Open(t)
	g := a.Guest(t)
	startAndGreet(t, from, g)
	twin := b.Twin(t, g)
	cleanUp(t, to, g.ID)
	watched, err := from.Watch(testContext(t))
	must(t, err)
	arrived, err := to.Watch(testContext(t))
	must(t, err)
	p := passage(t, to, twin, nil)
	wantPower(t, to, g.ID, hypervisor.Absent)
	must(t, from.(hypervisor.Migrator).Send(testContext(t), g.ID, p))
	waitPower(t, watched, g.ID, hypervisor.Absent)
	waitPower(t, arrived, g.ID, hypervisor.Running)
	wantPower(t, from, g.ID, hypervisor.Absent)
	wantPower(t, to, g.ID, hypervisor.Running)
	echo(t, to, g.ID)
	for i := range g.Disks {
		if content(t, g.Disks[i]) != content(t, twin.Disks[i]) {
			t.Errorf("disk %d is not as it was", i)
		}
	}
	// It is a guest like any: the definition is the one that was asked for, and outlives a stop.
	must(t, to.Ensure(testContext(t), twin))
	must(t, to.Stop(testContext(t), g.ID, 0))
	must(t, to.Start(testContext(t), g.ID))
	wantPower(t, to, g.ID, hypervisor.Running)
	if _, err := from.(hypervisor.Migrator).Progress(testContext(t), g.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("progress of a guest that has left: %v", err)
	}
}

func cleanUp(t *testing.T, d hypervisor.Driver, id string) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), Deadline)
		defer cancel()
		if err := d.Remove(ctx, id); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
}

// testMovesPaused: a guest that its user holds is held at the other end, with its memory, and until it is there it is on its way.
func testMovesPaused(t *testing.T, a, b MoveHost) {
	pass := make(chan struct{})
	from, to, g, sent := held(t, testContext(t), a, b, pass, func(d hypervisor.Driver, p *hypervisor.Passage) {
		must(t, d.(hypervisor.Pauser).Pause(testContext(t), p.Guest.ID))
	})
	if s := stateOf(t, to, g.ID); s.Power != hypervisor.Paused || !s.Moving {
		t.Errorf("while its memory comes it is %+v there", s)
	}
	if s := stateOf(t, from, g.ID); s.Power != hypervisor.Paused || s.Moving {
		t.Errorf("while its memory goes it is %+v here", s)
	}
	arrived, err := to.Watch(testContext(t))
	must(t, err)
	close(pass)
	must(t, ended(t, sent))
	for s := waitPower(t, arrived, g.ID, hypervisor.Paused); s.Moving; {
		s = waitPower(t, arrived, g.ID, hypervisor.Paused)
	}
	if s := stateOf(t, to, g.ID); s.Power != hypervisor.Paused || s.Moving {
		t.Errorf("it has come as %+v", s)
	}
	wantPower(t, from, g.ID, hypervisor.Absent)
	must(t, to.Start(testContext(t), g.ID))
	wantPower(t, to, g.ID, hypervisor.Running)
	echo(t, to, g.ID)
}

func testBackAndForth(t *testing.T, a, b MoveHost) {
	hosts := [2]MoveHost{a, b}
	drivers := [2]hypervisor.Driver{a.Open(t), b.Open(t)}
	g := a.Guest(t)
	startAndGreet(t, drivers[0], g)
	first := content(t, g.Disks[0])
	cleanUp(t, drivers[1], g.ID)
	for n := range 5 {
		from, to := drivers[n%2], drivers[(n+1)%2]
		twin := hosts[(n+1)%2].Twin(t, g)
		must(t, from.(hypervisor.Migrator).Send(testContext(t), g.ID, passage(t, to, twin, nil)))
		echo(t, to, g.ID)
		wantPower(t, from, g.ID, hypervisor.Absent)
		g = twin
	}
	if content(t, g.Disks[0]) != first {
		t.Error("the disk is not as it was")
	}
}

// slowly lets a connection's bytes pass until pass is closed, but the first few.
type slowly struct {
	io.ReadWriteCloser
	after int64
	pass  chan struct{}
	seen  *atomic.Int64
	gone  chan struct{}
	once  sync.Once
}

func (s *slowly) Write(b []byte) (int, error) {
	if s.seen.Add(int64(len(b))) > s.after {
		select {
		case <-s.pass:
		case <-s.gone:
		}
	}
	return s.ReadWriteCloser.Write(b)
}

func (s *slowly) Close() error {
	s.once.Do(func() { close(s.gone) })
	return s.ReadWriteCloser.Close()
}

// held begins a move whose memory does not pass before pass is closed, and gives what Send will return. first, if any, is called before.
func held(t *testing.T, ctx context.Context, a, b MoveHost, pass chan struct{}, first ...func(hypervisor.Driver, *hypervisor.Passage)) (from, to hypervisor.Driver, g hypervisor.Guest, sent chan error) {
	t.Helper()
	from, to = a.Open(t), b.Open(t)
	g = a.Guest(t)
	startAndGreet(t, from, g)
	cleanUp(t, to, g.ID)
	var seen atomic.Int64
	begun := make(chan struct{})
	var once sync.Once
	p := passage(t, to, b.Twin(t, g), func(kind string, c io.ReadWriteCloser) io.ReadWriteCloser {
		if kind != "memory" {
			return c
		}
		once.Do(func() { close(begun) })
		return &slowly{ReadWriteCloser: c, pass: pass, seen: &seen, gone: make(chan struct{})}
	})
	for _, f := range first {
		f(from, &p)
	}
	sent = make(chan error, 1)
	go func() { sent <- from.(hypervisor.Migrator).Send(ctx, g.ID, p) }()
	select {
	case <-begun:
	case err := <-sent:
		t.Fatalf("the move ended before it had begun: %v", err)
	case <-testContext(t).Done():
		t.Fatal("the move does not begin")
	}
	return from, to, g, sent
}

func ended(t *testing.T, sent chan error) error {
	t.Helper()
	select {
	case err := <-sent:
		return err
	case <-time.After(Deadline):
		t.Fatal("the move does not end")
	}
	return nil
}

// stays checks that the guest runs where it was and nowhere else.
func stays(t *testing.T, from, to hypervisor.Driver, id string) {
	t.Helper()
	ctx := testContext(t)
	for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
		if stateOf(t, from, id).Power == hypervisor.Running && stateOf(t, to, id).Power == hypervisor.Absent {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("the guest is %v where it was and %v where it was to go", stateOf(t, from, id).Power, stateOf(t, to, id).Power)
		}
	}
	echo(t, from, id)
}

func testMoveAborted(t *testing.T, a, b MoveHost) {
	pass := make(chan struct{})
	from, to, g, sent := held(t, testContext(t), a, b, pass)
	m := from.(hypervisor.Migrator)
	progress, err := m.Progress(testContext(t), g.ID)
	must(t, err)
	if progress.MemoryTotal < 0 || progress.MemoryRemaining < 0 {
		t.Errorf("progress %+v", progress)
	}
	must(t, m.Abort(testContext(t), g.ID))
	wantKind(t, ended(t, sent), fault.Conflict)
	close(pass)
	stays(t, from, to, g.ID)
	must(t, m.Abort(testContext(t), g.ID)) // nothing to abort is a success
}

func testMoveGivenUp(t *testing.T, a, b MoveHost) {
	pass := make(chan struct{})
	ctx, cancel := context.WithCancel(testContext(t))
	from, to, g, sent := held(t, ctx, a, b, pass)
	cancel()
	wantKind(t, ended(t, sent), fault.Conflict)
	close(pass)
	stays(t, from, to, g.ID)
}

func testMoveHurried(t *testing.T, a, b MoveHost) {
	for _, postCopy := range []bool{false, true} {
		t.Run(fmt.Sprintf("post-copy=%v", postCopy), func(t *testing.T) { testHurry(t, a, b, postCopy) })
	}
}

func testHurry(t *testing.T, a, b MoveHost, postCopy bool) {
	pass := make(chan struct{})
	from, to, g, sent := held(t, testContext(t), a, b, pass, func(_ hypervisor.Driver, p *hypervisor.Passage) { p.PostCopy = postCopy })
	must(t, from.(hypervisor.Migrator).Hurry(testContext(t), g.ID))
	arrived, err := to.Watch(testContext(t))
	must(t, err)
	close(pass)
	must(t, ended(t, sent))
	t.Logf("it runs there: %s", waitPower(t, arrived, g.ID, hypervisor.Running).Reason)
	wantPower(t, to, g.ID, hypervisor.Running)
	wantPower(t, from, g.ID, hypervisor.Absent)
	echo(t, to, g.ID)
}

// cutting breaks a connection after so many bytes in the direction to the receiver.
type cutting struct {
	io.ReadWriteCloser
	left atomic.Int64
}

func (c *cutting) Write(b []byte) (int, error) {
	if c.left.Add(-int64(len(b))) < 0 {
		return 0, errors.Join(errors.New("the cable was cut"), c.Close())
	}
	return c.ReadWriteCloser.Write(b)
}

func testMoveCut(t *testing.T, a, b MoveHost) {
	from, to := a.Open(t), b.Open(t)
	g := a.Guest(t)
	startAndGreet(t, from, g)
	cleanUp(t, to, g.ID)
	for _, c := range []struct {
		kind  string
		bytes int64
	}{{"control", 0}, {"control", 30}, {"memory", 0}, {"memory", 2000}, {"disks", 0}, {"disks", 100}} {
		t.Run(fmt.Sprintf("%s after %d bytes", c.kind, c.bytes), func(t *testing.T) {
			p := passage(t, to, b.Twin(t, g), func(kind string, conn io.ReadWriteCloser) io.ReadWriteCloser {
				if kind != c.kind {
					return conn
				}
				cut := &cutting{ReadWriteCloser: conn}
				cut.left.Store(c.bytes)
				return cut
			})
			if err := from.(hypervisor.Migrator).Send(testContext(t), g.ID, p); err == nil {
				if c.bytes == 0 {
					t.Fatal("the guest moved over a connection that does not exist")
				}
				// All of it fitted: then it runs there, once, and comes back for what is next.
				wantPower(t, from, g.ID, hypervisor.Absent)
				g = a.Twin(t, p.Guest)
				must(t, to.(hypervisor.Migrator).Send(testContext(t), g.ID, passage(t, from, g, nil)))
				return
			}
			stays(t, from, to, g.ID)
		})
	}
	// What failed may be tried again.
	must(t, from.(hypervisor.Migrator).Send(testContext(t), g.ID, passage(t, to, b.Twin(t, g), nil)))
	echo(t, to, g.ID)
}

func testMoveRefused(t *testing.T, a, b MoveHost) {
	from, to := a.Open(t), b.Open(t)
	g := a.Guest(t)
	startAndGreet(t, from, g)
	ctx := testContext(t)
	if _, err := from.(hypervisor.Migrator).Receive(ctx, g); !fault.Is(err, fault.Conflict) {
		t.Errorf("a guest that is here is awaited: %v", err)
	}
	r, err := to.(hypervisor.Migrator).Receive(ctx, b.Twin(t, g))
	must(t, err)
	if _, err := r.Dial(ctx, "something"); !fault.Is(err, fault.Invalid) {
		t.Errorf("a connection of no kind: %v", err)
	}
	must(t, r.Close())
	unknown := g
	unknown.ID = NewID()
	unknown.Name = "yk-" + unknown.ID
	p := hypervisor.Passage{Guest: unknown, Dial: func(context.Context, string) (io.ReadWriteCloser, error) {
		t.Error("a guest that does not exist is on its way")
		return nil, errors.New("no")
	}}
	wantKind(t, from.(hypervisor.Migrator).Send(ctx, unknown.ID, p), fault.NotFound)
	stays(t, from, to, g.ID)
}
