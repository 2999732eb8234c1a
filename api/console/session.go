package console

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// maxMessage is the largest message that a client may send, in bytes: a clipboard and some.
const maxMessage = 1 << 20

// writeWait is how long a client may take to take a message.
const writeWait = 30 * time.Second

// grace is how long a screen's token may be used at least once its console was cut off: noVNC connects anew.
const grace = time.Minute

// upgrades tells whether a request asks for a WebSocket.
func upgrades(r *http.Request) bool { return websocket.IsWebSocketUpgrade(r) }

// token finds the token of a request where Nova's proxies do: in the query, in the query of the query's path,
// or in a cookie.
func token(r *http.Request) string {
	q := r.URL.Query()
	if t := q.Get("token"); t != "" {
		return t
	}
	if _, inner, ok := strings.Cut(q.Get("path"), "?"); ok {
		if in, err := url.ParseQuery(inner); err == nil && in.Get("token") != "" {
			return in.Get("token")
		}
	}
	if ck, err := r.Cookie("token"); err == nil {
		return ck.Value
	}
	return ""
}

// admit gives what the token opens. kind is what it must be of; "": any.
func (s *Consoles) admit(c *api.Context, t, kind string) (*model.ConsoleToken, error) {
	row, _, ok := s.cfg.Compute.Console(c.Snapshot(), t)
	if !ok || kind != "" && row.Kind != kind {
		s.total.WithLabelValues(kind, "refused").Inc()
		return nil, fault.New(fault.Forbidden, "The token is invalid or has expired; ask for a new URL of the console.")
	}
	return row, nil
}

// mayCome tells whether a page of the request's origin may open consoles. Clients that are no browsers send none.
func (s *Consoles) mayCome(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || slices.Contains(s.cfg.Origins, origin) {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, r.Host)
}

// session is one open console.
type session struct {
	s     *Consoles
	c     *api.Context
	token *model.ConsoleToken
	ws    *websocket.Conn
	used  atomic.Int64 // when a byte passed, in Unix nanoseconds

	mu  sync.Mutex
	end io.ReadWriteCloser // nil while the guest has no console
}

// serve makes the request's connection a console.
func (s *Consoles) serve(c *api.Context, kind string) error {
	if !upgrades(c.R) {
		return fault.New(fault.Invalid, "This path is of a WebSocket.")
	}
	t, err := s.admit(c, token(c.R), kind)
	if err != nil {
		return err
	}
	refuse := func(err error) error {
		s.total.WithLabelValues(t.Kind, "refused").Inc()
		return err
	}
	if !s.mayCome(c.R) {
		return refuse(fault.New(fault.Forbidden, "Pages of this origin may not open consoles."))
	}
	if !s.enter() {
		return refuse(fault.New(fault.Unavailable, "Too many consoles are open. Try again later."))
	}
	defer s.leave()
	ss := &session{s: s, c: c, token: t}
	ctx, cancel := context.WithCancel(c.R.Context())
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	if ss.end, err = ss.arrive(ctx); err != nil {
		return refuse(err)
	}
	up := websocket.Upgrader{HandshakeTimeout: writeWait, Subprotocols: []string{"binary"}, CheckOrigin: func(*http.Request) bool { return true },
		Error: func(http.ResponseWriter, *http.Request, int, error) {}}
	if ss.ws, err = up.Upgrade(c.W, c.R, nil); err != nil {
		ss.end.Close()
		return refuse(fault.Wrap(fault.Invalid, err, "The WebSocket's handshake is malformed."))
	}
	s.total.WithLabelValues(t.Kind, "opened").Inc()
	s.sessions.WithLabelValues(t.Kind).Inc()
	defer s.sessions.WithLabelValues(t.Kind).Dec()
	c.Log.Info("a console is open", "server", t.ServerID, "kind", t.Kind)
	ss.run(ctx, cancel)
	return nil
}

func (s *Consoles) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now >= s.cfg.Max || s.ctx.Err() != nil {
		return false
	}
	s.now++
	s.open.Add(1)
	return true
}

func (s *Consoles) leave() {
	s.mu.Lock()
	s.now--
	s.mu.Unlock()
	s.open.Done()
}

var errGone = fault.New(fault.NotFound, "The server is gone.")

// dial opens the console at the server's host of now.
func (ss *session) dial(ctx context.Context) (io.ReadWriteCloser, error) {
	row, ok := store.Servers.Get(ss.c.Snapshot(), ss.token.ServerID)
	if !ok || row.Deleted || row.ProjectID != ss.token.ProjectID {
		return nil, errGone
	}
	if row.Host == "" {
		return nil, fault.New(fault.Conflict, "Instance not yet ready")
	}
	service := "display"
	if ss.token.Kind == compute.ConsoleSerial {
		service = "serial"
	}
	args, err := json.Marshal(model.ConsoleQuery{ServerID: row.ID})
	if err != nil {
		return nil, err
	}
	return ss.s.cfg.Hosts.Open(ctx, row.Host, service, args)
}

// arrive is dial for a client that connects. noVNC tries once to connect anew, a second after its screen went away, and then only
// when its user says so; so a guest that is to run, but is on its way to another host or starts, is waited for.
func (ss *session) arrive(ctx context.Context) (io.ReadWriteCloser, error) {
	late := time.Now().Add(ss.s.cfg.Arrival)
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		end, err := ss.dial(ctx)
		if err == nil || !ss.coming() || !time.Now().Before(late) {
			return end, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// coming tells whether the guest runs, or will without being asked.
func (ss *session) coming() bool {
	row, ok := store.Servers.Get(ss.c.Snapshot(), ss.token.ServerID)
	return ok && !row.Deleted && row.Power == model.PowerRunning && row.Status.Phase != model.PhaseError && row.Status.Phase != model.PhaseShelved
}

// closing is how a console ends, for its client.
type closing struct {
	code int
	text string
}

// run carries bytes until either side is over.
func (ss *session) run(ctx context.Context, cancel context.CancelFunc) {
	ss.touch()
	ended := make(chan closing, 3)
	var wg sync.WaitGroup
	wg.Go(func() { ended <- ss.fromClient() })
	wg.Go(func() { ended <- ss.fromGuest(ctx) })
	wg.Go(func() { ended <- ss.beat(ctx) })
	how := <-ended
	if ss.s.ctx.Err() != nil {
		how = closing{websocket.CloseGoingAway, "the server is shutting down"}
	}
	cancel()
	if how.code != 0 {
		// A client that is gone already cannot be told.
		ss.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(how.code, how.text), time.Now().Add(time.Second))
	}
	ss.ws.Close()
	ss.replace(nil)
	wg.Wait()
	ss.c.Log.Info("a console is closed", "server", ss.token.ServerID, "kind", ss.token.Kind, "why", how.text)
}

func (ss *session) touch() { ss.used.Store(time.Now().UnixNano()) }

// replace sets where the client's bytes go, and ends what was there.
func (ss *session) replace(end io.ReadWriteCloser) {
	ss.mu.Lock()
	old := ss.end
	ss.end = end
	ss.mu.Unlock()
	if old != nil {
		old.Close()
	}
}

func (ss *session) current() io.ReadWriteCloser {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.end
}

// fromClient carries what the client sends. What comes while there is no guest is lost, as on a cable that is not plugged in.
func (ss *session) fromClient() closing {
	ss.ws.SetReadLimit(maxMessage)
	alive := func(string) error { return ss.ws.SetReadDeadline(time.Now().Add(5 * ss.s.cfg.Beat / 2)) }
	ss.ws.SetPongHandler(alive)
	bytes := ss.s.bytes.WithLabelValues(ss.token.Kind, "to_guest")
	for {
		if err := alive(""); err != nil {
			return closing{0, err.Error()}
		}
		kind, body, err := ss.ws.ReadMessage()
		if err != nil {
			if websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway, websocket.CloseNoStatusReceived) {
				return closing{0, "the client closed it"}
			}
			return closing{0, err.Error()}
		}
		if kind != websocket.BinaryMessage && kind != websocket.TextMessage {
			continue
		}
		ss.touch()
		if end := ss.current(); end != nil {
			n, err := end.Write(body)
			bytes.Add(float64(n))
			if err != nil {
				ss.c.Log.Debug("a console's guest takes nothing", "err", err) // whoever reads it sees the end
			}
		}
	}
}

// fromGuest carries what the guest writes, and opens a serial console again where it ended: the guest has
// moved to another host, was started again, or its host's agent was.
func (ss *session) fromGuest(ctx context.Context) closing {
	bytes := ss.s.bytes.WithLabelValues(ss.token.Kind, "to_client")
	buf := make([]byte, 32<<10)
	for {
		end := ss.current()
		if end == nil {
			return closing{0, "it was closed"}
		}
		n, err := end.Read(buf)
		if n > 0 {
			ss.touch()
			bytes.Add(float64(n))
			ss.ws.SetWriteDeadline(time.Now().Add(writeWait)) // it never fails
			if werr := ss.ws.WriteMessage(websocket.BinaryMessage, buf[:n]); werr != nil {
				return closing{0, werr.Error()}
			}
		}
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return closing{0, "it was closed"}
		}
		if ss.token.Kind != compute.ConsoleSerial {
			return ss.cutOff(ctx)
		}
		if how := ss.redial(ctx); how != nil {
			return *how
		}
	}
}

// cutOff ends a screen, whose protocol cannot go on in the middle: a client that connects anew is let in.
func (ss *session) cutOff(ctx context.Context) closing {
	if _, err := ss.c.Store().Update(ctx, func(tx *store.Tx) error {
		return ss.s.cfg.Compute.ExtendConsole(tx, ss.token.Hash, grace)
	}); err != nil {
		ss.c.Log.Warn("the token of a console that was cut off was not prolonged", "err", err)
	}
	return closing{websocket.CloseServiceRestart, "the guest's screen went away; connect again"}
}

// redial opens the console anew; not nil: there is none any more.
func (ss *session) redial(ctx context.Context) *closing {
	late := time.Now().Add(ss.s.cfg.Patience)
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		end, err := ss.dial(ctx)
		switch {
		case err == nil && ctx.Err() != nil:
			end.Close()
			return &closing{0, "it was closed"}
		case err == nil:
			ss.replace(end)
			if ctx.Err() != nil { // run has closed what was there before, or closes this
				ss.replace(nil)
			}
			ss.s.redials.Inc()
			return nil
		case errors.Is(err, errGone):
			return &closing{websocket.CloseNormalClosure, "the server is gone"}
		case time.Now().After(late):
			return &closing{websocket.CloseTryAgainLater, "the guest has no console now"}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return &closing{0, "it was closed"}
		}
	}
}

// beat asks the client for signs of life and ends a console that nobody uses.
func (ss *session) beat(ctx context.Context) closing {
	t := time.NewTicker(min(ss.s.cfg.Beat, ss.s.cfg.Idle))
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return closing{websocket.CloseGoingAway, "it was closed"}
		}
		if idle := time.Since(time.Unix(0, ss.used.Load())); idle >= ss.s.cfg.Idle {
			return closing{websocket.CloseNormalClosure, "nobody used it"}
		}
		if err := ss.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(writeWait)); err != nil {
			return closing{0, err.Error()}
		}
	}
}
