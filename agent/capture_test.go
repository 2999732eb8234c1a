package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"yakumo/fault"
	"yakumo/hypervisor/fake"
	"yakumo/model"
)

// hearing are taps whose frames the test makes.
type hearing struct {
	*fakeTaps
	mu    sync.Mutex
	heard map[*func([]byte, bool)]string // to its device
}

func (h *hearing) Listen(ctx context.Context, device string, f func([]byte, bool)) error {
	h.mu.Lock()
	h.heard[&f] = device
	h.mu.Unlock()
	<-ctx.Done()
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.heard, &f)
	return ctx.Err()
}

func (h *hearing) Holder(context.Context, netip.Addr) (string, error) { return "under0", nil }

func (h *hearing) say(t *testing.T, device string, frame []byte, out bool) {
	t.Helper()
	waitFor(t, "somebody to listen at "+device, func() bool { return slices.Contains(h.devices(), device) })
	h.mu.Lock()
	defer h.mu.Unlock()
	for f, at := range h.heard {
		if at == device {
			(*f)(frame, out)
		}
	}
}

func (h *hearing) devices() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for _, d := range h.heard {
		out = append(out, d)
	}
	slices.Sort(out)
	return out
}

// answer asks the agent.
func answerOf[A any](t *testing.T, a *Agent, question string, q any) (out A, err error) {
	t.Helper()
	body, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	b, err := a.Answer(t.Context(), question, body)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	return out, err
}

func TestCapture(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{})
	c := newCloud(w.side)
	_, p := c.server()
	h := &hearing{fakeTaps: w.taps, heard: map[*func([]byte, bool)]string{}}
	r := w.start(t, func(cfg *Config) { cfg.Taps = h })
	t.Cleanup(func() { r.stop(t) })
	w.side.apply(t, full(5, c.network, c.group, p))
	ask := func(q model.CaptureQuery) (model.CaptureAnswer, error) {
		return answerOf[model.CaptureAnswer](t, r.Agent, "capture", q)
	}
	mine := model.CaptureQuery{Session: "a", Ports: []model.ID{p.ID}, SnapLen: 20}
	if a, err := ask(mine); err != nil || len(a.Frames) > 0 {
		t.Fatalf("%+v, %v", a, err)
	}
	tap := tapName(p.ID)
	h.say(t, tap, bytes.Repeat([]byte{1}, 60), false)
	h.say(t, tap, bytes.Repeat([]byte{2}, 10), true)
	mine.Wait = time.Second
	a, err := ask(mine)
	if err != nil || len(a.Frames) != 2 || a.Frames[0].Size != 60 || len(a.Frames[0].Data) != 20 || a.Frames[0].ToGuest || !a.Frames[1].ToGuest || a.Frames[1].Port != p.ID {
		t.Fatalf("%+v, %v", a, err)
	}
	// All ports and the underlay, only frames with the token.
	all := model.CaptureQuery{Session: "b", Token: []byte("token")}
	if _, err := ask(all); err != nil {
		t.Fatal(err)
	}
	h.say(t, "under0", []byte("a frame without it"), true)
	h.say(t, "under0", []byte("a frame with the token in it"), true)
	all.Wait = time.Second
	if a, err = ask(all); err != nil || len(a.Frames) != 1 || a.Frames[0].Port != "" {
		t.Fatalf("%+v, %v", a, err)
	}
	all.Stop = true
	if _, err := ask(all); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "nobody to listen at the underlay", func() bool { return slices.Equal(h.devices(), []string{tap}) })
	// What nobody fetches is bounded, and what is lost is said.
	for range sessionFrames + 5 {
		h.say(t, tap, []byte("frame"), false)
	}
	if a, err = ask(mine); err != nil || len(a.Frames) != sessionFrames || a.Lost != 5 {
		t.Fatalf("%d frames, %d lost, %v", len(a.Frames), a.Lost, err)
	}
	for name, c := range map[string]struct {
		q    model.CaptureQuery
		kind fault.Kind
	}{
		"no session":    {model.CaptureQuery{}, fault.Invalid},
		"wait too long": {model.CaptureQuery{Session: "c", Wait: time.Minute}, fault.Invalid},
		"foreign port":  {model.CaptureQuery{Session: "c", Ports: []model.ID{"x"}}, fault.NotFound},
	} {
		if _, err := ask(c.q); !fault.Is(err, c.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for n := range maxSessions {
		_, err = ask(model.CaptureQuery{Session: fmt.Sprint(n)})
	}
	if !fault.Is(err, fault.Conflict) {
		t.Errorf("more sessions than a host bears: %v", err)
	}
	if _, err := r.Answer(t.Context(), "capture", []byte("{")); !fault.Is(err, fault.Invalid) {
		t.Errorf("a question that is no JSON: %v", err)
	}
}

func TestInject(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{})
	c := newCloud(w.side)
	s, p := c.server()
	r := w.startFor(t)
	w.side.apply(t, full(5, c.network, c.group, s, p))
	waitFor(t, "the port to be wired", func() bool { return r.dp.Installed(p.ID) })
	inject := func(q model.InjectQuery) error {
		_, err := answerOf[struct{}](t, r.Agent, "inject", q)
		return err
	}
	if err := inject(model.InjectQuery{Port: p.ID, Frame: make([]byte, 60)}); err != nil {
		t.Error(err)
	}
	if err := inject(model.InjectQuery{Port: "x", Frame: make([]byte, 60)}); !fault.Is(err, fault.NotFound) {
		t.Errorf("at a port of another host: %v", err)
	}
	for _, size := range []int{0, 13, 64<<10 + 1} {
		if err := inject(model.InjectQuery{Port: p.ID, Frame: make([]byte, size)}); !fault.Is(err, fault.Invalid) {
			t.Errorf("a frame of %d bytes: %v", size, err)
		}
	}
}

// A packet socket hears both directions of a device and ends with its context.
func TestListen(t *testing.T) {
	ns := namespace(t)
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", append([]string{"-n", ns}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	ip("link", "add", "name", "a", "type", "veth", "peer", "name", "b")
	ip("addr", "add", "192.0.2.9/24", "dev", "a")
	ip("link", "set", "dev", "a", "up")
	ip("link", "set", "dev", "b", "up")
	k := KernelTaps{Netns: "/run/netns/" + ns}
	if name, err := k.Holder(t.Context(), netip.MustParseAddr("192.0.2.9")); err != nil || name != "a" {
		t.Errorf("%q holds the address, %v", name, err)
	}
	var mu sync.Mutex
	seen := map[string]bool{} // device/direction
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	token := []byte("a frame of this test")
	for _, device := range []string{"a", "b"} {
		go func() {
			ended <- k.Listen(ctx, device, func(frame []byte, out bool) {
				if bytes.Contains(frame, token) {
					mu.Lock()
					defer mu.Unlock()
					seen[fmt.Sprintf("%s out=%v", device, out)] = true
				}
			})
		}()
	}
	frame := append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5}, token...)
	waitFor(t, "both ends to hear the frame", func() bool {
		if err := k.inside(func() error { return sendFrame("a", frame) }); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		return seen["a out=true"] && seen["b out=false"]
	})
	cancel()
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if err := k.Listen(t.Context(), "none", nil); err == nil {
		t.Error("a device that is not there can be listened at")
	}
}

func sendFrame(device string, frame []byte) error {
	l, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: l.Attrs().Index, Halen: 6})
}
