package api_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// stockLoop is the stock client as a process of its own: a command a line in, what it said a line out. It
// is the client's own entry point, called again and again, since its start alone takes a second.
const stockLoop = `
import contextlib, io, json, sys
from openstackclient import shell
for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = shell.main(json.loads(line))
        except SystemExit as e:
            code = e.code or 0
    print(json.dumps({"code": code, "out": out.getvalue(), "err": err.getvalue()}), flush=True)
`

// stock is Debian's python-openstackclient, or another command, with somebody's credentials.
type stock struct {
	t *testing.T
	// command is what a message calls it.
	command string
	in      io.WriteCloser
	out     *bufio.Scanner
	// ids keeps what $name stands for in later commands.
	ids map[string]string
}

func startStock(t *testing.T, c *cloud, user, password, project string) *stock {
	t.Helper()
	return startLoop(t, "openstack", stockLoop, "OS_AUTH_URL="+c.URL+"/identity/v3", "OS_IDENTITY_API_VERSION=3",
		"OS_USERNAME="+user, "OS_PASSWORD="+password, "OS_PROJECT_NAME="+project, "OS_USER_DOMAIN_NAME=Default", "OS_PROJECT_DOMAIN_NAME=Default", "OS_REGION_NAME=RegionOne",
		"OS_COMPUTE_API_VERSION=2.90") // without it the client asks for 2.1
}

// startLoop starts a client of Debian's that is called again and again, with more of an environment.
func startLoop(t *testing.T, command, loop string, env ...string) *stock {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "-c", loop)
	cmd.Env = append([]string{"PATH=/usr/bin:/bin", "HOME=" + t.TempDir(), "LANG=C.UTF-8"}, env...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("the stock client %s: %v", command, err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil && t.Context().Err() == nil {
			t.Errorf("the stock client %s ended: %v", command, err)
		}
	})
	s := &stock{t: t, command: command, in: in, out: bufio.NewScanner(out), ids: map[string]string{}}
	s.out.Buffer(nil, 4<<20)
	return s
}

// run gives what a command said. $name in an argument stands for an id that was kept.
func (s *stock) run(args ...string) (code int, out, errs string) {
	s.t.Helper()
	full := make([]string, len(args))
	for i, a := range args {
		full[i] = a
		for name, id := range s.ids {
			full[i] = strings.ReplaceAll(full[i], "$"+name, id)
		}
	}
	line, err := json.Marshal(full)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.in.Write(append(line, '\n')); err != nil {
		s.t.Fatal(err)
	}
	if !s.out.Scan() {
		s.t.Fatalf("the stock client is gone: %v", s.out.Err())
	}
	var r struct {
		Code     int
		Out, Err string
	}
	if err := json.Unmarshal(s.out.Bytes(), &r); err != nil {
		s.t.Fatal(err)
	}
	return r.Code, r.Out, r.Err
}

// do runs a command, written as on a command line without quotes (_ stands for a space inside an argument), that must succeed.
func (s *stock) do(line string) string {
	s.t.Helper()
	code, out, errs := s.run(words(line)...)
	if code != 0 {
		s.t.Errorf("%s %s: exit %d\n%s%s", s.command, line, code, out, errs)
	}
	return out
}

func words(line string) []string {
	list := strings.Fields(line)
	for i := range list {
		list[i] = strings.ReplaceAll(list[i], "~", " ")
	}
	return list
}

// make runs a command that makes something, and keeps its id as name.
func (s *stock) make(name, line string) map[string]any {
	s.t.Helper()
	o := s.show(line)
	s.ids[name] = fmt.Sprint(o["id"])
	return o
}

// show gives a command's one object.
func (s *stock) show(line string) map[string]any {
	s.t.Helper()
	var o map[string]any
	out := s.do(line + " -f json")
	if err := json.Unmarshal([]byte(out), &o); err != nil {
		s.t.Fatalf("openstack %s: %v: %s", line, err, out)
	}
	return o
}

// list gives a command's rows.
func (s *stock) list(line string) []map[string]any {
	s.t.Helper()
	var o []map[string]any
	out := s.do(line + " -f json")
	if err := json.Unmarshal([]byte(out), &o); err != nil {
		s.t.Fatalf("openstack %s: %v: %s", line, err, out)
	}
	return o
}

// wants checks attributes of an object, given as name=text; the text must be in what is printed.
func (s *stock) wants(line string, pairs ...string) {
	s.t.Helper()
	o := s.show(line)
	for _, p := range pairs {
		name, text, _ := strings.Cut(p, "=")
		for n, id := range s.ids {
			text = strings.ReplaceAll(text, "$"+n, id)
		}
		b, err := json.Marshal(o[name])
		if err != nil {
			s.t.Fatal(err)
		}
		if !strings.Contains(string(b), text) {
			s.t.Errorf("openstack %s: %s is %s, want %q in it", line, name, b, text)
		}
	}
}

// refused runs a command that must fail with the words in what it says.
func (s *stock) refused(text, line string) {
	s.t.Helper()
	code, out, errs := s.run(words(line)...)
	if code == 0 || !strings.Contains(out+errs, text) || strings.Contains(errs, "Traceback") || strings.Contains(errs, "The resource could not be found.") {
		s.t.Errorf("openstack %s: exit %d, want a failure that says %q\n%s%s", line, code, text, out, errs)
	}
	if testing.Verbose() {
		s.t.Logf("openstack %s: %s", line, strings.TrimSpace(errs))
	}
}
