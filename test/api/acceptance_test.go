// Package api_test runs clients that others wrote against the APIs, served in this process
// on a real etcd: gophercloud's own acceptance tests, as they stand in its module.
package api_test

import (
	"bufio"
	"bytes"
	"context"
	"log/slog"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"yakumo/api"
	"yakumo/api/keystone"
	"yakumo/identity"
	"yakumo/store"
	"yakumo/store/storetest"
)

const adminPassword = "acceptance"

// cloud is an API server in this process.
type cloud struct {
	URL      string
	Identity *identity.Identity
	Store    *store.Store
	Front    *api.Front
	Calls    *callLog
}

// callLog keeps what an API server's log says of each call.
type callLog struct {
	mu    sync.Mutex
	calls []map[string]any
}

// Enabled implements slog.Handler.
func (l *callLog) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

// Handle implements slog.Handler.
func (l *callLog) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "api" {
		return nil
	}
	call := map[string]any{}
	r.Attrs(func(a slog.Attr) bool { call[a.Key] = a.Value.Any(); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, call)
	return nil
}

// WithAttrs implements slog.Handler.
func (l *callLog) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup implements slog.Handler.
func (l *callLog) WithGroup(string) slog.Handler { return l }

// take gives what was logged since it was called last.
func (l *callLog) take() []map[string]any {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.calls
	l.calls = nil
	return out
}

// startCloud serves identity and the other services until the test ends. services may be nil.
func startCloud(t *testing.T, services func(*cloud) []api.Service) *cloud {
	t.Helper()
	st := storetest.New(t)
	id, err := identity.New(identity.Config{Store: st, Master: bytes.Repeat([]byte{1}, 32), Log: slog.New(slog.DiscardHandler),
		Hash: identity.HashParams{MemoryKiB: 1024, Passes: 1}})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(nil)
	t.Cleanup(srv.Close)
	c := &cloud{URL: "http://" + srv.Listener.Addr().String(), Identity: id, Store: st, Calls: &callLog{}}
	if err := id.Bootstrap(t.Context(), identity.Start{AdminPassword: adminPassword, BaseURL: c.URL}); err != nil {
		t.Fatal(err)
	}
	all := []api.Service{keystone.New(keystone.Config{Identity: id})}
	if services != nil {
		all = append(all, services(c)...)
	}
	c.Front, err = api.New(api.Config{Store: st, Auth: keystone.Authenticator{Identity: id}, Services: all, Log: slog.New(c.Calls)})
	if err != nil {
		t.Fatal(err)
	}
	srv.Config.Handler = c.Front
	srv.Start()
	return c
}

// acceptance is one run of a package of gophercloud's acceptance tests.
type acceptance struct {
	Package string            // below internal/acceptance/openstack: "identity/v3"
	Run     string            // as of go test -run; empty: all
	Env     map[string]string // over the administrator's
	Skips   map[string]string // tests that may skip, and why; any other skip fails
	// Omit are tests that cannot run here at all (they download from outside), and why.
	Omit map[string]string
}

// environment is what the acceptance tests' clients read: an administrator, and names for
// what tests of other services look for.
func (c *cloud) environment() map[string]string {
	return map[string]string{
		"OS_AUTH_URL": c.URL + "/identity/v3", "OS_USERNAME": "admin", "OS_PASSWORD": adminPassword, "OS_PROJECT_NAME": "admin",
		"OS_TENANT_NAME": "admin", "OS_DOMAIN_ID": "default", "OS_USER_DOMAIN_ID": "default", "OS_PROJECT_DOMAIN_ID": "default", "OS_REGION_NAME": "RegionOne", "OS_IDENTITY_API_VERSION": "3",
		"OS_BRANCH": "master", "OS_IMAGE_ID": "none", "OS_FLAVOR_ID": "1", "OS_FLAVOR_ID_RESIZE": "2", "OS_NETWORK_NAME": "private",
		"OS_NETWORK_ID": "none", "OS_SUBNET_ID": "none", "OS_POOL_NAME": "public", "OS_EXTGW_ID": "none",
	}
}

var verdict = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): (\S+)`)

// run builds the package with the tag acceptance, runs it against the cloud, and reports
// each of its tests as a subtest.
func (a acceptance) run(t *testing.T, c *cloud) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "acceptance.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "acceptance", "-o", binary,
		"github.com/gophercloud/gophercloud/v2/internal/acceptance/openstack/"+a.Package)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", a.Package, err, out)
	}
	args := []string{"-test.v", "-test.timeout=5m"}
	if a.Run != "" {
		args = append(args, "-test.run="+a.Run)
	}
	if len(a.Omit) > 0 {
		args = append(args, "-test.skip=^("+strings.Join(slices.Sorted(maps.Keys(a.Omit)), "|")+")$")
	}
	run := exec.CommandContext(t.Context(), binary, args...)
	run.Dir = t.TempDir()
	run.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + run.Dir, "TMPDIR=" + run.Dir}
	env := c.environment()
	maps.Copy(env, a.Env)
	for k, v := range env {
		run.Env = append(run.Env, k+"="+v)
	}
	out, err := run.CombinedOutput()
	results := map[string]string{}
	logs := map[string][]string{}
	current := ""
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		line := lines.Text()
		if name, ok := strings.CutPrefix(line, "=== RUN   "); ok {
			current = strings.Split(name, "/")[0]
		}
		if m := verdict.FindStringSubmatch(line); m != nil {
			results[m[2]] = m[1]
		}
		logs[current] = append(logs[current], line)
	}
	if len(results) == 0 {
		t.Fatalf("%s ran no test: %v\n%s", a.Package, err, out)
	}
	failed := false
	for _, name := range slices.Sorted(maps.Keys(results)) {
		t.Run(path.Base(name), func(t *testing.T) {
			switch verdict := results[name]; {
			case verdict == "FAIL":
				failed = true
				t.Errorf("gophercloud's test failed:\n%s", strings.Join(logs[name], "\n"))
			case verdict == "SKIP" && a.Skips[name] == "":
				t.Errorf("gophercloud's test was skipped:\n%s", strings.Join(logs[name], "\n"))
			}
		})
	}
	if err != nil && !failed { // a panic or the like
		t.Errorf("%s: %v\n%s", a.Package, err, out[max(0, len(out)-4000):])
	}
	for name := range a.Skips {
		if results[name] != "SKIP" {
			t.Errorf("%s is expected to skip, but: %q", name, results[name])
		}
	}
}
