package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"yakumo/lab"
)

// command runs the program itself, as people do.
func command(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, fix.binary, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 5 * time.Second // a lab's machines must not keep the command's output open
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("yakumo %s: %w: %s", strings.Join(args, " "), err, out.Bytes())
	}
	return out.String(), err
}

// labStatus is what `yakumo lab status -o json` tells.
type labStatus struct {
	API      string
	APIError string `json:"api_error"`
	Machines []lab.MachineStatus
	Hosts    []struct {
		Name string
		Up   bool
	}
}

// TestLabCommands starts a second lab beside the first by the program's own commands: up twice
// is harmless, up after kill -9 of everything works, down leaves nothing.
func TestLabCommands(t *testing.T) {
	top, err := os.MkdirTemp("/tmp", "yk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(top); err != nil {
			t.Error(err)
		}
	})
	dir := filepath.Join(top, "l")
	api := freeAddress(t)
	before := machineTraces()
	t.Cleanup(func() {
		if _, err := command(context.Background(), "lab", "--dir", dir, "down"); err != nil {
			t.Error(err)
		}
	})
	must := func(args ...string) string {
		t.Helper()
		out, err := command(t.Context(), append([]string{"lab", "--dir", dir}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	status := func() labStatus {
		t.Helper()
		var st labStatus
		if err := json.Unmarshal([]byte(must("status", "-o", "json")), &st); err != nil {
			t.Fatal(err)
		}
		return st
	}
	wrong := func(st labStatus) string {
		if st.APIError != "" || len(st.Machines) != 4 || len(st.Hosts) != 2 || !st.Hosts[0].Up || !st.Hosts[1].Up {
			return fmt.Sprintf("%+v", st)
		}
		for _, m := range st.Machines {
			for _, u := range m.Units {
				if u.PID == 0 {
					return fmt.Sprintf("%s on %s does not run", u.Name, m.Name)
				}
			}
		}
		return ""
	}
	// A daemon that needed one which was not there yet ends, and its machine starts it again.
	running := func(when string) labStatus {
		t.Helper()
		for deadline := time.Now().Add(90 * time.Second); ; <-time.After(100 * time.Millisecond) {
			st := status()
			switch why := wrong(st); {
			case why == "":
				return st
			case time.Now().After(deadline):
				t.Fatalf("%s: %s", when, why)
			}
		}
	}
	pids := func(st labStatus) string {
		var all []string
		for _, m := range st.Machines {
			all = append(all, fmt.Sprint(m.Name, m.PID, m.Units))
		}
		return strings.Join(all, " ")
	}

	began := time.Now()
	must("up", "--hosts", "2", "--api", api)
	measured(t, "lab of 2 hosts up: %.2f s", time.Since(began).Seconds())
	first := running("after up")
	for _, f := range []string{"openrc", "clouds.yaml"} {
		if st, err := os.Stat(filepath.Join(top, f)); err != nil || st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", f, st, err)
		}
	}
	if resp, err := http.Get("http://" + api + "/healthz"); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("the API's health: %v, %v", resp, err)
	} else {
		resp.Body.Close()
	}

	must("up", "--hosts", "2", "--api", api)
	if second := status(); pids(second) != pids(first) {
		t.Errorf("up on a lab that runs changes it:\n%s\n%s", pids(first), pids(second))
	}

	// The credentials of openrc work in the stock client.
	rc := exec.CommandContext(t.Context(), "sh", "-c", ". "+filepath.Join(top, "openrc")+"; exec /usr/bin/openstack token issue -f value -c id")
	rc.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + t.TempDir()}
	if out, err := rc.CombinedOutput(); err != nil || len(out) < 20 {
		t.Errorf("the client with openrc: %v: %s", err, out)
	}

	// kill -9 of every process of the lab, in whatever order.
	l, err := lab.Open(dir, fix.binary)
	if err != nil {
		t.Fatal(err)
	}
	ids := labNamespaces(l)
	for _, pid := range within(t, ids) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
			t.Fatal(err)
		}
	}
	began = time.Now()
	must("up", "--hosts", "2", "--api", api)
	measured(t, "lab of 2 hosts up after kill -9 of everything: %.2f s", time.Since(began).Seconds())
	running("after kill -9")

	ids = labNamespaces(l)
	must("down")
	if left := leftOf(dir, ids, before); len(left) > 0 {
		t.Errorf("down leaves: %s", strings.Join(left, "; "))
	}
	if entries, err := os.ReadDir(top); err != nil || len(entries) > 0 {
		t.Errorf("down leaves files: %v, %v", entries, err)
	}
	must("down") // of nothing
}

// freeAddress gives a loopback address that nobody listens on, of a port that the kernel does not give to connections
// while the lab is down.
func freeAddress(t *testing.T) string {
	t.Helper()
	for port := 30001; port < 32000; port++ {
		at := fmt.Sprintf("127.0.0.1:%d", port)
		if ln, err := net.Listen("tcp", at); err == nil {
			ln.Close()
			return at
		}
	}
	t.Fatal("no port is free")
	return ""
}

// within lists the processes in namespaces.
func within(t *testing.T, ids map[string]bool) []int {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for _, p := range procs {
		var pid int
		if _, err := fmt.Sscan(filepath.Base(p), &pid); err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(namespaces, func(kind string) bool {
			id, err := os.Readlink(filepath.Join(p, "ns", kind))
			return err == nil && ids[id]
		}) {
			out = append(out, pid)
		}
	}
	return out
}
