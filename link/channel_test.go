package link

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"pgregory.net/rapid"

	"yakumo/fault"
	"yakumo/link/linkpb"
)

// pair gives the two ends of a TCP connection, which can be half closed.
func pair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); d.Close() })
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

// attached is a cloud of two servers with a host at the first.
func attached(t testing.TB) (*cloud, *host) {
	c := newCloud(t, 2)
	h := c.run(c.join("h1", c.sites[0].addr))
	until(t, soon, "attached", func() bool { return c.sites[0].Sessions() == 1 && h.Connected() && c.up(h.id(t)) })
	if err := c.sites[1].st.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c, h
}

// dialHosts gives the rpcs of a server to a host.
func dialHosts(t testing.TB, c *Client, addr string) linkpb.HostsClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(credentials.NewTLS(c.tls())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return linkpb.NewHostsClient(conn)
}

// TestStreamCarriesBytesBothWays sends much in both directions at once, at the host's server and by way of
// another one, closes each half by itself, and finds every byte.
func TestStreamCarriesBytesBothWays(t *testing.T) {
	c, h := attached(t)
	for _, s := range c.sites {
		near, far := pair(t)
		h.set(func() {
			h.open = func(_ context.Context, service string, args []byte) (io.ReadWriteCloser, error) {
				if service != "echo" || string(args) != `{"a":1}` {
					return nil, fault.New(fault.Invalid, "asked for %s %s", service, args)
				}
				return near, nil
			}
		})
		st, err := s.Open(t.Context(), h.id(t), "echo", []byte(`{"a":1}`))
		if err != nil {
			t.Fatal(err)
		}
		down, up := make([]byte, 3<<20), make([]byte, 2<<20)
		src := rand.NewChaCha8([32]byte{1})
		src.Read(down)
		src.Read(up)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := st.Write(down); err != nil {
				t.Errorf("write: %v", err)
			}
			if err := st.(halfCloser).CloseWrite(); err != nil {
				t.Errorf("half close: %v", err)
			}
		})
		var got []byte
		wg.Go(func() {
			var err error
			if got, err = io.ReadAll(far); err != nil {
				t.Errorf("the far end: %v", err)
			}
			// Its own half goes on after the other was closed.
			if _, err := far.Write(up); err != nil {
				t.Errorf("the far end: %v", err)
			}
			far.Close()
		})
		back, err := io.ReadAll(st)
		if err != nil {
			t.Fatalf("read: %v", err)
		}
		wg.Wait()
		if !bytes.Equal(got, down) || !bytes.Equal(back, up) {
			t.Fatalf("%d of %d bytes came down, %d of %d up, or others", len(got), len(down), len(back), len(up))
		}
		if err := st.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if _, err := st.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a write after Close: %v", err)
		}
	}
}

// TestSlowReaderHoldsUpNobodyElse: what is not read waits at its sender, and the host's other streams go on.
func TestSlowReaderHoldsUpNobodyElse(t *testing.T) {
	c, h := attached(t)
	for _, s := range c.sites {
		near, far := pair(t)
		h.set(func() {
			h.open = func(context.Context, string, []byte) (io.ReadWriteCloser, error) { return near, nil }
			h.answer = func(context.Context, string, []byte) ([]byte, error) { return []byte("here"), nil }
		})
		st, err := s.Open(t.Context(), h.id(t), "flood", nil)
		if err != nil {
			t.Fatal(err)
		}
		const much = 32 << 20
		sent := make(chan error, 1)
		go func() { _, err := far.Write(make([]byte, much)); far.CloseWrite(); sent <- err }()
		inner := st.(*stream)
		waiting := func() int { inner.mu.Lock(); defer inner.mu.Unlock(); return len(inner.in) }
		until(t, soon, "the window is full", func() bool { return waiting() == window })
		if b, err := s.Ask(t.Context(), h.id(t), "q", nil); err != nil || string(b) != "here" {
			t.Fatalf("a question meanwhile: %q, %v", b, err)
		}
		if n := waiting(); n != window {
			t.Errorf("%d bytes wait for the reader; the window has %d", n, window)
		}
		if n, err := io.Copy(io.Discard, st); err != nil || n != much {
			t.Fatalf("%d bytes of %d: %v", n, much, err)
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
		st.Close()
	}
}

func TestStreamRefusedAndLost(t *testing.T) {
	c, h := attached(t)
	id := h.id(t)
	for _, s := range c.sites {
		h.set(func() {
			h.open = func(context.Context, string, []byte) (io.ReadWriteCloser, error) {
				return nil, fault.New(fault.Conflict, "Guest x is not running; start it first.")
			}
		})
		if _, err := s.Open(t.Context(), id, "serial", nil); !fault.Is(err, fault.Conflict) || err.Error() != "Guest x is not running; start it first." {
			t.Errorf("refused: %v", err)
		}
		h.set(func() {
			h.open = func(context.Context, string, []byte) (io.ReadWriteCloser, error) { return nil, errors.New("secret") }
		})
		if _, err := s.Open(t.Context(), id, "serial", nil); err == nil || bytes.Contains([]byte(err.Error()), []byte("secret")) {
			t.Errorf("an inner error: %v", err)
		}
		if _, err := s.Open(t.Context(), "nobody", "serial", nil); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a host that is not there: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		h.set(func() {
			h.open = func(ctx context.Context, _ string, _ []byte) (io.ReadWriteCloser, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
		})
		if _, err := s.Open(ctx, id, "serial", nil); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a host that is silent: %v", err)
		}
		cancel()
	}
	// The user's end closes, and the host's follows.
	near, far := pair(t)
	h.set(func() {
		h.open = func(context.Context, string, []byte) (io.ReadWriteCloser, error) { return near, nil }
	})
	st, err := c.sites[1].Open(t.Context(), id, "serial", nil)
	if err != nil {
		t.Fatal(err)
	}
	st.Write([]byte("bye"))
	st.Close()
	far.SetReadDeadline(time.Now().Add(soon))
	if b, err := io.ReadAll(far); err != nil || string(b) != "bye" {
		t.Errorf("the host's end after the user's Close: %q, %v", b, err)
	}
	// The host goes away under two open streams.
	var open []io.ReadWriteCloser
	for _, s := range c.sites {
		a, _ := pair(t)
		h.set(func() {
			h.open = func(context.Context, string, []byte) (io.ReadWriteCloser, error) { return a, nil }
		})
		st, err := s.Open(t.Context(), id, "serial", nil)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, st)
	}
	h.stop()
	for _, st := range open {
		if _, err := st.Read(make([]byte, 1)); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a read of a host that is lost: %v", err)
		}
		if _, err := st.Write([]byte("x")); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a write to a host that is lost: %v", err)
		}
		st.Close()
	}
}

func TestHostCannotTakeAnothersStream(t *testing.T) {
	c, h := attached(t)
	other := c.run(c.join("h2", c.sites[0].addr))
	until(t, soon, "attached", func() bool { return c.sites[0].Sessions() == 2 })
	asked, free := make(chan struct{}), make(chan struct{})
	h.set(func() {
		h.open = func(context.Context, string, []byte) (io.ReadWriteCloser, error) {
			close(asked)
			<-free
			return nil, fault.New(fault.Conflict, "mine")
		}
	})
	result := make(chan error, 1)
	go func() { _, err := c.sites[0].Open(t.Context(), h.id(t), "serial", nil); result <- err }()
	<-asked
	c.sites[0].mu.Lock()
	ss := c.sites[0].sessions[h.id(t)]
	c.sites[0].mu.Unlock()
	ss.mu.Lock()
	var id uint64
	for n := range ss.opening {
		id = n
	}
	ss.mu.Unlock()
	client := dialHosts(t, other.Client, c.sites[0].addr)
	for _, call := range []func() (pipe, error){
		func() (pipe, error) { return client.Channel(t.Context()) },
		func() (pipe, error) { return client.Relay(t.Context()) },
	} {
		p, err := call()
		if err != nil {
			t.Fatal(err)
		}
		p.Send(&linkpb.Chunk{Id: id, Credit: window, Open: &linkpb.Open{Host: h.id(t), Service: "serial"}})
		if _, err := p.Recv(); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("another host may take the stream: %v", err)
		}
	}
	close(free)
	if err := <-result; !fault.Is(err, fault.Conflict) || err.Error() != "mine" {
		t.Errorf("the stream's own host: %v", err)
	}
}

// memoryPipe is a pipe in memory.
type memoryPipe struct {
	out chan<- *linkpb.Chunk
	in  <-chan *linkpb.Chunk
}

func (p memoryPipe) Send(c *linkpb.Chunk) error { p.out <- c; return nil }

func (p memoryPipe) Recv() (*linkpb.Chunk, error) {
	c, ok := <-p.in
	if !ok {
		return nil, io.EOF
	}
	return c, nil
}

// TestStreamProperty: whatever the sizes of writes and reads, what comes out is what went in, and no more waits
// than the window.
func TestStreamProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ab, ba := make(chan *linkpb.Chunk, 1024), make(chan *linkpb.Chunk, 1024)
		a, b := newStream(memoryPipe{ab, ba}, window, func() {}), newStream(memoryPipe{ba, ab}, window, func() {})
		go a.pump()
		go b.pump()
		var want []byte
		var parts [][]byte
		for _, n := range rapid.SliceOfN(rapid.IntRange(0, 200<<10), 0, 12).Draw(t, "writes") {
			p := bytes.Repeat([]byte{byte(len(parts))}, n)
			parts, want = append(parts, p), append(want, p...)
		}
		go func() {
			for _, p := range parts {
				a.Write(p)
			}
			a.CloseWrite()
		}()
		var got []byte
		size := rapid.IntRange(1, 100<<10).Draw(t, "read")
		for buf := make([]byte, size); ; {
			b.mu.Lock()
			n := len(b.in)
			b.mu.Unlock()
			if n > window {
				t.Fatalf("%d bytes wait", n)
			}
			n, err := b.Read(buf)
			got = append(got, buf[:n]...)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%d bytes came of %d, or others", len(got), len(want))
		}
		a.Close()
		if _, err := b.Write([]byte("x")); err == nil {
			until := time.After(soon)
			select {
			case <-b.gone:
			case <-until:
				t.Fatal("the other end does not see the Close")
			}
		}
		b.Close()
		close(ab)
		close(ba)
	})
}

// TestStreamEndsAnOverflow: an end that sends more than it may loses its stream.
func TestStreamEndsAnOverflow(t *testing.T) {
	in := make(chan *linkpb.Chunk, 2)
	st := newStream(memoryPipe{make(chan *linkpb.Chunk, 8), in}, 0, func() {})
	in <- &linkpb.Chunk{Data: make([]byte, window)}
	in <- &linkpb.Chunk{Data: make([]byte, 1)}
	st.pump()
	n, err := io.Copy(io.Discard, st)
	if n != window || !fault.Is(err, fault.Invalid) {
		t.Errorf("%d bytes, %v", n, err)
	}
}
