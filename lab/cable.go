package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"yakumo/fault"
)

// cable joins two machines by a pair of devices.
type cable struct {
	from, fromDev string
	to, toDev     string
	bridge        string // a bridge of from's kernel that fromDev stands on; empty: none
	offload       bool   // the kernel alone sees its packets, which may be as large as it likes
}

// cables lists them: everybody on the underlay, a bridge of the server's machine; each host with the outside, and with the
// migration network, another bridge of the server's machine.
func (l *Lab) cables() []cable {
	out := []cable{{from: serverMachine, fromDev: OutsideMachine, to: OutsideMachine, toDev: "eth0", bridge: underlay}}
	for _, h := range l.hosts() {
		out = append(out, cable{from: serverMachine, fromDev: h, to: h, toDev: "eth0", bridge: underlay},
			cable{from: OutsideMachine, fromDev: h, to: h, toDev: "eth1"},
			cable{from: serverMachine, fromDev: h + "-m", to: h, toDev: migrationDevice, bridge: migrationNetwork, offload: true})
	}
	return out
}

// in runs lines of shell in the network namespace of a process.
func in(ctx context.Context, pid int, lines ...string) error {
	script := strings.Join(lines, "\n")
	out, err := exec.CommandContext(ctx, "nsenter", "-n", "-t", strconv.Itoa(pid), "sh", "-ec", script).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", script, err, bytes.TrimSpace(out))
	}
	return nil
}

// bare has a device leave nothing to a network card that does not exist: the switches take
// packets as they are on the wire, checksums and sizes too.
func bare(dev string) string { return "ethtool -K " + dev + " tx off tso off gso off gro off" }

// wire makes the underlay and lays what cables are missing.
func (l *Lab) wire(ctx context.Context) error {
	pids := map[string]int{}
	for _, m := range l.machines() {
		if pids[m] = l.initPID(m); pids[m] == 0 {
			return fmt.Errorf("%s does not run: see %s", m, filepath.Join(l.MachineDir(m), "log", "init.log"))
		}
	}
	for name, rest := range map[string][]string{
		underlay:         {"ip addr add " + underlayPrefix + "1" + underlayBits + " dev " + underlay, "ethtool -K " + underlay + " tx off tso off gso off"},
		migrationNetwork: nil,
	} {
		if srv := pids[serverMachine]; in(ctx, srv, "ip link show "+name) != nil {
			lines := append([]string{"ip link set lo up", "ip link add " + name + " type bridge forward_delay 0", "ip link set " + name + " up"}, rest...)
			if err := in(ctx, srv, lines...); err != nil {
				return err
			}
		}
	}
	for _, c := range l.cables() {
		from, to := pids[c.from], pids[c.to]
		there := in(ctx, from, "ip link show "+c.fromDev) == nil
		if there && in(ctx, to, "ip link show "+c.toDev) == nil {
			continue
		}
		// The cable of a machine whose plug was pulled may be there still: the kernel takes a
		// namespace apart in its own time.
		if there {
			if err := in(ctx, from, "ip link del "+c.fromDev); err != nil && in(ctx, from, "ip link show "+c.fromDev) == nil {
				return err
			}
		}
		master := ""
		if c.bridge != "" {
			master = " master " + c.bridge
		}
		size := func(dev string) string {
			if c.offload {
				return "true"
			}
			return bare(dev)
		}
		if err := errors.Join(
			in(ctx, from, fmt.Sprintf("ip link add %s type veth peer name %s netns %d", c.fromDev, c.toDev, to), size(c.fromDev), "ip link set "+c.fromDev+master+" up"),
			in(ctx, to, size(c.toDev), "ip link set lo up", "ip link set "+c.toDev+" up")); err != nil {
			return err
		}
	}
	return nil
}

// underlayAddress is a host's address on the underlay: as it was renumbered, or else by its number.
func (l *Lab) underlayAddress(host string) (string, error) {
	if a := l.cfg.Underlay[host]; a != "" {
		return a, nil
	}
	return numbered(underlayPrefix, host)
}

// numbered is a host's address by its number.
func numbered(prefix, host string) (string, error) {
	n, err := strconv.Atoi(strings.TrimPrefix(host, "host"))
	return prefix + strconv.Itoa(10+n), err
}

// Renumber gives a running host another address on the underlay, as an operator does it: the
// uplink's bridge gets the address, and the agent is restarted with it. Guests go on running.
func (l *Lab) Renumber(host, addr string) error {
	if !slices.Contains(l.hosts(), host) {
		return fault.New(fault.NotFound, "There is no host %s in the lab.", host)
	}
	a, err := netip.ParseAddr(addr)
	if err != nil || !netip.MustParsePrefix(underlayPrefix+"0"+underlayBits).Contains(a) || a == netip.MustParseAddr(outsideUnderlay) || a == netip.MustParseAddr(underlayPrefix+"1") {
		return fault.New(fault.Invalid, "The address %q is none that a host may have on the underlay %s0%s.", addr, underlayPrefix, underlayBits)
	}
	for _, h := range l.hosts() {
		if other, err := l.underlayAddress(h); err != nil || (h != host && other == a.String()) {
			return errors.Join(err, fault.New(fault.Conflict, "The address %s is that of %s.", addr, h))
		}
	}
	if l.cfg.Underlay == nil {
		l.cfg.Underlay = map[string]string{}
	}
	l.cfg.Underlay[host] = a.String()
	if err := l.save(); err != nil {
		return err
	}
	bin, err := l.binary()
	if err != nil {
		return err
	}
	m, err := l.spec(host, bin)
	if err != nil {
		return err
	}
	if err := l.writeSpec(m); err != nil {
		return err
	}
	_, err = l.ask(host, request{Do: "reload"})
	return err
}
