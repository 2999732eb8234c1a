package probe

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Types of ICMP's echo (RFC 792, RFC 4443 section 4).
const (
	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129
)

// echo sends echo requests until one is answered. The kernel's datagram socket for ICMP sets
// identifier and checksum and gives us our replies only; net.ipv4.ping_group_range must let us
// have one.
func echo(ctx context.Context, to netip.Addr) error {
	family, proto, request, reply := unix.AF_INET, unix.IPPROTO_ICMP, byte(echoRequest4), byte(echoReply4)
	id := 1 + mathrand.IntN(0xfffe)
	var sa, local unix.Sockaddr
	if to.Is6() {
		family, proto, request, reply = unix.AF_INET6, unix.IPPROTO_ICMPV6, echoRequest6, echoReply6
		six := &unix.SockaddrInet6{Addr: to.As16()}
		if to.Zone() != "" {
			i, err := net.InterfaceByName(to.Zone())
			if err != nil {
				return err
			}
			six.ZoneId = uint32(i.Index)
		}
		sa, local = six, &unix.SockaddrInet6{Port: id}
	} else {
		sa, local = &unix.SockaddrInet4{Addr: to.As4()}, &unix.SockaddrInet4{Port: id}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	// The kernel counts identifiers from zero, so machines that boot alike ask with the same ones at the same time;
	// a switch in user space tells senders behind one translated address apart by the identifier alone.
	if err := unix.Bind(fd, local); err != nil {
		unix.Close(fd)
		return os.NewSyscallError("bind", err)
	}
	if err := unix.Connect(fd, sa); err != nil {
		unix.Close(fd)
		return os.NewSyscallError("connect", err)
	}
	f := os.NewFile(uintptr(fd), "icmp")
	c, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return err
	}
	defer c.Close()
	message := make([]byte, 8+24)
	message[0] = request
	binary.BigEndian.PutUint16(message[6:], 1) // sequence number
	rand.Read(message[8:])
	end, _ := ctx.Deadline()
	for buf := make([]byte, 1500); ; {
		n, err := insist(c, message, buf, end)
		if err != nil {
			return err
		}
		if n == len(message) && buf[0] == reply && bytes.Equal(buf[8:n], message[8:]) {
			return nil
		}
	}
}
