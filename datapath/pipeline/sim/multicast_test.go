package sim_test

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"yakumo/datapath"
	"yakumo/datapath/pipeline"
	"yakumo/datapath/pipeline/sim"
	"yakumo/model"
)

// Exactly the groups that are told to be snooped, and the two of reports, reach nobody who has not asked for them.
func TestSnooped(t *testing.T) {
	ord := datapath.NewMemoryOrdinals()
	p, sw := pipeline.NewProgram(pipeline.DefaultEnv(), ord), sim.New()
	port := func(id string, n byte) *model.HostPort {
		return &model.HostPort{ID: id, NetworkID: "n", VNI: 5000, MAC: pipeline.MAC{0xfa, 0x16, 0x3e, 0, 0, n}.String(), AdminStateUp: true}
	}
	d, err := p.Apply([]model.HostRow{&model.HostNetwork{ID: "n", VNI: 5000, MTU: 1450}, port("a", 1), port("b", 2)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	sw.Load(d)
	in, err := ord.Get(pipeline.OrdinalPort, "a", pipeline.MaxPort)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		var dst netip.Addr
		typ := uint16(pipeline.TypeIPv4)
		if rapid.Bool().Draw(t, "six") {
			typ = pipeline.TypeIPv6
			b := [16]byte{0: 0xff, 1: rapid.Byte().Draw(t, "scope"), 15: rapid.Byte().Draw(t, "last")}
			dst = netip.AddrFrom16(b)
		} else {
			second := rapid.SampledFrom([]byte{0, 0, 1, 128, 255}).Draw(t, "second")
			third := rapid.SampledFrom([]byte{0, 0, 1, 128, 255}).Draw(t, "third")
			dst = netip.AddrFrom4([4]byte{rapid.ByteRange(224, 239).Draw(t, "first"), second, third, rapid.Byte().Draw(t, "last")})
		}
		res := sw.Run(sim.Arrival{In: uint64(in), Packet: sim.Packet{EthSrc: pipeline.MAC{2, 0, 0, 0, 0, 1}, EthDst: pipeline.GroupMAC(dst), EthType: typ,
			Src: netip.IPv6LinkLocalAllNodes(), Dst: dst, Proto: pipeline.ProtoUDP, SrcPort: 1, DstPort: 2, TTL: 4}})
		// Reports go to those of whom groups are asked, and no port is one.
		reports := dst == netip.MustParseAddr("224.0.0.22") || dst == netip.MustParseAddr("ff02::16")
		if want := !pipeline.Snooped(dst) && !reports; want != (len(res.Out) == 1) {
			t.Fatalf("%v leaves %d times, want %v", dst, len(res.Out), want)
		}
	})
}
