package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gorilla/websocket"

	"yakumo/hypervisor/hypertest"
)

// socket is the bytes of a WebSocket.
type socket struct {
	*websocket.Conn
	rest []byte
}

func (s *socket) Read(b []byte) (int, error) {
	for len(s.rest) == 0 {
		_, m, err := s.ReadMessage()
		if err != nil {
			return 0, err
		}
		s.rest = m
	}
	n := copy(b, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *socket) Write(b []byte) (int, error) {
	return len(b), s.WriteMessage(websocket.BinaryMessage, b)
}

// openSocket connects to the WebSocket of a console's URL, whose page may be another.
func openSocket(t *testing.T, at string) *socket {
	t.Helper()
	d := websocket.Dialer{Subprotocols: []string{"binary"}, HandshakeTimeout: time.Minute}
	c, resp, err := d.DialContext(t.Context(), "ws"+at[strings.Index(at, "://"):], nil)
	if err != nil {
		t.Fatalf("%s: %v %v", at, err, resp)
	}
	t.Cleanup(func() { c.Close() })
	return &socket{Conn: c}
}

// TestConsoles opens a guest's consoles as users do: URLs by the stock client, a screen by RFB, a shell on the serial
// line for two at once, and the same from a terminal by our own command.
func TestConsoles(t *testing.T) {
	own := mine{t}
	ten, other := newTenant(t, own, "consoles", "member"), newTenant(t, own, "consoles-other", "member")
	n := ten.newNetwork(t, own, "consoles", "10.77.0.0/24")
	g := ten.boot(t, own, order{name: "console-1", network: n.network.ID})
	await(t, "the guest to run", bootPatience, func(ctx context.Context) string {
		s, err := servers.Get(ctx, ten.member.Compute, g.id).Extract()
		if err != nil {
			return err.Error()
		}
		return unless(s.Status == "ACTIVE", s.Status)
	})
	user, stranger := newStock(t, ten.login), newStock(t, other.login)

	// The screen shows what the firmware or the kernel has written on it.
	began := time.Now()
	at := fmt.Sprint(user.show(t, "console", "url", "show", "--novnc", g.id)["url"])
	resp, err := http.Get(at)
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode != 200 || !bytes.Contains(page, []byte("noVNC")) {
		t.Errorf("%s: %d, %v: %.300s", at, resp.StatusCode, err, page)
	}
	inner := resp.Request.URL.Query().Get("path") // what the page connects to
	socketURL := fix.lab.Credentials().AuthURL[:strings.Index(fix.lab.Credentials().AuthURL, "/identity")] + "/" + inner
	await(t, "a picture on the screen", bootPatience, func(context.Context) string {
		ws := openSocket(t, socketURL)
		defer ws.Close()
		ws.SetReadDeadline(time.Now().Add(time.Minute))
		screen, err := hypertest.Look(ws)
		if err != nil {
			return err.Error()
		}
		return unless(screen.Width >= 640 && screen.Height >= 400 && screen.Colours >= 2, fmt.Sprintf("%+v", screen))
	})
	measured(t, "first picture of a screen, with its URL by the stock client: %.2f s", time.Since(began).Seconds())

	// The serial line: log in, run a command, and a second one sees it.
	serial := fmt.Sprint(user.show(t, "console", "url", "show", "--serial", g.id)["url"])
	if !strings.HasPrefix(serial, "ws://") {
		t.Errorf("the serial console is at %s", serial)
	}
	second := &console{stream: openSocket(t, serial)}
	second.fresh = sync.NewCond(&second.mu)
	go second.read()
	g.console = &console{stream: openSocket(t, serial)}
	g.console.fresh = sync.NewCond(&g.console.mu)
	go g.console.read()
	if err := g.login(t); err != nil {
		t.Fatal(err)
	}
	if got := g.must(t, "echo $((6*7)) $(hostname)"); got != "42 console-1" {
		t.Errorf("the guest answers %q", got)
	}
	await(t, "the second one to see it", commandPatience, func(context.Context) string {
		return unless(strings.Contains(second.tail(), "42 console-1"), second.tail())
	})
	second.stream.Close()

	// What was written, by lines; and the same line from a terminal, left by Ctrl-].
	log := user.do(t, "console", "log", "show", "--lines", "5", g.id)
	if lines := strings.Count(strings.TrimSpace(log), "\n") + 1; lines > 5 || !strings.Contains(user.do(t, "console", "log", "show", g.id), "42 console-1") {
		t.Errorf("the log has %d lines: %s", lines, log)
	}
	terminal(t, user.env, g.id)
	g.keepsConsoles(t, socketURL)

	// Who may not.
	stranger.refused(t, "No Server found", "console", "url", "show", "--novnc", g.id)
	u, err := url.Parse(serial)
	if err != nil {
		t.Fatal(err)
	}
	tok := u.Query().Get("token")
	bad := []string{"", strings.Repeat("0", 36), tok[:35] + "x"}
	for _, tok := range bad {
		_, resp, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+u.Host+"/console/serial?token="+tok, nil)
		if err == nil || resp == nil || resp.StatusCode != http.StatusForbidden {
			t.Errorf("the token %q: %v, %v", tok, resp, err)
		}
	}
	if _, resp, err := websocket.DefaultDialer.DialContext(t.Context(), serial, http.Header{"Origin": {"http://evil.example.org"}}); err == nil || resp == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("a page of elsewhere: %v, %v", resp, err)
	}
	// A server that is off has none; the connection that is open waits for it.
	user.do(t, "server", "stop", g.id)
	await(t, "the guest to be off", bootPatience, func(ctx context.Context) string {
		s, err := servers.Get(ctx, ten.member.Compute, g.id).Extract()
		if err != nil {
			return err.Error()
		}
		return unless(s.Status == "SHUTOFF", s.Status)
	})
	user.refused(t, "409", "console", "url", "show", "--serial", g.id)
	user.do(t, "server", "start", g.id)
	if err := g.login(t); err != nil {
		t.Fatalf("the console after a stop and a start: %v", err)
	}
	if got := g.must(t, "hostname"); got != "console-1" {
		t.Errorf("the guest answers %q", got)
	}
}

// keepsConsoles moves the guest, whose serial line is open, while somebody looks at its screen. The line stays as it is. The
// screen's WebSocket is ended so that the page connects anew, once, and the same URL leads to where the guest is then.
func (g *guest) keepsConsoles(t *testing.T, screen string) {
	t.Helper()
	g.becomes(t, "ACTIVE")
	line, from := g.console, g.host
	looks := openSocket(t, screen)
	looks.SetReadDeadline(time.Now().Add(bootPatience))
	newStock(t, fix.lab.Credentials()).do(t, "server", "migrate", "--live-migration", g.id)
	for {
		_, _, err := looks.ReadMessage()
		if err == nil {
			continue
		}
		var end *websocket.CloseError
		if !errors.As(err, &end) || end.Code != websocket.CloseServiceRestart {
			t.Errorf("the screen of a guest that moved ended with %v", err)
		}
		break
	}
	again := openSocket(t, screen) // at once, as the page does
	again.SetReadDeadline(time.Now().Add(bootPatience))
	if picture, err := hypertest.Look(again); err != nil || picture.Colours < 2 {
		t.Errorf("the screen after a move: %+v, %v", picture, err)
	}
	await(t, "the guest to be elsewhere", bootPatience, func(context.Context) string {
		g.becomes(t, "ACTIVE")
		return unless(g.host != from, "it is on "+from)
	})
	if err := g.login(t); err != nil {
		t.Fatalf("the serial console after a move: %v", err)
	}
	if got := g.must(t, "hostname"); got != "console-1" || g.console != line {
		t.Errorf("the guest answers %q, on the line that was open: %v", got, g.console == line)
	}
}

// terminal runs our own command as a person at a terminal does.
func terminal(t *testing.T, env []string, server string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*bootPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, fix.binary, "console", server)
	cmd.Env = env
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	seen := &console{stream: struct {
		io.Reader
		io.WriteCloser
	}{out, in}}
	seen.fresh = sync.NewCond(&seen.mu)
	go seen.read()
	await(t, "the terminal to show a command's output", commandPatience, func(context.Context) string {
		if _, err := io.WriteString(in, "echo term''inal $((2*21))\n"); err != nil {
			return err.Error()
		}
		return unless(strings.Contains(seen.tail(), "terminal 42"), seen.tail()+errs.String())
	})
	if _, err := io.WriteString(in, "\x1d"); err != nil {
		t.Fatal(err)
	}
	await(t, "the command to end", commandPatience, func(context.Context) string { return unless(seen.ended(), "it goes on") })
	if err := cmd.Wait(); err != nil {
		t.Errorf("yakumo console: %v: %s", err, errs.String())
	}
}
