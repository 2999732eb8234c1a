package console_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"yakumo/api"
	"yakumo/api/console"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/hypervisor/fake"
	"yakumo/hypervisor/hypertest"
	"yakumo/model"
	"yakumo/store"
	"yakumo/store/storetest"
)

const soon = 60 * time.Second

// hosts answers for every host's agent: its ends greet with the host's name and echo.
type hosts struct {
	mu      sync.Mutex
	refuse  error
	refused int
	opened  []string // host/service
	ends    []net.Conn
	screen  func(context.Context) (io.ReadWriteCloser, error)
}

func (h *hosts) Open(ctx context.Context, host model.ID, service string, args []byte) (io.ReadWriteCloser, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var q model.ConsoleQuery
	if err := json.Unmarshal(args, &q); err != nil || q.ServerID == "" {
		return nil, fault.New(fault.Invalid, "The question is malformed.")
	}
	if h.refuse != nil {
		h.refused++
		return nil, h.refuse
	}
	h.opened = append(h.opened, host+"/"+service)
	if service == "display" {
		return h.screen(ctx)
	}
	near, far := net.Pipe()
	h.ends = append(h.ends, far)
	go func() {
		far.Write([]byte(host + "\r\n"))
		io.Copy(far, far)
	}()
	return near, nil
}

// cut ends every console, as guests do that leave their hosts.
func (h *hosts) cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.ends {
		e.Close()
	}
	h.ends = nil
}

func (h *hosts) set(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

// nobody is an Authenticator without users: consoles need none.
type nobody struct{}

func (nobody) Authenticate(context.Context, string) (*api.Caller, error) {
	return nil, fault.New(fault.Unauthorized, "no")
}

type site struct {
	t       *testing.T
	store   *store.Store
	compute *compute.Compute
	hosts   *hosts
	cons    *console.Consoles
	url     string
	server  *model.Server

	mu  sync.Mutex
	off time.Duration
}

func (s *site) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.off)
}

func newSite(t *testing.T, change func(*console.Config)) *site {
	t.Helper()
	s := &site{t: t, store: storetest.New(t), hosts: &hosts{}}
	s.compute = compute.New(compute.Config{Store: s.store, Log: slog.New(slog.DiscardHandler), Now: s.now})
	cfg := console.Config{Compute: s.compute, Hosts: s.hosts, Viewer: t.TempDir(), Arrival: time.Millisecond, Metrics: prometheus.NewRegistry()}
	if change != nil {
		change(&cfg)
	}
	s.cons = console.New(cfg)
	t.Cleanup(s.cons.Close)
	front, err := api.New(api.Config{Store: s.store, Auth: nobody{}, Log: slog.New(slog.DiscardHandler), Services: []api.Service{s.cons.Service()}})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(front)
	t.Cleanup(web.Close)
	s.url = web.URL
	s.server = &model.Server{Meta: model.NewMeta("p1", "s1", time.Now()), Host: "h1", Power: model.PowerRunning,
		Status: model.ServerStatus{Phase: model.PhaseReady, Power: model.PowerRunning, LaunchedAt: time.Now()}}
	s.put(s.server)
	return s
}

func (s *site) put(server *model.Server) {
	s.t.Helper()
	if _, err := s.store.Update(s.t.Context(), func(tx *store.Tx) error { return store.Servers.Put(tx, server) }); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) token(kind string) string {
	s.t.Helper()
	var token string
	if _, err := s.store.Update(s.t.Context(), func(tx *store.Tx) error {
		var err error
		token, _, err = s.compute.NewConsole(tx, compute.Scope{ProjectID: "p1"}, s.server.ID, kind)
		return err
	}); err != nil {
		s.t.Fatal(err)
	}
	return token
}

// dial opens a WebSocket; header is of names and values.
func (s *site) dial(path string, header ...string) (*websocket.Conn, *http.Response, error) {
	h := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	d := websocket.Dialer{Subprotocols: []string{"binary", "base64"}, HandshakeTimeout: soon}
	c, resp, err := d.DialContext(s.t.Context(), "ws"+strings.TrimPrefix(s.url, "http")+path, h)
	if err == nil {
		s.t.Cleanup(func() { c.Close() })
		c.SetReadDeadline(time.Now().Add(soon))
	}
	return c, resp, err
}

func (s *site) open(path string, header ...string) *websocket.Conn {
	s.t.Helper()
	c, resp, err := s.dial(path, header...)
	if err != nil {
		if resp != nil {
			b, _ := io.ReadAll(resp.Body)
			s.t.Fatalf("%s: %v: %d %s", path, err, resp.StatusCode, b)
		}
		s.t.Fatalf("%s: %v", path, err)
	}
	return c
}

// expect reads until the text has come.
func expect(t *testing.T, c *websocket.Conn, text string) {
	t.Helper()
	var got strings.Builder
	for !strings.Contains(got.String(), text) {
		kind, b, err := c.ReadMessage()
		got.Write(b)
		if err != nil || kind != websocket.BinaryMessage {
			t.Fatalf("after %q: kind %d, %v; want %q", got.String(), kind, err, text)
		}
	}
}

func say(t *testing.T, c *websocket.Conn, text string) {
	t.Helper()
	if err := c.WriteMessage(websocket.BinaryMessage, []byte(text)); err != nil {
		t.Fatal(err)
	}
	expect(t, c, text)
}

// TestSerial finds the token wherever Nova's proxies do, and the guest's line behind it.
func TestSerial(t *testing.T) {
	s := newSite(t, nil)
	tok := s.token("serial")
	for _, way := range [][]string{
		{"/console/serial?token=" + tok}, {"/console/websockify?token=" + tok}, {"/console/websockify?path=%3Ftoken%3D" + tok},
		{"/console/websockify?path=console%2Fwebsockify%3Fa%3Db%26token%3D" + tok}, {"/console/websockify", "Cookie", "token=" + tok},
		{"/console/serial?token=" + tok, "Origin", s.url},
	} {
		c := s.open(way[0], way[1:]...)
		if c.Subprotocol() != "binary" {
			t.Errorf("%v: the protocol is %q", way, c.Subprotocol())
		}
		expect(t, c, "h1")
		say(t, c, "uname -a\n")
		if err := c.WriteMessage(websocket.TextMessage, []byte("text\n")); err != nil { // some clients send texts
			t.Fatal(err)
		}
		expect(t, c, "text\n")
		c.Close()
	}
}

// TestSerialFollowsItsGuest: the client's connection stays while the guest moves, stops and starts.
func TestSerialFollowsItsGuest(t *testing.T) {
	s := newSite(t, nil)
	c := s.open("/console/serial?token=" + s.token("serial"))
	expect(t, c, "h1")
	moved := *s.server
	moved.Host = "h2"
	s.put(&moved)
	s.hosts.cut()
	expect(t, c, "h2")
	say(t, c, "hello there\n")
	// It is stopped, and started again later: the token of then is not asked for.
	s.hosts.set(func() { s.hosts.refuse = fault.New(fault.Conflict, "Guest x is not running; start it first.") })
	s.hosts.cut()
	s.mu.Lock()
	s.off = time.Hour
	s.mu.Unlock()
	if err := c.WriteMessage(websocket.BinaryMessage, []byte("into the void\n")); err != nil {
		t.Fatal(err)
	}
	s.hosts.set(func() { s.hosts.refuse = nil })
	expect(t, c, "h2")
	say(t, c, "again\n")
	// It is deleted.
	gone := moved
	gone.Deleted = true
	s.put(&gone)
	s.hosts.cut()
	closedWith(t, c, websocket.CloseNormalClosure)
}

func closedWith(t *testing.T, c *websocket.Conn, code int) {
	t.Helper()
	for {
		_, _, err := c.ReadMessage()
		if err == nil {
			continue
		}
		var ce *websocket.CloseError
		if !errors.As(err, &ce) || ce.Code != code {
			t.Errorf("closed with %v, want %d", err, code)
		}
		return
	}
}

func TestSerialGivesUp(t *testing.T) {
	s := newSite(t, func(c *console.Config) { c.Patience = 300 * time.Millisecond })
	c := s.open("/console/serial?token=" + s.token("serial"))
	expect(t, c, "h1")
	s.hosts.set(func() { s.hosts.refuse = fault.New(fault.Conflict, "not running") })
	s.hosts.cut()
	closedWith(t, c, websocket.CloseTryAgainLater)
}

// wsStream is the bytes of a WebSocket.
type wsStream struct {
	*websocket.Conn
	rest []byte
}

func (w *wsStream) Read(b []byte) (int, error) {
	for len(w.rest) == 0 {
		_, m, err := w.ReadMessage()
		if err != nil {
			return 0, err
		}
		w.rest = m
	}
	n := copy(b, w.rest)
	w.rest = w.rest[n:]
	return n, nil
}

func (w *wsStream) Write(b []byte) (int, error) {
	return len(b), w.WriteMessage(websocket.BinaryMessage, b)
}

// TestScreen looks at a guest's screen; where it goes away, the client is told to come again, and may, though its
// token would have expired.
func TestScreen(t *testing.T) {
	s := newSite(t, nil)
	guests := fake.New(fake.Config{})
	g := fakeGuest(t, guests)
	s.hosts.screen = func(ctx context.Context) (io.ReadWriteCloser, error) { return guests.Display(ctx, g) }
	tok := s.token("vnc")
	s.mu.Lock()
	s.off = 10*time.Minute - 10*time.Second
	s.mu.Unlock()
	c := s.open("/console/websockify?token=" + tok)
	screen, err := hypertest.Look(&wsStream{Conn: c})
	if err != nil || screen.Colours != 2 {
		t.Fatalf("%+v, %v", screen, err)
	}
	if err := guests.Stop(t.Context(), g, 0); err != nil {
		t.Fatal(err)
	}
	closedWith(t, c, websocket.CloseServiceRestart)
	if _, resp, err := s.dial("/console/websockify?token=" + tok); err == nil || resp == nil || resp.StatusCode != http.StatusConflict {
		t.Errorf("the screen of a guest that is off: %v %v", resp, err)
	}
	if err := guests.Start(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.off += 40 * time.Second
	s.mu.Unlock()
	if screen, err := hypertest.Look(&wsStream{Conn: s.open("/console/novnc?token=" + tok)}); err != nil || screen.Colours != 2 {
		t.Errorf("after it came again: %+v, %v", screen, err)
	}
}

// TestArrival: whoever connects while the guest is on its way waits for it, as noVNC tries only once; not so while nobody
// wants the guest to run.
func TestArrival(t *testing.T) {
	s := newSite(t, func(c *console.Config) { c.Arrival = soon })
	tok := s.token("serial")
	s.hosts.set(func() { s.hosts.refuse = fault.New(fault.NotFound, "Guest x is not defined on this host.") })
	came := make(chan string, 1)
	go func() {
		c, _, err := s.dial("/console/serial?token=" + tok)
		if err != nil {
			came <- err.Error()
			return
		}
		_, b, err := c.ReadMessage()
		came <- fmt.Sprint(string(b), err)
	}()
	until(t, "it was asked for where it was", func() bool {
		s.hosts.mu.Lock()
		defer s.hosts.mu.Unlock()
		return s.hosts.refused > 1
	})
	moved := *s.server
	moved.Host = "h2"
	s.put(&moved)
	s.hosts.set(func() { s.hosts.refuse = nil })
	if got := <-came; got != "h2\r\n<nil>" {
		t.Errorf("it came with %q", got)
	}
	off := moved
	off.Power = model.PowerOff
	s.put(&off)
	s.hosts.set(func() { s.hosts.refuse = fault.New(fault.Conflict, "Guest x is not running; start it first.") })
	if _, resp, err := s.dial("/console/serial?token=" + tok); err == nil || resp == nil || resp.StatusCode != http.StatusConflict {
		t.Errorf("of a server that is off: %v, %v", resp, err)
	}
}

func fakeGuest(t *testing.T, d *fake.Driver) string {
	t.Helper()
	id := hypertest.NewID()
	g := hypervisor.Guest{ID: id, Name: "yk-" + id, VCPUs: 1, MemoryMiB: 16, Display: true}
	if err := d.Ensure(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return id
}

func TestRefused(t *testing.T) {
	s := newSite(t, func(c *console.Config) { c.Max, c.Origins = 2, []string{"https://cloud.example.org"} })
	serial, vnc := s.token("serial"), s.token("vnc")
	refused := func(status int, path string, header ...string) {
		t.Helper()
		c, resp, err := s.dial(path, header...)
		if err == nil {
			c.Close()
			t.Errorf("%s %v is let in", path, header)
			return
		}
		if resp == nil || resp.StatusCode != status {
			t.Errorf("%s %v: %v %v, want %d", path, header, resp, err, status)
		}
	}
	refused(403, "/console/serial")
	refused(403, "/console/serial?token=")
	refused(403, "/console/serial?token="+model.NewID())
	refused(403, "/console/serial?token="+vnc)
	refused(403, "/console/novnc?token="+serial)
	refused(403, "/console/serial?token="+strings.Repeat("x", 5000))
	refused(403, "/console/serial?token="+serial, "Origin", "https://evil.example.org")
	refused(403, "/console/serial?token="+serial, "Origin", "null")
	// The hash that the store keeps opens nothing.
	for row := range store.ConsoleTokens.All(s.store.Snapshot()) {
		refused(403, "/console/serial?token="+row.Hash)
		if strings.Contains(row.Hash, serial) {
			t.Error("the store knows a token")
		}
	}
	c := s.open("/console/serial?token="+serial, "Origin", "https://cloud.example.org")
	s.open("/console/serial?token=" + serial)
	refused(503, "/console/serial?token="+serial)
	c.Close()
	until(t, "a place is free", func() bool {
		c, _, err := s.dial("/console/serial?token=" + serial)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	for _, kind := range []fault.Kind{fault.Unavailable, fault.Conflict, fault.NotFound} {
		s.hosts.set(func() { s.hosts.refuse = fault.New(kind, "refused") })
		want := map[fault.Kind]int{fault.Unavailable: 503, fault.Conflict: 409, fault.NotFound: 404}[kind]
		until(t, "a place is free", func() bool {
			_, resp, err := s.dial("/console/serial?token=" + serial)
			return err != nil && resp != nil && resp.StatusCode == want
		})
	}
	s.hosts.set(func() { s.hosts.refuse = nil })
	if resp, err := http.Get(s.url + "/console/websockify?token=" + serial); err != nil || resp.StatusCode != 400 {
		t.Errorf("no WebSocket: %v %v", resp, err)
	}
	// Expired; and a project that has the server no more.
	s.mu.Lock()
	s.off = 10 * time.Minute
	s.mu.Unlock()
	refused(403, "/console/serial?token="+serial)
	s.mu.Lock()
	s.off = 0
	s.mu.Unlock()
	gone := *s.server
	gone.Deleted = true
	s.put(&gone)
	refused(403, "/console/serial?token="+serial)
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	end := time.After(soon)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waited too long until %s", what)
		}
	}
}

func TestEnds(t *testing.T) {
	s := newSite(t, func(c *console.Config) { c.Idle, c.Beat = 4*time.Second, time.Second })
	c := s.open("/console/serial?token=" + s.token("serial"))
	pings := 0
	c.SetPingHandler(func(string) error {
		pings++
		return c.WriteControl(websocket.PongMessage, nil, time.Now().Add(time.Second))
	})
	closedWith(t, c, websocket.CloseNormalClosure)
	if pings == 0 {
		t.Error("an idle client was never asked for a sign of life")
	}
	// A client that says nothing, not even pong, is gone.
	mute := newSite(t, func(c *console.Config) { c.Beat = 50 * time.Millisecond })
	c = mute.open("/console/serial?token=" + mute.token("serial"))
	c.SetPingHandler(func(string) error { return nil })
	for err := error(nil); err == nil; {
		_, _, err = c.ReadMessage()
	}
	// The server shuts down.
	s = newSite(t, nil)
	c = s.open("/console/serial?token=" + s.token("serial"))
	s.cons.Close()
	closedWith(t, c, websocket.CloseGoingAway)
	if _, resp, err := s.dial("/console/serial?token=" + s.token("serial")); err == nil || resp == nil || resp.StatusCode != 503 {
		t.Errorf("a console of a server that shuts down: %v %v", resp, err)
	}
}

func TestPages(t *testing.T) {
	dir := t.TempDir()
	s := newSite(t, func(c *console.Config) { c.Viewer = filepath.Join(dir, "novnc") })
	get := func(path string) (*http.Response, string) {
		t.Helper()
		cl := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		resp, err := cl.Get(s.url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(b)
	}
	tok := s.token("vnc")
	if resp, body := get("/console/novnc?token=" + tok); resp.StatusCode != 501 || !strings.Contains(body, "noVNC") {
		t.Errorf("without noVNC: %d %s", resp.StatusCode, body)
	}
	if err := os.MkdirAll(filepath.Join(dir, "novnc", "core"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"secret": "no", "novnc/vnc.html": "<canvas>", "novnc/core/rfb.js": "let a"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	resp, _ := get("/console/novnc?token=" + tok)
	at := resp.Header.Get("Location")
	if resp.StatusCode != 302 || !strings.Contains(at, "&path=console/websockify%3Ftoken%3D"+tok) || resp.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("the page of a screen: %d %q", resp.StatusCode, at)
	}
	if resp, body := get(at); resp.StatusCode != 200 || body != "<canvas>" {
		t.Errorf("%s: %d %s", at, resp.StatusCode, body)
	}
	if resp, _ := get("/console/novnc?token=" + model.NewID()); resp.StatusCode != 403 {
		t.Errorf("the page without a token: %d", resp.StatusCode)
	}
	for path, want := range map[string]int{
		"/console/viewer/core/rfb.js": 200, "/console/viewer/core": 404, "/console/viewer/core/": 404, "/console/viewer/": 404, "/console/viewer/none": 404,
		"/console/viewer/../secret": 404, "/console/viewer/%2e%2e/secret": 404, "/console/viewer/..%2fsecret": 404, "/console/serial": 200,
		"/console/serial.js": 200, "/console/serial.css": 200, "/console/else": 401,
	} {
		if resp, body := get(path); resp.StatusCode != want {
			t.Errorf("%s: %d %s, want %d", path, resp.StatusCode, body, want)
		}
	}
	if resp, body := get("/console/serial?token=x"); !strings.Contains(resp.Header.Get("Content-Security-Policy"), "default-src 'none'") || strings.Contains(body, "<script>") {
		t.Errorf("the serial page: %v", resp.Header)
	}
}
