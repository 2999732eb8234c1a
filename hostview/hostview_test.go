package hostview_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"yakumo/hostview"
	"yakumo/link"
	"yakumo/model"
	"yakumo/store"
	"yakumo/store/storetest"
)

// world is what a host has been told.
type world map[model.RowID]string

func (w world) take(t interface{ Fatalf(string, ...any) }, b model.HostBatch) {
	if b.Full {
		clear(w)
	}
	for _, r := range b.Upserts {
		body, err := json.Marshal(r)
		if err != nil {
			t.Fatalf("encode: %v", err)
		}
		w[r.RowID()] = string(body)
	}
	for _, id := range b.Removes {
		if _, ok := w[id]; !ok {
			t.Fatalf("removal of %s, which the host has not", id)
		}
		delete(w, id)
	}
}

// full is what a host that attaches now is told, by an engine that starts now.
func full(t interface{ Fatalf(string, ...any) }, st *store.Store, host model.ID) world {
	v := hostview.NewEngine(st, slog.New(slog.DiscardHandler)).Open(host)
	defer v.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	b, err := v.Next(ctx)
	if err != nil || !b.Full {
		t.Fatalf("first batch: full %v, %v", b.Full, err)
	}
	w := world{}
	w.take(t, b)
	return w
}

// settle reads the view until the host knows what a fresh view would tell it.
func settle(t interface{ Fatalf(string, ...any) }, st *store.Store, host model.ID, v link.View, w world) {
	want := full(t, st, host)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for !maps.Equal(w, want) {
		b, err := v.Next(ctx)
		if err != nil {
			for id, body := range want {
				if w[id] != body {
					t.Fatalf("host %s: row %s is %q, should be %q", host, id, w[id], body)
				}
			}
			for id := range w {
				if _, ok := want[id]; !ok {
					t.Fatalf("host %s: row %s should not be there", host, id)
				}
			}
		}
		w.take(t, b)
	}
}

type cloud struct {
	st *store.Store
	t  *rapid.T
}

func (c cloud) do(f func(tx *store.Tx) error) {
	if _, err := c.st.Update(context.Background(), f); err != nil {
		c.t.Fatalf("update: %v", err)
	}
}

// TestIncrementEqualsWhole: whatever happens in whatever order, a host that was told
// step by step knows exactly what a host that attaches at the end is told.
func TestIncrementEqualsWhole(t *testing.T) {
	cl, prefix := storetest.Client(t)
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		st := storetest.Open(t, cl, fmt.Sprintf("%sr%d/", prefix, round))
		e := hostview.NewEngine(st, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go e.Run(ctx)
		c := cloud{st, rt}

		hosts, nets, groups := ids("h", 3), ids("n", 3), ids("g", 3)
		c.do(func(tx *store.Tx) error {
			for i, h := range hosts {
				if err := store.Hosts.Put(tx, &model.Host{Meta: model.Meta{ID: h, Name: h}, TunnelIP: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})}); err != nil {
					return err
				}
			}
			for i, n := range nets {
				if err := store.Networks.Put(tx, &model.Network{Meta: model.Meta{ID: n}, Type: model.NetworkVXLAN, VNI: uint32(i + 1), MTU: 1450, AdminStateUp: true}); err != nil {
					return err
				}
			}
			for _, g := range groups {
				if err := store.SecurityGroups.Put(tx, &model.SecurityGroup{Meta: model.Meta{ID: g, Name: g}, Stateful: true}); err != nil {
					return err
				}
			}
			return nil
		})
		views := map[model.ID]link.View{}
		worlds := map[model.ID]world{}
		for _, h := range hosts {
			views[h], worlds[h] = e.Open(h), world{}
			defer views[h].Close()
		}
		ports, rules := ids("p", 6), ids("r", 4)
		mac := func(p model.ID) string { return "fa:16:3e:00:00:0" + p[35:] }
		rt.Repeat(map[string]func(*rapid.T){
			"put port": func(rt *rapid.T) {
				id := rapid.SampledFrom(ports).Draw(rt, "port")
				old, exists := store.Ports.Get(st.Snapshot(), id)
				p := &model.Port{Meta: model.Meta{ID: id}, NetworkID: rapid.SampledFrom(nets).Draw(rt, "net"), MAC: mac(id), DeviceID: "s" + id[1:], AdminStateUp: true, PortSecurity: true,
					Host:   rapid.SampledFrom(append([]string{""}, hosts...)).Draw(rt, "host"),
					Groups: rapid.SliceOfNDistinct(rapid.SampledFrom(groups), 0, 2, rapid.ID[string]).Draw(rt, "groups")}
				if exists {
					p.NetworkID = old.NetworkID // a port never changes its network
				}
				if rapid.Bool().Draw(rt, "address") {
					p.FixedIPs = []model.FixedIP{{SubnetID: "s" + p.NetworkID, Address: netip.AddrFrom4([4]byte{10, 0, 0, id[35]})}}
				}
				c.do(func(tx *store.Tx) error { return store.Ports.Put(tx, p) })
			},
			"delete port": func(rt *rapid.T) {
				id := rapid.SampledFrom(ports).Draw(rt, "port")
				c.do(func(tx *store.Tx) error { return store.Ports.Delete(tx, id) })
			},
			"put rule": func(rt *rapid.T) {
				id := rapid.SampledFrom(rules).Draw(rt, "rule")
				r := &model.SecurityRule{Meta: model.Meta{ID: id}, GroupID: rapid.SampledFrom(groups).Draw(rt, "group"), Direction: model.Ingress, EtherType: model.IPv4, Protocol: id,
					RemoteGroupID: rapid.SampledFrom(append([]string{""}, groups...)).Draw(rt, "remote")}
				c.do(func(tx *store.Tx) error { return store.SecurityRules.Put(tx, r) })
			},
			"delete rule": func(rt *rapid.T) {
				id := rapid.SampledFrom(rules).Draw(rt, "rule")
				c.do(func(tx *store.Tx) error { return store.SecurityRules.Delete(tx, id) })
			},
			"move host": func(rt *rapid.T) {
				h := rapid.SampledFrom(hosts).Draw(rt, "host")
				a := netip.AddrFrom4([4]byte{192, 0, 2, rapid.Byte().Draw(rt, "addr")})
				c.do(func(tx *store.Tx) error {
					return store.Hosts.Put(tx, &model.Host{Meta: model.Meta{ID: h, Name: h}, TunnelIP: a})
				})
			},
			"put server": func(rt *rapid.T) {
				p := rapid.SampledFrom(ports).Draw(rt, "port")
				id := "s" + p[1:]
				s := &model.Server{Meta: model.Meta{ID: id}, Host: rapid.SampledFrom(append([]string{""}, hosts...)).Draw(rt, "host"), HostName: rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "name"), Ports: []model.ID{p}}
				c.do(func(tx *store.Tx) error { return store.Servers.Put(tx, s) })
			},
			"read": func(rt *rapid.T) {
				h := rapid.SampledFrom(hosts).Draw(rt, "host")
				ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
				defer cancel()
				if b, err := views[h].Next(ctx); err == nil {
					worlds[h].take(rt, b)
				}
			},
			"": func(rt *rapid.T) {},
		})
		for _, h := range hosts {
			settle(rt, st, h, views[h], worlds[h])
		}
	})
}

func ids(letter string, n int) []model.ID {
	var out []model.ID
	for i := range n {
		out = append(out, fmt.Sprintf("%s0000000-0000-4000-8000-00000000000%d", letter, i+1))
	}
	return out
}

// TestHostLearnsOnlyWhatItNeeds counts the rows of a host among many.
func TestHostLearnsOnlyWhatItNeeds(t *testing.T) {
	st := storetest.New(t)
	put := func(f func(tx *store.Tx) error) {
		t.Helper()
		if _, err := st.Update(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 20 {
		put(func(tx *store.Tx) error {
			net := fmt.Sprintf("n%07d-0000-4000-8000-000000000000", n)
			if err := store.Networks.Put(tx, &model.Network{Meta: model.Meta{ID: net}, Type: model.NetworkVXLAN, VNI: uint32(n + 1)}); err != nil {
				return err
			}
			for h := range 2 {
				host := fmt.Sprintf("h%d", (n+h)%20)
				if err := store.Hosts.Put(tx, &model.Host{Meta: model.Meta{ID: host, Name: host}, TunnelIP: netip.AddrFrom4([4]byte{192, 0, 2, byte(n + h)})}); err != nil {
					return err
				}
				if err := store.Ports.Put(tx, &model.Port{Meta: model.Meta{ID: model.NewID()}, NetworkID: net, MAC: fmt.Sprintf("fa:16:3e:00:%02x:%02x", n, h), Host: host}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	// Each host is in two networks: 2 networks, 2 own ports, 2 peers.
	for h := range 20 {
		if w := full(t, st, fmt.Sprintf("h%d", h)); len(w) != 6 {
			t.Errorf("host h%d is told %d rows, want 6: %v", h, len(w), w)
		}
	}
}

// TestGenerationFollowsTheStore: a server on which nothing that concerns hosts has changed
// for long still tells a host the newest generation, or the host would refuse it after
// another server told a newer one.
func TestGenerationFollowsTheStore(t *testing.T) {
	st := storetest.New(t)
	e := hostview.NewEngine(st, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go e.Run(ctx)
	rev, err := st.Update(ctx, func(tx *store.Tx) error {
		return store.Settings.Put(tx, &model.Setting{Name: "x"}) // no concern of any host
	})
	if err != nil {
		t.Fatal(err)
	}
	for {
		v := e.Open("h")
		b, err := v.Next(ctx)
		v.Close()
		if err != nil {
			t.Fatalf("the generation stays at %d, the store is at %d: %v", b.Generation, rev, err)
		}
		if b.Generation >= rev {
			return
		}
	}
}
