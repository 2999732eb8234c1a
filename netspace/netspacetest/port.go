// Package netspacetest sets ports of this machine aside for tests. It owns the reservation of each test. It imports nothing of the project.
// Must not be imported outside tests.
package netspacetest

import (
	"net/netip"
	"os"
	"syscall"
	"testing"
)

// Port reserves a free TCP port of an IPv4 address of this machine until the test has ended: the kernel gives it neither to a connection
// nor to who asks for any free port, and only who names it, with SO_REUSEADDR as Go's listeners and Open vSwitch do, can listen there, one
// after the other (ip(7), socket(7)). Until somebody does, connections to it are refused. A port that is found by listening and
// closing again has none of this, and is another's now and then.
func Port(t testing.TB, ip netip.Addr) netip.AddrPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(os.NewSyscallError("socket", err))
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		t.Fatal(os.NewSyscallError("setsockopt", err))
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: ip.As4()}); err != nil {
		t.Fatal(os.NewSyscallError("bind", err))
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(os.NewSyscallError("getsockname", err))
	}
	return netip.AddrPortFrom(ip, uint16(sa.(*syscall.SockaddrInet4).Port))
}

// Loopback is Port at 127.0.0.1.
func Loopback(t testing.TB) netip.AddrPort { return Port(t, netip.AddrFrom4([4]byte{127, 0, 0, 1})) }
