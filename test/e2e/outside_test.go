package e2e_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"yakumo/images/mini/probe"
	"yakumo/lab"
)

// probeFrom asks from a machine of the lab each service at each address.
func probeFrom(ctx context.Context, machine string, services string, addrs ...string) ([]probe.Result, error) {
	out, err := on(ctx, machine, append([]string{fix.binary, "lab-probe", "ask", services}, addrs...)...)
	if err != nil {
		return nil, err
	}
	return results(out)
}

// results reads what the program probe printed.
func results(out string) ([]probe.Result, error) {
	var all []probe.Result
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		r, err := probe.ParseResult(line)
		if err != nil {
			return all, err
		}
		all = append(all, r)
	}
	return all, nil
}

// TestOutside stands on a host's provider bridge, as a machine of the physical network would, and
// finds the outside on both segments, untagged and tagged; also after the outside's plug was
// pulled, and after its switch and the host's died.
func TestOutside(t *testing.T) {
	const host = "host3"
	segments := lab.Segments()
	must := func(argv ...string) string {
		t.Helper()
		out, err := on(t.Context(), host, argv...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	// One port a segment, tagged as the segment is.
	var want []string
	for i, s := range segments {
		dev := fmt.Sprintf("probe%d", i)
		t.Cleanup(func() {
			if _, err := on(context.Background(), host, "ovs-vsctl", "--if-exists", "del-port", dev); err != nil {
				t.Error(err)
			}
		})
		must("ovs-vsctl", "add-port", "br-ex", dev, "--", "set", "interface", dev, "type=internal", "--", "set", "port", dev, fmt.Sprintf("tag=%d", s.VLAN))
		want = append(want, s.V4.Addr().String(), s.V6.Addr().String())
	}
	// What dies takes the addresses of an internal port with it, so they are set each time.
	addresses := func(ctx context.Context) error {
		for i, s := range segments {
			for _, p := range []netip.Prefix{s.V4, s.V6} {
				mine := p.Addr().As16()
				mine[15] = 200
				a := netip.AddrFrom16(mine)
				if p.Addr().Is4() {
					a = netip.AddrFrom4([4]byte(mine[12:]))
				}
				args := []string{"ip", "addr", "replace", netip.PrefixFrom(a, p.Bits()).String(), "dev", fmt.Sprintf("probe%d", i)}
				if a.Is6() {
					args = append(args, "nodad")
				}
				if _, err := on(ctx, host, args...); err != nil {
					return err
				}
			}
			if _, err := on(ctx, host, "ip", "link", "set", fmt.Sprintf("probe%d", i), "up"); err != nil {
				return err
			}
		}
		return nil
	}
	check := func(when string) {
		t.Helper()
		await(t, "the outside "+when, commandPatience, func(ctx context.Context) string {
			if err := addresses(ctx); err != nil {
				return err.Error()
			}
			all, err := probeFrom(ctx, host, fmt.Sprintf("icmp,tcp:%[1]d,udp:%[1]d", lab.OutsideProbePort), want...)
			if err != nil {
				return err.Error()
			}
			for _, r := range all {
				if !r.Reached || (r.Proto != probe.ICMP && r.By != lab.OutsideMachine) {
					return r.String()
				}
			}
			return unless(len(all) == 3*len(want), fmt.Sprintf("%d results", len(all)))
		})
	}
	check("at first")
	must("curl", "-sf", "-o", "/dev/null", "http://"+want[0]+"/?bytes=1000000")
	if out := must("busybox", "nslookup", "www."+lab.OutsideZone, lab.OutsideResolver); !strings.Contains(out, want[0]) || !strings.Contains(out, want[1]) {
		t.Errorf("the name server says: %s", out)
	}

	if err := fix.lab.PowerOff(lab.OutsideMachine); err != nil {
		t.Fatal(err)
	}
	if all, err := probeFrom(t.Context(), host, "icmp", want[0]); err != nil || all[0].Reached {
		t.Errorf("the outside answers without power: %v, %v", all, err)
	}
	began := time.Now()
	if err := fix.lab.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	measured(t, "lab up after the outside was off: %.2f s", time.Since(began).Seconds())
	check("after its power was off")

	for _, m := range []string{lab.OutsideMachine, host} {
		if err := fix.lab.Unit(m, "ovs-vswitchd", "kill"); err != nil {
			t.Fatal(err)
		}
		check("after the switch of " + m + " died")
	}
}
