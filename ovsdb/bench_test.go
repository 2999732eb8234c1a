package ovsdb

import (
	"bytes"
	"fmt"
	"os"
	"testing"
)

// bigUpdate is the initial update of a switch with n interfaces, much as ovsdb-server sends it.
func bigUpdate(n int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"Interface":{`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"%08x-1111-2222-3333-444444444444":{"initial":{"name":"tap%08x","type":"","ofport":%d,"admin_state":"up","link_state":"up",`+
			`"mac_in_use":"fa:16:3e:00:%02x:%02x","mtu":1500,"ifindex":%d,"external_ids":["map",[["attached-mac","fa:16:3e:00:%02x:%02x"],`+
			`["iface-id","%08x-5555-6666-7777-888888888888"],["iface-status","active"]]],"status":["map",[["driver_name","tun"],["driver_version","1.6"]]],`+
			`"options":["map",[["a","b"]]]}}`, i, i, i+1, i>>8&255, i&255, i, i>>8&255, i&255, i)
	}
	b.WriteString("}}")
	return b.Bytes()
}

func benchTables(b *testing.B) *Snapshot {
	b.Helper()
	raw, err := os.ReadFile("/usr/share/openvswitch/vswitch.ovsschema")
	if err != nil {
		b.Fatal(err)
	}
	schema, err := ParseSchema(raw)
	if err != nil {
		b.Fatal(err)
	}
	p, err := newPlan(Interface{})
	if err != nil {
		b.Fatal(err)
	}
	l, err := newLayout(schema.Tables["Interface"], p.columns(schema.Tables["Interface"]))
	if err != nil {
		b.Fatal(err)
	}
	v, err := newTableView(l, p, []string{"name"})
	if err != nil {
		b.Fatal(err)
	}
	return &Snapshot{schema: schema, tables: map[string]*tableView{"Interface": v}}
}

// BenchmarkDecodeUpdate reads the initial update of 10,000 interfaces (about 4 MB) into an empty replica.
func BenchmarkDecodeUpdate(b *testing.B) {
	const n = 10000
	raw := bigUpdate(n)
	empty := benchTables(b)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		batch := newBatch(empty)
		if err := batch.read(raw, dialectSince); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkFrame cuts the same update out of a stream and takes the message apart.
func BenchmarkFrame(b *testing.B) {
	raw := append(append([]byte(`{"id":null,"method":"update3","params":["replica","x",`), bigUpdate(10000)...), "]}"...)
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		f := &framer{r: bytes.NewReader(raw), max: 1 << 30}
		m, err := f.next()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := parseMessage(m); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSmallUpdate changes one column of one row of 10,000.
func BenchmarkSmallUpdate(b *testing.B) {
	batch := newBatch(benchTables(b))
	if err := batch.read(bigUpdate(10000), dialectSince); err != nil {
		b.Fatal(err)
	}
	snap := batch.next
	update := []byte(`{"Interface":{"00000007-1111-2222-3333-444444444444":{"modify":{"link_state":"down"}}}}`)
	b.ReportAllocs()
	for b.Loop() {
		next := newBatch(snap)
		if err := next.read(update, dialectSince); err != nil {
			b.Fatal(err)
		}
		snap = next.next
	}
}

// BenchmarkFind finds one of 10,000 rows by name, as a struct.
func BenchmarkFind(b *testing.B) {
	batch := newBatch(benchTables(b))
	if err := batch.read(bigUpdate(10000), dialectSince); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		rows, err := Find[Interface](batch.next, "name", "tap00000400")
		if err != nil || len(rows) != 1 {
			b.Fatal(rows, err)
		}
	}
}
