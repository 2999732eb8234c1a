package ovstest_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"yakumo/openflow/ovstest"
)

func TestSwitchLives(t *testing.T) {
	var dir string
	t.Run("inner", func(t *testing.T) {
		sw := ovstest.Start(t)
		dir = sw.Rundir
		sw.AddBridge("br0")
		sw.AddPort("br0", "p1", 1)
		if out := sw.Ofctl("dump-ports-desc", "br0"); !strings.Contains(out, "1(p1)") {
			t.Errorf("ports: %s", out)
		}
		sw.Ofctl("add-flow", "br0", "in_port=1,actions=drop")
		old := sw.Pid()
		sw.Restart() // the bridge stays, the flows go
		if sw.Pid() == old {
			t.Error("restart kept the process")
		}
		if out := sw.Ofctl("dump-flows", "br0"); strings.Contains(out, "in_port") {
			t.Errorf("flows outlived the restart: %s", out)
		}
		// The database may go and come while the switch runs.
		sw.KillDB()
		if _, err := sw.Try("ovs-vsctl", "--db="+sw.DB(), "--timeout=1", "show"); err == nil {
			t.Error("the database answers after it was killed")
		}
		sw.StartDB()
		sw.AddBridge("br1")
		if out := sw.Vsctl("list-br"); out != "br0\nbr1\n" {
			t.Errorf("bridges: %q", out)
		}
		sw.Kill()
		if sw.Pid() != 0 {
			t.Error("a killed switch has a pid")
		}
		sw.Restart()
		if out := sw.Appctl("version"); !strings.Contains(out, "Open vSwitch") {
			t.Errorf("version: %s", out)
		}
	})
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the run directory is left behind: %v", err)
	}
}

// TestSwitchInNamespace checks that a switch with real interfaces keeps them in its namespace.
func TestSwitchInNamespace(t *testing.T) {
	ns := fmt.Sprintf("ovstest%d", os.Getpid())
	ip := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("ip", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	ip("netns", "add", ns)
	t.Cleanup(func() { ip("netns", "del", ns) })
	sw := ovstest.Start(t, ovstest.InNetns(ns))
	sw.AddBridge("brns0", "datapath_type=netdev")
	if out := ip("-n", ns, "link", "show", "brns0"); !strings.Contains(out, "brns0") {
		t.Errorf("the bridge is not in the namespace: %s", out)
	}
	if out := ip("link", "show"); strings.Contains(out, "brns0") {
		t.Errorf("the bridge is outside the namespace: %s", out)
	}
	if out := sw.Ofctl("show", "brns0"); !strings.Contains(out, "OF1.5") {
		t.Errorf("show: %s", out)
	}
}
