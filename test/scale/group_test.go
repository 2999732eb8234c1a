package scale_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"yakumo/link"
	"yakumo/model"
	"yakumo/store"
)

// TestLargeGroup: a port that joins a group of 10,000 costs a host that refers to the group
// less than a kilobyte, and tells it nothing of the others again.
func TestLargeGroup(t *testing.T) {
	const members = 10_000
	c := newCloud(t)
	network, group := model.NewID(), model.NewID()
	port := func(i int, host model.ID) *model.Port {
		return &model.Port{Meta: model.NewMeta("p", "", c.now), NetworkID: network, MAC: c.mac(), AdminStateUp: true, PortSecurity: true, Host: host, Groups: []model.ID{group},
			FixedIPs: []model.FixedIP{{SubnetID: "s", Address: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}}}
	}
	rows := []func(tx *store.Tx) error{
		func(tx *store.Tx) error {
			return store.Networks.Put(tx, &model.Network{Meta: model.Meta{ID: network, ProjectID: "p"}, Type: model.NetworkVXLAN, VNI: 1, MTU: 1450})
		},
		func(tx *store.Tx) error {
			return store.SecurityGroups.Put(tx, &model.SecurityGroup{Meta: model.Meta{ID: group, ProjectID: "p"}, Stateful: true})
		},
		func(tx *store.Tx) error {
			return store.SecurityRules.Put(tx, &model.SecurityRule{Meta: model.NewMeta("p", "", c.now), GroupID: group, Direction: model.Ingress, EtherType: model.IPv4, RemoteGroupID: group})
		},
	}
	for i, h := range []model.ID{"h0", "h1"} {
		rows = append(rows, func(tx *store.Tx) error {
			return store.Hosts.Put(tx, &model.Host{Meta: model.Meta{ID: h, Name: h}, TunnelIP: tunnelIP(i)})
		})
	}
	c.put(len(rows), len(rows), func(tx *store.Tx, i int) error { return rows[i](tx) })
	c.put(members, 200, func(tx *store.Tx, i int) error { return store.Ports.Put(tx, port(i, [2]model.ID{"h0", "h1"}[i%2])) })
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	go c.views.Run(ctx)
	v := c.views.Open("h0")
	defer v.Close()
	next := func() model.HostBatch {
		t.Helper()
		b, err := v.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for n := 0; n < members+members+1; { // its own and the others' ports, members, and the rest
		b := next()
		if b.Full {
			n = 0
		}
		n += len(b.Upserts)
	}
	bytes, took := 0, time.Duration(0)
	const joins = 50
	for i := range joins {
		p := port(members+i, "h1")
		began := time.Now()
		c.put(1, 1, func(tx *store.Tx, _ int) error { return store.Ports.Put(tx, p) })
		for told := false; !told; {
			b := next()
			if b.Full {
				t.Fatal("the host is told everything again")
			}
			for _, r := range b.Upserts {
				_, body, err := link.EncodeRow(r)
				if err != nil {
					t.Fatal(err)
				}
				bytes += len(body)
				told = told || r.RowID() == model.RowID{Kind: model.RowMember, Key: group + "," + p.ID}
			}
		}
		took += time.Since(began)
	}
	t.Logf("a port joins a group of %d: %d bytes and %s for a host, the port as a peer included", members, bytes/joins, (took / joins).Round(10*time.Microsecond))
	if bytes/joins > 1024 {
		t.Errorf("a join costs a host %d bytes", bytes/joins)
	}
}
