package store

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"testing"

	"yakumo/model"
)

// BenchmarkMirror is what it costs to take a transaction's rows into a mirror that holds 100,000 ports with
// their claims, and what an entry of the mirror takes of memory.
func BenchmarkMirror(b *testing.B) {
	s := &Store{tables: map[Kind]AnyTable{}, moved: make(chan struct{}), subs: map[*Subscription]struct{}{}, log: slog.Default()}
	for _, t := range Tables() {
		s.tables[t.Kind()] = t
	}
	s.mirror = newMirror(Tables())
	rev := int64(0)
	port := func(i int) []change {
		id := fmt.Sprintf("%08x-0000-4000-8000-000000000000", uint32(i)*2654435761)
		network := fmt.Sprintf("%08x-0000-4000-8000-000000000001", i/10)
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		p := &model.Port{Meta: model.Meta{ID: id, ProjectID: fmt.Sprint("project-", i/100)}, NetworkID: network, MAC: fmt.Sprintf("fa:16:3e:%02x:%02x:%02x", i>>16&0xff, i>>8&0xff, i&0xff),
			FixedIPs: []model.FixedIP{{SubnetID: network, Address: a}}, Groups: []model.ID{fmt.Sprint("group-", i/100)}, DeviceID: fmt.Sprint("device-", i), Host: fmt.Sprint("host-", i%1000)}
		v, err := json.Marshal(p)
		if err != nil {
			b.Fatal(err)
		}
		rev++
		out := []change{{kind: "port", key: id, rev: rev, value: v}}
		for _, c := range Ports.claimsOf(p) {
			out = append(out, change{kind: claimKind, key: "port/" + c, rev: rev, value: []byte(id)})
		}
		return out
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	const many = 100_000
	for i := 0; i < many; i += 100 {
		var batch []change
		for k := range 100 {
			batch = append(batch, port(i+k)...)
		}
		s.apply(batch, rev)
	}
	size := float64(heap()-before) / many
	i := 0
	for b.Loop() {
		s.apply(port(i%many), rev)
		i++
	}
	b.ReportMetric(size, "B/row")
}
