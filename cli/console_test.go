package cli

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"yakumo/fault"
)

// serialAPI is an API with a server "web" whose console echoes, and closes when it is told "exit".
func serialAPI(t *testing.T, refuse bool) *Client {
	t.Helper()
	fakeAPI(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/console/serial"):
			if refuse || r.URL.Query().Get("token") != "secret" {
				http.Error(w, "The token is invalid or has expired; ask for a new URL of the console.", http.StatusForbidden)
				return
			}
			up := websocket.Upgrader{Subprotocols: []string{"binary"}}
			c, err := up.Upgrade(w, r, nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for {
				_, b, err := c.ReadMessage()
				if err != nil {
					return
				}
				if string(b) == "exit" {
					c.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseTryAgainLater, "the guest has no console now"))
					return
				}
				c.WriteMessage(websocket.BinaryMessage, append([]byte("> "), b...))
			}
		case r.URL.Path == "/compute/v2.1/servers/id-1/action":
			fmt.Fprintf(w, `{"console":{"type":"serial","url":"ws://%s/console/serial?token=secret"}}`, r.Host)
		case r.URL.Path == "/compute/v2.1/servers/id-1":
			fmt.Fprint(w, `{"server":{"id":"id-1"}}`)
		case r.URL.Path == "/compute/v2.1/servers":
			fmt.Fprint(w, map[string]string{
				`^web\.1$`: `{"servers":[{"id":"id-1","name":"web.1"}]}`, `^twice$`: `{"servers":[{"id":"a","name":"twice"},{"id":"b","name":"twice"}]}`,
			}[r.URL.Query().Get("name")])
			if q := r.URL.Query().Get("name"); q == "^none$" {
				fmt.Fprint(w, `{"servers":[]}`)
			}
		default:
			w.WriteHeader(404)
			fmt.Fprint(w, `{"itemNotFound":{"code":404,"message":"no"}}`)
		}
	})
	cl, err := connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return cl
}

// lines is a keyboard whose next keys come when the screen shows something.
type lines struct {
	in  chan string
	out bytes.Buffer
	say []string
}

func (l *lines) Read(b []byte) (int, error) {
	s, ok := <-l.in
	if !ok {
		return 0, io.EOF
	}
	return copy(b, s), nil
}

func (l *lines) Write(b []byte) (int, error) {
	if len(l.say) > 0 {
		l.in <- l.say[0]
		l.say = l.say[1:]
	}
	return l.out.Write(b)
}

func TestConsole(t *testing.T) {
	for _, name := range []string{"web.1", "id-1"} {
		cl := serialAPI(t, false)
		l := &lines{in: make(chan string, 4), say: []string{"two", "three\x1dnot this"}}
		l.in <- "one"
		if err := cl.Console(t.Context(), name, l, l); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := l.out.String(); !strings.HasPrefix(got, "> one> two") || strings.Contains(got, "not this") {
			t.Errorf("%s: %q", name, got)
		}
	}
	cl := serialAPI(t, false)
	var out bytes.Buffer
	if err := cl.Console(t.Context(), "web.1", strings.NewReader("exit"), &out); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "the guest has no console now") {
		t.Errorf("a console that ends: %v", err)
	}
	if err := cl.Console(t.Context(), "none", strings.NewReader(""), &out); !fault.Is(err, fault.NotFound) {
		t.Errorf("no such server: %v", err)
	}
	if err := cl.Console(t.Context(), "twice", strings.NewReader(""), &out); !fault.Is(err, fault.Invalid) {
		t.Errorf("two of the name: %v", err)
	}
	if err := serialAPI(t, true).Console(t.Context(), "id-1", strings.NewReader(""), &out); err == nil || !strings.Contains(err.Error(), "The token is invalid") {
		t.Errorf("refused: %v", err)
	}
}
