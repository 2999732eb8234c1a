package openflow_test

import (
	"testing"

	of "yakumo/openflow"
)

func benchFlow() *of.FlowMod { return manyFlows(1)[0].(*of.FlowMod) }

func BenchmarkEncodeFlowMod(b *testing.B) {
	m := benchFlow()
	buf := make([]byte, 0, 512)
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if buf, err = of.Append(buf[:0], 1, m); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(len(buf)))
}

func BenchmarkDecodeFlowMod(b *testing.B) {
	buf, err := of.Append(nil, 1, benchFlow())
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := of.Decode(buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMatchOf(b *testing.B) {
	dst := prefix("10.0.0.0/8")
	b.ReportAllocs()
	for b.Loop() {
		of.MatchOf(of.InPort(1), of.Metadata(2), of.EthType(of.EtherTypeIPv4), of.IPDst(dst))
	}
}

func BenchmarkDecodePacketIn(b *testing.B) {
	buf, err := of.Append(nil, 1, &of.PacketIn{
		Extended: true, Table: 5, Cookie: 6, Reason: of.ReasonAction, BufferID: of.NoBuffer, TotalLen: 342, Data: make([]byte, 342),
		UserData: make([]byte, 16), Match: of.MatchOf(of.InPort(1), of.Metadata(2), of.Reg(0, 3), of.Reg(1, 4), of.TunnelID(5)),
	})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := of.Decode(buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBundle10000 commits 10,000 new flows to a real switch each time.
func BenchmarkBundle10000(b *testing.B) {
	const n = 10000
	sw := startBridge(b)
	c := dial(b, sw, of.Config{})
	ctx := testContext(b)
	ms := manyFlows(n)
	clear := []of.Message{&of.FlowMod{Command: of.FlowDelete, Table: of.TableAll}}
	for b.Loop() {
		if err := c.Bundle(ctx, ms); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := c.Bundle(ctx, clear); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "flows/s")
}

// BenchmarkSmallBundle changes one flow, as the usual small change does.
func BenchmarkSmallBundle(b *testing.B) {
	sw := startBridge(b)
	c := dial(b, sw, of.Config{})
	ctx := testContext(b)
	ms := manyFlows(1)
	for b.Loop() {
		if err := c.Bundle(ctx, ms); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReadFlows10000 reads 10,000 flows back.
func BenchmarkReadFlows10000(b *testing.B) {
	const n = 10000
	sw := startBridge(b)
	c := dial(b, sw, of.Config{})
	ctx := testContext(b)
	if err := c.Bundle(ctx, manyFlows(n)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if flows, err := c.Flows(ctx, of.AllFlows()); err != nil || len(flows) != n {
			b.Fatal(len(flows), err)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "flows/s")
}
