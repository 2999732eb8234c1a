package e2e_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"yakumo/lab"
)

// machineTraces are the network interfaces and mounts of the machine that runs the tests.
func machineTraces() []string {
	var out []string
	if links, err := net.Interfaces(); err == nil {
		for _, l := range links {
			out = append(out, "interface "+l.Name)
		}
	}
	if b, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 4 {
				out = append(out, "mount "+f[4])
			}
		}
	}
	return out
}

// namespaces are the kinds that a lab's machine has of its own.
var namespaces = []string{"net", "mnt", "uts", "pid", "ipc"}

// labNamespaces gives the namespaces of a lab's machines, as /proc names them.
func labNamespaces(l *lab.Lab) map[string]bool {
	out := map[string]bool{}
	for _, m := range l.Status() {
		if m.PID == 0 {
			continue
		}
		for _, kind := range namespaces {
			if id, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", m.PID, kind)); err == nil {
				out[id] = true
			}
		}
	}
	return out
}

// dead tells whether a process has ended and only waits for its parent to take note, which for
// what the lab's commands started is the machine's process 1.
func dead(proc string) bool {
	b, err := os.ReadFile(filepath.Join(proc, "stat"))
	_, rest, _ := strings.Cut(string(b), ") ")
	return err != nil || strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X")
}

// leftOf lists what is left of a lab: its folder, processes that speak of it or are in its
// namespaces, and interfaces and mounts that were not there before.
func leftOf(dir string, ids map[string]bool, before []string) []string {
	var left []string
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		left = append(left, "the folder "+dir)
	}
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		left = append(left, err.Error())
	}
	for _, p := range procs {
		if filepath.Base(p) == fmt.Sprint(os.Getpid()) {
			continue
		}
		cmd, err := os.ReadFile(filepath.Join(p, "cmdline"))
		if err != nil || dead(p) {
			continue
		}
		if bytes.Contains(cmd, []byte(dir+"/")) {
			left = append(left, fmt.Sprintf("process %s: %s", filepath.Base(p), bytes.ReplaceAll(cmd, []byte{0}, []byte(" "))))
			continue
		}
		for _, kind := range namespaces {
			if id, err := os.Readlink(filepath.Join(p, "ns", kind)); err == nil && ids[id] {
				left = append(left, fmt.Sprintf("process %s in %s: %s", filepath.Base(p), id, bytes.ReplaceAll(cmd, []byte{0}, []byte(" "))))
				break
			}
		}
	}
	for _, x := range machineTraces() {
		if !slices.Contains(before, x) {
			left = append(left, x)
		}
	}
	return left
}
