package scale_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"yakumo/api"
	"yakumo/api/neutron"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

// one is an Authenticator that knows a single caller.
type one struct{}

const project = "11111111111111111111111111111111"

func (one) Authenticate(_ context.Context, token string) (*api.Caller, error) {
	if token != "member" {
		return nil, fault.New(fault.Unauthorized, "The request you have made requires authentication.")
	}
	return &api.Caller{UserID: "u1", ProjectID: project, RoleNames: []string{"member", "reader"}}, nil
}

// front is the Network API over a store.
type front struct {
	t *testing.T
	h http.Handler
}

func newFront(c *cloud) front {
	c.t.Helper()
	h, err := api.New(api.Config{Store: c.st, Auth: one{}, Services: []api.Service{neutron.New(neutron.Config{Network: c.net})}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		c.t.Fatal(err)
	}
	return front{c.t, h}
}

// do makes a request that must have this status, and tells how long it took.
func (f front) do(want int, method, path string, body any) (map[string]any, time.Duration) {
	f.t.Helper()
	enc, err := json.Marshal(body)
	if err != nil {
		f.t.Fatal(err)
	}
	req := httptest.NewRequest(method, "/network/v2.0"+path, bytes.NewReader(enc))
	req.Header.Set("X-Auth-Token", "member")
	w := httptest.NewRecorder()
	began := time.Now()
	f.h.ServeHTTP(w, req)
	took := time.Since(began)
	var out map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != want {
		f.t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	return out, took
}

// TestOneProject: creating, showing and paging networks costs a project with very many what it cost it with few.
func TestOneProject(t *testing.T) {
	many := 2000
	if *full {
		many = 10_000
	}
	c := newCloud(t)
	if _, err := c.st.Update(t.Context(), func(tx *store.Tx) error {
		return store.Quotas.Put(tx, &model.Quota{Service: "network", ProjectID: project, Limits: map[string]int{network.QuotaNetwork: -1}})
	}); err != nil {
		t.Fatal(err)
	}
	f := newFront(c)
	type cost struct{ create, page, name []time.Duration }
	made := 0
	measure := func() (out cost) {
		for range 50 {
			_, took := f.do(http.StatusCreated, "POST", "/networks", map[string]any{"network": map[string]any{"name": fmt.Sprint("n", made)}})
			made++
			out.create = append(out.create, took)
			got, took := f.do(http.StatusOK, "GET", "/networks?limit=20", nil)
			if n := len(got["networks"].([]any)); n != 20 {
				t.Fatalf("a page of %d networks", n)
			}
			out.page = append(out.page, took)
			got, took = f.do(http.StatusOK, "GET", fmt.Sprint("/networks?name=n", made-1), nil)
			if n := len(got["networks"].([]any)); n != 1 {
				t.Fatalf("%d networks of one name", n)
			}
			out.name = append(out.name, took)
		}
		return out
	}
	bulk := func(n int) {
		for ; made < n; made += 100 {
			list := make([]map[string]any, 100)
			for i := range list {
				list[i] = map[string]any{"name": fmt.Sprint("n", made+i)}
			}
			f.do(http.StatusCreated, "POST", "/networks", map[string]any{"networks": list})
		}
	}
	bulk(100)
	few := measure()
	bulk(many)
	lots := measure()
	for what, d := range map[string][2][]time.Duration{"create": {few.create, lots.create}, "a page of 20": {few.page, lots.page}, "by name": {few.name, lots.name}} {
		a, b := q(d[0], 50), q(d[1], 50)
		t.Logf("%s: %s with 100 networks, %s with %d (p50)", what, a, b, made)
		// Half a millisecond more is the machine's, not the project's.
		if b > 2*a+500*time.Microsecond {
			t.Errorf("%s took %s with 100 networks and %s with %d", what, a, b, made)
		}
	}
}
