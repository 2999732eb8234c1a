package netspace_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"

	"yakumo/netspace"
)

func TestDo(t *testing.T) {
	name := fmt.Sprint("yns", os.Getpid())
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	run("netns", "add", name)
	t.Cleanup(func() { run("netns", "del", name) })
	run("-n", name, "link", "add", "only-here", "type", "veth", "peer", "name", "its-peer")
	has := func() error { _, err := net.InterfaceByName("only-here"); return err }
	for range 20 { // whatever threads there are by then
		if err := netspace.Do("/run/netns/"+name, has); err != nil {
			t.Fatal(err)
		}
		if err := netspace.Do("", has); err == nil {
			t.Fatal("this thread is in the other namespace")
		}
	}
	broken := errors.New("broken")
	if err := netspace.Do("/run/netns/"+name, func() error { return broken }); !errors.Is(err, broken) {
		t.Errorf("what f returns comes as %v", err)
	}
	ran := false
	if err := netspace.Do("/run/netns/none-of-"+name, func() error { ran = true; return nil }); !errors.Is(err, os.ErrNotExist) || ran {
		t.Errorf("a namespace that is none: %v, f ran: %v", err, ran)
	}
}
