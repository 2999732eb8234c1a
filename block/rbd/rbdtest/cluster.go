// Package rbdtest gives tests a Ceph cluster of their own: one monitor and one OSD that keeps objects in memory, on the loopback
// device or where it is told, from Debian's packages ceph-mon, ceph-osd and ceph-common.
//
// It owns, per Start, one temporary folder and two processes; both are gone when the test ends. It needs no other
// package of the project but block/rbd.
package rbdtest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"yakumo/block/rbd"
)

// Start starts a cluster with a pool and gives what an engine needs to know of it.
func Start(t testing.TB) rbd.Config {
	t.Helper()
	// A loopback address of this process alone: no other test takes the port before the monitor has it.
	pid := os.Getpid()
	return StartAt(t, netip.AddrFrom4([4]byte{127, byte(64 | pid>>16&63), byte(pid >> 8), byte(pid)}))
}

// StartAt is Start with an address of this process's network namespace which nobody else uses.
func StartAt(t testing.TB, address netip.Addr) rbd.Config {
	t.Helper()
	dir, err := os.MkdirTemp("", "ceph") // sockets' paths are short
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	t.Cleanup(func() { os.RemoveAll(dir) })
	run := func(stdin, name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v: %s", name, args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	ln, err := net.Listen("tcp", netip.AddrPortFrom(address, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	at := ln.Addr().String()
	ln.Close()
	for _, d := range []string{"mon", "osd", "crash"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	const fsid, osd = "6e1c1e0e-3f0a-4b0e-9c55-0d3c0d2f5a01", "6e1c1e0e-3f0a-4b0e-9c55-0d3c0d2f5a02"
	conf, keys := filepath.Join(dir, "ceph.conf"), filepath.Join(dir, "keyring")
	text := strings.ReplaceAll(`[global]
fsid = FSID
mon host = v1:AT/0
public addr = ADDRESS
cluster addr = ADDRESS
ms bind msgr2 = false
run dir = DIR
admin socket = DIR/$name.asok
log file = DIR/$name.log
crash dir = DIR/crash
keyring = DIR/keyring
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
osd objectstore = memstore
osd client watch timeout = 3
memstore device bytes = 2147483648
mon data avail crit = 1
mon allow pool size one = true
[mon.a]
mon data = DIR/mon/data
keyring = DIR/mon/keyring
[osd.0]
osd data = DIR/osd
keyring = DIR/osd/keyring
`, "DIR", dir)
	text = strings.NewReplacer("FSID", fsid, "ADDRESS", address.String(), "AT", at).Replace(text)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	mon := filepath.Join(dir, "mon", "keyring")
	run("", "ceph-authtool", "--create-keyring", keys, "--gen-key", "-n", "client.admin", "--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *")
	run("", "ceph-authtool", "--create-keyring", mon, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
	run("", "ceph-authtool", mon, "--import-keyring", keys)
	osdKeys := filepath.Join(dir, "osd", "keyring")
	run("", "ceph-authtool", "--create-keyring", osdKeys, "--gen-key", "-n", "osd.0")
	monmap := filepath.Join(dir, "monmap")
	run("", "monmaptool", "--create", "--addv", "a", "[v1:"+at+"/0]", "--fsid", fsid, monmap)
	run("", "ceph-mon", "-c", conf, "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", mon)
	daemon := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, append([]string{"-c", conf, "-f"}, args...)...)
		log, err := os.Create(filepath.Join(dir, name+".out"))
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Kill()
			cmd.Wait()
			log.Close()
			if t.Failed() {
				said, _ := os.ReadFile(log.Name())
				t.Logf("%s: %s", name, said[max(0, len(said)-2000):])
			}
		})
	}
	daemon("ceph-mon", "-i", "a")
	ceph := func(stdin string, args ...string) string {
		return run(stdin, "ceph", append([]string{"-c", conf, "--connect-timeout", "300"}, args...)...)
	}
	secret := run("", "ceph-authtool", "-p", "-n", "osd.0", osdKeys)
	ceph(fmt.Sprintf(`{"cephx_secret":%q}`, secret), "osd", "new", osd, "-i", "-")
	run("", "ceph-osd", "-c", conf, "-i", "0", "--mkfs", "--osd-uuid", osd)
	daemon("ceph-osd", "-i", "0")
	ceph("", "osd", "pool", "create", "volumes", "8")
	run("", "rbd", "-c", conf, "pool", "init", "volumes")
	return rbd.Config{Pool: "volumes", Conf: conf, User: "admin", Forgets: 15 * time.Second}
}
