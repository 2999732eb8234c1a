package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"yakumo/cli"
)

// stock is python3-openstackclient with somebody's credentials.
type stock struct{ env []string }

func newStock(t *testing.T, c cli.Credentials) *stock {
	home := t.TempDir()
	return &stock{[]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + home, "LANG=C.UTF-8",
		"OS_AUTH_URL=" + c.AuthURL, "OS_IDENTITY_API_VERSION=3", "OS_USERNAME=" + c.Username, "OS_PASSWORD=" + c.Password,
		"OS_PROJECT_NAME=" + c.Project, "OS_USER_DOMAIN_NAME=" + c.UserDomain, "OS_PROJECT_DOMAIN_NAME=" + c.ProjectDomain, "OS_REGION_NAME=RegionOne"}}
}

// try runs one command.
func (s *stock) try(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	return s.exec(t.Context(), args...)
}

func (s *stock) exec(ctx context.Context, args ...string) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	// Debian's: another Python's client may stand before it in the path of who runs the tests.
	cmd := exec.CommandContext(ctx, "/usr/bin/openstack", args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = s.env, &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// do runs a command that must succeed.
func (s *stock) do(t *testing.T, args ...string) string {
	t.Helper()
	out, errs, err := s.try(t, args...)
	if err != nil {
		t.Fatalf("openstack %s: %v\n%s%s", strings.Join(args, " "), err, out, errs)
	}
	return out
}

// refused runs a command that must fail with the words in what it says.
func (s *stock) refused(t *testing.T, words string, args ...string) {
	t.Helper()
	out, errs, err := s.try(t, args...)
	if err == nil || !strings.Contains(errs, words) {
		t.Errorf("openstack %s: %v, want a failure that says %q\n%s%s", strings.Join(args, " "), err, words, out, errs)
	}
}

// show runs a command and gives its one object.
func (s *stock) show(t *testing.T, args ...string) map[string]any {
	t.Helper()
	var v map[string]any
	s.decode(t, &v, args)
	return v
}

// list runs a command and gives its rows.
func (s *stock) list(t *testing.T, args ...string) []map[string]any {
	t.Helper()
	var v []map[string]any
	s.decode(t, &v, args)
	return v
}

func (s *stock) decode(t *testing.T, v any, args []string) {
	t.Helper()
	out := s.do(t, append(args, "-f", "json")...)
	d := json.NewDecoder(strings.NewReader(out))
	d.UseNumber() // sizes as they are written
	if err := d.Decode(v); err != nil {
		t.Fatalf("openstack %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// has fails unless a row has the values (pairs of column and value), and gives the row.
func has(t *testing.T, rows []map[string]any, pairs ...string) map[string]any {
	t.Helper()
	for _, r := range rows {
		ok := true
		for i := 0; i < len(pairs); i += 2 {
			ok = ok && fmt.Sprint(r[pairs[i]]) == pairs[i+1]
		}
		if ok {
			return r
		}
	}
	t.Errorf("no row has %q: %v", pairs, rows)
	return nil
}

// hasNot fails if a row has the value.
func hasNot(t *testing.T, rows []map[string]any, column, value string) {
	t.Helper()
	for _, r := range rows {
		if fmt.Sprint(r[column]) == value {
			t.Errorf("a row has %s=%s: %v", column, value, r)
		}
	}
}

// want fails unless the object has the values (pairs of field and value).
func want(t *testing.T, o map[string]any, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if got := fmt.Sprint(o[pairs[i]]); got != pairs[i+1] {
			t.Errorf("%s is %q, want %q: %v", pairs[i], got, pairs[i+1], o)
		}
	}
}
