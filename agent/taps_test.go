package agent

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"yakumo/model"
)

// namespace makes a network namespace for the test.
func namespace(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("yka%d", os.Getpid())
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		t.Fatalf("ip netns add: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
			t.Errorf("ip netns del: %v: %s", err, out)
		}
	})
	return name
}

func TestKernelTaps(t *testing.T) {
	ns := namespace(t)
	ip := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("ip", append([]string{"-n", ns}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	k := KernelTaps{Netns: "/run/netns/" + ns}
	ctx := context.Background()
	name := tapName(model.NewID())
	for _, mtu := range []int{1450, 1450, 1400, 0} {
		if err := k.Ensure(ctx, name, mtu); err != nil {
			t.Fatal(err)
		}
		show := ip("-d", "link", "show", name)
		for _, want := range []string{fmt.Sprintf("mtu %d", map[bool]int{true: 1400, false: mtu}[mtu == 0]), "UP", "type tap", "persist on", "vnet_hdr on"} {
			if !strings.Contains(show, want) {
				t.Errorf("after Ensure with MTU %d there is no %q: %s", mtu, want, show)
			}
		}
		if strings.Contains(show, "multi_queue") {
			t.Errorf("more than one queue: %s", show)
		}
	}
	if addrs := ip("addr", "show", name); strings.Contains(addrs, "inet6") {
		t.Errorf("the host speaks IPv6 on a guest's tap: %s", addrs)
	}
	ip("link", "set", name, "down")
	if err := k.Ensure(ctx, name, 1400); err != nil {
		t.Fatal(err)
	}
	if show := ip("link", "show", name); !strings.Contains(show, ",UP") {
		t.Errorf("it stays down: %s", show)
	}
	ip("link", "add", "ykbridge", "type", "bridge")
	if err := k.Ensure(ctx, "ykbridge", 1400); err == nil {
		t.Error("a bridge passes for a tap")
	}
	if err := k.Ensure(ctx, strings.Repeat("y", 16), 1400); err == nil {
		t.Error("a name of 16 characters passes")
	}
	if got, err := k.List(ctx, "yk"); err != nil || !slices.Equal(got, []string{name}) {
		t.Errorf("list %v, %v", got, err)
	}
	ip("addr", "add", "192.0.2.7/24", "dev", "ykbridge")
	ip("addr", "add", "2001:db8::7/64", "dev", "ykbridge")
	ip("link", "set", "ykbridge", "mtu", "1460")
	for _, a := range []string{"192.0.2.7", "2001:db8::7"} {
		if mtu, err := k.MTU(ctx, netip.MustParseAddr(a)); err != nil || mtu != 1460 {
			t.Errorf("MTU of %s: %d, %v", a, mtu, err)
		}
	}
	if _, err := k.MTU(ctx, netip.MustParseAddr("192.0.2.8")); err == nil {
		t.Error("an address that nobody has has an MTU")
	}
	for range 2 {
		if err := k.Remove(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := k.List(ctx, "yk"); err != nil || len(got) > 0 {
		t.Errorf("list %v, %v", got, err)
	}
	if err := (KernelTaps{Netns: "/run/netns/" + ns + "x"}).Ensure(ctx, name, 0); err == nil {
		t.Error("a namespace that is not there passes")
	}
}

func TestTapName(t *testing.T) {
	id := "0f4ab6a1-5a1c-4b7e-9d52-1f2e3d4c5b6a"
	if got := tapName(id); got != "yk0f4ab6a15a1c4" || !isTapName(got) {
		t.Errorf("name %q", got)
	}
	for _, other := range []string{"yk-md0", "yk-vx0", "yk", "yk0f4ab6a15a1c", "yk0f4ab6a15a1c44", "ykbridgebridgex", "eth0"} {
		if isTapName(other) {
			t.Errorf("%q passes for a tap of a port", other)
		}
	}
}
