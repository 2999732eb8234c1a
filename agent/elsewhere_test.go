package agent

import (
	"bytes"
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"yakumo/block"
	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/hypervisor/fake"
	"yakumo/link"
	"yakumo/model"
)

// traveller is a server whose guest writes to a volume all the time, while that goes from engine to engine of its host; it plays the cloud's servers too.
type traveller struct {
	t       worldT
	w       *world
	c       *cloud
	server  *model.HostServer
	port    *model.HostPort
	row     *model.HostVolume
	stage   model.RelocationStage // "": it goes nowhere
	number  int64
	to      string // the engine to which it goes, or which is being cleared
	gen     int64
	written []byte // by the guest
	failed  int
	turned  int
}

var otherEngine = map[string]string{model.EngineLocal: "nfs", "nfs": model.EngineLocal}

func travels(t worldT, w *world) (*traveller, map[string]*kept) {
	engines := map[string]*kept{}
	for name := range otherEngine {
		engines[name] = &kept{name: name, whole: map[string][]byte{}, half: map[string]bool{}}
	}
	x := &traveller{t: t, w: w, c: newCloud(w.side), row: volume(1), gen: 1}
	x.server, x.port = x.c.server()
	x.server.Volumes = []model.HostDisk{{VolumeID: x.row.ID}}
	x.row.Guests = []model.ID{"this"}
	return x, engines
}

// rows are what the host is told now.
func (x *traveller) rows() []model.HostRow {
	v, s := *x.row, *x.server
	d := model.HostDisk{VolumeID: v.ID}
	switch x.stage {
	case "":
	case model.RelocateClearing:
		v.Place = &model.HostPlace{Number: x.number, Engine: x.to, Clear: true}
	default:
		v.Place = &model.HostPlace{Number: x.number, Engine: x.to, Guests: v.Guests}
		if x.stage != model.RelocateMaking {
			d.To = &model.DiskTo{Number: x.number, Engine: x.to, Turn: x.stage == model.RelocateTurning}
		}
	}
	s.Volumes = []model.HostDisk{d}
	return append(x.c.base(), &v, &s, x.port)
}

func (x *traveller) set(stage model.RelocationStage) {
	x.stage = stage
	x.row = bump(x.row, func(*model.HostVolume) {})
	x.gen++
}

// step is what the servers make of what the host says; the guest writes before. It gives whether anything is under way.
func (x *traveller) step() bool {
	if b := []byte{byte(len(x.written) + 1)}; x.w.host.Write(x.server.ID, x.row.ID, b) {
		x.written = append(x.written, b...)
	}
	v, said := x.w.side.volume(x.row.ID), model.DiskReport{}
	for _, r := range x.w.side.server(x.server.ID).Elsewhere {
		if r.VolumeID == x.row.ID && r.Number == x.number {
			said = r
		}
	}
	switch turning := x.stage == model.RelocateTurning; {
	case x.stage == model.RelocateMaking && v.Placed == x.number:
		x.set(model.RelocateCopying)
	case x.stage == model.RelocateCopying && said.State == model.DiskNear:
		x.set(model.RelocateTurning)
	case (turning || x.stage == model.RelocateCopying) && said.State == model.DiskFailed:
		x.failed++
		x.set(model.RelocateClearing)
	case turning && said.State == model.DiskTurned:
		x.turned++
		x.row.Engine, x.to, x.row.Seat = x.to, x.row.Engine, x.number
		x.set(model.RelocateClearing)
	case x.stage == model.RelocateClearing && v.Vacated == x.number:
		x.set("")
	}
	return x.stage != "" || v.Generation != x.row.Generation
}

// mortal starts an agent that the fuse ends.
func (x *traveller) mortal(f *fuse, engines map[string]*kept) *running {
	return x.w.start(x.t, func(c *Config) {
		c.Hypervisor = mortalHypervisor{c.Hypervisor, f}
		c.Engines = map[string]block.Engine{}
		for name, k := range engines {
			c.Engines[name] = mortalEngine{kept: k, f: f}
		}
		attach := c.Link
		c.Link = func(h link.Handler) Link { return mortalLink{attach(h), f} }
	})
}

// until tells the host what it is to know until ok.
func (x *traveller) until(a *running, dead <-chan struct{}, what string, ok func() bool) {
	x.t.Helper()
	told := int64(-1)
	waitFor(x.t, what, func() bool {
		select {
		case <-dead:
			return true
		default:
		}
		if told != x.gen {
			told = x.gen
			if err := a.Apply(context.Background(), full(x.gen, x.rows()...)); err != nil {
				select {
				case <-dead:
					return true
				default:
					x.t.Fatalf("batch: %v", err)
				}
			}
		}
		busy := x.step()
		return told == x.gen && ok() && !busy
	})
}

// runs tells whether the guest runs, and as the servers want it.
func (x *traveller) runs() bool {
	states, err := fake.New(fake.Config{Host: x.w.host}).List(context.Background())
	return err == nil && len(states) == 1 && states[0].Power == hypervisor.Running
}

// whole fails unless the volume is in its engine alone, with all that the guest has written, and the guest uses it there.
func (x *traveller) whole(engines map[string]*kept) {
	x.t.Helper()
	live, on := x.w.host.Live(x.server.ID)
	path := engines[x.row.Engine].path(x.row.ID)
	if !on || !slices.ContainsFunc(live.Disks, func(d hypervisor.Disk) bool { return d.Serial == x.row.ID && d.Path == path }) {
		x.t.Fatalf("the volume is %s, and the guest has %+v", path, live.Disks)
	}
	if got := x.w.host.Content(hypervisor.Disk{Path: path}); !bytes.Equal(got, x.written) {
		x.t.Fatalf("the volume holds %d bytes of %d that the guest has written", len(got), len(x.written))
	}
	for name, k := range engines {
		if _, there := k.holds(x.row.ID); there != (name == x.row.Engine) {
			x.t.Fatalf("the volume is in %s; in %s: %v", x.row.Engine, name, there)
		}
	}
}

// TestElsewhereKilled kills the agent, the guest and the hypervisor's daemon at random moments while a volume goes elsewhere under its guest, and breaks the copying. No byte is lost,
// there is one volume in the end, and the guest runs on it.
func TestElsewhereKilled(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "agent")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		w := newWorld(dir, fake.HostConfig{Guests: fake.Behaviour{MirrorFor: time.Duration(rapid.IntRange(0, 5).Draw(t, "copying")) * time.Millisecond}})
		x, engines := travels(t, w)
		forever := newFuse(1 << 40)
		forever.blow = func() {}
		a := x.mortal(forever, engines)
		x.until(a, nil, "the guest to run", x.runs)
		a.stop(t)
		crashed := false
		for range rapid.IntRange(1, 2).Draw(t, "lives") {
			f := newFuse(int64(rapid.IntRange(1, 40).Draw(t, "calls")))
			dead := make(chan struct{})
			f.blow = func() { close(dead) }
			a := x.mortal(f, engines)
			closed := make(chan error, 1)
			go func() { <-dead; closed <- a.ledger.close() }()
			for range rapid.IntRange(1, 2).Draw(t, "ways") {
				if x.stage == "" {
					x.number++
					x.to = otherEngine[x.row.Engine]
					x.set(model.RelocateMaking)
				}
				what, after := rapid.IntRange(0, 7).Draw(t, "besides"), rapid.IntRange(0, 20).Draw(t, "after")
				x.until(a, dead, "its death or the end of its work", func() bool {
					if after--; after == 0 {
						switch what {
						case 0:
							crashed = w.host.Crash(x.server.ID) || crashed
						case 1:
							w.host.Break(x.server.ID, x.row.ID)
						case 2:
							w.host.Disconnect()
							w.host.Connect()
						}
					}
					return after <= 0
				})
			}
			f.left.Store(0)
			f.once.Do(f.blow)
			<-closed
			a.cancel()
			<-a.ended
			if err := a.dp.Close(); err != nil {
				t.Fatal(err)
			}
		}
		a = x.mortal(forever, engines)
		defer a.stop(t)
		x.until(a, nil, "the end of its work", func() bool { return true })
		if crashed {
			x.server = with(x.server, func(s *model.HostServer) { s.HardReboots++ })
			x.gen++
		}
		x.until(a, nil, "the guest to run", func() bool {
			r := w.side.server(x.server.ID)
			return r.Hard == x.server.HardReboots && r.Phase == model.PhaseReady && x.runs()
		})
		x.whole(engines)
		waitFor(t, "nothing to be noted", func() bool { p, _ := a.ledger.progressOf(x.server.ID); return p.Elsewhere == nil })
	})
}

// TestElsewhereFails: what cannot go elsewhere stays where it is, its guest runs on, and the next try succeeds.
func TestElsewhereFails(t *testing.T) {
	broken := fault.New(fault.Invalid, "The disk is broken.")
	for name, f := range map[string][]fake.Fault{
		"copying":   {{Op: fake.Mirror, Times: 5, Err: broken}},
		"exchange":  {{Op: fake.Turn, Times: elsewhereTurns, Err: broken}},
		"once":      {{Op: fake.Turn, Times: 1, Err: broken}},
		"ending it": {{Op: fake.Turn, Times: elsewhereTurns, Err: broken}, {Op: fake.EndMirror, Times: 1, Err: broken}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t.TempDir(), fake.HostConfig{Faults: f})
			x, engines := travels(t, w)
			forever := newFuse(1 << 40)
			forever.blow = func() {}
			a := x.mortal(forever, engines)
			defer a.stop(t)
			x.until(a, nil, "the guest to run", x.runs)
			for try := 1; try <= 2; try++ {
				x.number++
				x.to = otherEngine[x.row.Engine]
				x.set(model.RelocateMaking)
				x.until(a, nil, "the end of its work", x.runs)
				x.whole(engines)
			}
			if want := min(1, len(f)); name != "once" && (x.failed != want || x.turned != 1) || name == "once" && x.turned != 2 {
				t.Errorf("it failed %d times, and went elsewhere %d times", x.failed, x.turned)
			}
		})
	}
}
