package link

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"yakumo/model"
)

func attachedKeys() clientv3.LeaseOption { return clientv3.WithAttachedKeys() }

func rows() []model.HostRow {
	a := netip.MustParseAddr("10.0.0.1")
	return []model.HostRow{
		&model.HostServer{ID: "s", Name: "n", VCPUs: 1, NICs: []model.HostNIC{{PortID: "p", MAC: "02:00:00:00:00:01", MTU: 1450}}, CreatedAt: time.Unix(1, 0).UTC()},
		&model.HostPort{ID: "p", VNI: 1 << 23, FixedIPs: []model.FixedIP{{SubnetID: "x", Address: a}}, PortSecurity: true},
		&model.HostPeer{ID: "q", TunnelIP: a, Addresses: []netip.Addr{a}},
		&model.HostNetwork{ID: "n", VNI: 9, MTU: 1450, Flood: []netip.Addr{a}},
		&model.HostGroup{ID: "g", Stateful: true, Rules: []model.HostRule{{ID: "r", Direction: "ingress", RemotePrefix: netip.MustParsePrefix("10.0.0.0/8")}}},
		&model.HostMember{GroupID: "g", PortID: "p", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")}},
	}
}

func TestBatchTravels(t *testing.T) {
	t.Parallel()
	in := model.HostBatch{Full: true, Generation: 5, Upserts: rows(), Removes: []model.RowID{{Kind: model.RowPeer, Key: "z"}}}
	p, err := encodeBatch(in)
	if err != nil {
		t.Fatal(err)
	}
	out, err := decodeBatch(p)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(out.Full, out.Generation, out.Removes) != fmt.Sprint(in.Full, in.Generation, in.Removes) || len(out.Upserts) != len(in.Upserts) {
		t.Fatalf("%+v", out)
	}
	for i, r := range in.Upserts {
		_, a, _ := EncodeRow(r)
		_, b, _ := EncodeRow(out.Upserts[i])
		if r.RowID() != out.Upserts[i].RowID() || !bytes.Equal(a, b) {
			t.Errorf("%s\nwent %s\ncame %s", r.RowID(), a, b)
		}
	}
}

func FuzzDecodeRow(f *testing.F) {
	for _, r := range rows() {
		kind, body, err := EncodeRow(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(kind), body)
	}
	f.Add("odd", []byte("{}"))
	f.Add("port", []byte("null"))
	f.Add("network", []byte(`{"vni":-1}`))
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		r, err := DecodeRow(model.RowKind(kind), body)
		if err != nil {
			return
		}
		k, once, err := EncodeRow(r)
		if err != nil {
			t.Fatalf("a row that was read cannot be written: %v", err)
		}
		if string(k) != kind {
			t.Fatalf("a %s became a %s", kind, k)
		}
		again, err := DecodeRow(k, once)
		if err != nil {
			t.Fatalf("read again: %v", err)
		}
		if _, twice, _ := EncodeRow(again); !bytes.Equal(once, twice) || again.RowID() != r.RowID() {
			t.Fatalf("%s became %s", once, twice)
		}
	})
}

func FuzzSplitToken(f *testing.F) {
	print := strings.Repeat("0a", 32)
	for _, s := range []string{"", ".", "..", "a.b." + print, " a.b." + print + "\n", "a..b" + print, "a.b.c." + print, "a.b." + strings.ToUpper(print)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		send, fp, err := splitToken(token)
		if err != nil {
			if send != "" || fp != "" {
				t.Fatal("something of a malformed token was given")
			}
			return
		}
		id, secret, ok := strings.Cut(send, ".")
		if !ok || id == "" || secret == "" || strings.Contains(secret, ".") || len(fp) != 64 || strings.Contains(send, fp) && !strings.Contains(token[:len(token)-64], fp) {
			t.Fatalf("%q gave %q and %q", token, send, fp)
		}
	})
}

// BenchmarkReports measures reports from an agent's queue to the sink.
func BenchmarkReports(b *testing.B) {
	c := newCloud(b, 1)
	h := c.run(c.join("h1"))
	until(b, soon, "attached", h.Connected)
	sink := c.sites[0].sink
	b.ResetTimer()
	for i := 0; b.Loop(); i++ {
		h.Report([]model.ServerReport{{ServerID: fmt.Sprint("s", i%500), Generation: int64(i), Phase: model.PhaseReady}}, nil)
		if i%500 == 499 {
			until(b, soon, "in", func() bool { r, _ := sink.last("s499"); return r.Generation >= int64(i) })
		}
	}
}

// BenchmarkBatch1000 measures 1000 rows from a view to the host's acknowledgement.
func BenchmarkBatch1000(b *testing.B) {
	c := newCloud(b, 1)
	h := c.run(c.join("h1"))
	until(b, soon, "attached", h.Connected)
	batch := model.HostBatch{Generation: h.Generation()}
	for i := range 1000 {
		batch.Upserts = append(batch.Upserts, &model.HostPort{ID: fmt.Sprint("p", i), MAC: "02:00:00:00:00:01", VNI: 5,
			FixedIPs: []model.FixedIP{{SubnetID: "2f9f2f61-4a5e-4d3c-9d0e-3f3c0a1b2c3d", Address: netip.MustParseAddr("10.0.0.1")}}, PortSecurity: true, Groups: []model.ID{"g"}})
	}
	// A view is asked again when the host has acknowledged: each send ends the round before.
	for b.Loop() {
		c.sites[0].views.batches <- batch
	}
}

// BenchmarkEncodeBatch makes a message of 100 peers: whoever made the batch has their JSON, or has not.
func BenchmarkEncodeBatch(b *testing.B) {
	var plain model.HostBatch
	for i := range 100 {
		plain.Upserts = append(plain.Upserts, &model.HostPeer{ID: model.NewID(), NetworkID: "n", MAC: fmt.Sprintf("02:00:00:00:00:%02x", i)})
	}
	with := plain
	for _, r := range plain.Upserts {
		_, body, err := EncodeRow(r)
		if err != nil {
			b.Fatal(err)
		}
		with.Bodies = append(with.Bodies, body)
	}
	for name, batch := range map[string]model.HostBatch{"rows": plain, "bodies": with} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if p, err := encodeBatch(batch); err != nil || len(p.Upserts) != 100 {
					b.Fatal(err)
				}
			}
		})
	}
}
