package neutron_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"testing"

	"yakumo/api"
	"yakumo/api/apitest"
	"yakumo/api/neutron"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
	"yakumo/store/storetest"
)

// Projects of the tests.
const (
	red   = apitest.Red
	blue  = apitest.Blue
	staff = apitest.Staff
	green = apitest.Green
)

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
	front, err := api.New(api.Config{Store: s, Auth: apitest.Callers(), Services: []api.Service{neutron.New(neutron.Config{Network: n})}, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	return &cloud{t: t, store: s, front: front, net: n}
}

// object is a JSON object.
type object = apitest.Object

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
	a := apitest.Do(c.t, c.front, token, method, "/network"+path, body, opts...)
	return answer{a.Status, a.Header, a.Raw, a.Body}
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
