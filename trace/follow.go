package trace

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Followed is what a real packet did.
type Followed struct {
	Seen []Sighting `json:"seen"`
	// Agrees tells whether the packet ended as the rows say: it came to the port that it should come to,
	// or to none.
	Agrees bool   `json:"agrees"`
	Note   string `json:"note,omitempty"`
}

// Sighting is one place that the packet passed.
type Sighting struct {
	Host  string   `json:"host"`
	Where string   `json:"where"` // "to port <id>", "from port <id>", "underlay"
	Port  model.ID `json:"-"`
	After float64  `json:"after_ms"` // milliseconds since it was sent, by the hosts' clocks
}

// followPatience is how long a real packet is looked for. One that should arrive does so in
// milliseconds; one that should not is looked for to the end.
const followPatience = 1500 * time.Millisecond

// Follow is Trace, and sends the packet for real besides, from the switch port of its sender as if
// the guest had sent it; every host on its way looks for it. The receiving guest gets
// it and may answer. The packet carries a token in its payload, so ARP cannot be followed.
//
// Errors: those of Trace; fault.Unavailable where a host does not answer.
func (t *Tracer) Follow(ctx context.Context, sc Scope, req Request) (*Result, error) {
	if req.Protocol == "arp" {
		return nil, bad("An ARP request has no room for the mark by which a real packet is found. Trace it without inject.")
	}
	var b [12]byte
	rand.Read(b[:])
	token := []byte("yakumo-" + hex.EncodeToString(b[:]))
	req.payload = token
	r, err := t.run(ctx, sc, req)
	if err != nil {
		return nil, err
	}
	hosts := slices.Sorted(maps.Keys(r.hosts))
	q := model.CaptureQuery{Session: model.NewID(), Token: token, SnapLen: 1}
	ask := func(host model.ID, q model.CaptureQuery) (model.CaptureAnswer, error) {
		var a model.CaptureAnswer
		body, err := json.Marshal(q)
		if err != nil {
			return a, err
		}
		out, err := t.Ask(ctx, host, "capture", body)
		if err != nil {
			return a, err
		}
		return a, json.Unmarshal(out, &a)
	}
	defer func() {
		end := q
		end.Stop = true
		for _, h := range hosts {
			_, _ = ask(h, end) // a session that is not ended here ends by itself in seconds
		}
	}()
	for _, h := range hosts { // listen before anything is sent
		if _, err := ask(h, q); err != nil {
			return nil, err
		}
	}
	body, err := json.Marshal(model.InjectQuery{Port: r.from.ID, Frame: r.frame})
	if err != nil {
		return nil, err
	}
	sent := time.Now()
	if _, err := t.Ask(ctx, r.from.Host, "inject", body); err != nil {
		return nil, err
	}
	f := r.look(hosts, sent, func(h model.ID) (model.CaptureAnswer, error) {
		again := q
		again.Wait = followPatience / 4
		return ask(h, again)
	})
	r.result.Real = f
	return r.result, nil
}

// look gathers what the hosts have seen until the packet is where it should be, or time is up.
func (r *run) look(hosts []model.ID, sent time.Time, ask func(model.ID) (model.CaptureAnswer, error)) *Followed {
	f := &Followed{Seen: []Sighting{}}
	var mu sync.Mutex
	arrived := func() bool {
		return r.at != nil && slices.ContainsFunc(f.Seen, func(s Sighting) bool { return s.Port == r.at.ID })
	}
	for deadline := sent.Add(followPatience); time.Now().Before(deadline); {
		var wg sync.WaitGroup
		for _, h := range hosts {
			wg.Go(func() {
				a, err := ask(h)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					f.Note = "Not every host could be asked: " + err.Error()
					return
				}
				for _, c := range a.Frames {
					f.Seen = append(f.Seen, r.sighting(h, sent, c))
				}
			})
		}
		wg.Wait()
		if arrived() || f.Note != "" {
			break
		}
	}
	slices.SortFunc(f.Seen, func(a, b Sighting) int { return cmp.Compare(a.After, b.After) })
	// The sender itself may have got an answer that holds the token too.
	got := slices.ContainsFunc(f.Seen, func(s Sighting) bool { return s.Port != "" && s.Port != r.from.ID })
	if f.Agrees = arrived(); r.at == nil {
		f.Agrees = !got
	}
	return f
}

func (r *run) sighting(host model.ID, sent time.Time, c model.CapturedFrame) Sighting {
	s := Sighting{Host: r.names[host], Where: "underlay", After: float64(c.At.Sub(sent).Microseconds()) / 1000}
	if c.Port != "" {
		s.Where = "from port " + r.portName(c.Port)
		if c.ToGuest {
			s.Port = c.Port
			s.Where = "to port " + r.portName(c.Port)
		}
	}
	return s
}

// Capture says what to capture.
type Capture struct {
	Port    model.ID
	SnapLen int           // bytes kept of each frame, 0: all
	Count   int           // frames after which it ends, 0: no such end
	For     time.Duration // after which it ends, 0: when ctx ends
}

// Frames captures at a port: f is called with what comes, about once a second also with nothing, until
// the capture ends or f gives an error.
//
// Errors: fault.NotFound where the scope does not own the port, fault.Conflict where the
// port is on no host, fault.Unavailable where the host is away, what f gave.
func (t *Tracer) Frames(ctx context.Context, sc Scope, c Capture, f func([]model.CapturedFrame) error) error {
	p, ok := store.Ports.Get(t.Store.Snapshot(), c.Port)
	if !ok || !sc.owns(p.ProjectID) {
		return fault.Coded(fault.NotFound, "PortNotFound", "Port %s could not be found.", c.Port)
	}
	if p.Host == "" {
		return fault.Coded(fault.Conflict, "PortNotBound", "Port %s is on no host yet: there is nothing to capture.", c.Port)
	}
	q := model.CaptureQuery{Session: model.NewID(), Ports: []model.ID{p.ID}, SnapLen: c.SnapLen}
	ask := func(ctx context.Context) (model.CaptureAnswer, error) {
		var a model.CaptureAnswer
		body, err := json.Marshal(q)
		if err != nil {
			return a, err
		}
		out, err := t.Ask(ctx, p.Host, "capture", body)
		if err != nil {
			return a, err
		}
		return a, json.NewDecoder(bytes.NewReader(out)).Decode(&a)
	}
	if _, err := ask(ctx); err != nil { // begins to listen
		return err
	}
	defer func() {
		q.Stop = true
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_, _ = ask(end) // else it ends by itself in seconds
	}()
	q.Wait = time.Second
	end := time.Now().Add(c.For)
	for n := 0; ctx.Err() == nil; {
		if c.For > 0 {
			left := time.Until(end)
			if left <= 0 {
				return nil
			}
			q.Wait = min(time.Second, left)
		}
		a, err := ask(ctx)
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			return fmt.Errorf("capture at port %s: %w", p.ID, err)
		}
		if c.Count > 0 && n+len(a.Frames) >= c.Count {
			return f(a.Frames[:c.Count-n])
		}
		n += len(a.Frames)
		if err := f(a.Frames); err != nil {
			return err
		}
	}
	return nil
}
