package neutron_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"yakumo/api"
	"yakumo/api/neutron"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
	"yakumo/store/storetest"
)

// tokens is an Authenticator that knows its callers by their tokens.
type tokens map[string]*api.Caller

func (t tokens) Authenticate(_ context.Context, token string) (*api.Caller, error) {
	if c, ok := t[token]; ok {
		return c, nil
	}
	return nil, fault.New(fault.Unauthorized, "The request you have made requires authentication.")
}

// Projects of the tests, as Keystone writes ids.
const (
	red   = "11111111111111111111111111111111"
	blue  = "22222222222222222222222222222222"
	staff = "33333333333333333333333333333333"
	green = "44444444444444444444444444444444"
)

func callers() tokens {
	member := []string{"member", "reader"}
	return tokens{
		"red":        {UserID: "u1", ProjectID: red, RoleNames: member},
		"red-reader": {UserID: "u2", ProjectID: red, RoleNames: []string{"reader"}},
		"red-admin":  {UserID: "u3", ProjectID: red, RoleNames: []string{"admin", "member", "reader"}},
		"blue":       {UserID: "u4", ProjectID: blue, RoleNames: member},
		"green":      {UserID: "u8", ProjectID: green, RoleNames: member},
		"admin":      {UserID: "u5", ProjectID: staff, RoleNames: []string{"admin", "member", "reader"}, CloudAdmin: true},
		"system":     {UserID: "u6", System: true, RoleNames: []string{"admin", "member", "reader"}, CloudAdmin: true},
		"unscoped":   {UserID: "u7"},
	}
}

// cloud is a server with nothing but the network service.
type cloud struct {
	t     testing.TB
	store *store.Store
	front *api.Front
	net   *network.Network
}

func newCloud(t testing.TB) *cloud {
	t.Helper()
	return serve(t, storetest.New(t))
}

func serve(t testing.TB, s *store.Store) *cloud {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	n := network.New(network.Config{Log: quiet})
	front, err := api.New(api.Config{Store: s, Auth: callers(), Services: []api.Service{neutron.New(neutron.Config{Network: n})}, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	return &cloud{t: t, store: s, front: front, net: n}
}

// object is a JSON object.
type object = map[string]any

type answer struct {
	status int
	header http.Header
	raw    []byte
	body   object
}

// do makes a request; body nil: none, a string: as it is, else as JSON. opts are header
// names and values.
func (c *cloud) do(token, method, path string, body any, opts ...string) answer {
	c.t.Helper()
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = bytes.NewReader([]byte(b))
	default:
		enc, err := json.Marshal(b)
		if err != nil {
			c.t.Fatal(err)
		}
		r = bytes.NewReader(enc)
	}
	req := httptest.NewRequest(method, "/network"+path, r)
	if token != "" {
		req.Header.Set("X-Auth-Token", token)
	}
	for i := 0; i+1 < len(opts); i += 2 {
		req.Header.Set(opts[i], opts[i+1])
	}
	w := httptest.NewRecorder()
	c.front.ServeHTTP(w, req)
	a := answer{status: w.Code, header: w.Header(), raw: w.Body.Bytes()}
	if len(a.raw) > 0 {
		if err := json.Unmarshal(a.raw, &a.body); err != nil {
			c.t.Fatalf("%s %s answers %d with no JSON: %q", method, path, a.status, a.raw)
		}
	}
	return a
}

// must makes a request that has to answer with the status, and gives the body's one member.
func (c *cloud) must(status int, token, method, path string, body any, opts ...string) object {
	c.t.Helper()
	a := c.do(token, method, path, body, opts...)
	if a.status != status {
		c.t.Fatalf("%s %s as %s: %d, want %d: %s", method, path, token, a.status, status, a.raw)
	}
	for _, v := range a.body {
		if o, ok := v.(object); ok && len(a.body) == 1 {
			return o
		}
	}
	return a.body
}

// refused makes a request that has to be refused with the status and Neutron's name of the error.
func (c *cloud) refused(status int, kind, token, method, path string, body any, opts ...string) string {
	c.t.Helper()
	a := c.do(token, method, path, body, opts...)
	e, _ := a.body["NeutronError"].(object)
	if a.status != status || e == nil || e["type"] != kind {
		c.t.Errorf("%s %s as %s with %v: %d %s, want %d %s", method, path, token, body, a.status, a.raw, status, kind)
		return ""
	}
	text, _ := e["message"].(string)
	if text == "" || e["detail"] != "" {
		c.t.Errorf("%s %s: the error has no message, or a detail: %s", method, path, a.raw)
	}
	return text
}

// list gives the rows of a list.
func (c *cloud) list(token, path string) []object {
	c.t.Helper()
	a := c.do(token, "GET", path, nil)
	if a.status != http.StatusOK {
		c.t.Fatalf("GET %s as %s: %d: %s", path, token, a.status, a.raw)
	}
	for _, v := range a.body {
		if rows, ok := v.([]any); ok {
			if len(rows) == 0 {
				return []object{}
			}
			if _, links := rows[0].(object)["href"]; links {
				continue
			}
			out := make([]object, 0, len(rows))
			for _, r := range rows {
				out = append(out, r.(object))
			}
			return out
		}
	}
	c.t.Fatalf("GET %s: no list: %s", path, a.raw)
	return nil
}

func (c *cloud) network(token, name string) string {
	c.t.Helper()
	return c.must(201, token, "POST", "/v2.0/networks", object{"network": object{"name": name}})["id"].(string)
}

func (c *cloud) subnet(token, network, cidr string, more ...any) string {
	c.t.Helper()
	s := object{"network_id": network, "ip_version": 4, "cidr": cidr}
	for i := 0; i+1 < len(more); i += 2 {
		s[more[i].(string)] = more[i+1]
	}
	return c.must(201, token, "POST", "/v2.0/subnets", object{"subnet": s})["id"].(string)
}

func (c *cloud) port(token, network string, more ...any) object {
	c.t.Helper()
	p := object{"network_id": network}
	for i := 0; i+1 < len(more); i += 2 {
		p[more[i].(string)] = more[i+1]
	}
	return c.must(201, token, "POST", "/v2.0/ports", object{"port": p})
}

// host makes a host that is alive.
func (c *cloud) host(name string) *model.Host {
	c.t.Helper()
	h := &model.Host{Meta: model.NewMeta("", name, c.start()), Zone: "nova", TunnelIP: netip.MustParseAddr("192.0.2.1"), Underlay: 1500, BridgeMappings: []string{"physnet1"}, ProviderBridges: []string{"br-ex"}}
	if _, err := c.store.Update(c.t.Context(), func(tx *store.Tx) error {
		if err := store.Hosts.Put(tx, h); err != nil {
			return err
		}
		return store.Heartbeats.Put(tx, &model.Heartbeat{HostID: h.ID, At: c.start()})
	}); err != nil {
		c.t.Fatal(err)
	}
	return h
}

func ids(rows []object) []string {
	out := []string{}
	for _, r := range rows {
		out = append(out, fmt.Sprint(r["id"]))
	}
	return out
}
