package hostview_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
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
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
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
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
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

		hosts, nets, groups := ids("h", 3), ids("n", 5), ids("g", 3)
		outside := nets[4]
		c.do(func(tx *store.Tx) error {
			for i, h := range hosts {
				if err := store.Hosts.Put(tx, &model.Host{Meta: model.Meta{ID: h, Name: h}, TunnelIP: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), BridgeMappings: []string{"physnet1"}}); err != nil {
					return err
				}
			}
			for i, n := range nets {
				row := &model.Network{Meta: model.Meta{ID: n}, Type: model.NetworkVXLAN, VNI: uint32(i + 1), MTU: 1450, AdminStateUp: true}
				if n == outside {
					row.Type, row.PhysicalNetwork, row.External = model.NetworkFlat, "physnet1", true
				}
				if err := store.Networks.Put(tx, row); err != nil {
					return err
				}
				if err := store.Subnets.Put(tx, &model.Subnet{Meta: model.Meta{ID: "s" + n}, NetworkID: n, IPVersion: 4, CIDR: netip.MustParsePrefix("10.0.0.0/24"), Gateway: netip.MustParseAddr("10.0.0.254")}); err != nil {
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
		ports, rules, routers := ids("p", 6), ids("r", 4), ids("o", 3)
		mac := func(p model.ID) string { return "fa:16:3e:00:00:0" + p[35:] }
		actions := map[string]func(*rapid.T){
			"put port": func(rt *rapid.T) {
				id := rapid.SampledFrom(ports).Draw(rt, "port")
				old, exists := store.Ports.Get(st.Snapshot(), id)
				p := &model.Port{Meta: model.Meta{ID: id}, NetworkID: rapid.SampledFrom(nets).Draw(rt, "net"), MAC: mac(id), DeviceID: "s" + id[1:], AdminStateUp: true, PortSecurity: true,
					Host:   rapid.SampledFrom(append([]string{""}, hosts...)).Draw(rt, "host"),
					Groups: rapid.SliceOfNDistinct(rapid.SampledFrom(groups), 0, 2, rapid.ID[string]).Draw(rt, "groups")}
				if exists {
					p.NetworkID = old.NetworkID // a port never changes its network
				}
				if next := rapid.SampledFrom(append([]string{""}, hosts...)).Draw(rt, "next"); p.Host != "" && next != p.Host {
					p.NextHost = next
				}
				if rapid.Bool().Draw(rt, "holds") {
					p.Held = []model.Held{{Address: netip.AddrFrom4([4]byte{10, 0, 1, id[35]}), MAC: mac(id), Turn: int64(rapid.IntRange(1, 2).Draw(rt, "turn"))}}
				}
				p.QoSPolicyID = rapid.SampledFrom([]string{"", "q1", "q2"}).Draw(rt, "qos")
				if rapid.Bool().Draw(rt, "subport") {
					p.ParentID, p.VLAN = ports[0], 7
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
				if r.RemoteGroupID == "" {
					r.AddressGroupID = rapid.SampledFrom([]string{"", "a1", "a2"}).Draw(rt, "address group")
				}
				c.do(func(tx *store.Tx) error { return store.SecurityRules.Put(tx, r) })
			},
			"delete rule": func(rt *rapid.T) {
				id := rapid.SampledFrom(rules).Draw(rt, "rule")
				c.do(func(tx *store.Tx) error { return store.SecurityRules.Delete(tx, id) })
			},
			"move host": func(rt *rapid.T) {
				h := rapid.SampledFrom(hosts).Draw(rt, "host")
				row := &model.Host{Meta: model.Meta{ID: h, Name: h}, TunnelIP: netip.AddrFrom4([4]byte{192, 0, 2, rapid.Byte().Draw(rt, "addr")}),
					Channel: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 1}), uint16(rapid.IntRange(1, 3).Draw(rt, "channel")))}
				if rapid.Bool().Draw(rt, "maps") {
					row.BridgeMappings = []string{"physnet1"}
				}
				c.do(func(tx *store.Tx) error { return store.Hosts.Put(tx, row) })
			},
			"put server": func(rt *rapid.T) {
				p := rapid.SampledFrom(ports).Draw(rt, "port")
				id := "s" + p[1:]
				s := &model.Server{Meta: model.Meta{ID: id}, Host: rapid.SampledFrom(append([]string{""}, hosts...)).Draw(rt, "host"), HostName: rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "name"), Ports: []model.ID{p}}
				if rapid.Bool().Draw(rt, "moves") {
					s.Move = drawMove(rt, s, hosts)
				}
				c.do(func(tx *store.Tx) error { return store.Servers.Put(tx, s) })
			},
			"put router": func(rt *rapid.T) {
				r := &model.Router{Meta: model.Meta{ID: rapid.SampledFrom(routers).Draw(rt, "router")}, AdminStateUp: rapid.Bool().Draw(rt, "up")}
				for _, hop := range rapid.SliceOfNDistinct(rapid.IntRange(1, 6), 0, 2, rapid.ID[int]).Draw(rt, "hops") {
					r.Routes = append(r.Routes, model.Route{Destination: netip.MustParsePrefix("10.9.0.0/16"), NextHop: netip.AddrFrom4([4]byte{10, 0, 0, byte(100 + hop)})})
				}
				if rapid.Bool().Draw(rt, "gateway") {
					r.Gateway = &model.RouterGateway{NetworkID: outside, PortID: "gw" + r.ID, SNAT: true}
					r.Gateway.QoSPolicyID = rapid.SampledFrom([]string{"", "q1", "q2"}).Draw(rt, "qos")
					r.VNI = 100 + uint32(r.ID[35])
					r.Status.GatewayHosts = rapid.SliceOfNDistinct(rapid.SampledFrom(hosts), 0, 2, rapid.ID[string]).Draw(rt, "hosts")
				}
				c.do(func(tx *store.Tx) error {
					if r.Gateway != nil {
						if err := store.Ports.Put(tx, &model.Port{Meta: model.Meta{ID: "gw" + r.ID}, NetworkID: outside, MAC: "gw" + r.ID, DeviceID: r.ID, DeviceOwner: model.OwnerRouterGateway}); err != nil {
							return err
						}
					}
					return store.Routers.Put(tx, r)
				})
			},
			"delete router": func(rt *rapid.T) {
				id := rapid.SampledFrom(routers).Draw(rt, "router")
				c.do(func(tx *store.Tx) error { return store.Routers.Delete(tx, id) })
			},
			"put interface": func(rt *rapid.T) {
				n := rapid.IntRange(1, 6).Draw(rt, "n")
				net := rapid.SampledFrom(nets).Draw(rt, "net")
				id := fmt.Sprintf("i%d", n)
				if old, ok := store.Ports.Get(st.Snapshot(), id); ok {
					net = old.NetworkID
				}
				p := &model.Port{Meta: model.Meta{ID: id}, NetworkID: net, MAC: id, DeviceID: rapid.SampledFrom(routers).Draw(rt, "router"),
					DeviceOwner: model.OwnerRouterInterface, FixedIPs: []model.FixedIP{{SubnetID: "s" + net, Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(100 + n)})}}}
				c.do(func(tx *store.Tx) error { return store.Ports.Put(tx, p) })
			},
			"delete interface": func(rt *rapid.T) {
				id := fmt.Sprintf("i%d", rapid.IntRange(1, 6).Draw(rt, "n"))
				c.do(func(tx *store.Tx) error { return store.Ports.Delete(tx, id) })
			},
			"change network": func(rt *rapid.T) {
				id := rapid.SampledFrom(nets).Draw(rt, "net")
				c.do(func(tx *store.Tx) error {
					old, _ := store.Networks.Get(tx, id)
					n := *old
					n.External, n.MTU = rapid.Bool().Draw(rt, "external"), rapid.IntRange(1400, 1402).Draw(rt, "mtu")
					n.QoSPolicyID = rapid.SampledFrom([]string{"", "q1", "q2"}).Draw(rt, "qos")
					return store.Networks.Put(tx, &n)
				})
			},
			"put subnet": func(rt *rapid.T) {
				net := rapid.SampledFrom(nets).Draw(rt, "net")
				c.do(func(tx *store.Tx) error {
					return store.Subnets.Put(tx, &model.Subnet{Meta: model.Meta{ID: "t" + net}, NetworkID: net, IPVersion: 6, CIDR: netip.MustParsePrefix("fd00::/64"),
						IPv6RAMode: rapid.SampledFrom([]string{"", "slaac"}).Draw(rt, "mode"), PoolID: rapid.SampledFrom([]string{"", "sp1", "sp2"}).Draw(rt, "pool")})
				})
			},
			"put pool": func(rt *rapid.T) {
				p := &model.SubnetPool{Meta: model.Meta{ID: rapid.SampledFrom([]string{"sp1", "sp2"}).Draw(rt, "id")}, IPVersion: 6,
					AddressScopeID: rapid.SampledFrom([]string{"", "as1", "as2"}).Draw(rt, "scope")}
				c.do(func(tx *store.Tx) error { return store.SubnetPools.Put(tx, p) })
			},
			"delete subnet": func(rt *rapid.T) {
				net := rapid.SampledFrom(nets).Draw(rt, "net")
				c.do(func(tx *store.Tx) error { return store.Subnets.Delete(tx, "t"+net) })
			},
			"put floating": func(rt *rapid.T) {
				n := rapid.IntRange(1, 3).Draw(rt, "n")
				f := &model.FloatingIP{Meta: model.Meta{ID: fmt.Sprintf("f%d", n)}, NetworkID: outside, Address: netip.AddrFrom4([4]byte{203, 0, 113, byte(n)}), IPPortID: fmt.Sprintf("fp%d", n)}
				if rapid.Bool().Draw(rt, "associated") {
					f.PortID, f.RouterID = ports[n], rapid.SampledFrom(routers).Draw(rt, "router")
					f.FixedAddress = netip.AddrFrom4([4]byte{10, 0, 0, byte(n)})
				} else if rapid.Bool().Draw(rt, "forwards") {
					f.RouterID = rapid.SampledFrom(routers).Draw(rt, "router")
				}
				f.QoSPolicyID = rapid.SampledFrom([]string{"", "q1", "q2"}).Draw(rt, "qos")
				mac := rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "mac")
				c.do(func(tx *store.Tx) error {
					if err := store.Ports.Put(tx, &model.Port{Meta: model.Meta{ID: f.IPPortID}, NetworkID: outside, MAC: mac + f.ID, DeviceID: f.ID, DeviceOwner: model.OwnerFloatingIP}); err != nil {
						return err
					}
					return store.FloatingIPs.Put(tx, f)
				})
			},
			"delete floating": func(rt *rapid.T) {
				id := fmt.Sprintf("f%d", rapid.IntRange(1, 3).Draw(rt, "n"))
				c.do(func(tx *store.Tx) error { return store.FloatingIPs.Delete(tx, id) })
			},
			"put forwarding": func(rt *rapid.T) {
				n := rapid.IntRange(1, 3).Draw(rt, "n")
				pf := &model.PortForwarding{Meta: model.Meta{ID: fmt.Sprintf("w%d", n)}, FloatingIPID: fmt.Sprintf("f%d", rapid.IntRange(1, 3).Draw(rt, "f")), Protocol: "tcp",
					ExternalPort: n, ExternalPortEnd: n + rapid.IntRange(0, 2).Draw(rt, "more"), InternalPort: 80, InternalPortEnd: 80, PortID: ports[n]}
				c.do(func(tx *store.Tx) error { return store.PortForwardings.Put(tx, pf) })
			},
			"delete forwarding": func(rt *rapid.T) {
				id := fmt.Sprintf("w%d", rapid.IntRange(1, 3).Draw(rt, "n"))
				c.do(func(tx *store.Tx) error { return store.PortForwardings.Delete(tx, id) })
			},
			"put address group": func(rt *rapid.T) {
				g := &model.AddressGroup{Meta: model.Meta{ID: rapid.SampledFrom([]string{"a1", "a2"}).Draw(rt, "id")}}
				if rapid.Bool().Draw(rt, "full") {
					g.Addresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
				}
				c.do(func(tx *store.Tx) error { return store.AddressGroups.Put(tx, g) })
			},
			"put policy": func(rt *rapid.T) {
				q := &model.QoSPolicy{Meta: model.Meta{ID: rapid.SampledFrom([]string{"q1", "q2"}).Draw(rt, "id")}}
				if rapid.Bool().Draw(rt, "limit") {
					q.Rules = []model.QoSRule{{ID: "r", Type: model.QoSBandwidth, Direction: model.Egress, Rate: rapid.IntRange(1, 3).Draw(rt, "rate")}}
				}
				c.do(func(tx *store.Tx) error { return store.QoSPolicies.Put(tx, q) })
			},
			"put tap": func(rt *rapid.T) {
				n := rapid.IntRange(1, 2).Draw(rt, "n")
				c.do(func(tx *store.Tx) error {
					if err := store.TapServices.Put(tx, &model.TapService{Meta: model.Meta{ID: fmt.Sprintf("ts%d", n)}, PortID: rapid.SampledFrom(ports).Draw(rt, "sink"), VNI: uint32(1000 + n)}); err != nil {
						return err
					}
					return store.TapFlows.Put(tx, &model.TapFlow{Meta: model.Meta{ID: fmt.Sprintf("tf%d", n)}, ServiceID: fmt.Sprintf("ts%d", n),
						SourcePort: rapid.SampledFrom(ports).Draw(rt, "source"), Direction: rapid.SampledFrom([]string{model.TapIn, model.TapOut, model.TapBoth}).Draw(rt, "direction")})
				})
			},
			"delete tap": func(rt *rapid.T) {
				n := rapid.IntRange(1, 2).Draw(rt, "n")
				c.do(func(tx *store.Tx) error { return store.TapFlows.Delete(tx, fmt.Sprintf("tf%d", n)) })
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
		}
		maps.Copy(actions, volumeActions(c, hosts))
		// A cloud that is empty at first would not get far in a few steps.
		for _, first := range []string{"put port", "put port", "put port", "put interface", "put interface", "put interface", "put interface", "put interface", "put interface",
			"put router", "put router", "put router", "put floating", "put tap", "put policy",
			"put volume", "put volume", "put volume", "put guest", "put guest", "put volume snapshot", "put backup"} {
			actions[first](rt)
		}
		for _, h := range hosts {
			settle(rt, st, h, views[h], worlds[h])
		}
		rt.Repeat(actions)
		for _, h := range hosts {
			settle(rt, st, h, views[h], worlds[h])
		}
	})
}

func decode[T any](t *testing.T, body string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatalf("%q: %v", body, err)
	}
	return v
}

// drawMove draws a move that a server may be in.
func drawMove(rt *rapid.T, s *model.Server, hosts []model.ID) *model.Move {
	kinds := []model.MoveKind{model.MoveLive, model.MoveCold, model.MoveResize, model.MoveEvacuate}
	stages := []model.MoveStage{model.MovePlacing, model.MovePreparing, model.MoveRunning, model.MoveVerify, model.MoveReverting, model.MoveLeaving}
	m := &model.Move{ID: "m" + s.ID[1:], Kind: rapid.SampledFrom(kinds).Draw(rt, "kind"), Stage: rapid.SampledFrom(stages).Draw(rt, "stage"), Source: s.Host}
	if m.Stage != model.MovePlacing {
		m.Target = rapid.SampledFrom(hosts).Draw(rt, "target")
	}
	if m.Stage == model.MoveVerify || m.Stage == model.MoveReverting || m.Stage == model.MoveLeaving {
		s.Host = m.Target
	}
	if m.Kind == model.MoveResize {
		m.OldFlavor, m.NewFlavor = &model.Flavor{VCPUs: 1}, &model.Flavor{VCPUs: 2}
	}
	return m
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
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
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

// TestFresh: a batch says whether it may bring what the host keeps data of.
func TestFresh(t *testing.T) {
	st := storetest.New(t)
	e := hostview.NewEngine(st, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	go e.Run(ctx)
	do := func(f func(tx *store.Tx) error) {
		t.Helper()
		if _, err := st.Update(ctx, f); err != nil {
			t.Fatal(err)
		}
	}
	do(func(tx *store.Tx) error {
		return errors.Join(store.Hosts.Put(tx, &model.Host{Meta: model.Meta{ID: "h"}}), store.Hosts.Put(tx, &model.Host{Meta: model.Meta{ID: "o", Name: "o"}}))
	})
	v := e.Open("h")
	defer v.Close()
	next := func() model.HostBatch {
		t.Helper()
		b, err := v.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if b := next(); b.Fresh {
		t.Errorf("of a host with nothing: %+v", b)
	}
	server := func(power model.Power, uses ...model.VolumeUse) func(tx *store.Tx) error {
		return func(tx *store.Tx) error {
			return store.Servers.Put(tx, &model.Server{Meta: model.Meta{ID: "s"}, Host: "h", Power: power, Volumes: uses})
		}
	}
	volume := func(host model.ID) func(tx *store.Tx) error {
		return func(tx *store.Tx) error {
			return store.Volumes.Put(tx, &model.Volume{Meta: model.Meta{ID: "v"}, Engine: "local", Host: host, SizeGiB: 1})
		}
	}
	fresh := func(what string, want bool, ok func(model.HostRow) bool) {
		t.Helper()
		for {
			b := next() // the first batches may come from before the engine ran
			if slices.ContainsFunc(b.Upserts, ok) {
				if b.Fresh != want {
					t.Errorf("%s: fresh %v", what, b.Fresh)
				}
				return
			}
			if b.Fresh {
				t.Errorf("fresh without %s: %+v", what, b)
			}
		}
	}
	isServer := func(r model.HostRow) bool { return r.RowID().Kind == model.RowServer }
	isVolume := func(r model.HostRow) bool { return r.RowID().Kind == model.RowVolume }
	do(server(model.PowerRunning))
	fresh("a server that comes", true, isServer)
	do(server(model.PowerOff))
	fresh("one that changes", false, isServer)
	do(volume("o"))
	do(server(model.PowerOff, model.VolumeUse{VolumeID: "v"}))
	fresh("another's volume", false, isVolume)
	do(volume("h"))
	fresh("a volume that comes", true, isVolume)
}
