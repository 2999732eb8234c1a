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
	"slices"
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
	// Refuse says what goes wrong when the host is told something new of a server that runs; nil or a nil fault: nothing.
	Refuse func(s *model.Server) *model.Fault
	// Unsaved says why an image of a server's disk cannot be made; nil or a nil fault: it can.
	Unsaved func(image model.ID) *model.Fault
	// Password is the guest's agent that sets a password; nil: it never answers.
	Password func(q model.PasswordQuery) error
	// Wire is what hosts send guests to each other over; nil: this host moves nothing.
	Wire *Wire
	// FailMove says what goes wrong in the host's part of a move; nil or a nil fault: nothing.
	FailMove func(s *model.Server, role model.MoveRole, stage model.MoveStage) *model.Fault
	// Busy says that a live move of the server does not end by itself, but when it is hurried or aborted.
	Busy func(s *model.Server) bool
}

// Host is a fake host.
type Host struct {
	cfg Config

	mu     sync.Mutex
	guests map[model.ID]*guest
	cached []model.ID // images that it was asked to fetch
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

	rebuilds, rescue int64
	image            model.ID   // of its root disk
	nics             []model.ID // in order
	saved            []model.UploadReport
	beat             int // counts what is to be reported beside what the store shows
	told             told
	incoming         bool // it is awaited, and not here
}

// Start runs a host until the test ends.
func Start(t testing.TB, cfg Config) *Host {
	t.Helper()
	h := &Host{cfg: cfg, guests: map[model.ID]*guest{}, poke: make(chan struct{}, 1)}
	cfg.Wire.join(h)
	h.Run()
	t.Cleanup(h.Stop)
	return h
}

// Run starts the host's process, which forgets nothing of its guests, and says everything anew.
func (h *Host) Run() {
	h.mu.Lock()
	for _, g := range h.guests {
		g.told = told{}
	}
	h.mu.Unlock()
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

// Pause pauses a guest as a hypervisor does whose disk is full.
func (h *Host) Pause(id model.ID) {
	h.mu.Lock()
	if g := h.guests[id]; g != nil {
		g.power = model.PowerPaused
	}
	h.mu.Unlock()
	h.wake()
}

// Image gives the image that a guest's root disk was made of, and in the rescue the one of that; "" for no guest.
func (h *Host) Image(id model.ID) model.ID {
	h.mu.Lock()
	defer h.mu.Unlock()
	if g := h.guests[id]; g != nil {
		return g.image
	}
	return ""
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

// Running tells whether the host runs the guest.
func (h *Host) Running(id model.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.guests[id]
	return g != nil && g.power == model.PowerRunning
}

// Crash is the host's power failing: no guest runs any more. The process must be stopped.
func (h *Host) Crash() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, g := range h.guests {
		if g.incoming {
			delete(h.guests, id)
		} else if g.power == model.PowerRunning || g.power == model.PowerPaused {
			g.power = model.PowerOff
		}
	}
}

func (h *Host) wake() {
	select {
	case h.poke <- struct{}{}:
	default:
	}
}

// Cached gives the images that the host was asked to fetch before there are guests of them.
func (h *Host) Cached() []model.ID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.cached)
}

// Ask answers the questions "console", with the guest's log, "diagnostics", "password", and "interrupt", which the log tells.
func (h *Host) Ask(_ context.Context, name string, body []byte) ([]byte, error) {
	if name == "cache" {
		var q model.CacheQuery
		if err := json.Unmarshal(body, &q); err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "The question is malformed.")
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, img := range q.Images {
			h.cached = append(h.cached, img.ImageID)
		}
		return []byte("{}"), nil
	}
	if name == "uptime" {
		return json.Marshal(model.HostUptime{UpSecs: 93784, Load: [3]float64{0.5, 1, 2}})
	}
	if name == "password" {
		var q model.PasswordQuery
		if err := json.Unmarshal(body, &q); err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "The question is malformed.")
		}
		if h.cfg.Password == nil {
			return nil, fault.New(fault.Unavailable, "The guest agent of %s does not answer.", q.ServerID)
		}
		return []byte("{}"), h.cfg.Password(q)
	}
	var q model.ConsoleQuery // which has the server's id where the other has it
	if err := json.Unmarshal(body, &q); err != nil || name != "console" && name != "diagnostics" && name != "interrupt" {
		return nil, fault.New(fault.Invalid, "The host does not know the question %q.", name)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.guests[q.ServerID]
	if g == nil {
		return nil, fault.New(fault.NotFound, "The host has no such guest.")
	}
	if name == "interrupt" {
		if g.power != model.PowerRunning && g.power != model.PowerPaused {
			return nil, fault.New(fault.Conflict, "Guest %s is not running; start it first.", q.ServerID)
		}
		g.log += "interrupted\n"
		return []byte("{}"), nil
	}
	if name == "diagnostics" {
		d := model.Diagnostics{Driver: "fake", Hypervisor: "fake", UptimeSecs: 7, CPUNanos: []int64{1500000000}, MemoryMiB: 128, UsedMiB: 64,
			Disks: []model.DiskCounters{{ReadBytes: 4096, ReadRequests: 1}}}
		for range g.nics {
			d.NICs = append(d.NICs, model.NICCounters{InBytes: 100, InPackets: 2, OutBytes: 50, OutPackets: 1})
		}
		return json.Marshal(d)
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
			uploads, reports, ports, more := h.step()
			if err := h.upload(ctx, uploads); err != nil {
				return
			}
			again = more || len(uploads) > 0
			if err := h.send(ctx, reports, ports); err != nil {
				return
			}
		}
	}
}

// upload gives images bytes that a server's disk was saved as.
func (h *Host) upload(ctx context.Context, ids []model.ID) error {
	for _, id := range ids {
		if _, err := h.cfg.Store.Update(ctx, func(tx *store.Tx) error {
			old, ok := store.Images.Get(tx, id)
			if !ok || old.Status == model.ImageActive {
				return nil
			}
			img := *old
			img.Status, img.BlobID, img.Size, img.VirtualSize, img.HashAlgo, img.HashValue = model.ImageActive, model.NewID(), 1<<16, 1<<20, "sha512", "00"
			img.Touch(time.Now())
			return store.Images.Put(tx, &img)
		}); err != nil && ctx.Err() != nil {
			return err
		}
	}
	return nil
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
func (h *Host) step() (uploads []model.ID, reports []model.ServerReport, ports []model.PortReport, again bool) {
	defer h.cfg.Wire.hold()()
	snap := h.cfg.Store.Snapshot()
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.cfg.Wire.check(h)
	if h.held {
		return nil, nil, nil, false
	}
	now := time.Now().UTC()
	for p := range store.Ports.List(snap, "host", h.cfg.Host) {
		if p.Status.State != model.PortActive || p.Status.Generation != p.Generation {
			ports = append(ports, model.PortReport{PortID: p.ID, Generation: p.Generation, State: model.PortActive})
		}
	}
	wanted := map[model.ID]bool{}
	for s := range store.Servers.List(snap, "host", h.cfg.Host) {
		var role model.MoveRole
		var stage model.MoveStage
		if s.Move != nil {
			role, stage = s.Move.Part(h.cfg.Host)
		}
		if s.Host != h.cfg.Host && role == "" {
			continue
		}
		wanted[s.ID] = true
		if role != "" && !s.Deleted {
			r, alone := h.move(s, role, stage, now)
			if r != nil {
				reports = append(reports, *r)
				again = true
			}
			if alone {
				continue
			}
		}
		g := h.guests[s.ID]
		if s.Deleted {
			delete(h.guests, s.ID)
			reports = append(reports, model.ServerReport{ServerID: s.ID, Generation: s.Generation, Gone: true, At: now})
			continue
		}
		if g == nil {
			g = &guest{phase: model.PhaseFetching, reboots: s.Status.Reboots, hard: s.Status.Hard, rescue: s.Status.Rescue}
			h.guests[s.ID] = g
		}
		before := *g
		h.advance(s, g, now)
		if g.phase == model.PhaseReady {
			uploads = append(uploads, h.save(snap, s, g)...)
		}
		stale := g.beat > 0 || s.Status.Rebuilds != g.rebuilds || s.Status.Rescue != g.rescue || len(s.Plugging) > 0 && !slices.Equal(g.nics, before.nics) || s.Status.Generation != g.generation || s.Status.Power != g.power || s.Status.Reboots != g.reboots || s.Status.Hard != g.hard ||
			s.Status.Phase != g.phase
		if stale || before.phase != g.phase {
			reports = append(reports, model.ServerReport{ServerID: s.ID, Generation: g.generation, Phase: g.phase, Power: g.power,
				Reboots: g.reboots, Hard: g.hard, Fault: g.fault, Steps: g.steps, At: now,
				Rebuilds: g.rebuilds, Rescue: g.rescue, Saved: g.saved, NICs: g.nics, Disks: disksOf(s, g)})
			g.beat = 0
			again = again || g.phase != before.phase
		}
	}
	for id := range h.guests {
		if !wanted[id] {
			delete(h.guests, id)
		}
	}
	return uploads, reports, ports, again
}

// save says which images of the server are made, and gives those that are to get their bytes first.
func (h *Host) save(snap store.Snapshot, s *model.Server, g *guest) (uploads []model.ID) {
	for _, id := range s.Saving {
		if slices.ContainsFunc(g.saved, func(u model.UploadReport) bool { return u.ID == id }) {
			g.beat++ // until it is heard
			continue
		}
		if h.cfg.Unsaved != nil {
			if f := h.cfg.Unsaved(id); f != nil {
				g.saved = append(slices.Clone(g.saved), model.UploadReport{ID: id, Fault: f})
				g.beat++
				continue
			}
		}
		if img, ok := store.Images.Get(snap, id); ok && img.Status == model.ImageQueued {
			uploads = append(uploads, id)
			continue
		}
		g.saved = append(slices.Clone(g.saved), model.UploadReport{ID: id, Done: true, Bytes: 1 << 16})
		g.beat++
	}
	return uploads
}

func (h *Host) advance(s *model.Server, g *guest, now time.Time) {
	fresh := g.generation != s.Generation
	g.generation = s.Generation
	at := func(st model.Step, failure string) {
		g.steps = append(g.steps, model.StepAt{Step: st, StartedAt: now, FinishedAt: now, Error: failure})
	}
	if g.phase == model.PhaseError && fresh && g.boots > 0 {
		g.phase, g.fault = model.PhaseReady, nil
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
		g.phase, g.power, g.rebuilds, g.image, g.nics = model.PhaseReady, model.PowerRunning, s.Rebuilds, s.Image.ImageID, s.Ports
		g.boot(s)
	case model.PhaseReady:
		if h.cfg.Refuse != nil && fresh {
			if f := h.cfg.Refuse(s); f != nil {
				g.phase, g.fault = model.PhaseError, f
				return
			}
		}
		g.nics = s.Ports
		g.follow(s, fresh)
	}
}

// follow makes a guest that is there as it is wanted.
func (g *guest) follow(s *model.Server, fresh bool) {
	rescue := int64(0)
	if s.Rescue != nil {
		rescue = s.Rescue.Revision
	}
	on := func() {
		if g.power = s.Power; s.Power == model.PowerRunning {
			g.boot(s)
		}
	}
	switch {
	case g.rebuilds < s.Rebuilds:
		g.rebuilds, g.hard, g.reboots, g.image = s.Rebuilds, s.HardReboots, s.Reboots, s.Image.ImageID
		on()
	case g.rescue != rescue:
		g.rescue, g.hard, g.reboots, g.image = rescue, s.HardReboots, s.Reboots, s.Image.ImageID
		if s.Rescue != nil {
			g.image = s.Rescue.ImageID
		}
		on()
	case g.hard < s.HardReboots:
		g.hard, g.reboots, g.power = s.HardReboots, s.Reboots, model.PowerRunning
		g.boot(s)
	case g.reboots < s.Reboots:
		g.reboots = s.Reboots
		g.boot(s)
	case s.Power == model.PowerOff, s.Power == model.PowerPaused && g.power == model.PowerRunning, s.Power == model.PowerSuspended && g.power == model.PowerRunning:
		g.power = s.Power
	case fresh && s.Power == model.PowerRunning && g.power == model.PowerOff:
		g.power = model.PowerRunning
		g.boot(s)
	case fresh && s.Power == model.PowerRunning:
		g.power = model.PowerRunning
	}
}

func (g *guest) boot(s *model.Server) {
	g.boots++
	g.log += fmt.Sprintf("boot %d of %s\nlogin:\n", g.boots, s.HostName)
}

// disksOf gives the volumes that a guest has once it runs: those that it is to have.
func disksOf(s *model.Server, g *guest) []model.ID {
	var out []model.ID
	for _, u := range s.Volumes {
		if g.phase == model.PhaseReady && !u.Detaching {
			out = append(out, u.VolumeID)
		}
	}
	return out
}
