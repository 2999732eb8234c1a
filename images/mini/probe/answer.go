package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// idle is how long an answerer holds a connection on which nothing comes.
const idle = 10 * time.Minute

// Answer listens for the services (ICMP is the kernel's) on every address, both families, and
// answers until ctx ends. A connection is greeted and then echoes what comes, so that a flow can
// be kept alive; a datagram gets the greeting. name is the answerer's, without blanks.
func Answer(ctx context.Context, name string, services []Service) error {
	var closers []io.Closer
	var loops []func()
	shut := func() {
		for _, c := range closers {
			c.Close()
		}
	}
	for _, s := range services {
		addr := fmt.Sprintf(":%d", s.Port)
		switch s.Proto {
		case TCP:
			l, err := net.Listen("tcp", addr)
			if err != nil {
				shut()
				return err
			}
			closers, loops = append(closers, l), append(loops, func() { connections(ctx, name, l) })
		case UDP:
			pc, err := listenUDP(s.Port)
			if err != nil {
				shut()
				return err
			}
			closers, loops = append(closers, pc), append(loops, func() { datagrams(name, pc) })
		}
	}
	stop := context.AfterFunc(ctx, shut)
	defer stop()
	var wg sync.WaitGroup
	for _, l := range loops {
		wg.Go(l)
	}
	wg.Wait()
	return ctx.Err()
}

func connections(ctx context.Context, name string, l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return // closed by the end of ctx
		}
		go func() {
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			said := greeting(name, plain(c.RemoteAddr()))
			for buf := []byte(said); ; {
				c.SetDeadline(time.Now().Add(idle))
				if _, err := c.Write(buf); err != nil {
					return
				}
				next := make([]byte, 4096)
				n, err := c.Read(next)
				if err != nil {
					return
				}
				buf = next[:n]
			}
		}()
	}
}

// datagrams answers from the address that was asked, whatever the routing table would choose.
func datagrams(name string, pc *net.UDPConn) {
	buf, control := make([]byte, 2048), make([]byte, unix.CmsgSpace(unix.SizeofInet6Pktinfo))
	for {
		_, n, _, from, err := pc.ReadMsgUDPAddrPort(buf, control)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		said := []byte(greeting(name, plain(net.UDPAddrFromAddrPort(from))))
		pc.WriteMsgUDPAddrPort(said, control[:n], from) // one that does not go out is asked for again
	}
}

// listenUDP makes a socket on every address, of both families, that tells which address a
// datagram came to (RFC 3542 section 6.1).
func listenUDP(port uint16) (*net.UDPConn, error) {
	pc, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
	if err != nil {
		return nil, err
	}
	raw, err := pc.SyscallConn()
	if err == nil {
		err = errors.Join(raw.Control(func(fd uintptr) {
			err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1))
		}), err)
	}
	if err != nil {
		pc.Close()
		return nil, err
	}
	return pc, nil
}

// plain shows an IPv4 peer of a socket of both families as IPv4.
func plain(a net.Addr) net.Addr {
	switch v := a.(type) {
	case *net.TCPAddr:
		return net.TCPAddrFromAddrPort(unmapped(v.AddrPort()))
	case *net.UDPAddr:
		return net.UDPAddrFromAddrPort(unmapped(v.AddrPort()))
	}
	return a
}
