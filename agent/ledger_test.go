package agent

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"yakumo/fault"
	"yakumo/model"
)

// A ledger, opened again at any time, holds what a plain map would after the same batches.
func TestLedgerModel(t *testing.T) {
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		path := filepath.Join(dir, fmt.Sprintf("ledger-%d", n))
		l, err := openLedger(path)
		if err != nil {
			t.Fatal(err)
		}
		want := map[model.RowID]model.HostRow{}
		var generation int64
		row := func() model.HostRow {
			id := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "id")
			value := rapid.IntRange(0, 2).Draw(t, "value")
			switch rapid.IntRange(0, 5).Draw(t, "kind") {
			case 0:
				return &model.HostServer{ID: id, VCPUs: value}
			case 1:
				return &model.HostPort{ID: id, DeviceID: fmt.Sprint("s", value), FixedIPs: []model.FixedIP{{SubnetID: "x", Address: netip.MustParseAddr("10.0.0.1")}}}
			case 2:
				return &model.HostNetwork{ID: id, MTU: value}
			case 3:
				return &model.HostPeer{ID: id, VNI: uint32(value), TunnelIP: netip.MustParseAddr("192.0.2.1")}
			case 4:
				return &model.HostGroup{ID: id, Stateful: value > 0}
			}
			return &model.HostMember{GroupID: id, PortID: fmt.Sprint(value), Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
		}
		t.Repeat(map[string]func(*rapid.T){
			"batch": func(t *rapid.T) {
				b := model.HostBatch{Full: rapid.Bool().Draw(t, "full"), Generation: generation + rapid.Int64Range(-2, 2).Draw(t, "step")}
				for range rapid.IntRange(0, 6).Draw(t, "upserts") {
					b.Upserts = append(b.Upserts, row())
				}
				if !b.Full {
					for range rapid.IntRange(0, 3).Draw(t, "removes") {
						b.Removes = append(b.Removes, row().RowID())
					}
				}
				touched, err := l.apply(b, "boot")
				if b.Generation < generation {
					if !fault.Is(err, fault.Conflict) {
						t.Fatalf("generation %d after %d: %v", b.Generation, generation, err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				generation = b.Generation
				old := want
				want = map[model.RowID]model.HostRow{}
				if !b.Full {
					for id, r := range old {
						want[id] = r
					}
				}
				for _, id := range b.Removes {
					delete(want, id)
				}
				for _, r := range b.Upserts {
					want[r.RowID()] = r
				}
				told := map[model.RowID]bool{}
				for _, id := range touched {
					told[id] = true
				}
				for id := range old {
					if !told[id] && !reflect.DeepEqual(old[id], want[id]) {
						t.Fatalf("a change of %v is not told", id)
					}
				}
				for id := range want {
					if !told[id] && old[id] == nil {
						t.Fatalf("the new %v is not told", id)
					}
				}
			},
			"reopen": func(t *rapid.T) {
				if err := l.close(); err != nil {
					t.Fatal(err)
				}
				if l, err = openLedger(path); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				have := map[model.RowID]model.HostRow{}
				for _, r := range l.all() {
					have[r.RowID()] = r
				}
				if l.Generation() != generation || !reflect.DeepEqual(have, want) {
					t.Fatalf("generation %d rows %v, want %d %v", l.Generation(), have, generation, want)
				}
				for device := range map[string]bool{"s0": true, "s1": true, "s2": true} {
					n := 0
					for _, r := range want {
						if p, ok := r.(*model.HostPort); ok && p.DeviceID == device {
							n++
						}
					}
					if got := l.portsOf(device); len(got) != n {
						t.Fatalf("ports of %s: %v, want %d", device, got, n)
					}
				}
			},
		})
		if err := l.close(); err != nil {
			t.Fatal(err)
		}
	})
}
