package api

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Handler serves a route. An error that it returns is written in the dialect's form; it
// must not have written anything itself then.
type Handler func(c *Context) error

// Route is one operation of a service.
type Route struct {
	Method string // GET also serves HEAD
	// Pattern is the path below the service's prefix, with {name} parts; chi's syntax.
	Pattern string
	Access  Access
	Handle  Handler
	// MaxBody is the largest body in bytes; 0: 1 MiB; -1: no limit (streams).
	MaxBody int64
	// MinVersion is the first microversion that has the route; zero: all.
	MinVersion Version
	// NoSync leaves out the wait for other servers' writes: for routes that read no state.
	NoSync bool
}

// Service is a dialect.
type Service struct {
	Name   string // for logs and metrics: "compute"
	Prefix string // "/compute"
	Routes []Route
	// Error writes an error in the dialect's form. status is the default for the error's kind.
	Error func(c *Context, status int, err error)
	// RequestIDHeader is a header of the dialect's own that repeats the request id; "" none.
	RequestIDHeader string
	// Versions is the range of microversions that is served; nil: the dialect has none.
	Versions *VersionRange
	// Operation gives what stands for the path below the prefix where a dialect names its operations elsewhere, in a form say, and the
	// request as its handlers are to see it; nil: the path is the request's own. It must not believe anything yet.
	Operation func(r *http.Request) (string, *http.Request, error)
	// Signed gives the caller of a request that is signed instead of carrying a token; nil: the dialect takes tokens. It reports
	// fault.Unauthorized for whatever is not a valid signature.
	Signed func(c *Context) (*Caller, error)
}

// Config makes a Front.
type Config struct {
	Store    *store.Store
	Auth     Authenticator
	Services []Service
	Log      *slog.Logger
	Metrics  prometheus.Registerer // nil: none
	// IdentityURL is where clients get tokens, for the WWW-Authenticate header; empty: made from the request.
	IdentityURL string
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Front is the http.Handler of all services.
type Front struct {
	cfg      Config
	mux      map[string]*mounted // by first path element
	requests *prometheus.HistogramVec
}

type mounted struct {
	svc    Service
	router *chi.Mux
}

// New makes a Front. It fails on a route without Access or Handle, and on services that
// share a prefix.
func New(cfg Config) (*Front, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	f := &Front{cfg: cfg, mux: map[string]*mounted{}}
	f.requests = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "yakumo_api_request_seconds", Help: "Time to answer an API request.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
	}, []string{"service", "method", "route", "code"})
	if cfg.Metrics != nil {
		cfg.Metrics.MustRegister(f.requests)
	}
	for _, svc := range cfg.Services {
		if _, twice := f.mux[svc.Prefix]; twice || !strings.HasPrefix(svc.Prefix, "/") {
			return nil, fmt.Errorf("service %s: bad or repeated prefix %q", svc.Name, svc.Prefix)
		}
		m := &mounted{svc: svc, router: chi.NewRouter()}
		m.router.NotFound(f.serve(m, nil))
		m.router.MethodNotAllowed(f.serveNotAllowed(m))
		for i := range svc.Routes {
			r := &svc.Routes[i]
			if r.Access == 0 || r.Handle == nil {
				return nil, fmt.Errorf("service %s: %s %s says neither who may call it nor what serves it", svc.Name, r.Method, r.Pattern)
			}
			m.router.Method(r.Method, r.Pattern, f.serve(m, r))
			if r.Method == http.MethodGet && !slices.ContainsFunc(svc.Routes, func(o Route) bool { return o.Method == http.MethodHead && o.Pattern == r.Pattern }) {
				m.router.Method(http.MethodHead, r.Pattern, f.serve(m, r))
			}
		}
		f.mux[svc.Prefix] = m
	}
	return f, nil
}

// TableRow is a line of the table of rights.
type TableRow struct {
	Service, Method, Path string
	Access                Access
}

// Table gives every route of every service and who may call it, sorted.
func (f *Front) Table() []TableRow {
	var out []TableRow
	for _, m := range f.mux {
		for _, r := range m.svc.Routes {
			out = append(out, TableRow{m.svc.Name, r.Method, m.svc.Prefix + r.Pattern, r.Access})
		}
	}
	slices.SortFunc(out, func(a, b TableRow) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Method, b.Method))
	})
	return out
}

// ServeHTTP dispatches by the first element of the path.
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	first, rest := path, "/"
	if len(path) > 1 {
		if i := strings.IndexByte(path[1:], '/'); i >= 0 {
			first, rest = path[:i+1], path[i+1:]
		}
	}
	m, ok := f.mux[first]
	if !ok {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"error": {"code": 404, "title": "Not Found", "message": "No service is at this path. The services are at: %s."}}`, f.prefixes())
		return
	}
	if operation := m.svc.Operation; operation != nil {
		path, read, err := operation(r)
		if err != nil {
			f.serve(m, &Route{Pattern: "(unreadable)", Access: Public, NoSync: true, Handle: func(*Context) error { return err }})(w, r)
			return
		}
		f.route(m, w, read, path)
		return
	}
	// chi matches the escaped path where there is one, so that an escaped slash stays in its element.
	if raw := r.URL.RawPath; raw != "" {
		rest = strings.TrimPrefix(raw, first)
	}
	f.route(m, w, r, cmp.Or(rest, "/"))
}

// route serves the request as one for the path below the service's prefix.
func (f *Front) route(m *mounted, w http.ResponseWriter, r *http.Request, path string) {
	rctx := chi.NewRouteContext()
	rctx.RoutePath = path
	m.router.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), chi.RouteCtxKey, rctx)))
}

func (f *Front) prefixes() string {
	var out []string
	for p := range f.mux {
		out = append(out, p)
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func (f *Front) serveNotAllowed(m *mounted) http.HandlerFunc {
	return f.serve(m, &Route{Pattern: "(method not allowed)", Access: Anyone, NoSync: true, Handle: func(c *Context) error {
		return errNotAllowed
	}})
}

var errNotAllowed = errors.New("method not allowed")

// serve wraps a route; nil: no such path.
func (f *Front) serve(m *mounted, route *Route) http.HandlerFunc {
	if route == nil {
		route = &Route{Pattern: "(unknown)", Access: Anyone, NoSync: true, Handle: func(c *Context) error {
			return fault.New(fault.NotFound, "The resource could not be found.")
		}}
	}
	return func(w http.ResponseWriter, r *http.Request) {
		start := f.cfg.Now()
		sw := &statusWriter{ResponseWriter: w}
		c := &Context{W: sw, R: r, Now: start.UTC(), RequestID: "req-" + model.NewID(), front: f, svc: &m.svc}
		if g := r.Header.Get("X-Openstack-Request-Id"); strings.HasPrefix(g, "req-") && len(g) == 40 {
			c.GlobalID = g
		}
		c.Log = f.cfg.Log.With("request_id", c.RequestID)
		h := w.Header()
		h.Set("X-Openstack-Request-Id", c.RequestID)
		if name := m.svc.RequestIDHeader; name != "" {
			h.Set(name, c.RequestID)
		}
		defer func() {
			p := recover()
			if p != nil && p != http.ErrAbortHandler {
				c.Log.Error("a handler panicked", "panic", p, "stack", string(debug.Stack()))
				if sw.status == 0 {
					m.svc.Error(c, http.StatusInternalServerError, fmt.Errorf("panic: %v", p))
				}
			}
			took := f.cfg.Now().Sub(start)
			f.requests.WithLabelValues(m.svc.Name, r.Method, route.Pattern, fmt.Sprint(sw.status)).Observe(took.Seconds())
			attrs := []any{"method", r.Method, "path", r.URL.Path, "status", sw.status, "bytes", sw.bytes, "took", took.Round(time.Microsecond), "access", route.Access.String()}
			if c.Caller != nil {
				attrs = append(attrs, "project", c.Caller.ProjectID, "user", c.Caller.UserID, "admin", c.Caller.CloudAdmin)
			}
			c.Log.Info("api", attrs...)
			if p == http.ErrAbortHandler {
				panic(p)
			}
		}()
		if err := f.run(c, m, route); err != nil {
			f.fail(c, m, err)
		}
	}
}

func (f *Front) run(c *Context, m *mounted, route *Route) error {
	if v := m.svc.Versions; v != nil {
		if err := v.negotiate(c); err != nil {
			return err
		}
		if c.Version.Less(route.MinVersion) {
			return fault.New(fault.NotFound, "The resource could not be found.")
		}
	}
	token := c.R.Header.Get("X-Auth-Token")
	if route.Access != Public && token == "" && m.svc.Signed == nil {
		return errNoToken
	}
	// Wait before the token is looked at, so that a token revoked, a role taken or a user
	// made on another server counts here too. Calls at once share one wait.
	if !route.NoSync && f.cfg.Store != nil {
		if err := f.cfg.Store.Sync(c.R.Context()); err != nil {
			return err
		}
	}
	if route.Access != Public {
		caller, err := f.caller(c, m, token)
		if err != nil {
			return err
		}
		c.Caller = caller
		path := strings.TrimPrefix(c.R.URL.Path, m.svc.Prefix)
		if m.svc.Operation != nil {
			path = route.Pattern
		}
		if !caller.permits(m.svc.Name, c.R.Method, path) {
			return fault.New(fault.Unauthorized, "%s", errNoToken.Text)
		}
	}
	if route.Access != Public && !route.Access.allows(c.Caller) {
		return fault.New(fault.Forbidden, "You are not authorized to perform the requested action: it needs the role %s.", route.Access)
	}
	switch limit := cmp.Or(route.MaxBody, 1<<20); {
	case limit > 0 && c.R.ContentLength > limit:
		return fault.New(fault.TooLarge, "The request body has %d bytes; the limit is %d.", c.R.ContentLength, limit)
	case limit > 0:
		c.R.Body = http.MaxBytesReader(c.W, c.R.Body, limit)
	}
	return route.Handle(c)
}

// caller says who makes the request.
func (f *Front) caller(c *Context, m *mounted, token string) (*Caller, error) {
	if m.svc.Signed != nil {
		return m.svc.Signed(c)
	}
	return f.cfg.Auth.Authenticate(c.R.Context(), token)
}

var errNoToken = fault.New(fault.Unauthorized, "The request you have made requires authentication.")

// StatusOf gives the default HTTP status of an error's kind.
func StatusOf(err error) int {
	if errors.Is(err, errNotAllowed) {
		return http.StatusMethodNotAllowed
	}
	var big *http.MaxBytesError
	if errors.As(err, &big) {
		return http.StatusRequestEntityTooLarge
	}
	switch fault.KindOf(err) {
	case fault.Invalid:
		return http.StatusBadRequest
	case fault.Unauthorized:
		return http.StatusUnauthorized
	case fault.Forbidden, fault.OverQuota:
		return http.StatusForbidden
	case fault.NotFound:
		return http.StatusNotFound
	case fault.Conflict:
		return http.StatusConflict
	case fault.TooLarge:
		return http.StatusRequestEntityTooLarge
	case fault.Gone:
		return http.StatusGone
	case fault.Unsupported:
		return http.StatusUnsupportedMediaType
	case fault.Precondition:
		return http.StatusPreconditionFailed
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	case fault.NotAcceptable:
		return http.StatusNotAcceptable
	case fault.NotImplemented:
		return http.StatusNotImplemented
	}
	return http.StatusInternalServerError
}

// Text gives what the client may read of an error, for the status.
func Text(status int, err error) string {
	if status == http.StatusMethodNotAllowed {
		return "The method is not allowed for this resource."
	}
	var big *http.MaxBytesError
	if errors.As(err, &big) {
		return fmt.Sprintf("The request body is larger than %d bytes.", big.Limit)
	}
	if text, ok := fault.Text(err); ok {
		return text
	}
	return "An unexpected error prevented the server from fulfilling your request. The operator finds the cause in the log under the request id."
}

func (f *Front) fail(c *Context, m *mounted, err error) {
	status := StatusOf(err)
	if sw := c.W.(*statusWriter); sw.status != 0 {
		c.Log.Warn("a response broke off", "err", err)
		panic(http.ErrAbortHandler) // the client must not take what it got for the whole
	}
	switch {
	case errors.Is(err, context.Canceled) && c.R.Context().Err() != nil:
		c.Log.Info("the client went away", "err", err)
	case status >= 500:
		c.Log.Error("request failed", "method", c.R.Method, "path", c.R.URL.Path, "err", err)
	default:
		c.Log.Debug("request refused", "method", c.R.Method, "path", c.R.URL.Path, "err", err)
	}
	if status == http.StatusUnauthorized && m.svc.Signed == nil {
		c.W.Header().Set("WWW-Authenticate", fmt.Sprintf("Keystone uri=%q", cmp.Or(f.cfg.IdentityURL, c.origin()+"/identity")))
	}
	if status == http.StatusServiceUnavailable {
		c.W.Header().Set("Retry-After", "1")
	}
	m.svc.Error(c, status, err)
}

// statusWriter remembers what was written.
type statusWriter struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// Hijack implements http.Hijacker, for protocols that a client switches to.
func (w *statusWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil && w.status == 0 {
		w.status = http.StatusSwitchingProtocols
	}
	return c, rw, err
}

// Unwrap serves http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
