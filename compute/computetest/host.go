// Package computetest gives tests hosts without hypervisors: what a host's agent does with
// the servers it is told of, as data says (how long, what fails), and what it reports.
//
// It follows the store instead of a stream. May import: fault, model, store. For tests and
// benchmarks only.
package computetest

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Sink takes what hosts report; *compute.Compute is one.
type Sink interface {
	ServerReports(ctx context.Context, host model.ID, reports []model.ServerReport) error
	PortReports(ctx context.Context, host model.ID, reports []model.PortReport) error
}

// Config makes a Host.
type Config struct {
	Store *store.Store
	Sink  Sink
	Host  model.ID
	// Fail says what goes wrong when the host starts a server; nil or a nil fault: nothing.
	Fail func(s *model.Server) *model.Fault
}

// Host is a fake host.
type Host struct {
	cfg Config

	mu     sync.Mutex
	guests map[model.ID]*guest
	held   bool
	poke   chan struct{}

	cancel context.CancelFunc
	done   chan struct{}
}

type guest struct {
	generation    int64
	phase         model.Phase
	power         model.Power
	reboots, hard int64
	boots         int // how often it was started
	fault         *model.Fault
	steps         []model.StepAt
	log           string
}

// Start runs a host until the test ends.
func Start(t testing.TB, cfg Config) *Host {
	t.Helper()
	h := &Host{cfg: cfg, guests: map[model.ID]*guest{}, poke: make(chan struct{}, 1)}
	h.Run()
	t.Cleanup(h.Stop)
	return h
}

// Run starts the host's process, which forgets nothing of its guests.
func (h *Host) Run() {
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel, h.done = cancel, make(chan struct{})
	go h.run(ctx)
}

// Stop ends the host's process; its guests stay as they are.
func (h *Host) Stop() {
	h.cancel()
	<-h.done
}

// ID gives the host's id.
func (h *Host) ID() model.ID { return h.cfg.Host }

// Hold keeps the host from acting on what it is told, until it is let go.
func (h *Host) Hold(on Holding) {
	h.mu.Lock()
	h.held = bool(on)
	h.mu.Unlock()
	h.wake()
}

// Holding says whether a host acts on what it is told.
type Holding bool

// PowerOff lets a guest turn itself off.
func (h *Host) PowerOff(id model.ID) {
	h.mu.Lock()
	if g := h.guests[id]; g != nil {
		g.power = model.PowerOff
	}
	h.mu.Unlock()
	h.wake()
}

// Guests gives the ids of the guests that the host has, with how often each was started.
func (h *Host) Guests() map[model.ID]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[model.ID]int{}
	for id, g := range h.guests {
		out[id] = g.boots
	}
	return out
}

func (h *Host) wake() {
	select {
	case h.poke <- struct{}{}:
	default:
	}
}

// Ask answers the question "console" with the guest's log.
func (h *Host) Ask(_ context.Context, name string, body []byte) ([]byte, error) {
	var q model.ConsoleQuery
	if err := json.Unmarshal(body, &q); err != nil || name != "console" {
		return nil, fault.New(fault.Invalid, "The host does not know the question %q.", name)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.guests[q.ServerID]
	if g == nil {
		return nil, fault.New(fault.NotFound, "The host has no such guest.")
	}
	out := []byte(g.log)
	if n := int64(len(out)); q.MaxBytes > 0 && n > q.MaxBytes {
		out = out[n-q.MaxBytes:]
	}
	return out, nil
}

func (h *Host) run(ctx context.Context) {
	defer close(h.done)
	sub := h.cfg.Store.Subscribe(store.Servers.Kind(), store.Ports.Kind())
	defer sub.Close()
	moved := make(chan struct{}, 1)
	go func() {
		for {
			if _, err := sub.Next(ctx); err != nil {
				return
			}
			select {
			case moved <- struct{}{}:
			default:
			}
		}
	}()
	for {
		select {
		case <-moved:
		case <-h.poke:
		case <-ctx.Done():
			return
		}
		for again := true; again && ctx.Err() == nil; {
			reports, ports, more := h.step()
			again = more
			if err := h.send(ctx, reports, ports); err != nil {
				return
			}
		}
	}
}

// send repeats until the Sink takes the reports, as the link does.
func (h *Host) send(ctx context.Context, reports []model.ServerReport, ports []model.PortReport) error {
	for {
		err := h.cfg.Sink.PortReports(ctx, h.cfg.Host, ports)
		if err == nil && len(reports) > 0 {
			err = h.cfg.Sink.ServerReports(ctx, h.cfg.Host, reports)
		}
		if err == nil {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// step does one step for each guest and gives what is to be reported.
func (h *Host) step() (reports []model.ServerReport, ports []model.PortReport, again bool) {
	snap := h.cfg.Store.Snapshot()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held {
		return nil, nil, false
	}
	now := time.Now().UTC()
	for p := range store.Ports.List(snap, "host", h.cfg.Host) {
		if p.Status.State != model.PortActive || p.Status.Generation != p.Generation {
			ports = append(ports, model.PortReport{PortID: p.ID, Generation: p.Generation, State: model.PortActive})
		}
	}
	wanted := map[model.ID]bool{}
	for s := range store.Servers.List(snap, "host", h.cfg.Host) {
		wanted[s.ID] = true
		g := h.guests[s.ID]
		if s.Deleted {
			delete(h.guests, s.ID)
			reports = append(reports, model.ServerReport{ServerID: s.ID, Generation: s.Generation, Gone: true, At: now})
			continue
		}
		if g == nil {
			g = &guest{phase: model.PhaseFetching, reboots: s.Status.Reboots, hard: s.Status.Hard}
			h.guests[s.ID] = g
		}
		before := *g
		h.advance(s, g, now)
		stale := s.Status.Generation != g.generation || s.Status.Power != g.power || s.Status.Reboots != g.reboots || s.Status.Hard != g.hard ||
			s.Status.Phase != g.phase
		if stale || before.phase != g.phase {
			reports = append(reports, model.ServerReport{ServerID: s.ID, Generation: g.generation, Phase: g.phase, Power: g.power,
				Reboots: g.reboots, Hard: g.hard, Fault: g.fault, Steps: g.steps, At: now})
			again = again || g.phase != before.phase
		}
	}
	for id := range h.guests {
		if !wanted[id] {
			delete(h.guests, id)
		}
	}
	return reports, ports, again
}

func (h *Host) advance(s *model.Server, g *guest, now time.Time) {
	fresh := g.generation != s.Generation
	g.generation = s.Generation
	at := func(st model.Step, failure string) {
		g.steps = append(g.steps, model.StepAt{Step: st, StartedAt: now, FinishedAt: now, Error: failure})
	}
	switch g.phase {
	case model.PhaseFetching:
		at(model.StepFetch, "")
		g.phase = model.PhaseStarting
	case model.PhaseStarting:
		if h.cfg.Fail != nil {
			if f := h.cfg.Fail(s); f != nil {
				at(model.StepStart, f.Message)
				g.phase, g.fault = model.PhaseError, f
				return
			}
		}
		at(model.StepStart, "")
		at(model.StepUse, "")
		g.phase, g.power = model.PhaseReady, model.PowerRunning
		g.boot(s)
	case model.PhaseReady:
		switch {
		case g.hard < s.HardReboots:
			g.hard, g.reboots, g.power = s.HardReboots, s.Reboots, model.PowerRunning
			g.boot(s)
		case g.reboots < s.Reboots:
			g.reboots = s.Reboots
			g.boot(s)
		case s.Power == model.PowerOff:
			g.power = model.PowerOff
		case fresh && s.Power == model.PowerRunning && g.power == model.PowerOff:
			g.power = model.PowerRunning
			g.boot(s)
		}
	}
}

func (g *guest) boot(s *model.Server) {
	g.boots++
	g.log += fmt.Sprintf("boot %d of %s\nlogin:\n", g.boots, s.HostName)
}
