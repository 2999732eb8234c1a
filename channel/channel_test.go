package channel_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"yakumo/channel"
	"yakumo/channel/channeltest"
	"yakumo/fault"
	"yakumo/model"
)

// serve starts a host's server.
func serve(t testing.TB, c channel.Credentials, id model.ID) (*channel.Server, model.HostAt, context.CancelFunc) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := channel.NewServer(channel.ServerConfig{Credentials: c, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(ctx, ln); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return s, model.HostAt{HostID: id, Channel: netip.MustParseAddrPort(ln.Addr().String())}, cancel
}

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

type question struct{ Name string }

func TestCallerAndArgumentsReachTheHandler(t *testing.T) {
	auth := channeltest.NewAuthority(t)
	s, at, _ := serve(t, auth.Host("b"), "b")
	s.Handle("echo", func(_ context.Context, peer model.ID, args json.RawMessage, conn net.Conn) error {
		var q question
		if err := json.Unmarshal(args, &q); err != nil {
			return err
		}
		if _, err := io.WriteString(conn, peer+" says "+q.Name+"\n"); err != nil {
			return err
		}
		_, err := io.Copy(conn, conn) // until the caller's half has ended
		return err
	})
	d := channel.Dialer{Credentials: auth.Host("a")}
	conn, err := d.Dial(within(t), at, "echo", question{"hello"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	data := make([]byte, 3<<20)
	rand.Read(data)
	go func() {
		conn.Write(data)
		conn.(channel.HalfCloser).CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	if want := append([]byte("a says hello\n"), data...); !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back that are not the %d wanted", len(got), len(want))
	}
}

func TestFaultsTravel(t *testing.T) {
	auth := channeltest.NewAuthority(t)
	s, at, _ := serve(t, auth.Host("b"), "b")
	s.Handle("no", func(_ context.Context, peer model.ID, _ json.RawMessage, _ net.Conn) error {
		return fault.Coded(fault.Forbidden, "NotYours", "Host %s has no move here.", peer)
	})
	s.Handle("wordy", func(context.Context, model.ID, json.RawMessage, net.Conn) error {
		return errors.New(strings.Repeat("\x00", 1<<20))
	})
	s.Handle("nothing", func(context.Context, model.ID, json.RawMessage, net.Conn) error { return nil })
	d := channel.Dialer{Credentials: auth.Host("a")}
	_, err := d.Dial(within(t), at, "no", nil)
	if text, _ := fault.Text(err); fault.KindOf(err) != fault.Forbidden || fault.CodeOf(err) != "NotYours" || text != "Host a has no move here." {
		t.Errorf("the fault came as %v (%v, %q)", err, fault.KindOf(err), fault.CodeOf(err))
	}
	if _, err := d.Dial(within(t), at, "wordy", nil); err == nil || fault.KindOf(err) != fault.Internal {
		t.Errorf("an error of a megabyte came as kind %v", fault.KindOf(err))
	}
	if _, err := d.Dial(within(t), at, "else", nil); !fault.Is(err, fault.NotImplemented) {
		t.Errorf("an unknown service: %v", err)
	}
	conn, err := d.Dial(within(t), at, "nothing", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a handler that did nothing, well: %v", err)
	}
	if _, err := d.Dial(within(t), at, "no", strings.Repeat("x", 1<<20)); !fault.Is(err, fault.Invalid) {
		t.Errorf("a head that is too long: %v", err)
	}
}

// TestAHandlersFailureIsNoEnd: who reads must not take a part for the whole.
func TestAHandlersFailureIsNoEnd(t *testing.T) {
	auth := channeltest.NewAuthority(t)
	s, at, _ := serve(t, auth.Host("b"), "b")
	s.Handle("half", func(_ context.Context, _ model.ID, _ json.RawMessage, conn net.Conn) error {
		io.WriteString(conn, "half of ")
		return errors.New("the disk is broken")
	})
	d := channel.Dialer{Credentials: auth.Host("a")}
	conn, err := d.Dial(within(t), at, "half", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if b, err := io.ReadAll(conn); err == nil {
		t.Errorf("%q was read as the whole", b)
	}
}

func TestOnlyTheHostThatIsMeant(t *testing.T) {
	auth, other := channeltest.NewAuthority(t), channeltest.NewAuthority(t)
	var calls atomic.Int32
	s, at, _ := serve(t, auth.Host("b"), "b")
	s.Handle("x", func(context.Context, model.ID, json.RawMessage, net.Conn) error { calls.Add(1); return nil })
	wrong := at
	wrong.HostID = "c"
	late := auth.Issue(pkix.Name{CommonName: "a", OrganizationalUnit: []string{"yakumo host"}}, time.Now().Add(-time.Minute))
	for name, c := range map[string]struct {
		creds channel.Credentials
		at    model.HostAt
	}{
		"another host is meant":  {auth.Host("a"), wrong},
		"of another authority":   {other.Host("a"), at},
		"a server's certificate": {auth.Issue(pkix.Name{CommonName: "server", OrganizationalUnit: []string{"yakumo server"}}, time.Now().Add(time.Hour)), at},
		"its time is over":       {late, at},
		"says not where":         {auth.Host("a"), model.HostAt{HostID: "b"}},
	} {
		d := channel.Dialer{Credentials: c.creds}
		if conn, err := d.Dial(within(t), c.at, "x", nil); !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: %v", name, err)
			if err == nil {
				conn.Close()
			}
		}
	}
	if calls.Load() != 0 {
		t.Error("a handler was called")
	}
	// What was refused for its age is taken once it is renewed.
	d := channel.Dialer{Credentials: late}
	late.Renew(auth.Host("a"))
	conn, err := d.Dial(within(t), at, "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestTheEndOfTheServerEndsCalls(t *testing.T) {
	auth := channeltest.NewAuthority(t)
	s, at, stop := serve(t, auth.Host("b"), "b")
	s.Handle("wait", func(ctx context.Context, _ model.ID, _ json.RawMessage, conn net.Conn) error {
		io.WriteString(conn, "x")
		<-ctx.Done()
		return ctx.Err()
	})
	s.Handle("think", func(ctx context.Context, _ model.ID, _ json.RawMessage, conn net.Conn) error {
		<-ctx.Done()
		return ctx.Err()
	})
	d := channel.Dialer{Credentials: auth.Host("a")}
	conn, err := d.Dial(within(t), at, "wait", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(within(t), 50*time.Millisecond)
	defer cancel()
	if _, err := d.Dial(short, at, "think", nil); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a handler that thinks for too long: %v", err)
	}
	stop()
	if _, err := conn.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("the end of the server was read as %v", err)
	}
}

func TestJoinKeepsHalves(t *testing.T) {
	auth := channeltest.NewAuthority(t)
	s, at, _ := serve(t, auth.Host("b"), "b")
	// Behind the channel stands a service that answers once it has read all.
	back, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	go func() {
		c, err := back.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b, _ := io.ReadAll(c)
		c.Write(bytes.ToUpper(b))
	}()
	joined := make(chan error, 1)
	s.Handle("join", func(ctx context.Context, _ model.ID, _ json.RawMessage, conn net.Conn) error {
		c, err := net.Dial("tcp", back.Addr().String())
		if err != nil {
			return err
		}
		err = channel.Join(ctx, conn, c)
		joined <- err
		return err
	})
	d := channel.Dialer{Credentials: auth.Host("a")}
	conn, err := d.Dial(within(t), at, "join", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "quiet")
	conn.(channel.HalfCloser).CloseWrite()
	if b, err := io.ReadAll(conn); err != nil || string(b) != "QUIET" {
		t.Errorf("%q, %v", b, err)
	}
	if err := <-joined; err != nil {
		t.Errorf("Join: %v", err)
	}
}

func BenchmarkThroughput(b *testing.B) {
	const size = 256 << 20
	block := make([]byte, 1<<20)
	send := func(b *testing.B, conn net.Conn) {
		for range size / len(block) {
			if _, err := conn.Write(block); err != nil {
				b.Fatal(err)
			}
		}
		conn.(channel.HalfCloser).CloseWrite()
		if _, err := io.ReadAll(conn); err != nil {
			b.Fatal(err)
		}
		conn.Close()
	}
	b.Run("channel", func(b *testing.B) {
		auth := channeltest.NewAuthority(b)
		s, at, _ := serve(b, auth.Host("b"), "b")
		s.Handle("sink", func(_ context.Context, _ model.ID, _ json.RawMessage, conn net.Conn) error {
			_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{conn}, make([]byte, 256<<10))
			return err
		})
		d := channel.Dialer{Credentials: auth.Host("a")}
		b.SetBytes(size)
		for b.Loop() {
			conn, err := d.Dial(within(b), at, "sink", nil)
			if err != nil {
				b.Fatal(err)
			}
			send(b, conn)
		}
	})
	b.Run("tcp", func(b *testing.B) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer ln.Close()
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 256<<10))
				c.Close()
			}
		}()
		b.SetBytes(size)
		for b.Loop() {
			conn, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			send(b, conn)
		}
	})
}
