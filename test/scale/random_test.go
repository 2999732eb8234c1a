package scale_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"yakumo/api"
	"yakumo/check"
	"yakumo/compute"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

// TestRandomOperations asks for random things of random servers by the API, from several clients at once, while agents
// are ended and started again. Then everything comes to rest, and no row contradicts another or what a host has: no
// guest, folder or tap is left over, none is missing, none runs twice.
func TestRandomOperations(t *testing.T) {
	const hosts, most = 6, 40
	operations := 600
	if *full {
		operations = 10_000
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := newCloud(t)
	o := order{Server: c.listen(), Dir: folder(t, "/dev/shm"), Whole: true}
	for i := range hosts {
		o.Tokens = append(o.Tokens, c.token(i))
	}
	c.child = startHosts(t, o)
	c.meet(hosts)
	front := c.compose(c.compute.Placer(), c.compute.Sweeper(), c.compute.Mover(), c.compute.Absence())
	img, _, networks := c.furnish(1)
	c.update(func(tx *store.Tx) error {
		for service, limits := range map[string]map[string]int{"compute": {"instances": -1, "cores": -1, "ram": -1}, "network": {network.QuotaPort: -1}} {
			if err := store.Quotas.Put(tx, &model.Quota{Service: service, ProjectID: administrator, Limits: limits}); err != nil {
				return err
			}
		}
		_, err := c.compute.CreateFlavor(tx, model.Flavor{ID: "2", Name: "larger", VCPUs: 2, MemoryMiB: 96, DiskGiB: 1, Public: true, RxTxFactor: 1})
		return err
	})
	// The administrator's own servers, in the first tenant's network.
	w := &whim{front: front, answers: map[string]int{}}
	began := time.Now()
	var wg sync.WaitGroup
	for client := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(client)))
			for w.count() < operations {
				snap := c.st.Snapshot()
				if w.do(rnd, slices.Collect(store.Servers.All(snap)), most, img, networks[0]) {
					continue
				}
				// All are busy, or so it seems: until something has changed.
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				if err := c.st.Wait(ctx, snap.Revision()+1); err != nil && t.Context().Err() != nil {
					cancel()
					return
				}
				cancel()
			}
		})
	}
	restarts := 0
	c.until(20*time.Minute, func() string {
		n := w.count()
		if n/50 > restarts {
			if _, err := fmt.Fprintf(c.child.in, "restart %d\n", restarts%hosts); err != nil {
				t.Fatal(err)
			}
			restarts++
		}
		if n < operations {
			return fmt.Sprintf("%d of %d operations are accepted", n, operations)
		}
		return ""
	})
	wg.Wait()
	took := time.Since(began)
	for _, e := range w.broken {
		t.Error(e)
	}
	c.until(3*time.Minute, func() string {
		for s := range store.Servers.All(c.st.Snapshot()) {
			if s.Status.Task != "" || s.Deleted || s.Status.Phase != model.PhaseReady && s.Status.Phase != model.PhaseError {
				return fmt.Sprintf("%s is in phase %s, task %q, move %+v", s.ID, s.Status.Phase, s.Status.Task, s.Move)
			}
		}
		return ""
	})
	states := map[string]int{}
	for s := range store.Servers.All(c.st.Snapshot()) {
		states[compute.State(s)]++
	}
	moves := map[string]int{}
	for m := range store.Migrations.All(c.st.Snapshot()) {
		moves[string(m.Kind)+" "+m.Status]++
		if m.Message != "" {
			moves[m.Message]++
		}
	}
	t.Logf("%d accepted operations in %s, %d agents started anew: %v; moves %v; at rest: %v", operations, took.Round(time.Millisecond), restarts, w.answers, moves, states)
	c.agrees()
	for s := range store.Servers.All(c.st.Snapshot()) {
		w.ask("delete", http.MethodDelete, "/servers/"+s.ID, nil)
	}
	c.until(3*time.Minute, func() string {
		n := 0
		for range store.Servers.All(c.st.Snapshot()) {
			n++
		}
		if n > 0 {
			return fmt.Sprintf("%d servers are left", n)
		}
		return ""
	})
	c.agrees()
	for p := range store.Ports.All(c.st.Snapshot()) {
		t.Errorf("port %s is left over", p.ID)
	}
}

// agrees checks rows and hosts.
func (c *cloud) agrees() {
	c.t.Helper()
	k := &check.Checker{Store: c.st, Ratios: c.compute.Ratios(), Ask: c.link.Ask}
	c.until(5*time.Minute, func() string {
		r, err := k.World(c.t.Context())
		switch {
		case err != nil:
			return err.Error()
		case len(r.Findings) > 0:
			return fmt.Sprintf("%d findings, the first: %v", len(r.Findings), r.Findings[0])
		case r.Hosts != len(c.hosts):
			return fmt.Sprintf("%d hosts answered", r.Hosts)
		}
		return ""
	})
}

// whim asks for what comes to mind.
type whim struct {
	front *api.Front

	mu      sync.Mutex
	took    int            // how many were accepted
	answers map[string]int // by what was asked and the status
	broken  []string       // answers that no request may get
}

func (w *whim) ask(what, method, path string, body any) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			panic(err)
		}
		r = bytes.NewReader(b)
	}
	req := httptest.NewRequest(method, "/compute/v2.1"+path, r)
	req.Header.Set("X-Auth-Token", administrator)
	req.Header.Set("OpenStack-API-Version", "compute 2.67")
	rec := httptest.NewRecorder()
	w.front.ServeHTTP(rec, req)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers[fmt.Sprint(what, " ", rec.Code)]++
	if rec.Code < 300 {
		w.took++
	}
	if rec.Code >= 500 && rec.Code != http.StatusServiceUnavailable {
		w.broken = append(w.broken, fmt.Sprintf("%s %s %s: %d %s", method, path, what, rec.Code, rec.Body))
	}
}

// count is how many operations were accepted.
func (w *whim) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.took
}

// do asks for one thing; false: of a server that has something to do already, which is asked of one in twenty.
func (w *whim) do(rnd *rand.Rand, servers []*model.Server, most int, img, net model.ID) bool {
	if len(servers) < most/2 || len(servers) < most && rnd.IntN(4) == 0 {
		w.ask("create", http.MethodPost, "/servers", map[string]any{"server": map[string]any{"name": "whim", "imageRef": img, "flavorRef": "1", "networks": []any{map[string]any{"uuid": net}}}})
		return true
	}
	s := servers[rnd.IntN(len(servers))]
	if s.Status.Task != "" && rnd.IntN(20) > 0 {
		return false
	}
	act := func(name string, arg any) {
		w.ask(name, http.MethodPost, "/servers/"+s.ID+"/action", map[string]any{name: arg})
	}
	oneOf := func(names ...string) string { return names[rnd.IntN(len(names))] }
	if rnd.IntN(20) == 0 {
		w.ask("delete", http.MethodDelete, "/servers/"+s.ID, nil)
		return true
	}
	switch compute.State(s) {
	case compute.Paused:
		act("unpause", nil)
	case compute.Stopped:
		act(oneOf("os-start", "os-start", "migrate"), nil)
	case compute.Active:
		switch rnd.IntN(10) {
		case 0:
			act("os-stop", nil)
		case 1:
			act("pause", nil)
		case 2:
			act("suspend", nil)
		case 3:
			act("reboot", map[string]any{"type": oneOf("SOFT", "HARD")})
		case 4, 5:
			act("os-migrateLive", map[string]any{"host": nil, "block_migration": "auto"})
		case 6:
			act("resize", map[string]any{"flavorRef": oneOf("1", "2")})
		case 7:
			act("rebuild", map[string]any{"imageRef": img})
		case 8:
			act("rescue", map[string]any{})
		case 9:
			w.ask("attach", http.MethodPost, "/servers/"+s.ID+"/os-interface", map[string]any{"interfaceAttachment": map[string]any{"net_id": net}})
		}
	case compute.Suspended:
		act("resume", nil)
	case compute.Rescued:
		act("unrescue", nil)
	case compute.Resized:
		act(oneOf("confirmResize", "revertResize"), nil)
	case compute.Errored:
		act("reboot", map[string]any{"type": "HARD"})
	}
	return true
}
