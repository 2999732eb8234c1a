package hostview_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"yakumo/model"
	"yakumo/store"
	"yakumo/store/storetest"
)

// naive tells which rows a host must have, by looking at everything until nothing is new.
func naive(snap store.Snapshot, host model.ID) map[model.RowID]bool {
	out := map[model.RowID]bool{}
	add := func(kind model.RowKind, key string) bool {
		id := model.RowID{Kind: kind, Key: key}
		was := out[id]
		out[id] = true
		return !was
	}
	ports := slices.Collect(store.Ports.All(snap))
	own := map[model.ID]bool{}     // networks with a port here
	told := map[model.ID]bool{}    // networks whose ports are told
	routers := map[model.ID]bool{} // known
	groups := map[model.ID]bool{}  // of ports here
	isInterface := func(p *model.Port) bool { return p.DeviceOwner == model.OwnerRouterInterface }
	for _, p := range ports {
		if p.Host == host || p.NextHost == host {
			add(model.RowPort, p.ID)
			own[p.NetworkID], told[p.NetworkID] = true, true
			for _, g := range p.Groups {
				groups[g] = true
			}
		}
	}
	for _, p := range ports {
		if isInterface(p) && own[p.NetworkID] {
			routers[p.DeviceID] = true
		}
	}
	for r := range store.Routers.All(snap) {
		if slices.Contains(r.Status.GatewayHosts, host) {
			routers[r.ID] = true
		}
	}
	for more := true; more; {
		more = false
		for id := range routers {
			r, ok := store.Routers.Get(snap, id)
			if !ok {
				continue
			}
			for _, route := range r.Routes {
				for _, mine := range ports {
					for _, p := range ports {
						if isInterface(mine) && mine.DeviceID == id && isInterface(p) && p.NetworkID == mine.NetworkID && p.FixedIPs[0].Address == route.NextHop && !routers[p.DeviceID] {
							routers[p.DeviceID], more = true, true
						}
					}
				}
			}
		}
	}
	known := maps.Clone(own)
	for id := range routers {
		if r, ok := store.Routers.Get(snap, id); ok {
			add(model.RowRouter, id)
			if r.Gateway != nil {
				known[r.Gateway.NetworkID] = true
			}
		}
		for _, p := range ports {
			if isInterface(p) && p.DeviceID == id {
				known[p.NetworkID] = true
				if n, _ := store.Networks.Get(snap, p.NetworkID); !n.External {
					told[p.NetworkID] = true
				}
			}
		}
	}
	for n := range known {
		add(model.RowNetwork, n)
	}
	for _, p := range ports {
		if told[p.NetworkID] && p.Host != "" && p.Host != host {
			add(model.RowPeer, p.ID)
		}
	}
	for g := range groups {
		add(model.RowGroup, g)
		for r := range store.SecurityRules.All(snap) {
			if r.GroupID != g {
				continue
			}
			if r.AddressGroupID != "" {
				add(model.RowAddresses, r.AddressGroupID)
			}
			for _, p := range ports {
				if r.RemoteGroupID != "" && slices.Contains(p.Groups, r.RemoteGroupID) && len(p.FixedIPs) > 0 {
					add(model.RowMember, r.RemoteGroupID+","+p.ID)
				}
			}
		}
	}
	for f := range store.FloatingIPs.All(snap) {
		r, routed := store.Routers.Get(snap, f.RouterID)
		at := ""
		if routed && len(r.Status.GatewayHosts) > 0 {
			at = r.Status.GatewayHosts[0]
		}
		if p, ok := store.Ports.Get(snap, f.PortID); ok && p.Host != "" {
			if h, _ := store.Hosts.Get(snap, p.Host); slices.Contains(h.BridgeMappings, "physnet1") {
				at = p.Host
			}
		}
		next := ""
		if p, ok := store.Ports.Get(snap, f.PortID); ok && p.NextHost != "" && f.RouterID != "" {
			if h, _ := store.Hosts.Get(snap, p.NextHost); slices.Contains(h.BridgeMappings, "physnet1") {
				next = p.NextHost
			}
		}
		if at == host || next == host {
			add(model.RowFloating, f.ID)
		}
	}
	for s := range store.Servers.All(snap) {
		told := s.Host == host
		if s.Move != nil {
			role, _ := s.Move.Part(host)
			told = told || role != ""
		}
		if told {
			add(model.RowServer, s.ID)
		}
	}
	return out
}

// TestHostLearnsWhatANaiveLookFinds: in a random cloud each host is told exactly the rows
// that the rules, applied to everything, say.
func TestHostLearnsWhatANaiveLookFinds(t *testing.T) {
	cl, prefix := storetest.Client(t)
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		st := storetest.Open(t, cl, fmt.Sprintf("%so%d/", prefix, round))
		hosts, nets, routers, groups := ids("h", 5), ids("n", 8), ids("o", 5), ids("g", 4)
		outside := nets[7]
		some := func(of []string, name string) string { return rapid.SampledFrom(of).Draw(rt, name) }
		if _, err := st.Update(t.Context(), func(tx *store.Tx) error {
			for i, h := range hosts {
				row := &model.Host{Meta: model.Meta{ID: h, Name: h}, TunnelIP: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})}
				if rapid.Bool().Draw(rt, "maps") {
					row.BridgeMappings = []string{"physnet1"}
				}
				if err := store.Hosts.Put(tx, row); err != nil {
					return err
				}
			}
			for i, n := range nets {
				row := &model.Network{Meta: model.Meta{ID: n}, Type: model.NetworkVXLAN, VNI: uint32(i + 1)}
				if n == outside {
					row.Type, row.PhysicalNetwork, row.External = model.NetworkFlat, "physnet1", true
				}
				if err := store.Networks.Put(tx, row); err != nil {
					return err
				}
			}
			for _, g := range groups {
				if err := store.SecurityGroups.Put(tx, &model.SecurityGroup{Meta: model.Meta{ID: g}}); err != nil {
					return err
				}
				r := &model.SecurityRule{Meta: model.Meta{ID: "r" + g}, GroupID: g, Direction: model.Ingress, EtherType: model.IPv4, RemoteGroupID: some(append([]string{""}, groups...), "remote")}
				if r.RemoteGroupID == "" {
					r.AddressGroupID = "a" + g
					if err := store.AddressGroups.Put(tx, &model.AddressGroup{Meta: model.Meta{ID: "a" + g}}); err != nil {
						return err
					}
				}
				if err := store.SecurityRules.Put(tx, r); err != nil {
					return err
				}
			}
			for i, id := range routers {
				r := &model.Router{Meta: model.Meta{ID: id}}
				for range rapid.IntRange(0, 2).Draw(rt, "routes") {
					r.Routes = append(r.Routes, model.Route{Destination: netip.MustParsePrefix("10.9.0.0/16"), NextHop: netip.AddrFrom4([4]byte{10, 0, 0, byte(100 + rapid.IntRange(0, 9).Draw(rt, "hop"))})})
				}
				if rapid.Bool().Draw(rt, "gateway") {
					r.Gateway, r.VNI = &model.RouterGateway{NetworkID: outside, PortID: "gw" + id}, uint32(100+i)
					r.Status.GatewayHosts = rapid.SliceOfNDistinct(rapid.SampledFrom(hosts), 0, 2, rapid.ID[string]).Draw(rt, "hosts")
					if err := store.Ports.Put(tx, &model.Port{Meta: model.Meta{ID: "gw" + id}, NetworkID: outside, MAC: "gw" + id, DeviceID: id, DeviceOwner: model.OwnerRouterGateway}); err != nil {
						return err
					}
				}
				if err := store.Routers.Put(tx, r); err != nil {
					return err
				}
			}
			for i := range 10 {
				net := some(nets, "of")
				if err := store.Ports.Put(tx, &model.Port{Meta: model.Meta{ID: fmt.Sprintf("i%d", i)}, NetworkID: net, MAC: fmt.Sprint("i", i), DeviceID: some(routers, "router"),
					DeviceOwner: model.OwnerRouterInterface, FixedIPs: []model.FixedIP{{SubnetID: "s" + net, Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(100 + i)})}}}); err != nil {
					return err
				}
			}
			for i := range 12 {
				net, id := some(nets, "net"), fmt.Sprintf("p%d", i)
				p := &model.Port{Meta: model.Meta{ID: id}, NetworkID: net, MAC: id, Host: some(append([]string{""}, hosts...), "host"), Groups: []model.ID{some(groups, "group")}}
				if next := some(append([]string{""}, hosts...), "next"); p.Host != "" && next != p.Host {
					p.NextHost = next
				}
				if i%3 > 0 {
					p.FixedIPs = []model.FixedIP{{SubnetID: "s" + net, Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}}
				}
				if err := store.Ports.Put(tx, p); err != nil {
					return err
				}
				if i%4 == 0 {
					f := &model.FloatingIP{Meta: model.Meta{ID: "f" + id}, NetworkID: outside, IPPortID: "fp" + id, RouterID: some(routers, "nat")}
					if i%8 == 0 {
						f.PortID = id
					}
					if err := store.Ports.Put(tx, &model.Port{Meta: model.Meta{ID: f.IPPortID}, NetworkID: outside, MAC: f.IPPortID, DeviceID: f.ID, DeviceOwner: model.OwnerFloatingIP}); err != nil {
						return err
					}
					if err := store.FloatingIPs.Put(tx, f); err != nil {
						return err
					}
				}
			}
			for _, id := range ids("v", 4) {
				s := &model.Server{Meta: model.Meta{ID: id}, Host: some(hosts, "server's host")}
				if rapid.Bool().Draw(rt, "moves") {
					s.Move = drawMove(rt, s, hosts)
				}
				if err := store.Servers.Put(tx, s); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			rt.Fatal(err)
		}
		for _, h := range hosts {
			have, want := full(rt, st, h), naive(st.Snapshot(), h)
			for id := range want {
				if _, ok := have[id]; !ok {
					rt.Errorf("host %s is not told of %s", h, id)
				}
			}
			for id := range have {
				if !want[id] {
					rt.Errorf("host %s is told of %s, which it does not need", h, id)
				}
			}
		}
	})
}
