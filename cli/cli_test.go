package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"yakumo/fault"
)

// fakeAPI answers as Yakumo's API does, and keeps what it was asked.
func fakeAPI(t *testing.T, answer http.HandlerFunc) (string, *[]string) {
	t.Helper()
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		asked = append(asked, r.Method+" "+r.URL.EscapedPath()+" "+r.Header.Get("X-Auth-Token")+" "+string(b))
		if r.URL.Path == "/identity/v3/auth/tokens" {
			if strings.Contains(string(b), `"password":"wrong"`) {
				w.WriteHeader(401)
				fmt.Fprint(w, `{"error":{"code":401,"title":"Unauthorized","message":"The request you have made requires authentication."}}`)
				return
			}
			w.Header().Set("X-Subject-Token", "tok")
			w.WriteHeader(201)
			fmt.Fprint(w, `{"token":{}}`)
			return
		}
		answer(w, r)
	}))
	t.Cleanup(srv.Close)
	t.Setenv("OS_AUTH_URL", srv.URL+"/identity/v3")
	t.Setenv("OS_USERNAME", "admin")
	t.Setenv("OS_PASSWORD", "pw")
	t.Setenv("OS_PROJECT_NAME", "admin")
	t.Setenv("OS_USER_DOMAIN_NAME", "")
	t.Setenv("OS_PROJECT_DOMAIN_NAME", "other")
	return srv.URL, &asked
}

// stdout gives what f prints.
func stdout(t *testing.T, f func() error) (string, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	old := os.Stdout
	os.Stdout = w
	ferr := f()
	os.Stdout = old
	w.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), ferr
}

func TestEnvironment(t *testing.T) {
	fakeAPI(t, nil)
	c, err := FromEnv()
	if err != nil || c.UserDomain != "Default" || c.ProjectDomain != "other" || c.Username != "admin" {
		t.Errorf("%+v, %v", c, err)
	}
	for _, v := range []string{"OS_AUTH_URL", "OS_USERNAME", "OS_PASSWORD", "OS_PROJECT_NAME"} {
		t.Run(v, func(t *testing.T) {
			t.Setenv(v, "")
			if _, err := FromEnv(); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), v) {
				t.Errorf("without %s: %v", v, err)
			}
		})
	}
}

func TestLogin(t *testing.T) {
	url, asked := fakeAPI(t, nil)
	c, err := FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Login(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	var sent struct {
		Auth struct {
			Identity struct {
				Password struct {
					User struct {
						Name, Password string
						Domain         struct{ Name string }
					}
				}
			}
			Scope struct {
				Project struct {
					Name   string
					Domain struct{ Name string }
				}
			}
		}
	}
	_, body, _ := strings.Cut((*asked)[0], "  ")
	if err := json.Unmarshal([]byte(body), &sent); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	u, p := sent.Auth.Identity.Password.User, sent.Auth.Scope.Project
	if u.Name != "admin" || u.Password != "pw" || u.Domain.Name != "Default" || p.Name != "admin" || p.Domain.Name != "other" {
		t.Errorf("sent %s", body)
	}
	c.Password = "wrong"
	if _, err := Login(t.Context(), c); err == nil || err.Error() != "The request you have made requires authentication." {
		t.Errorf("a wrong password: %v", err)
	}
	c.AuthURL = url + "/keystone"
	if _, err := Login(t.Context(), c); !fault.Is(err, fault.Invalid) {
		t.Errorf("another cloud's URL: %v", err)
	}
	c.AuthURL = "http://127.0.0.1:1/identity"
	if _, err := Login(t.Context(), c); !fault.Is(err, fault.Unavailable) {
		t.Errorf("nobody there: %v", err)
	}
}

const hostsBody = `{"hosts":[{"id":"1","name":"h1","zone":"nova","up":true,"tunnel_ip":"192.0.2.1","version":"v1","servers":2,"ports":3,
	"capacity":{"vcpus":4,"memory_mib":1024,"disk_gib":9,"accelerator":"kvm"}},{"id":"2","name":"h2","up":true,"disabled":true},{"id":"3","name":"h3"}]}`

func TestHostCommands(t *testing.T) {
	_, asked := fakeAPI(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + r.URL.Path {
		case "GET /yakumo/v1/hosts":
			fmt.Fprint(w, hostsBody)
		case "POST /yakumo/v1/join-tokens":
			w.WriteHeader(201)
			fmt.Fprint(w, `{"token":"a.b.c","host":"h1","expires_at":"2030-01-01T00:00:00Z"}`)
		case "DELETE /yakumo/v1/hosts/a/b":
			w.WriteHeader(204)
		case "DELETE /yakumo/v1/hosts/busy":
			w.WriteHeader(409)
			fmt.Fprint(w, `{"error":{"code":409,"message":"Host busy has 2 servers. Move or delete them first."}}`)
		default:
			w.WriteHeader(502)
			fmt.Fprint(w, "<html>bad gateway</html>")
		}
	})
	ctx := t.Context()
	out, err := stdout(t, func() error { return (&hostList{Output: "text"}).Run(ctx) })
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if err != nil || len(lines) != 4 || strings.Join(strings.Fields(lines[1]), " ") != "h1 up nova 192.0.2.1 4 1024 MiB 9 GiB kvm 2 3 v1" ||
		!strings.Contains(lines[2], "up, disabled") || !strings.Contains(lines[3], "down") {
		t.Errorf("list: %v\n%s", err, out)
	}
	out, err = stdout(t, func() error { return (&hostList{Output: "json"}).Run(ctx) })
	var hosts []HostInfo
	if err != nil || json.Unmarshal([]byte(out), &hosts) != nil || len(hosts) != 3 || hosts[0].Capacity.VCPUs != 4 {
		t.Errorf("list as JSON: %v\n%s", err, out)
	}
	out, err = stdout(t, func() error { return (&hostToken{Host: "h1", TTL: time.Hour, Output: "text"}).Run(ctx) })
	if err != nil || out != "a.b.c\n" {
		t.Errorf("token: %q, %v", out, err)
	}
	if last := (*asked)[len(*asked)-1]; last != `POST /yakumo/v1/join-tokens tok {"host":"h1","ttl":3600}` {
		t.Errorf("asked %s", last)
	}
	out, err = stdout(t, func() error { return (&hostToken{TTL: time.Hour, Output: "json"}).Run(ctx) })
	var tok map[string]string
	if err != nil || json.Unmarshal([]byte(out), &tok) != nil || tok["token"] != "a.b.c" || tok["expires_at"] == "" {
		t.Errorf("token as JSON: %q, %v", out, err)
	}
	if err := (&hostRemove{Name: "a/b"}).Run(ctx); err != nil {
		t.Errorf("remove: %v", err)
	}
	if last := (*asked)[len(*asked)-1]; last != "DELETE /yakumo/v1/hosts/a%2Fb tok " {
		t.Errorf("asked %s", last)
	}
	if err := (&hostRemove{Name: "busy"}).Run(ctx); err == nil || err.Error() != "Host busy has 2 servers. Move or delete them first." {
		t.Errorf("remove of a busy host: %v", err)
	}
	if err := (&hostRemove{Name: "x"}).Run(ctx); err == nil || !strings.Contains(err.Error(), "502") {
		t.Errorf("an answer that is no JSON: %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := (&hostList{}).Run(ended); err == nil {
		t.Error("an ended context")
	}
}

func TestOutput(t *testing.T) {
	var b bytes.Buffer
	if err := Table(&b, [][]string{{"A", "LONGER"}, {"value", "x"}}); err != nil || b.String() != "A      LONGER\nvalue  x\n" {
		t.Errorf("table: %v\n%s", err, b.String())
	}
	b.Reset()
	if err := JSON(&b, map[string]int{"a": 1}); err != nil || b.String() != "{\n  \"a\": 1\n}\n" {
		t.Errorf("JSON: %v\n%s", err, b.String())
	}
}
