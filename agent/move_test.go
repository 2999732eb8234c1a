package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"yakumo/channel/channeltest"
	"yakumo/datapath"
	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/hypervisor/fake"
	"yakumo/model"
	"yakumo/netspace/netspacetest"
)

// pair is two hosts, and what of the servers' side decides about moves between them, as compute does.
type pair struct {
	hosts  [2]*world
	agents [2]*running // nil: dead
	at     [2]model.HostAt
	change [2]func(*Config)
	more   [2][]model.HostRow // beside the server's
	gen    int64

	cloud *cloud
	s     *model.HostServer
	p     *model.HostPort
	host  int // that the server is on
	move  *model.HostMove
	cold  bool
	ended string // how the last move ended
}

func newPair(t worldT, tb testing.TB, dir string, cfg fake.HostConfig) *pair {
	t.Helper()
	auth := channeltest.NewAuthority(tb)
	v := &pair{}
	for i := range v.hosts {
		id := fmt.Sprintf("host-%d", i)
		sub := filepath.Join(dir, id)
		if err := os.MkdirAll(sub, 0o700); err != nil {
			t.Fatal(err)
		}
		v.hosts[i] = newWorld(sub, cfg)
		v.hosts[i].side.Credentials = auth.Host(id)
		v.at[i] = model.HostAt{HostID: id, Name: id, TunnelIP: elsewhere, Channel: netspacetest.Loopback(tb)} // for all lives of the agent
	}
	v.cloud = newCloud(v.hosts[0].side)
	v.hosts[1].side.blobs = v.hosts[0].side.blobs
	v.s, v.p = v.cloud.server()
	v.s.ConfigDrive = true
	return v
}

func (v *pair) start(t worldT, i int) {
	t.Helper()
	v.agents[i] = v.hosts[i].start(t, func(c *Config) {
		c.Channel = v.at[i].Channel
		c.Peers = func() (net.Listener, error) {
			for end := time.Now().Add(patience); ; {
				ln, err := net.Listen("tcp", v.at[i].Channel.String())
				if err == nil || time.Now().After(end) {
					return ln, err
				}
			}
		}
		c.Repeat.Limit = 1 << 30
		if v.change[i] != nil {
			v.change[i](c)
		}
	})
	v.tell(i)
}

// rows are what a host is told now.
func (v *pair) rows(i int) []model.HostRow {
	rows := append(v.cloud.base(), v.more[i]...)
	s, p := *v.s, *v.p
	if v.move == nil {
		if i != v.host {
			return rows
		}
		return append(rows, &s, &p)
	}
	m := *v.move
	m.Role, m.Peer = model.RoleSource, v.at[1-i]
	p.Standby = i != v.host
	source := v.move.Peer.HostID == v.at[1-i].HostID // Peer is kept as the source sees it
	if !source {
		m.Role = model.RoleTarget
	}
	switch {
	case m.Stage == model.MoveLeaving && source:
		m.Stage = model.MoveRunning
		s.Move = &m
	case m.Stage == model.MoveLeaving || m.Stage == model.MoveVerify && !source:
	case v.cold && source:
		if s.Move, s.Power = &m, model.PowerOff; m.Stage == model.MovePreparing {
			m.Stage = model.MoveRunning
		}
		if m.Stage == model.MoveReverting {
			m.Stage = model.MoveVerify
		}
	default:
		s.Move = &m
		if m.Stage == model.MoveReverting {
			s.Power = model.PowerOff
		}
	}
	if v.cold && source && (v.move.Stage == model.MoveVerify || v.move.Stage == model.MoveReverting) {
		return append(rows, &s) // its ports are the other host's
	}
	return append(rows, &s, &p)
}

// tell gives a host everything anew, where it lives.
func (v *pair) tell(i int) {
	if v.agents[i] != nil {
		v.gen++
		_ = v.agents[i].Apply(context.Background(), full(v.gen, v.rows(i)...)) // it may be dying
	}
}

func (v *pair) tellBoth() {
	v.s = with(v.s, func(*model.HostServer) {})
	v.tell(0)
	v.tell(1)
}

// begin begins a move to the other host.
func (v *pair) begin(kind model.MoveKind) {
	v.cold = kind != model.MoveLive
	v.ended = ""
	v.move = &model.HostMove{ID: model.NewID(), Kind: kind, Stage: model.MovePreparing, Peer: v.at[1-v.host]}
	v.tellBoth()
}

func (v *pair) said(i int) model.MoveReport {
	r := v.hosts[i].side.server(v.s.ID)
	if r.Move == nil || v.move == nil || r.Move.ID != v.move.ID {
		return model.MoveReport{}
	}
	return *r.Move
}

// decide does what compute does on what both hosts said.
func (v *pair) decide() {
	if v.move == nil {
		return
	}
	src := 0
	if v.move.Peer.HostID == v.at[0].HostID {
		src = 1
	}
	source, target := v.said(src), v.said(1-src)
	next := func(s model.MoveStage) {
		m := *v.move
		m.Stage = s
		v.move = &m
		v.tellBoth()
	}
	over := func(how string, host int) {
		v.move, v.ended, v.host = nil, how, host
		v.tellBoth()
	}
	switch {
	case v.move.Stage == model.MovePreparing && target.State == model.MoveFailed:
		over("failed", src)
	case v.cold && v.move.Stage == model.MovePreparing && source.State == model.MoveReady, !v.cold && v.move.Stage == model.MovePreparing && target.State == model.MoveReady:
		next(model.MoveRunning)
	case v.cold && v.move.Stage == model.MoveRunning && target.State == model.MoveDone:
		v.host = 1 - src
		next(model.MoveVerify)
	case v.cold && v.move.Stage == model.MoveRunning && target.State == model.MoveFailed:
		over("failed", src)
	case v.cold && v.move.Stage == model.MoveReverting && target.State == model.MoveDone && v.hosts[1-src].side.server(v.s.ID).Generation >= v.s.Generation:
		over("reverted", src)
	case v.cold:
	case v.move.Stage == model.MoveRunning && target.State == model.MoveDone:
		v.host = 1 - src
		next(model.MoveLeaving)
	case v.move.Stage == model.MoveRunning && (source.State == model.MoveFailed || source.State == model.MoveAborted):
		over(string(source.State), src)
	case source.State == model.MoveDone, v.move.Stage == model.MoveLeaving && source.State != model.MoveWorking && source.State != "":
		over("done", 1-src)
	}
}

// runs tells on how many hosts the guest runs.
func (v *pair) runs(t worldT) (n int) {
	for _, w := range v.hosts {
		if w.power(t, v.s.ID) == hypervisor.Running {
			n++
		}
	}
	return n
}

// settled waits until the move is over and the server runs, or is held, as is wanted, on its host alone.
func (v *pair) settle(t worldT) {
	t.Helper()
	waitFor(t, "the move to end", func() bool { v.decide(); return v.move == nil })
	waitFor(t, "the guest to run where it belongs, and nowhere else", func() bool {
		r := v.hosts[v.host].side.server(v.s.ID)
		return powerOf(v.hosts[v.host].power(t, v.s.ID)) == v.s.Power && v.hosts[1-v.host].power(t, v.s.ID) == hypervisor.Absent &&
			r.Power == v.s.Power && r.Phase == model.PhaseReady && r.Generation == v.s.Generation
	})
	waitFor(t, "nothing to be left on the other host", func() bool {
		_, err := os.Stat(v.agents[1-v.host].dir(v.s.ID))
		return errors.Is(err, os.ErrNotExist) && len(v.agents[1-v.host].ledger.servers()) == 0
	})
	waitFor(t, "its port to be wired", func() bool { return v.agents[v.host].dp.Installed(v.p.ID) })
}

func (v *pair) close(t worldT) {
	for _, a := range v.agents {
		if a != nil {
			a.stop(t)
		}
	}
}

// log is what the guest has written since it was first started: it is in its memory.
func (v *pair) log(t worldT) string {
	t.Helper()
	b, err := fake.New(fake.Config{Host: v.hosts[v.host].host}).ConsoleLog(context.Background(), v.s.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (v *pair) disk(t worldT, i int) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(v.hosts[i].dir, "servers", v.s.ID, "disk.qcow2"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// boot starts both hosts and the server on the first, whose disk gets something to tell it by.
func (v *pair) boot(t worldT) {
	t.Helper()
	v.start(t, 0)
	v.start(t, 1)
	v.hosts[0].settled(t, v.s.ID, v.s.Generation, model.PhaseReady, model.PowerRunning)
	f, err := os.OpenFile(filepath.Join(v.hosts[0].dir, "servers", v.s.ID, "disk.qcow2"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString("what the guest wrote")
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func movingPair(t *testing.T, b fake.Behaviour, faults ...fake.Fault) *pair {
	b.Greeting = "start\n"
	v := newPair(t, t, t.TempDir(), fake.HostConfig{Guests: b, Faults: faults})
	v.boot(t)
	t.Cleanup(func() { v.close(t) })
	return v
}

func TestLiveMove(t *testing.T) {
	v := movingPair(t, fake.Behaviour{MoveFor: 10 * time.Millisecond})
	before := v.disk(t, 0)
	for n := range 4 {
		v.begin(model.MoveLive)
		v.settle(t)
		if v.ended != "done" || v.host != (n+1)%2 {
			t.Fatalf("move %d: %s, the server is on host %d", n, v.ended, v.host)
		}
		if got := v.log(t); got != "start\n" {
			t.Fatalf("the guest wrote %q: it was started anew", got)
		}
		if v.disk(t, v.host) != before {
			t.Fatal("the disk is not as it was")
		}
		g, _ := v.hosts[v.host].host.Guest(v.s.ID)
		if !strings.HasPrefix(g.ConsoleLog, v.hosts[v.host].dir) {
			t.Fatalf("its definition is of another host: %+v", g)
		}
		if _, err := os.Stat(filepath.Join(v.hosts[v.host].dir, "servers", v.s.ID, driveFile)); err != nil {
			t.Fatal(err)
		}
	}
}

// pause has the server's user hold it, or let it go on.
func (v *pair) pause(t worldT, p model.Power) {
	t.Helper()
	v.s = with(v.s, func(s *model.HostServer) { s.Power = p })
	v.tell(v.host)
	waitFor(t, "the guest to be as wanted", func() bool { return powerOf(v.hosts[v.host].power(t, v.s.ID)) == p })
}

// TestPausedMove: a guest that its user holds moves too, whatever happens to it, and is held where it then is.
func TestPausedMove(t *testing.T) {
	v := movingPair(t, fake.Behaviour{MoveFor: 10 * time.Millisecond}, fake.Fault{Op: fake.Switch, Nth: 2, Times: 1, Err: errors.New("broken")})
	before := v.disk(t, 0)
	v.pause(t, model.PowerPaused)
	for n, want := range []string{"done", "done", "failed", "done"} {
		was := v.host
		v.begin(model.MoveLive)
		waitFor(t, "the target to be ready", func() bool { return v.said(1-was).State == model.MoveReady })
		if got := v.agents[1-was].serves(v.p); got == "here" {
			t.Fatalf("before it has come the port is %q there", got)
		}
		v.settle(t)
		if v.ended != want || (v.host != was) != (want == "done") {
			t.Fatalf("move %d: %s, the server is on host %d", n, v.ended, v.host)
		}
		if got := v.agents[v.host].serves(v.p); got != "here" {
			t.Fatalf("where it is now the port is %q", got)
		}
		if v.log(t) != "start\n" || v.disk(t, v.host) != before {
			t.Fatal("it was started anew, or its disk is not as it was")
		}
	}
	v.pause(t, model.PowerRunning)
	v.settle(t)
	if v.log(t) != "start\n" {
		t.Error("it was started anew")
	}
}

// TestMoveTellsProgress: while it lasts there is something to show, and it can be hurried.
func TestMoveTellsProgress(t *testing.T) {
	v := movingPair(t, fake.Behaviour{MoveFor: time.Hour})
	v.begin(model.MoveLive)
	waitFor(t, "progress to be told", func() bool { v.decide(); return v.said(0).Progress.MemoryTotal > 0 })
	m := *v.move
	m.Force = true
	v.move = &m
	v.tellBoth()
	v.settle(t)
	if v.ended != "done" {
		t.Errorf("it ended as %s", v.ended)
	}
}

func TestMoveAborted(t *testing.T) {
	v := movingPair(t, fake.Behaviour{MoveFor: time.Hour})
	v.begin(model.MoveLive)
	waitFor(t, "it to begin", func() bool { v.decide(); return v.said(0).State == model.MoveWorking })
	m := *v.move
	m.Abort = true
	v.move = &m
	v.tellBoth()
	v.settle(t)
	if v.ended != string(model.MoveAborted) || v.host != 0 || v.log(t) != "start\n" {
		t.Errorf("it ended as %s on host %d", v.ended, v.host)
	}
}

// TestMoveFails: whatever fails at whichever of the two, the guest runs on where it was.
func TestMoveFails(t *testing.T) {
	broken := errors.New("broken")
	for _, op := range []fake.Op{fake.Send, fake.Switch} {
		t.Run(string(op), func(t *testing.T) {
			v := movingPair(t, fake.Behaviour{}, fake.Fault{Op: op, Times: 1, Err: broken})
			v.begin(model.MoveLive)
			waitFor(t, "it to be told", func() bool { v.decide(); return v.move == nil })
			if r := v.hosts[0].side.server(v.s.ID); v.ended != string(model.MoveFailed) || r.Power != model.PowerRunning {
				t.Errorf("it ended as %s, report %+v", v.ended, r)
			}
			v.settle(t)
			v.begin(model.MoveLive) // and the next one succeeds
			v.settle(t)
			if v.ended != "done" || v.log(t) != "start\n" {
				t.Errorf("the next one ended as %s", v.ended)
			}
		})
	}
}

// unanswered loses the answer of the other host's hypervisor to "run the guest".
type unanswered struct {
	*fake.Driver
	once sync.Once
}

func (u *unanswered) Send(ctx context.Context, id string, to hypervisor.Passage) error {
	err := u.Driver.Send(ctx, id, to)
	u.once.Do(func() {
		if err == nil { // as if it had not been heard: the guest is here still, and held
			err = fmt.Errorf("%w: %w", hypervisor.ErrUncertain, errors.Join(u.Driver.Ensure(ctx, to.Guest), u.Driver.Start(ctx, id), u.Driver.Pause(ctx, id)))
		}
	})
	return err
}

func TestMoveWithoutAnAnswer(t *testing.T) {
	v := newPair(t, t, t.TempDir(), fake.HostConfig{Guests: fake.Behaviour{Greeting: "start\n"}})
	v.change[0] = func(c *Config) { c.Hypervisor = &unanswered{Driver: c.Hypervisor.(*fake.Driver)} }
	v.boot(t)
	t.Cleanup(func() { v.close(t) })
	v.begin(model.MoveLive)
	v.settle(t)
	if v.ended != "done" || v.host != 1 || v.log(t) != "start\n" {
		t.Errorf("it ended as %s on host %d", v.ended, v.host)
	}
}

// TestStandbyEndsWithTheArrival: the port is this host's as soon as the guest runs, whatever the servers have said.
func TestStandbyEndsWithTheArrival(t *testing.T) {
	v := movingPair(t, fake.Behaviour{})
	v.begin(model.MoveLive)
	waitFor(t, "the target to be ready", func() bool { return v.said(1).State == model.MoveReady })
	if got := v.agents[1].serves(v.p); got == "here" {
		t.Fatalf("before, the port is %q", got)
	}
	v.decide()
	waitFor(t, "the target to say that it has come", func() bool { return v.said(1).State == model.MoveDone })
	if got := v.agents[1].serves(v.p); got != "here" {
		t.Errorf("after, the port is %q", got)
	}
	if r := v.hosts[1].side.server(v.s.ID); r.Power != model.PowerRunning || r.Generation != v.s.Generation {
		t.Errorf("report %+v", r)
	}
	v.settle(t)
}

// TestBackToAHostThatWasAway: a host that was dead when the server left takes none of what it still has for the server's, which has
// written since.
func TestBackToAHostThatWasAway(t *testing.T) {
	for _, kind := range []model.MoveKind{model.MoveLive, model.MoveCold} {
		t.Run(string(kind), func(t *testing.T) {
			v := movingPair(t, fake.Behaviour{MoveFor: 10 * time.Millisecond})
			v.begin(model.MoveCold)
			waitFor(t, "it to run on the other host", func() bool {
				v.decide()
				return v.move.Stage == model.MoveVerify && v.hosts[1].power(t, v.s.ID) == hypervisor.Running
			})
			v.agents[0].stop(t) // it does not hear that the move is confirmed
			v.agents[0] = nil
			v.move = nil
			v.tell(1)
			f, err := os.OpenFile(filepath.Join(v.hosts[1].dir, "servers", v.s.ID, "disk.qcow2"), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.WriteString(", and later")
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
			now := v.disk(t, 1)
			v.begin(kind)
			v.start(t, 0)
			waitFor(t, "it to come back", func() bool {
				v.decide()
				return (v.move == nil || v.move.Stage == model.MoveVerify) && v.host == 0 && v.hosts[0].power(t, v.s.ID) == hypervisor.Running
			})
			if v.disk(t, 0) != now {
				t.Error("it runs on an old disk")
			}
			v.move = nil
			v.tellBoth()
			v.settle(t)
		})
	}
}

// pruned counts how often a switch was told all that there is.
type pruned struct {
	datapath.Driver
	n *atomic.Int64
}

func (p pruned) Prune(ctx context.Context, all iter.Seq[model.HostRow]) error {
	err := p.Driver.Prune(ctx, all)
	p.n.Add(1)
	return err
}

func TestColdMove(t *testing.T) {
	v := newPair(t, t, t.TempDir(), fake.HostConfig{Guests: fake.Behaviour{Greeting: "start\n"}})
	var prunes atomic.Int64
	v.change[0] = func(c *Config) { c.Datapath = pruned{c.Datapath, &prunes} }
	v.boot(t)
	t.Cleanup(func() { v.close(t) })
	before := v.disk(t, 0)
	variables := func(host int) string { return filepath.Join(v.agents[host].dir(v.s.ID), nvramFile) }
	if err := os.WriteFile(variables(0), []byte("boot order"), 0o600); err != nil { // as a hypervisor's UEFI firmware does
		t.Fatal(err)
	}
	v.begin(model.MoveCold)
	waitFor(t, "it to run on the other host", func() bool {
		v.decide()
		return v.move.Stage == model.MoveVerify && v.hosts[1].power(t, v.s.ID) == hypervisor.Running
	})
	if v.hosts[0].power(t, v.s.ID) == hypervisor.Running {
		t.Fatal("it runs on both")
	}
	if v.disk(t, 0) != before || v.disk(t, 1) != before {
		t.Error("the disk is not as it was, on both")
	}
	if b, err := os.ReadFile(variables(1)); err != nil || string(b) != "boot order" {
		t.Errorf("what the firmware keeps has come as %q (%v)", b, err)
	}
	// As each minute, while its ports are the other host's: they leave the switch, and its taps stay.
	w, n := v.agents[0].ports, prunes.Load()
	w.again(true, nil)
	w.poke()
	waitFor(t, "the switch to be told of all", func() bool { return prunes.Load() > n })
	// Taken back, it is where it was, with its ports.
	m := *v.move
	m.Stage = model.MoveReverting
	v.move = &m
	v.tellBoth()
	v.settle(t)
	if v.ended != "reverted" || v.host != 0 || v.disk(t, 0) != before {
		t.Errorf("it ended as %s on host %d", v.ended, v.host)
	}
	if !v.agents[0].dp.Installed(v.p.ID) {
		t.Error("it runs with a port that carries nothing")
	}
	// Confirmed, nothing is left behind, and the disk has grown.
	v.s.DiskGiB = 0
	v.begin(model.MoveResize)
	v.s.DiskGiB = 3
	waitFor(t, "it to run on the other host again", func() bool { v.decide(); return v.move.Stage == model.MoveVerify })
	v.move = nil
	v.tellBoth()
	v.settle(t)
	if got := v.disk(t, 1); got != before+fmt.Sprintf("\nresized %d", int64(3)<<30) {
		t.Errorf("the disk is %q", got)
	}
}

// TestFilesAreForTheOtherHostOnly: a host that has no part in a move gets nothing.
func TestFilesAreForTheOtherHostOnly(t *testing.T) {
	v := movingPair(t, fake.Behaviour{MoveFor: time.Hour})
	v.begin(model.MoveLive)
	waitFor(t, "the target to be ready", func() bool { v.decide(); return v.said(0).State == model.MoveWorking })
	m := v.agents[0].moves
	args := func(c call) json.RawMessage {
		b, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	ctx := context.Background()
	own := call{Server: v.s.ID, Move: v.move.ID, Name: "disk.qcow2"}
	for what, err := range map[string]error{
		"another host":     m.giveFile(ctx, "host-9", args(own), nil),
		"another move":     m.listFiles(ctx, "host-1", args(call{Server: v.s.ID, Move: model.NewID()}), nil),
		"another server":   m.listFiles(ctx, "host-1", args(call{Server: model.NewID(), Move: v.move.ID}), nil),
		"the wrong role":   m.passage(ctx, "host-1", args(own), nil),
		"its state":        m.stateOf(ctx, "host-9", args(own), nil),
		"another's guest":  v.agents[1].moves.tellGuest(ctx, "host-9", args(own), nil),
		"a file elsewhere": m.giveFile(ctx, "host-1", args(call{Server: v.s.ID, Move: v.move.ID, Name: "../../ledger.db"}), nil),
	} {
		if !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := m.giveFile(ctx, "host-1", args(own), nil); !fault.Is(err, fault.Conflict) {
		t.Errorf("the disk of a guest that runs: %v", err)
	}
	if err := m.giveFile(ctx, "host-1", json.RawMessage("x"), nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("nonsense: %v", err)
	}
	waitFor(t, "the guest to run on", func() bool { return v.runs(t) == 1 })
}

// mortalMigrator is a hypervisor's driver whose process dies.
type mortalMigrator struct {
	*fake.Driver
	f *fuse
}

func (m mortalMigrator) Ensure(ctx context.Context, g hypervisor.Guest) error {
	return m.f.call(func() error { return m.Driver.Ensure(ctx, g) })
}
func (m mortalMigrator) Remove(ctx context.Context, id string) error {
	return m.f.call(func() error { return m.Driver.Remove(ctx, id) })
}
func (m mortalMigrator) Start(ctx context.Context, id string) error {
	return m.f.call(func() error { return m.Driver.Start(ctx, id) })
}
func (m mortalMigrator) Stop(ctx context.Context, id string, grace time.Duration) error {
	return m.f.call(func() error { return m.Driver.Stop(ctx, id, grace) })
}
func (m mortalMigrator) Receive(ctx context.Context, g hypervisor.Guest) (r hypervisor.Reception, err error) {
	err = m.f.call(func() error { r, err = m.Driver.Receive(ctx, g); return err })
	return r, err
}
func (m mortalMigrator) Send(ctx context.Context, id string, to hypervisor.Passage) error {
	err := m.f.call(func() error { return m.Driver.Send(ctx, id, to) })
	if errors.Is(err, errKilled) {
		<-ctx.Done() // the dead do not say how it ended
	}
	return err
}

// TestKilledInMoves kills both agents at random points of random moves: in the end the guest runs, once, where the servers
// believe it to, and has never been started anew in a live move.
func TestKilledInMoves(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp("", "moves")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		v := newPair(rt, t, dir, fake.HostConfig{Guests: fake.Behaviour{Greeting: "start\n", MoveFor: 5 * time.Millisecond}})
		v.boot(rt)
		defer func() { v.close(rt) }()
		before := v.disk(rt, 0)
		starts := 1
		for range rapid.IntRange(1, 3).Draw(rt, "moves") {
			live := rapid.Bool().Draw(rt, "live")
			if live && rapid.Bool().Draw(rt, "held") {
				v.pause(rt, model.PowerPaused)
			} else {
				v.pause(rt, model.PowerRunning)
			}
			victim := rapid.IntRange(0, 1).Draw(rt, "victim")
			f := newFuse(int64(rapid.IntRange(1, 12).Draw(rt, "calls")))
			dead := make(chan struct{})
			f.blow = func() { close(dead) }
			v.agents[victim].stop(rt)
			v.change[victim] = func(c *Config) {
				c.Hypervisor = mortalMigrator{c.Hypervisor.(*fake.Driver), f}
				c.Datapath, c.Disks = mortalDatapath{c.Datapath, f}, mortalDisks{c.Disks, f}
			}
			v.start(rt, victim)
			died := v.agents[victim]
			closed := make(chan error, 1)
			go func() { <-dead; closed <- died.ledger.close() }()
			kind := model.MoveLive
			if !live {
				kind = model.MoveCold
				starts++
			}
			v.begin(kind)
			waitFor(rt, "its death, or the end of the move", func() bool {
				v.decide()
				if n := v.runs(rt); live && n > 1 {
					rt.Fatalf("the guest runs %d times", n)
				}
				select {
				case <-dead:
					return true
				default:
					return v.move == nil || v.move.Stage == model.MoveVerify
				}
			})
			f.left.Store(0)
			f.once.Do(f.blow)
			<-closed
			died.cancel()
			<-died.ended
			if err := died.dp.Close(); err != nil {
				rt.Fatal(err)
			}
			v.change[victim] = nil
			v.start(rt, victim)
			waitFor(rt, "the move to end", func() bool {
				v.decide()
				if v.move != nil && v.move.Stage == model.MoveVerify { // confirmed
					v.move = nil
					v.tellBoth()
				}
				return v.move == nil
			})
			v.settle(rt)
			if got := v.log(rt); live && strings.Count(got, "start") > starts {
				rt.Fatalf("the guest wrote %q after %d starts", got, starts)
			}
			if v.disk(rt, v.host) != before {
				rt.Fatal("the disk is not as it was")
			}
		}
	})
}

// TestCopyResumes: what has come is not sent again, and what has come wrongly is not taken.
func TestCopyResumes(t *testing.T) {
	dir := t.TempDir()
	from := filepath.Join(dir, "from")
	data := bytes.Repeat([]byte("0123456789abcdef"), 40_000)
	copy(data[100_000:500_000], make([]byte, 400_000)) // a hole
	data = append(data, make([]byte, 300_000)...)      // and one at the end
	if err := os.WriteFile(from, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, have := range []int{0, 1, 99_999, 450_000, len(data)} {
		var wire bytes.Buffer
		if err := sendFile(&wire, from, int64(have)); err != nil {
			t.Fatal(err)
		}
		if extra := wire.Len() - (len(data) - have); extra > 300 {
			t.Errorf("with %d bytes there, %d more than the rest were sent", have, extra)
		}
		path := filepath.Join(dir, fmt.Sprint("to", have))
		if err := os.WriteFile(path, data[:have], 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		if err := takePart(bytes.NewReader(wire.Bytes()), out); err != nil {
			t.Fatalf("with %d bytes there: %v", have, err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
			t.Errorf("with %d bytes there, the file came wrong (%v)", have, err)
		}
		if have == 0 {
			continue
		}
		// What is there is not what should be there.
		if err := os.WriteFile(path, append([]byte{'x'}, data[1:have]...), 0o600); err != nil {
			t.Fatal(err)
		}
		wrong, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer wrong.Close()
		if err := takePart(bytes.NewReader(wire.Bytes()), wrong); !errors.Is(err, errWrongSum) {
			t.Errorf("a wrong file was taken: %v", err)
		}
	}
	for _, cut := range []int{0, 5, 1000, 700_000} {
		var wire bytes.Buffer
		if err := sendFile(&wire, from, 0); err != nil {
			t.Fatal(err)
		}
		out, err := os.Create(filepath.Join(dir, "cut"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		if err := takePart(bytes.NewReader(wire.Bytes()[:min(cut, wire.Len())]), out); err == nil {
			t.Errorf("%d bytes were taken for the whole", cut)
		}
	}
	if err := sendFile(&bytes.Buffer{}, from, int64(len(data)+1)); !fault.Is(err, fault.Invalid) {
		t.Errorf("beyond the end: %v", err)
	}
}
