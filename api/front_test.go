package api_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
	"yakumo/store/storetest"
)

// callers authenticates by name.
type callers map[string]*api.Caller

func (c callers) Authenticate(_ context.Context, token string) (*api.Caller, error) {
	if who, ok := c[token]; ok {
		return who, nil
	}
	return nil, fault.New(fault.Unauthorized, "no")
}

var people = callers{
	"cloud":    {UserID: "cloud", ProjectID: "p", CloudAdmin: true, RoleNames: []string{"admin", "manager", "member", "reader"}},
	"admin":    {UserID: "admin", ProjectID: "p", RoleNames: []string{"admin", "manager", "member", "reader"}},
	"member":   {UserID: "member", ProjectID: "p", RoleNames: []string{"member", "reader"}},
	"reader":   {UserID: "reader", ProjectID: "p", RoleNames: []string{"reader"}},
	"manager":  {UserID: "manager", DomainID: "d", RoleNames: []string{"manager", "member", "reader"}},
	"domember": {UserID: "domember", DomainID: "d", RoleNames: []string{"member", "reader"}},
	"unscoped": {UserID: "unscoped"},
	"limited":  {UserID: "limited", ProjectID: "p", RoleNames: []string{"member", "reader"}, Limited: true, Rules: []api.AccessRule{{Service: "thing", Method: "GET", Path: "/reader"}}},
	"nothing":  {UserID: "nothing", ProjectID: "p", RoleNames: []string{"member", "reader"}, Limited: true},
}

func writeError(c *api.Context, status int, err error) {
	c.W.Header().Set("Content-Type", "text/plain")
	c.W.WriteHeader(status)
	fmt.Fprintf(c.W, "dialect: %s", api.Text(status, err))
}

func ok(c *api.Context) error {
	return c.JSON(200, map[string]any{"param": c.Param("id"), "version": c.Version.String()})
}

func route(method, pattern string, access api.Access, h api.Handler) api.Route {
	return api.Route{Method: method, Pattern: pattern, Access: access, Handle: h}
}

func serve(t *testing.T, svc api.Service, change ...func(*api.Config)) string {
	t.Helper()
	if svc.Name == "" {
		svc.Name, svc.Prefix = "thing", "/thing"
	}
	svc.Error = writeError
	cfg := api.Config{Auth: people, Services: []api.Service{svc}, Log: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&cfg)
	}
	front, err := api.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(front)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.Start()
	t.Cleanup(srv.Close)
	return srv.URL
}

func call(t *testing.T, method, url, token string, body io.Reader, headers ...string) (*http.Response, string) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		q.Header.Set("X-Auth-Token", token)
	}
	for n := 0; n < len(headers); n += 2 {
		q.Header.Set(headers[n], headers[n+1])
	}
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

func TestClassesOfAccess(t *testing.T) {
	var routes []api.Route
	for _, a := range []api.Access{api.Public, api.Anyone, api.Reader, api.Member, api.Admin, api.Manager} {
		routes = append(routes, route("GET", "/"+a.String(), a, ok))
	}
	url := serve(t, api.Service{Routes: routes})
	for class, allowed := range map[string]string{
		"public":  "- cloud admin member reader manager domember unscoped limited nothing",
		"anyone":  "cloud admin member reader manager domember unscoped",
		"reader":  "cloud admin member reader limited",
		"member":  "cloud admin member",
		"admin":   "cloud",
		"manager": "cloud manager",
	} {
		want := map[string]bool{}
		for _, who := range strings.Fields(allowed) {
			want[who] = true
		}
		for _, who := range []string{"-", "cloud", "admin", "member", "reader", "manager", "domember", "unscoped", "limited", "nothing", "stranger"} {
			token := strings.TrimPrefix(who, "-")
			resp, text := call(t, "GET", url+"/thing/"+class, token, nil)
			expect := 403
			switch {
			case want[who] || class == "public":
				expect = 200
			case token == "", who == "stranger", who == "limited", who == "nothing":
				expect = 401
			}
			if resp.StatusCode != expect {
				t.Errorf("%s on %s: %d %s, want %d", who, class, resp.StatusCode, text, expect)
			}
			if asks := resp.Header.Get("WWW-Authenticate"); (asks != "") != (expect == 401) {
				t.Errorf("%s on %s: WWW-Authenticate is %q", who, class, asks)
			}
		}
	}
}

func TestMisbuiltServicesAreRefused(t *testing.T) {
	for name, services := range map[string][]api.Service{
		"no access":     {{Name: "a", Prefix: "/a", Routes: []api.Route{{Method: "GET", Pattern: "/", Handle: ok}}}},
		"no handler":    {{Name: "a", Prefix: "/a", Routes: []api.Route{{Method: "GET", Pattern: "/", Access: api.Public}}}},
		"no prefix":     {{Name: "a"}},
		"prefix twice":  {{Name: "a", Prefix: "/a"}, {Name: "b", Prefix: "/a"}},
		"prefix, slash": {{Name: "a", Prefix: "a"}},
	} {
		if _, err := api.New(api.Config{Services: services}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestRouting(t *testing.T) {
	url := serve(t, api.Service{Routes: []api.Route{route("GET", "/", api.Public, ok), route("GET", "/x/{id}", api.Public, ok), route("PUT", "/x/{id}/y", api.Public, ok)}})
	id := regexp.MustCompile(`^req-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	for _, q := range []struct {
		method, path, token string
		status              int
		has                 string
	}{
		{"GET", "/thing", "", 200, ""}, {"GET", "/thing/", "", 200, ""}, {"GET", "/thing/x/one", "", 200, `"param":"one"`}, {"GET", "/thing/x/a%2Fb", "", 200, `"param":"a/b"`},
		{"GET", "/thing/x/a%20b%25", "", 200, `"param":"a b%"`}, {"PUT", "/thing/x/a%2Fb/y", "", 200, `"param":"a/b"`}, {"HEAD", "/thing/x/one", "", 200, ""},
		{"GET", "/thing/nothing", "", 401, "dialect:"}, {"GET", "/thing/nothing", "member", 404, "dialect:"}, {"POST", "/thing/x/one", "member", 405, "dialect:"},
		{"GET", "/", "", 404, "/thing"}, {"GET", "/thingy", "", 404, "/thing"}, {"GET", "/nothing/x", "", 404, "/thing"},
	} {
		resp, text := call(t, q.method, url+q.path, q.token, nil)
		if resp.StatusCode != q.status || !strings.Contains(text, q.has) {
			t.Errorf("%s %s: %d %s", q.method, q.path, resp.StatusCode, text)
		}
		if q.method == "HEAD" && text != "" {
			t.Errorf("HEAD has the body %q", text)
		}
		if got := resp.Header.Get("X-Openstack-Request-Id"); strings.HasPrefix(q.path, "/thing/") && !id.MatchString(got) {
			t.Errorf("%s: the request id is %q", q.path, got)
		}
	}
}

func TestLargeBodies(t *testing.T) {
	read := func(c *api.Context) error {
		var v any
		if err := c.Decode(&v); err != nil {
			return err
		}
		return c.Empty(204)
	}
	url := serve(t, api.Service{Routes: []api.Route{route("POST", "/small", api.Public, read), {Method: "POST", Pattern: "/free", Access: api.Public, Handle: read, MaxBody: -1},
		{Method: "POST", Pattern: "/ten", Access: api.Public, Handle: read, MaxBody: 10}}})
	json := func(n int) string { return `"` + strings.Repeat("x", n-2) + `"` }
	for _, q := range []struct {
		path   string
		size   int
		status int
	}{{"/small", 1 << 20, 204}, {"/small", 1<<20 + 1, 413}, {"/free", 3 << 20, 204}, {"/ten", 10, 204}, {"/ten", 11, 413}} {
		if resp, text := call(t, "POST", url+"/thing"+q.path, "", strings.NewReader(json(q.size))); resp.StatusCode != q.status {
			t.Errorf("%s with %d bytes: %d %s", q.path, q.size, resp.StatusCode, text)
		}
		// The same without a Content-Length.
		if resp, text := call(t, "POST", url+"/thing"+q.path, "", io.MultiReader(strings.NewReader(json(q.size)))); resp.StatusCode != q.status {
			t.Errorf("%s with %d bytes in chunks: %d %s", q.path, q.size, resp.StatusCode, text)
		}
	}
}

// shared is a buffer that the server writes while the test reads.
type shared struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *shared) Write(p []byte) (int, error) { s.mu.Lock(); defer s.mu.Unlock(); return s.b.Write(p) }
func (s *shared) String() string              { s.mu.Lock(); defer s.mu.Unlock(); return s.b.String() }

func TestBrokenHandlers(t *testing.T) {
	log := &shared{}
	url := serve(t, api.Service{Routes: []api.Route{
		route("GET", "/panic", api.Public, func(*api.Context) error { panic("a secret") }),
		route("GET", "/fails", api.Public, func(*api.Context) error { return errors.New("a secret") }),
		route("GET", "/late", api.Public, func(c *api.Context) error {
			c.W.Header().Set("Content-Length", "10")
			c.W.WriteHeader(200)
			if _, err := c.W.Write([]byte("half")); err != nil {
				return err
			}
			return errors.New("a secret")
		}),
		route("GET", "/kind", api.Public, func(c *api.Context) error { return fault.New(fault.Conflict, "It is taken.") }),
	}}, func(cfg *api.Config) { cfg.Log = slog.New(slog.NewTextHandler(log, nil)) })
	for _, path := range []string{"/panic", "/fails"} {
		resp, text := call(t, "GET", url+"/thing"+path, "", nil)
		if resp.StatusCode != 500 || !strings.HasPrefix(text, "dialect: An unexpected error") || strings.Contains(text, "secret") {
			t.Errorf("%s: %d %s", path, resp.StatusCode, text)
		}
		if !strings.Contains(log.String(), "a secret") || !strings.Contains(log.String(), resp.Header.Get("X-Openstack-Request-Id")) {
			t.Errorf("%s: the log does not say why: %s", path, log.String())
		}
	}
	if resp, text := call(t, "GET", url+"/thing/kind", "", nil); resp.StatusCode != 409 || text != "dialect: It is taken." {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
	resp, err := http.Get(url + "/thing/late")
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("half a response passed for a whole one")
	}
}

func TestMicroversions(t *testing.T) {
	svc := api.Service{Versions: &api.VersionRange{Service: "compute", Legacy: "X-OpenStack-Nova-API-Version", Min: api.Version{Major: 2, Minor: 1}, Max: api.Version{Major: 2, Minor: 90}},
		Routes: []api.Route{route("GET", "/old", api.Public, ok), {Method: "GET", Pattern: "/new", Access: api.Public, Handle: ok, MinVersion: api.Version{Major: 2, Minor: 60}}}}
	url := serve(t, svc)
	for _, q := range []struct {
		path, header, value string
		status              int
		version             string
	}{
		{"/old", "", "", 200, "2.1"}, {"/old", "OpenStack-API-Version", "compute 2.53", 200, "2.53"}, {"/old", "OpenStack-API-Version", "volume 3.1, compute 2.9", 200, "2.9"},
		{"/old", "OpenStack-API-Version", "volume 3.1", 200, "2.1"}, {"/old", "OpenStack-API-Version", "compute latest", 200, "2.90"}, {"/old", "X-OpenStack-Nova-API-Version", "2.7", 200, "2.7"},
		{"/old", "OpenStack-API-Version", "compute 2.91", 406, ""}, {"/old", "OpenStack-API-Version", "compute 1.1", 406, ""}, {"/old", "OpenStack-API-Version", "compute two", 400, ""},
		{"/old", "OpenStack-API-Version", "compute 2.-1", 400, ""}, {"/new", "", "", 401, ""}, {"/new", "OpenStack-API-Version", "compute 2.60", 200, "2.60"},
	} {
		var headers []string
		if q.header != "" {
			headers = []string{q.header, q.value}
		}
		resp, text := call(t, "GET", url+"/thing"+q.path, "", nil, headers...)
		if q.path == "/new" && q.header == "" {
			q.status = 404
		}
		if resp.StatusCode != q.status {
			t.Errorf("%s, %s: %d %s", q.path, q.value, resp.StatusCode, text)
		}
		if q.status != 200 {
			continue
		}
		if got := resp.Header.Get("OpenStack-API-Version"); got != "compute "+q.version || resp.Header.Get("X-OpenStack-Nova-API-Version") != q.version || !strings.Contains(text, q.version) {
			t.Errorf("%s: version %q, body %s", q.value, got, text)
		}
		if vary := resp.Header.Values("Vary"); len(vary) != 2 {
			t.Errorf("Vary: %v", vary)
		}
	}
}

// latest authenticates whoever has a setting, in the store as the server sees it.
type latest struct{ st *store.Store }

func (l latest) Authenticate(_ context.Context, token string) (*api.Caller, error) {
	if _, ok := store.Settings.Get(l.st.Snapshot(), token); ok {
		return &api.Caller{UserID: token}, nil
	}
	return nil, fault.New(fault.Unauthorized, "no")
}

func TestATokenIsJudgedByWhatEveryServerHasWritten(t *testing.T) {
	cl, prefix := storetest.Client(t)
	here, there := storetest.Open(t, cl, prefix), storetest.Open(t, cl, prefix)
	url := serve(t, api.Service{Routes: []api.Route{route("GET", "/x", api.Anyone, ok)}}, func(cfg *api.Config) { cfg.Store, cfg.Auth = here, latest{here} })
	for n := range 50 {
		name := fmt.Sprint("user", n)
		put := func(f func(*store.Tx) error) {
			t.Helper()
			if _, err := there.Update(t.Context(), f); err != nil {
				t.Fatal(err)
			}
		}
		put(func(tx *store.Tx) error { return store.Settings.Put(tx, &model.Setting{Name: name}) })
		if resp, _ := call(t, "GET", url+"/thing/x", name, nil); resp.StatusCode != 200 {
			t.Fatalf("a caller that another server has made: %d", resp.StatusCode)
		}
		put(func(tx *store.Tx) error { return store.Settings.Delete(tx, name) })
		if resp, _ := call(t, "GET", url+"/thing/x", name, nil); resp.StatusCode != 401 {
			t.Fatalf("a caller that another server has taken away: %d", resp.StatusCode)
		}
	}
}

func TestMetricsAndTable(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	url := serve(t, api.Service{Routes: []api.Route{route("GET", "/x/{id}", api.Reader, ok), route("DELETE", "/x/{id}", api.Member, ok)}}, func(cfg *api.Config) { cfg.Metrics = reg })
	call(t, "GET", url+"/thing/x/1", "reader", nil)
	call(t, "GET", url+"/thing/x/2", "reader", nil)
	call(t, "GET", url+"/thing/x/2", "unscoped", nil)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]uint64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			counts[labels["route"]+" "+labels["code"]] = m.GetHistogram().GetSampleCount()
		}
	}
	if counts["/x/{id} 200"] != 2 || counts["/x/{id} 403"] != 1 {
		t.Errorf("%v", counts)
	}
	front, err := api.New(api.Config{Services: []api.Service{{Name: "b", Prefix: "/b", Routes: []api.Route{route("PUT", "/y", api.Admin, ok), route("GET", "/y", api.Reader, ok)}}, {Name: "a", Prefix: "/a", Routes: []api.Route{route("GET", "/", api.Public, ok)}}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(front.Table()); got != "[{a GET /a/ public} {b GET /b/y reader} {b PUT /b/y admin}]" {
		t.Error(got)
	}
}

func TestStatusOfEveryKind(t *testing.T) {
	for k, want := range map[fault.Kind]int{fault.Internal: 500, fault.Invalid: 400, fault.Unauthorized: 401, fault.Forbidden: 403, fault.NotFound: 404, fault.Conflict: 409, fault.OverQuota: 403,
		fault.TooLarge: 413, fault.Gone: 410, fault.Unsupported: 415, fault.Precondition: 412, fault.Unavailable: 503, fault.NotAcceptable: 406, fault.NotImplemented: 501} {
		err := fmt.Errorf("wrapped: %w", fault.Wrap(k, errors.New("a secret"), "Text."))
		if got := api.StatusOf(err); got != want {
			t.Errorf("%s: %d", k, got)
		}
		if text := api.Text(want, err); strings.Contains(text, "secret") || k != fault.Internal && text != "Text." {
			t.Errorf("%s: %q", k, text)
		}
	}
}

func TestDecodeJSON(t *testing.T) {
	type thing struct {
		Name string `json:"name"`
		N    int    `json:"n"`
	}
	for body, want := range map[string]string{
		`{"name": "a", "n": 1}`: "", `{"name": "a", "other": 1} `: "", ``: "needs a JSON body", ` `: "needs a JSON body", `{`: "not valid JSON", `{"name": 7}`: "field 'name'", `{"n": 1.5}`: "field 'n'",
		`{} {}`: "after its JSON value", `{}]`: "after its JSON value", `[]`: "wrong type", "\xff": "not valid JSON",
	} {
		var v thing
		err := api.DecodeJSON(strings.NewReader(body), &v)
		switch text, _ := fault.Text(err); {
		case want == "" && err != nil, want != "" && (!fault.Is(err, fault.Invalid) || !strings.Contains(text, want)):
			t.Errorf("%q: %v", body, err)
		}
	}
}
