package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"yakumo/store/storetest"
)

const asProgram = "YAKUMO_TEST_AS_PROGRAM"

// TestMain lets the test binary be the program: tests start it as other processes.
func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

const password = "a-long-password-for-tests"

// proc is a `yakumo server` process.
type proc struct {
	t                      *testing.T
	name, api, link, debug string
	cmd                    *exec.Cmd
	mu                     sync.Mutex
	log                    bytes.Buffer
	done                   chan struct{} // closed when the process has ended
	err                    error
}

func (p *proc) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *proc) logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// shared is what the servers of one cloud have in common.
type shared struct {
	dir  string
	etcd []string
}

func newShared(t *testing.T, etcd []string) shared {
	t.Helper()
	s := shared{dir: t.TempDir(), etcd: etcd}
	if err := os.WriteFile(filepath.Join(s.dir, "password"), []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "master.key"), []byte(base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func newProc(t *testing.T, name string) *proc {
	return &proc{t: t, name: name, api: storetest.FreeAddress(t), link: storetest.FreeAddress(t), debug: storetest.FreeAddress(t)}
}

// start runs the server, for the first time or again; prepare may be nil.
func (p *proc) start(s shared, prepare func(*exec.Cmd)) {
	p.t.Helper()
	args := []string{"server", "--name", p.name, "--data-dir", filepath.Join(s.dir, p.name), "--listen", p.api, "--link-listen", p.link,
		"--link-url", "https://" + p.link, "--debug-listen", p.debug, "--public-url", "http://" + p.api, "--image-dir", filepath.Join(s.dir, "images"),
		"--admin-password-file", filepath.Join(s.dir, "password")}
	if len(s.etcd) > 0 {
		args = append(args, "--etcd-endpoints", strings.Join(s.etcd, ","), "--master-key-file", filepath.Join(s.dir, "master.key"))
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.Stdout, cmd.Stderr = p, p
	if prepare != nil {
		prepare(cmd)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	go func() { p.err = cmd.Wait(); close(done) }()
	p.t.Cleanup(func() {
		cmd.Process.Kill()
		<-done
		if p.t.Failed() {
			log := p.logged()
			p.t.Logf("log of %s:\n%s", p.name, log[max(0, len(log)-6000):])
		}
	})
}

func (p *proc) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// ready waits until the server is healthy.
func (p *proc) ready() {
	p.t.Helper()
	p.until(patience, "healthy", func() bool {
		code, _, _ := p.get("http://"+p.api+"/healthz", "")
		return code == http.StatusOK
	})
}

// patience bounds each wait: other tests may have the processors meanwhile.
const patience = 90 * time.Second

func (p *proc) until(d time.Duration, what string, f func() bool) {
	p.t.Helper()
	deadline := time.After(d)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-p.done:
			p.t.Fatalf("%s: not %s, and it has ended: %v", p.name, what, p.err)
		case <-deadline:
			p.t.Fatalf("%s: not %s after %s", p.name, what, d)
		}
	}
}

// get gives status 0 where there is no answer.
func (p *proc) get(url, token string) (int, http.Header, string) {
	return p.call("GET", url, token, "")
}

// web bounds every call: a server that does not answer fails the test.
func (p *proc) call(method, url, token, body string) (int, http.Header, string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("X-Auth-Token", token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if strings.HasSuffix(url, "/file") {
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	if strings.Contains(url, "/compute/") {
		req.Header.Set("OpenStack-API-Version", "compute 2.37")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, err.Error()
	}
	return resp.StatusCode, resp.Header, string(b)
}

// at calls the server's API and wants the status; it gives the decoded body.
func (p *proc) at(method, path, token, body string, want int) map[string]any {
	p.t.Helper()
	code, _, text := p.call(method, "http://"+p.api+path, token, body)
	if code != want {
		p.t.Fatalf("%s: %s %s gives %d, want %d: %s", p.name, method, path, code, want, text)
	}
	out := map[string]any{}
	if text != "" {
		if err := json.Unmarshal([]byte(text), &out); err != nil {
			p.t.Fatalf("%s %s: %v: %s", method, path, err, text)
		}
	}
	return out
}

// login gives a token of the user in the project.
func (p *proc) login(user, pass, project string) string {
	p.t.Helper()
	code, h, body := p.call("POST", "http://"+p.api+"/identity/v3/auth/tokens", "", `{"auth":{"identity":{"methods":["password"],"password":{"user":{"name":"`+user+`","domain":{"id":"default"},"password":"`+pass+
		`"}}},"scope":{"project":{"name":"`+project+`","domain":{"id":"default"}}}}}`)
	if code != http.StatusCreated {
		p.t.Fatalf("%s: login of %s: %d %s", p.name, user, code, body)
	}
	return h.Get("X-Subject-Token")
}

// id digs an id out of {"what": {"id": …}}.
func id(t *testing.T, doc map[string]any, what string) string {
	t.Helper()
	m, _ := doc[what].(map[string]any)
	s, _ := m["id"].(string)
	if s == "" {
		t.Fatalf("no id of a %s in %v", what, doc)
	}
	return s
}

// leads tells which of the servers was elected last for a controller, as their logs say.
func leads(election string, procs ...*proc) *proc {
	var last *proc
	var at string
	for _, p := range procs {
		for _, line := range strings.Split(p.logged(), "\n") {
			if strings.Contains(line, "msg=elected") && strings.Contains(line, "election="+election) {
				if when := strings.Fields(line)[0]; when >= at {
					last, at = p, when
				}
			}
		}
	}
	return last
}

func (p *proc) interrupt() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
}
