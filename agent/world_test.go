package agent_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"yakumo/agent"
	"yakumo/fault"
	"yakumo/link"
	"yakumo/model"
)

// patience bounds every wait of these tests.
const patience = 90 * time.Second

// waitFor waits until ok.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("waited too long for %s", what)
		}
		<-tick.C
	}
}

// quiet logs warnings to the test.
func quiet(t testing.TB) *slog.Logger {
	w := &testLog{t: t}
	t.Cleanup(func() { w.mu.Lock(); defer w.mu.Unlock(); w.t = nil })
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

type testLog struct {
	mu sync.Mutex
	t  testing.TB
}

func (w *testLog) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Logf("%s", strings.TrimRight(string(b), "\n"))
	}
	return len(b), nil
}

// serverSide plays the servers: it is the agent's Link, keeps the newest reports, and has
// images' bytes.
type serverSide struct {
	mu       sync.Mutex
	h        link.Handler
	down     bool
	servers  map[model.ID]model.ServerReport
	phases   map[model.ID][]model.Phase // of each server, as they changed
	ports    map[model.ID]model.PortReport
	blobs    map[model.ID][]byte
	cut      map[model.ID]int // a stream of the blob ends after so many bytes
	reads    []int64          // offsets asked for
	factsNew int
}

func newServerSide() *serverSide {
	return &serverSide{
		servers: map[model.ID]model.ServerReport{}, ports: map[model.ID]model.PortReport{}, blobs: map[model.ID][]byte{},
		phases: map[model.ID][]model.Phase{}, cut: map[model.ID]int{},
	}
}

func (s *serverSide) attach(h link.Handler) agent.Link {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.h = h
	return s
}

func (s *serverSide) apply(t testing.TB, b model.HostBatch) {
	t.Helper()
	s.mu.Lock()
	h := s.h
	s.mu.Unlock()
	if err := h.Apply(context.Background(), b); err != nil {
		t.Fatalf("batch of generation %d: %v", b.Generation, err)
	}
}

func (s *serverSide) Run(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func (s *serverSide) Connected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.down
}

func (s *serverSide) Report(servers []model.ServerReport, ports []model.PortReport) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range servers {
		if old, ok := s.servers[r.ServerID]; !ok || old.Phase != r.Phase {
			s.phases[r.ServerID] = append(s.phases[r.ServerID], r.Phase)
		}
		s.servers[r.ServerID] = r
	}
	for _, r := range ports {
		s.ports[r.PortID] = r
	}
}

func (s *serverSide) FactsChanged() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.factsNew++
}

func (s *serverSide) server(id model.ID) model.ServerReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.servers[id]
}

func (s *serverSide) port(id model.ID) model.PortReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ports[id]
}

func (s *serverSide) Blob(ctx context.Context, id model.ID, offset int64) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, fault.New(fault.Unavailable, "The image cannot be fetched now.")
	}
	s.reads = append(s.reads, offset)
	data, ok := s.blobs[id]
	if !ok {
		return nil, fault.New(fault.NotFound, "The image's data is gone.")
	}
	data = data[min(offset, int64(len(data))):]
	if n, ok := s.cut[id]; ok {
		delete(s.cut, id)
		data = data[:min(n, len(data))]
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}
