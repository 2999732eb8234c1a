package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

const soon = 90 * time.Second

func TestRowsDown(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1)
	v := c.sites[0].views
	h := c.join("h1")
	gate := make(chan struct{})
	h.gate = gate
	c.run(h)
	pass := func() { gate <- struct{}{} }

	// One batch is under way: the next is not made before the host has taken it.
	until(t, soon, "the first batch made", func() bool { _, _, n := v.counts(); return n == 1 })
	if h.Connected() {
		t.Error("connected before the first batch is on disk")
	}
	pass()
	until(t, soon, "the second asked for", func() bool { _, _, n := v.counts(); return n == 2 })
	until(t, soon, "connected", h.Connected)
	g := c.sites[0].st.Snapshot().Revision() + 1
	send := func(b model.HostBatch) {
		t.Helper()
		select {
		case v.batches <- b:
		case <-time.After(soon):
			t.Fatal("nobody asks for a batch")
		}
	}
	send(model.HostBatch{Generation: g, Upserts: []model.HostRow{&model.HostPort{ID: "p1", MAC: "02:00:00:00:00:01"}}, Removes: []model.RowID{{Kind: model.RowNetwork, Key: "n1"}}})
	select {
	case v.batches <- model.HostBatch{Generation: g + 1}:
		t.Fatal("a batch was made while another is under way")
	case <-time.After(200 * time.Millisecond):
	}
	pass()
	send(model.HostBatch{Generation: g + 1})
	pass()
	until(t, soon, "three batches applied", func() bool { return len(h.got()) == 3 })
	got := h.got()
	if !got[0].Full || got[1].Full || got[1].Generation != g || len(got[1].Upserts) != 1 || got[1].Upserts[0].(*model.HostPort).MAC != "02:00:00:00:00:01" ||
		!slices.Equal(got[1].Removes, []model.RowID{{Kind: model.RowNetwork, Key: "n1"}}) {
		t.Errorf("batches: %+v", got)
	}

	// The store comes to the generation that the host was told of: a server whose state were
	// older would not take it back.
	for n := 0; c.sites[0].st.Snapshot().Revision() < g+2; n++ {
		if _, err := c.sites[0].st.Update(t.Context(), func(tx *store.Tx) error {
			return store.Settings.Put(tx, &model.Setting{Name: fmt.Sprintf("filler-%d", n)})
		}); err != nil {
			t.Fatal(err)
		}
	}

	// A batch that the host refuses ends the session; the next begins with everything.
	h.set(func() { h.refuse = errors.New("disk full") })
	send(model.HostBatch{Generation: g + 2})
	pass()
	until(t, soon, "the view closed", func() bool { _, closed, _ := v.counts(); return closed == 1 })
	if n := len(h.got()); n != 3 {
		t.Errorf("%d batches after a refusal", n)
	}
	until(t, soon, "attached again", func() bool { opened, _, _ := v.counts(); return opened == 2 })
	v.mu.Lock()
	v.first = func() model.HostBatch { return model.HostBatch{Full: true, Generation: g + 2} }
	v.mu.Unlock()
	h.set(func() { h.refuse = nil; h.gate = nil })
	close(gate)
	until(t, soon, "a full batch", func() bool { b := h.got(); return len(b) > 3 && b[3].Full })
}

// TestUnknownRow: a row of a kind that this agent does not know is refused, not skipped.
// TestSlowHostsKeepNobodyWaiting: more hosts than are told everything at once do not take it, and another has it all the same.
func TestSlowHostsKeepNobodyWaiting(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1)
	for range tellAtOnce {
		if _, err := (&session{s: c.sites[0].Server}).turn(t.Context()); err != nil { // and never say that they have it
			t.Fatal(err)
		}
	}
	h := c.join("h1")
	c.run(h)
	until(t, soon, "the first batch", func() bool { return len(h.got()) == 1 })
	until(t, soon, "all turns over", func() bool { return len(c.sites[0].telling) == 0 })
}

func TestUnknownRow(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1)
	v := c.sites[0].views
	v.first = func() model.HostBatch {
		return model.HostBatch{Full: true, Generation: 1, Upserts: []model.HostRow{oddRow{}}}
	}
	h := c.run(c.join("h1"))
	until(t, soon, "attached again and again", func() bool { opened, _, _ := v.counts(); return opened >= 2 })
	if len(h.got()) != 0 || h.Connected() {
		t.Error("an unknown row was taken")
	}
}

type oddRow struct{}

func (oddRow) RowID() model.RowID { return model.RowID{Kind: "odd", Key: "1"} }

func TestGenerationFence(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1)
	h := c.join("h1")
	h.gen = 1 << 40 // as if the state were an old backup
	if patience := NewClient(ClientConfig{}).cfg.Silence; catchUp >= patience {
		t.Errorf("it is told after %s, and gives up after %s", catchUp, patience)
	}
	h.Client.cfg.Silence = time.Hour
	err := h.attach(t.Context(), c.sites[0].addr)
	if err == nil || !strings.Contains(err.Error(), "older than what the host has acted on") {
		t.Errorf("error %v", err)
	}
	if opened, _, _ := c.sites[0].views.counts(); opened != 0 || len(h.got()) != 0 {
		t.Error("rows were sent to it")
	}
	if c.up(h.id(t)) {
		t.Error("it is shown up")
	}
}

func TestFactsAndReports(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1)
	s := c.sites[0]
	h := c.join("h1")
	h.reports = []model.ServerReport{{ServerID: "s1", Generation: 1}, {ServerID: "s2", Generation: 1}}
	// What waits in the queue is as new as what a stream begins with, or newer.
	h.Report([]model.ServerReport{{ServerID: "s2", Generation: 2}}, []model.PortReport{{PortID: "p1", State: "up"}})
	h.machine.volumes = []model.VolumeReport{{VolumeID: "v1", Generation: 1}, {VolumeID: "v2", Generation: 1}}
	h.ReportVolumes([]model.VolumeReport{{VolumeID: "v2", Generation: 2, Ready: true}})
	s.sink.fail = 3
	c.run(h)
	gen := func(id model.ID) int64 { r, _ := s.sink.last(id); return r.Generation }
	until(t, soon, "the reports in", func() bool { return gen("s1") == 1 && gen("s2") == 2 })
	s.sink.mu.Lock()
	if s.sink.ports["p1"].State != "up" || s.sink.fail != 0 {
		t.Errorf("ports %v, failures left %d", s.sink.ports, s.sink.fail)
	}
	if v := s.sink.volumes; v["v1"].Generation != 1 || v["v2"].Generation != 2 || !v["v2"].Ready {
		t.Errorf("reports of volumes: %v", v)
	}
	s.sink.mu.Unlock()

	row, _ := store.Hosts.Get(s.st.Snapshot(), h.id(t))
	if row.Version != "test" || row.BootID != "boot" || row.Capacity.VCPUs != 4 {
		t.Errorf("facts: %+v", row)
	}
	h.set(func() {
		h.machine.facts.Capacity.VCPUs = 8
		h.machine.facts.BridgeMappings, h.machine.facts.ProviderBridges = []string{"physnet1"}, []string{"br-ex"}
	})
	h.FactsChanged()
	h.Report([]model.ServerReport{{ServerID: "s1", Generation: 5}}, nil)
	until(t, soon, "the new facts and the report in", func() bool {
		row, _ := store.Hosts.Get(s.st.Snapshot(), h.id(t))
		return row.Capacity.VCPUs == 8 && row.Maps("physnet1") && row.Bridges()["physnet1"] == "br-ex" && gen("s1") == 5
	})

	// While the sink is away only the newest of each thing waits.
	s.sink.mu.Lock()
	s.sink.fail = 2
	s.sink.mu.Unlock()
	for g := int64(6); g <= 30; g++ {
		h.Report([]model.ServerReport{{ServerID: "s1", Generation: g}}, nil)
	}
	until(t, soon, "the newest in", func() bool { return gen("s1") == 30 })
	s.sink.mu.Lock()
	last := int64(0)
	for _, r := range s.sink.servers["s1"] {
		if r.Generation < last {
			t.Errorf("generation %d came after %d", r.Generation, last)
		}
		last = r.Generation
	}
	// One that is refused does not keep the others out.
	s.sink.poison = "bad"
	s.sink.mu.Unlock()
	h.Report([]model.ServerReport{{ServerID: "bad"}, {ServerID: "s3", Generation: 3}, {ServerID: "s4", Generation: 4}}, nil)
	until(t, soon, "those beside the refused one in", func() bool { return gen("s3") == 3 && gen("s4") == 4 })
}

func TestAsk(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2)
	h := c.join("h1", c.sites[0].addr)
	block := make(chan struct{})
	h.answer = func(ctx context.Context, name string, body []byte) ([]byte, error) {
		switch name {
		case "echo":
			return append([]byte(requestID(ctx)+":"), body...), nil
		case "missing":
			return nil, fault.New(fault.NotFound, "There is no such guest.")
		case "broken":
			return nil, errors.New("secret path /var/lib/x")
		case "empty text":
			return nil, fault.New(fault.Conflict, "")
		}
		select {
		case <-block:
		case <-ctx.Done():
		}
		return nil, ctx.Err()
	}
	c.run(h)
	id := h.id(t)
	until(t, soon, "attached", func() bool { return h.Connected() && c.sites[0].Sessions() == 1 })
	until(t, soon, "known at the other server", func() bool { _, ok := store.Heartbeats.Get(c.sites[1].st.Snapshot(), id); return ok })
	for i, s := range c.sites {
		t.Run(fmt.Sprint("server ", i), func(t *testing.T) {
			ctx := WithRequestID(t.Context(), "req-1")
			if out, err := s.Ask(ctx, id, "echo", []byte("hello")); err != nil || string(out) != "req-1:hello" {
				t.Errorf("echo: %q, %v", out, err)
			}
			if out, err := s.Ask(ctx, id, "echo", nil); err != nil || string(out) != "req-1:" {
				t.Errorf("echo of nothing: %q, %v", out, err)
			}
			if _, err := s.Ask(ctx, id, "missing", nil); !fault.Is(err, fault.NotFound) || err.Error() != "There is no such guest." {
				t.Errorf("missing: %v", err)
			}
			if _, err := s.Ask(ctx, id, "broken", nil); err == nil || strings.Contains(err.Error(), "secret") {
				t.Errorf("broken: %v", err)
			}
			if _, err := s.Ask(ctx, id, "empty text", nil); !fault.Is(err, fault.Conflict) {
				t.Errorf("an error without words: %v", err)
			}
			short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
			defer cancel()
			if _, err := s.Ask(short, id, "block", nil); !fault.Is(err, fault.Unavailable) { // it is silent until the end of the test
				t.Errorf("no answer: %v", err)
			}
			if _, err := s.Ask(ctx, "nobody", "echo", nil); !fault.Is(err, fault.Unavailable) {
				t.Errorf("an unknown host: %v", err)
			}
		})
	}
	close(block)
	if _, err := c.sites[1].Ask(t.Context(), id, "echo", make([]byte, maxQuestion+1)); !fault.Is(err, fault.Invalid) {
		t.Errorf("a question of more than %d bytes: %v", maxQuestion, err)
	}
	// The host's server dies without a word; its heartbeat is still there.
	c.sites[0].stop()
	began := time.Now()
	if _, err := c.sites[1].Ask(t.Context(), id, "echo", nil); !fault.Is(err, fault.Unavailable) || time.Since(began) > askTimeout/2 {
		t.Errorf("a dead server's host: %v after %s", err, time.Since(began))
	}
	h.stop()
	until(t, soon, "down", func() bool { _, ok := store.Heartbeats.Get(c.sites[1].st.Snapshot(), id); return !ok })
	if _, err := c.sites[1].Ask(t.Context(), id, "echo", nil); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a host that is down: %v", err)
	}
}

func TestBlobs(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1)
	c.blobs["b1"] = "0123456789"
	h := c.join("h1")
	for off, want := range map[int64]string{0: "0123456789", 4: "456789"} {
		r, err := h.Blob(t.Context(), "b1", off)
		if err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, r); got != want {
			t.Errorf("from %d: %q", off, got)
		}
	}
	if _, err := h.Blob(t.Context(), "none", 0); !fault.Is(err, fault.NotFound) {
		t.Errorf("no such blob: %v", err)
	}
	if _, err := h.Blob(t.Context(), "b1", 99); !fault.Is(err, fault.Unavailable) {
		t.Errorf("from behind its end: %v", err)
	}
	if _, err := h.Blob(t.Context(), "../ask/x", 0); !fault.Is(err, fault.NotFound) {
		t.Errorf("a path for an id: %v", err)
	}
	get := func(path string, method string) int {
		t.Helper()
		tr := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{ServerName: ServerName, RootCAs: c.sites[0].cfg.Authority.Pool()}}
		defer tr.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), method, "https://"+c.sites[0].addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for path, want := range map[string]int{"/blobs/b1": 403, "/blobs/none": 403, "/": 404, "/blobs": 404, "/blobs/a/b": 404} {
		if got := get(path, "GET"); got != want {
			t.Errorf("without a certificate %s gives %d, want %d", path, got, want)
		}
	}
	if got := get("/ask/h/echo", "POST"); got != 403 {
		t.Errorf("without a certificate a question gives %d", got)
	}
	// A host does not put questions.
	req, err := http.NewRequestWithContext(t.Context(), "POST", "https://"+c.sites[0].addr+"/ask/h/echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := h.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 403 {
		t.Errorf("a host's question gives %d", resp.StatusCode)
	}
	if _, err := c.sites[0].st.Update(t.Context(), func(tx *store.Tx) error { return store.Hosts.Delete(tx, h.id(t)) }); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Blob(t.Context(), "b1", 0); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a removed host: %v", err)
	}
}

func TestHeartbeat(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2)
	st := c.sites[0].st
	h := c.join("h1")
	id := h.id(t)
	if c.up(id) {
		t.Fatal("up before it attached")
	}
	c.run(h)
	until(t, soon, "up", func() bool { return c.up(id) })
	hb, _ := store.Heartbeats.Get(st.Snapshot(), id)
	if hb.Server != "server0" || hb.URL != "https://"+c.sites[0].addr {
		t.Errorf("heartbeat: %+v", hb)
	}
	// It lasts: longer than its lease.
	sub := st.Subscribe("heartbeat")
	defer sub.Close()
	if _, err := sub.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*ttl)
	defer cancel()
	if d, err := sub.Next(ctx); err == nil {
		t.Errorf("a steady host's heartbeat changed: %+v", d.Changes)
	}

	// Its server goes away: it attaches at the other and was never down.
	c.sites[0].stop()
	until(t, soon, "at the other server", func() bool { return c.sites[1].Sessions() == 1 && h.Connected() })
	ctx, cancel = context.WithTimeout(t.Context(), 2*ttl)
	defer cancel()
	for {
		d, err := sub.Next(ctx)
		if err != nil {
			break
		}
		if d.Changes[0].New == nil {
			t.Error("it was down in between")
		}
	}
	if hb, ok := store.Heartbeats.Get(st.Snapshot(), id); !ok || hb.Server != "server1" {
		t.Errorf("heartbeat: %+v", hb)
	}

	// It ends: up for what is left of its lease, then down.
	h.stop()
	if !c.up(id) {
		t.Error("down as soon as its stream ended")
	}
	until(t, soon, "down", func() bool { return !c.up(id) })
}

// TestFrozen: a host that does nothing any more, and one whose packets are lost, are down
// in time, and come back by themselves.
func TestFrozen(t *testing.T) {
	t.Parallel()
	t.Run("handler", func(t *testing.T) {
		t.Parallel()
		c := newCloud(t, 1)
		h := c.join("h1")
		c.run(h)
		id := h.id(t)
		until(t, soon, "up", func() bool { return c.up(id) && h.Connected() })
		gate := make(chan struct{})
		h.set(func() { h.gate = gate })
		c.sites[0].views.batches <- model.HostBatch{Generation: h.Generation()}
		began := time.Now()
		until(t, soon, "down", func() bool { return !c.up(id) })
		t.Logf("down after %s", time.Since(began).Round(time.Millisecond))
		close(gate)
		until(t, soon, "up again", func() bool { return c.up(id) && h.Connected() })
	})
	t.Run("network", func(t *testing.T) {
		t.Parallel()
		c := newCloud(t, 2)
		v := newValve(t, c.sites[0].addr)
		h := c.join("h1", c.sites[0].addr)
		h.Client.cfg.Servers = []string{v.addr, c.sites[1].addr}
		h.Client.cfg.Silence = 2 * ttl
		c.run(h)
		id := h.id(t)
		until(t, soon, "up", func() bool { return c.up(id) && c.sites[0].Sessions() == 1 && h.Connected() })
		v.turn(false)
		began := time.Now()
		until(t, soon, "down", func() bool { return !c.up(id) })
		t.Logf("down after %s", time.Since(began).Round(time.Millisecond))
		until(t, soon, "up at the other server", func() bool { return c.up(id) && c.sites[1].Sessions() == 1 })
		t.Logf("up again after %s", time.Since(began).Round(time.Millisecond))
		until(t, soon, "gone at the first", func() bool { return c.sites[0].Sessions() == 0 })
		v.turn(true)
	})
}

// TestOneStream: a host that attaches anew, here or at another server, keeps its heartbeat
// when what is left of the old stream ends.
func TestOneStream(t *testing.T) {
	t.Parallel()
	for i, name := range []string{"here", "elsewhere"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCloud(t, 2)
			old := c.sites[0]
			v := newValve(t, old.addr)
			h := c.join("h1", old.addr)
			h.Client.cfg.Servers = []string{v.addr, c.sites[i].addr}
			h.Client.cfg.Silence = ttl / 2 // sooner than the server
			c.run(h)
			id := h.id(t)
			until(t, soon, "up", func() bool { return c.up(id) && old.Sessions() == 1 && h.Connected() })
			opened, _, _ := old.views.counts()
			if opened != 1 {
				t.Fatalf("%d views", opened)
			}
			first := store.Heartbeats.Revision(old.st.Snapshot(), id)
			v.turn(false)
			sub := old.st.Subscribe("heartbeat")
			defer sub.Close()
			until(t, soon, "attached again", func() bool {
				return store.Heartbeats.Revision(old.st.Snapshot(), id) > first
			})
			until(t, soon, "the old stream over", func() bool { _, closed, _ := old.views.counts(); return closed >= 1 })
			ctx, cancel := context.WithTimeout(t.Context(), 2*ttl)
			defer cancel()
			for {
				d, err := sub.Next(ctx)
				if err != nil {
					break
				}
				for _, ch := range d.Changes {
					if ch.New == nil {
						t.Error("the heartbeat went with the old stream")
					}
				}
			}
			if hb, ok := store.Heartbeats.Get(old.st.Snapshot(), id); !ok || hb.Server != fmt.Sprint("server", i) {
				t.Errorf("heartbeat: %+v", hb)
			}
			if c.sites[i].Sessions() != 1 {
				t.Errorf("%d sessions", c.sites[i].Sessions())
			}
			v.turn(true)
		})
	}
}

// TestRemovedWhileAttached: a host that is removed loses its stream and its heartbeat.
func TestRemovedWhileAttached(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1)
	st := c.sites[0].st
	h := c.run(c.join("h1"))
	id := h.id(t)
	until(t, soon, "up", func() bool { return c.up(id) && h.Connected() })
	if _, err := st.Update(t.Context(), func(tx *store.Tx) error {
		if err := store.Heartbeats.Delete(tx, id); err != nil {
			return err
		}
		return store.Hosts.Delete(tx, id)
	}); err != nil {
		t.Fatal(err)
	}
	until(t, soon, "detached", func() bool { return c.sites[0].Sessions() == 0 && !h.Connected() })
	until(t, soon, "without a heartbeat", func() bool { return !c.up(id) })
	if err := h.attach(t.Context(), c.sites[0].addr); err == nil || !strings.Contains(err.Error(), "removed from the cloud") {
		t.Errorf("attach: %v", err)
	}
}

// TestHeartbeatIsMadeAgain: a heartbeat that was lost (an outage of the store longer than
// its lease) comes back while the stream goes on.
func TestHeartbeatIsMadeAgain(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1)
	st := c.sites[0].st
	h := c.run(c.join("h1"))
	id := h.id(t)
	until(t, soon, "up", func() bool { return c.up(id) && h.Connected() })
	leases, err := c.cl.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ended := 0
	for _, l := range leases.Leases {
		ttl, err := c.cl.TimeToLive(t.Context(), l.ID, attachedKeys())
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range ttl.Keys {
			if string(k) == c.prefix+"r/heartbeat/"+id {
				if _, err := c.cl.Revoke(t.Context(), l.ID); err != nil {
					t.Fatal(err)
				}
				ended++
			}
		}
	}
	if ended != 1 {
		t.Fatalf("%d leases hold the heartbeat", ended)
	}
	until(t, soon, "up again", func() bool { return c.up(id) })
	if !h.Connected() {
		t.Error("the stream did not survive")
	}
	if _, err := st.Update(t.Context(), func(tx *store.Tx) error { return store.Heartbeats.Delete(tx, id) }); err != nil {
		t.Fatal(err)
	}
	until(t, soon, "up again after a deletion", func() bool { return c.up(id) })
}

func TestNothingIsLeft(t *testing.T) {
	c := newCloud(t, 2)
	hosts := []*host{c.run(c.join("h1")), c.run(c.join("h2", c.sites[1].addr)), c.run(c.join("h3"))}
	for _, h := range hosts {
		until(t, soon, "attached", h.Connected)
	}
	for _, s := range c.sites {
		s.stop()
	}
	for _, h := range hosts {
		h.stop()
		if h.Connected() {
			t.Error("connected to nothing")
		}
	}
	until(t, soon, "every goroutine of the link over", func() bool { return leftover() == "" })
	for i, s := range c.sites {
		if opened, closed, _ := s.views.counts(); opened != closed || s.Sessions() != 0 {
			t.Errorf("server %d: %d views opened, %d closed, %d sessions", i, opened, closed, s.Sessions())
		}
	}
	if err := NewClient(ClientConfig{}).Run(t.Context()); !fault.Is(err, fault.Invalid) {
		t.Errorf("a client without servers: %v", err)
	}
}

// TestTold: what a host is told newly is noted in the store before the host has it, and it hears what was noted before; each server process
// goes on with the note, and a host that was removed has none.
func TestTold(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1)
	s := c.sites[0]
	h := c.join("h1")
	id := h.id(t)
	first := func(told int64) int64 { // one more stream, whose batch of everything has a server
		t.Helper()
		var g int64
		s.views.mu.Lock()
		s.views.first = func() model.HostBatch {
			g = s.st.Snapshot().Revision()
			return model.HostBatch{Full: true, Fresh: true, Generation: g, Upserts: []model.HostRow{&model.HostServer{ID: "s1"}}}
		}
		s.views.mu.Unlock()
		n := len(h.got())
		c.run(h)
		until(t, soon, "the batch of everything", func() bool { return len(h.got()) == n+1 })
		if b := h.got()[n]; b.Told != told || !b.Full {
			t.Fatalf("batch %+v, want told %d", b, told)
		}
		return g
	}
	noted := func() int64 {
		r, ok := store.Told.Get(s.st.Snapshot(), id)
		if !ok {
			return 0
		}
		return r.Generation
	}
	send := func(b model.HostBatch) model.HostBatch {
		t.Helper()
		n := len(h.got())
		select {
		case s.views.batches <- b:
		case <-time.After(soon):
			t.Fatal("nobody asks for a batch")
		}
		until(t, soon, "the batch", func() bool { return len(h.got()) == n+1 })
		return h.got()[n]
	}
	g := first(0)
	if got := noted(); got != g {
		t.Fatalf("noted %d, want %d", got, g)
	}
	// Nothing new costs no write, and is told with the newest note.
	if b := send(model.HostBatch{Generation: g + 1}); b.Told != g || noted() != g {
		t.Errorf("told %d, noted %d, want %d", b.Told, noted(), g)
	}
	// The note is there when the host sees the batch.
	gate := make(chan struct{})
	h.set(func() { h.gate = gate })
	n := len(h.got())
	s.views.batches <- model.HostBatch{Generation: g + 2, Fresh: true}
	gate <- struct{}{}
	if got := noted(); got != g+2 {
		t.Errorf("noted %d while the host is told, want %d", got, g+2)
	}
	until(t, soon, "the batch", func() bool { return len(h.got()) == n+1 })
	if b := h.got()[n]; b.Told != g {
		t.Errorf("told %d, want %d", b.Told, g)
	}
	// A store that was restored from before: its older note is what the host hears.
	if _, err := s.st.Update(t.Context(), func(tx *store.Tx) error {
		return store.Told.Put(tx, &model.HostTold{HostID: id, Generation: g})
	}); err != nil {
		t.Fatal(err)
	}
	h.set(func() { h.gate = nil })
	if b := send(model.HostBatch{Generation: g + 9, Fresh: true}); b.Told != g || noted() != g+9 {
		t.Errorf("told %d, noted %d", b.Told, noted())
	}
	// Without a row of the host nothing is noted, and it is told nothing.
	if _, err := s.st.Update(t.Context(), func(tx *store.Tx) error {
		return errors.Join(store.Told.Delete(tx, id), store.Hosts.Delete(tx, id))
	}); err != nil {
		t.Fatal(err)
	}
	select {
	case s.views.batches <- model.HostBatch{Generation: g + 10, Fresh: true}:
	case <-time.After(soon): // the stream has ended already
	}
	until(t, soon, "the stream to end", func() bool { return !h.Connected() })
	if noted() != 0 || len(h.got()) != n+2 {
		t.Errorf("noted %d, %d batches", noted(), len(h.got()))
	}
}
