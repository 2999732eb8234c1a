// Package console serves consoles of guests to browsers and other clients by WebSocket (RFC 6455): a serial console as
// Nova's serial proxy does, a screen as noVNC wants it, and the pages for both. Who has a token that the Compute API
// gave out opens the one console that it is of; what passes is bytes, and nothing here looks into them.
//
// It owns the open sessions of this server. It reads tokens and servers through compute, and reaches guests through the
// Hosts of its Config. May import: api, fault, model, compute, store. Must not import: a dialect, agent, hypervisor.
package console

import (
	"context"
	"embed"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
)

// Hosts opens a stream of bytes to a service of a host's agent; *link.Server is one.
type Hosts interface {
	Open(ctx context.Context, host model.ID, service string, args []byte) (io.ReadWriteCloser, error)
}

// Config makes a Consoles.
type Config struct {
	Compute *compute.Compute
	Hosts   Hosts
	// Viewer is the folder with noVNC's files (vnc.html and what it loads); "": DebianViewer. Without it
	// clients of their own still work.
	Viewer string
	// Origins are further origins of pages that may open consoles, such as "https://cloud.example.org"; that
	// of the API itself always may.
	Origins []string
	// Max is how many consoles are open at once; default 1000. Each takes some hundred KiB.
	Max int
	// Idle ends a console on which no byte passes for so long; default 1 h.
	Idle time.Duration
	// Patience is how long a serial console waits for its guest to be there again, after a move or a
	// start; default 2 minutes.
	Patience time.Duration
	// Arrival is how long a client that connects waits for a guest that is on its way to run; default 30 s.
	Arrival time.Duration
	// Beat is how often a client is asked for a sign of life, of which two may fail to come; default 30 s.
	Beat    time.Duration
	Metrics prometheus.Registerer // nil: none
}

// DebianViewer is where Debian's package novnc has its files.
const DebianViewer = "/usr/share/novnc"

// Consoles are the open consoles of this server.
type Consoles struct {
	cfg  Config
	ctx  context.Context
	stop context.CancelFunc
	open sync.WaitGroup

	mu  sync.Mutex
	now int // sessions

	sessions *prometheus.GaugeVec
	total    *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	redials  prometheus.Counter
}

// New makes a Consoles.
func New(cfg Config) *Consoles {
	if cfg.Viewer == "" {
		cfg.Viewer = DebianViewer
	}
	if cfg.Max == 0 {
		cfg.Max = 1000
	}
	if cfg.Idle == 0 {
		cfg.Idle = time.Hour
	}
	if cfg.Patience == 0 {
		cfg.Patience = 2 * time.Minute
	}
	if cfg.Arrival == 0 {
		cfg.Arrival = 30 * time.Second
	}
	if cfg.Beat == 0 {
		cfg.Beat = 30 * time.Second
	}
	s := &Consoles{cfg: cfg,
		sessions: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "yakumo_consoles_open", Help: "Consoles that are open."}, []string{"kind"}),
		total:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "yakumo_consoles_total", Help: "Consoles that were asked for, by what became of it."}, []string{"kind", "result"}),
		bytes:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "yakumo_console_bytes_total", Help: "Bytes that passed on consoles."}, []string{"kind", "direction"}),
		redials:  prometheus.NewCounter(prometheus.CounterOpts{Name: "yakumo_console_redials_total", Help: "Serial consoles that were opened again, at the guest's host of then, for a client that stayed."}),
	}
	if cfg.Metrics != nil {
		cfg.Metrics.MustRegister(s.sessions, s.total, s.bytes, s.redials)
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// Close ends every console and waits for their ends.
func (s *Consoles) Close() {
	s.stop()
	s.open.Wait()
}

//go:embed page
var pages embed.FS

// Service gives the service at /console. Its routes are public: the token in the request is the right.
func (s *Consoles) Service() api.Service {
	var out []api.Route
	get := func(pattern string, h api.Handler) {
		out = append(out, api.Route{Method: http.MethodGet, Pattern: pattern, Access: api.Public, Handle: h})
	}
	file := func(pattern, name, kind string) {
		out = append(out, api.Route{Method: http.MethodGet, Pattern: pattern, Access: api.Public, NoSync: true, Handle: func(c *api.Context) error {
			b, err := pages.ReadFile("page/" + name)
			if err != nil {
				return err
			}
			return s.page(c, kind, b)
		}})
	}
	get("/websockify", func(c *api.Context) error { return s.serve(c, "") })
	get("/novnc", s.screen)
	get("/serial", s.terminal)
	file("/serial.js", "serial.js", "text/javascript; charset=utf-8")
	file("/serial.css", "serial.css", "text/css; charset=utf-8")
	out = append(out, api.Route{Method: http.MethodGet, Pattern: "/viewer/*", Access: api.Public, NoSync: true, Handle: s.viewer})
	return api.Service{Name: "console", Prefix: "/console", Routes: out, Error: writeError}
}

// writeError answers in plain text: who reads it is a person, or a client that sees the status only.
func writeError(c *api.Context, status int, err error) {
	c.W.Header().Set("X-Content-Type-Options", "nosniff")
	if err := c.Bytes(status, "text/plain; charset=utf-8", []byte(api.Text(status, err)+"\n")); err != nil {
		c.Log.Error("an error could not be written", "err", err)
	}
}

// page answers with a file of our own. Nothing but such files runs in it, and the token in its address goes nowhere.
func (s *Consoles) page(c *api.Context, kind string, body []byte) error {
	h := c.W.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	return c.Bytes(http.StatusOK, kind, body)
}

// terminal serves the serial console: to a client that asks for a WebSocket the console, to a browser its page.
func (s *Consoles) terminal(c *api.Context) error {
	if upgrades(c.R) {
		return s.serve(c, compute.ConsoleSerial)
	}
	b, err := pages.ReadFile("page/serial.html")
	if err != nil {
		return err
	}
	return s.page(c, "text/html; charset=utf-8", b)
}

// screen serves the screen: to a client that asks for a WebSocket the console, to a browser the way to noVNC's page.
func (s *Consoles) screen(c *api.Context) error {
	if upgrades(c.R) {
		return s.serve(c, compute.ConsoleVNC)
	}
	t := token(c.R)
	if _, err := s.admit(c, t, compute.ConsoleVNC); err != nil {
		return err
	}
	if _, err := os.Stat(s.cfg.Viewer + "/vnc.html"); err != nil {
		return fault.Wrap(fault.NotImplemented, err, "This server has no page for screens: install noVNC (Debian: apt-get install novnc), or connect a client of your own to the WebSocket %s.",
			"/console/websockify?token=…")
	}
	h := c.W.Header()
	h.Set("Location", "/console/viewer/vnc.html?autoconnect=true&reconnect=true&reconnect_delay=1000&resize=scale&path="+escape("console/websockify?token="+t))
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	return c.Empty(http.StatusFound)
}

// escape writes a text so that it stands in a query as one value, with the escapes that noVNC's page reads.
func escape(s string) string {
	return strings.NewReplacer("%", "%25", "?", "%3F", "=", "%3D", "&", "%26", "#", "%23", "+", "%2B", " ", "%20").Replace(s)
}

// viewer serves noVNC's files.
func (s *Consoles) viewer(c *api.Context) error {
	name := c.Param("*")
	missing := fault.New(fault.NotFound, "The resource could not be found.")
	if !fs.ValidPath(name) {
		return missing
	}
	info, err := os.Stat(s.cfg.Viewer + "/" + name) // packages link to files of others
	if err != nil || !info.Mode().IsRegular() {
		return missing
	}
	h := c.W.Header()
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	http.ServeFileFS(c.W, c.R, os.DirFS(s.cfg.Viewer), name)
	return nil
}
