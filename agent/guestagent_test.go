package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/hypervisor/fake"
	"yakumo/model"
)

// withAgent is an image with a guest agent in it.
func withAgent(s *model.HostServer) {
	s.Image.Hardware = map[string]string{"hw_qemu_guest_agent": "yes"}
}

// password asks for a password of the user cirros.
func (g *stage) password(t *testing.T, id model.ID, word string) error {
	t.Helper()
	body, err := json.Marshal(model.PasswordQuery{ServerID: id, User: "cirros", Password: word})
	if err != nil {
		t.Fatal(err)
	}
	_, err = g.a.Answer(t.Context(), "password", body)
	return err
}

// TestPasswordByAgent: the password reaches the guest and no file of the host.
func TestPasswordByAgent(t *testing.T) {
	const word = "s3cret-that-nobody-keeps"
	g := newStage(t, fake.Behaviour{}, withAgent)
	if err := g.password(t, g.s.ID, word); err != nil || g.host.Password(g.s.ID, "cirros") != word {
		t.Errorf("the password is %q, %v", g.host.Password(g.s.ID, "cirros"), err)
	}
	if err := g.password(t, model.NewID(), word); !fault.Is(err, fault.NotFound) {
		t.Errorf("of a guest that is elsewhere: %v", err)
	}
	// A write besides, so that the ledger has been through everything.
	g.want(t, func(s *model.HostServer) { s.Name += "x" })
	g.settles(t, model.PowerRunning)
	files := 0
	if err := filepath.WalkDir(g.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(word)) {
			t.Errorf("the password is in %s", path)
		}
		return err
	}); err != nil || files == 0 {
		t.Errorf("%d files looked at, %v", files, err)
	}
	g.want(t, func(s *model.HostServer) { s.Power = model.PowerOff })
	g.settles(t, model.PowerOff)
	if err := g.password(t, g.s.ID, word); !fault.Is(err, fault.Conflict) {
		t.Errorf("of a guest that is off: %v", err)
	}
}

func TestPasswordWithoutAgent(t *testing.T) {
	if err := newStage(t, fake.Behaviour{}, nil).password(t, "", "x"); !fault.Is(err, fault.NotFound) {
		t.Errorf("of no guest: %v", err)
	}
	g := newStage(t, fake.Behaviour{}, nil)
	if err := g.password(t, g.s.ID, "x"); !fault.Is(err, fault.NotImplemented) {
		t.Errorf("without a channel: %v", err)
	}
	g = newStage(t, fake.Behaviour{NoAgent: true}, withAgent)
	if err := g.password(t, g.s.ID, "x"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("of a deaf guest: %v", err)
	}
}

// TestQuiescedImage: an image is made with still file systems where the server's own image says so, and not at all where
// it must be and nobody answers.
func TestQuiescedImage(t *testing.T) {
	for name, tc := range map[string]struct {
		hardware map[string]string
		guest    fake.Behaviour
		quiesced int
		fails    bool
	}{
		"no agent":          {nil, fake.Behaviour{}, 0, false},
		"agent":             {map[string]string{"hw_qemu_guest_agent": "true"}, fake.Behaviour{}, 1, false},
		"deaf":              {map[string]string{"hw_qemu_guest_agent": "yes"}, fake.Behaviour{NoAgent: true}, 0, false},
		"must":              {map[string]string{"hw_qemu_guest_agent": "yes", "os_require_quiesce": "yes"}, fake.Behaviour{}, 1, false},
		"must and deaf":     {map[string]string{"hw_qemu_guest_agent": "yes", "os_require_quiesce": "yes"}, fake.Behaviour{NoAgent: true}, 0, true},
		"must, no agent":    {map[string]string{"os_require_quiesce": "True"}, fake.Behaviour{}, 0, true},
		"agent is disabled": {map[string]string{"hw_qemu_guest_agent": "no"}, fake.Behaviour{}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := newStage(t, tc.guest, func(s *model.HostServer) { s.Image.Hardware = tc.hardware })
			image := model.NewID()
			g.want(t, func(s *model.HostServer) { s.Saving = []model.ID{image} })
			waitFor(t, "an image that is made or not", func() bool {
				said := g.side.server(g.s.ID).Saved
				return len(said) == 1 && (said[0].Done || said[0].Fault != nil)
			})
			r := g.settles(t, model.PowerRunning)
			if failed := r.Saved[0].Fault != nil; failed != tc.fails || g.host.Quiesced(g.s.ID) != tc.quiesced {
				t.Errorf("%+v, quiesced %d times", r.Saved[0], g.host.Quiesced(g.s.ID))
			}
		})
	}
}

// freezer dies while it copies a disk: the guest's file systems stay frozen
type freezer struct {
	*fake.Driver
	host *fake.Host
	died chan struct{}
}

func (f freezer) CopyDisk(ctx context.Context, id, _, _ string, q hypervisor.Quiesce) error {
	if q != hypervisor.QuiesceNever {
		f.host.Freeze(id)
	}
	f.died <- struct{}{}
	<-ctx.Done()
	return ctx.Err()
}

// TestThawedByTheNextAgent: an agent that dies between the freezing and the thawing of a guest leaves that to the next one, which does
// it whether or not the copy is wanted any more, and does not wait until that is made anew.
func TestThawedByTheNextAgent(t *testing.T) {
	for _, wanted := range []bool{true, false} {
		t.Run(fmt.Sprint("wanted:", wanted), func(t *testing.T) {
			g := newStage(t, fake.Behaviour{}, withAgent)
			g.a.stop(t)
			f := freezer{fake.New(fake.Config{Host: g.host}), g.host, make(chan struct{}, 8)}
			g.a = g.world.start(t, func(c *Config) { c.Hypervisor = f })
			image := model.NewID()
			g.want(t, func(s *model.HostServer) { s.Saving = []model.ID{image} })
			<-f.died
			if err := g.a.ledger.close(); err != nil { // what is done from here on is not kept: kill -9
				t.Fatal(err)
			}
			g.a.cancel()
			<-g.a.ended
			if err := g.a.dp.Close(); err != nil {
				t.Fatal(err)
			}
			if !g.host.Frozen(g.s.ID) {
				t.Fatal("the guest is not frozen")
			}
			if wanted { // the next one copies for ever, and freezes nothing
				f.host = fake.NewHost(fake.HostConfig{})
				g.a = g.world.start(t, func(c *Config) { c.Hypervisor = f })
				<-f.died
			} else {
				g.a = g.world.start(t, nil)
				g.want(t, func(s *model.HostServer) { s.Saving = nil })
				waitFor(t, "that nothing may be frozen", func() bool { p, _ := g.a.ledger.progressOf(g.s.ID); return !p.Frozen })
			}
			waitFor(t, "a guest that is thawed", func() bool { return !g.host.Frozen(g.s.ID) })
		})
	}
}

func TestInterrupt(t *testing.T) {
	g := newStage(t, fake.Behaviour{}, nil)
	ask := func(id model.ID) error {
		body, err := json.Marshal(model.InterruptQuery{ServerID: id})
		if err != nil {
			t.Fatal(err)
		}
		_, err = g.a.Answer(t.Context(), "interrupt", body)
		return err
	}
	if err := ask(g.s.ID); err != nil || g.host.Interrupts(g.s.ID) != 1 {
		t.Errorf("interrupted %d times, %v", g.host.Interrupts(g.s.ID), err)
	}
	if err := ask(model.NewID()); !fault.Is(err, fault.NotFound) {
		t.Errorf("of a guest that is elsewhere: %v", err)
	}
	g.want(t, func(s *model.HostServer) { s.Power = model.PowerOff })
	g.settles(t, model.PowerOff)
	if err := ask(g.s.ID); !fault.Is(err, fault.Conflict) || g.host.Interrupts(g.s.ID) != 1 {
		t.Errorf("of a guest that is off: %v", err)
	}
}
