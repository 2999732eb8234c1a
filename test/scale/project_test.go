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

// do makes a request that must have this status.
func (f front) do(want int, method, path string, body any) map[string]any {
	f.t.Helper()
	enc, err := json.Marshal(body)
	if err != nil {
		f.t.Fatal(err)
	}
	req := httptest.NewRequest(method, "/network/v2.0"+path, bytes.NewReader(enc))
	req.Header.Set("X-Auth-Token", "member")
	w := httptest.NewRecorder()
	f.h.ServeHTTP(w, req)
	var out map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != want {
		f.t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	return out
}

// TestOneProject: creating a network, and finding one by its name, costs a project with very
// many what it cost it with few. A page of a list walks over all that the project sees, a
// third of a microsecond each, and must stay small beside a request.
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
	made := 0
	const rounds = 100
	// Of this process's CPU time, not of the clock: other tests may keep the machine busy.
	measure := func(what func(n int)) time.Duration {
		began := cpu()
		for n := range rounds {
			what(n)
		}
		return (cpu() - began) / rounds
	}
	cost := func() map[string]time.Duration {
		return map[string]time.Duration{
			"create": measure(func(int) {
				f.do(http.StatusCreated, "POST", "/networks", map[string]any{"network": map[string]any{"name": fmt.Sprint("n", made)}})
				made++
			}),
			"a page of 20": measure(func(int) {
				if n := len(f.do(http.StatusOK, "GET", "/networks?limit=20", nil)["networks"].([]any)); n != 20 {
					t.Fatalf("a page of %d networks", n)
				}
			}),
			"by name": measure(func(n int) {
				if n := len(f.do(http.StatusOK, "GET", fmt.Sprint("/networks?name=n", n), nil)["networks"].([]any)); n != 1 {
					t.Fatalf("%d networks of one name", n)
				}
			}),
		}
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
	few := cost()
	bulk(many)
	lots := cost()
	for what, b := range lots {
		a := few[what]
		t.Logf("%s: %s of CPU with 100 networks, %s with %d", what, a.Round(10*time.Microsecond), b.Round(10*time.Microsecond), many)
		limit := 2*a + time.Millisecond // which is etcd's and the collector's, who work beside
		if what == "a page of 20" {
			limit = 20 * time.Millisecond
		}
		if *full && b > limit {
			t.Errorf("%s costs %s with 100 networks and %s with %d", what, a, b, many)
		}
	}
}
