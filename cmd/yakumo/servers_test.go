package main

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"yakumo/store/storetest"
)

// TestTwoServers runs two server processes on one external etcd.
func TestTwoServers(t *testing.T) {
	t.Parallel() // servers wait for their etcd, and tests for servers
	etcd := storetest.StartCluster(t, 1)
	sh := newShared(t, etcd.Endpoints())
	a, b := newProc(t, "a"), newProc(t, "b")
	a.start(sh, nil) // at once: which of them makes the cloud does not matter
	b.start(sh, nil)
	a.ready()
	b.ready()
	token := a.login("admin", password, "admin")

	// What one wrote the other shows at once, and a token of one is good at the other.
	for i := range 200 {
		w, r := a, b
		if i%2 == 1 {
			w, r = b, a
		}
		net := id(t, w.at("POST", "/network/v2.0/networks", token, fmt.Sprintf(`{"network":{"name":"n%d"}}`, i), 201), "network")
		got := r.at("GET", "/network/v2.0/networks/"+net, token, "", 200)["network"].(map[string]any)
		if got["name"] != fmt.Sprintf("n%d", i) {
			t.Fatalf("round %d: the other server shows %v", i, got)
		}
		r.at("DELETE", "/network/v2.0/networks/"+net, token, "", 204)
		w.at("GET", "/network/v2.0/networks/"+net, token, "", 404)
	}
	for i := range 10 {
		w, r := a, b
		if i%2 == 1 {
			w, r = b, a
		}
		name := fmt.Sprint("user", i)
		project := id(t, w.at("POST", "/identity/v3/projects", token, `{"project":{"name":"`+name+`","domain_id":"default"}}`, 201), "project")
		user := id(t, w.at("POST", "/identity/v3/users", token, `{"user":{"name":"`+name+`","domain_id":"default","password":"`+password+`"}}`, 201), "user")
		roles := w.at("GET", "/identity/v3/roles?name=member", token, "", 200)["roles"].([]any)
		role := roles[0].(map[string]any)["id"].(string)
		w.at("PUT", "/identity/v3/projects/"+project+"/users/"+user+"/roles/"+role, token, "", 204)
		ut := r.login(name, password, name)
		w.at("GET", "/network/v2.0/networks", ut, "", 200)
		// The user is removed at one, its token is refused by the other at once.
		w.at("DELETE", "/identity/v3/users/"+user, token, "", 204)
		r.at("GET", "/network/v2.0/networks", ut, "", 401)
	}

	metrics(t, a)

	// Controllers: a request for which there is no host is refused by the leader.
	image := id(t, map[string]any{"image": a.at("POST", "/image/v2/images", token, `{"name":"i","disk_format":"raw","container_format":"bare"}`, 201)}, "image")
	if code, _, text := a.call("PUT", "http://"+a.api+"/image/v2/images/"+image+"/file", token, strings.Repeat("x", 512)); code != 204 {
		t.Fatalf("upload: %d %s", code, text)
	}
	refuse := func(p *proc, what string) {
		t.Helper()
		began := time.Now()
		server := id(t, p.at("POST", "/compute/v2.1/servers", token, `{"server":{"name":"s","imageRef":"`+image+`","flavorRef":"0","networks":"none"}}`, 202), "server")
		p.until(patience, "refusing a server that has no host", func() bool {
			return p.at("GET", "/compute/v2.1/servers/"+server, token, "", 200)["server"].(map[string]any)["status"] == "ERROR"
		})
		t.Logf("%s: placement answers after %s", what, time.Since(began).Round(time.Millisecond))
		p.at("DELETE", "/compute/v2.1/servers/"+server, token, "", 204)
	}
	const election = "controller-placement"
	a.until(patience, "somebody leading", func() bool { return leads(election, a, b) != nil })
	refuse(a, "at first")
	leader, other := a, b
	if leads(election, a, b) == b {
		leader, other = b, a
	}
	leader.kill()
	refuse(other, "leader killed")
	other.until(patience, "elected", func() bool { return leads(election, a, b) == other }) // its log comes by a pipe
	leader.start(sh, nil)
	leader.ready()
	leader.at("GET", "/network/v2.0/networks", token, "", 200)

	// An orderly end hands over at once.
	began := time.Now()
	other.interrupt()
	select {
	case <-other.done:
	case <-time.After(patience):
		t.Fatal("the server does not end")
	}
	if other.err != nil {
		t.Errorf("an orderly end: %v", other.err)
	}
	leader.until(patience, "elected", func() bool { return leads(election, a, b) == leader })
	t.Logf("the office passed %s after the signal", time.Since(began).Round(time.Millisecond))
	refuse(leader, "leader ended")
	other.start(sh, nil)
	other.ready()
	etcdAway(t, etcd, token, leader, other)
}

// etcdAway kills etcd: the servers say so in every dialect's form, and recover by themselves.
func etcdAway(t *testing.T, etcd *storetest.Cluster, token string, servers ...*proc) {
	etcd.Kill(0)
	var wg sync.WaitGroup
	for _, p := range servers {
		for path, form := range map[string]string{
			"/identity/v3/users":        `{"error":{"code":503,`,
			"/network/v2.0/networks":    `{"NeutronError":{`,
			"/compute/v2.1/servers":     `{"serviceUnavailable":{"code":503,`,
			"/image/v2/images":          `Service Unavailable`,
			"/yakumo/v1/hosts":          `{"error":{"code":503,`,
			"/identity/v3/auth/catalog": `{"error":{"code":503,`,
		} {
			wg.Go(func() {
				began := time.Now()
				code, h, text := p.get("http://"+p.api+path, token)
				took := time.Since(began)
				if code != 503 || !strings.Contains(text, form) {
					t.Errorf("%s without etcd: %d %s", path, code, text)
				}
				if s, err := strconv.Atoi(h.Get("Retry-After")); err != nil || s < 1 {
					t.Errorf("%s: Retry-After is %q", path, h.Get("Retry-After"))
				}
				if took > 30*time.Second {
					t.Errorf("%s: answered after %s", path, took)
				}
			})
		}
		for _, addr := range []string{p.api, p.debug} {
			began := time.Now()
			if code, _, text := p.get("http://"+addr+"/healthz", ""); code != 503 || time.Since(began) > 30*time.Second {
				t.Errorf("healthz without etcd: %d %s after %s", code, text, time.Since(began))
			}
		}
		if code, _, _ := p.get("http://"+p.debug+"/metrics", ""); code != 200 {
			t.Errorf("metrics without etcd: %d", code)
		}
	}
	wg.Wait()
	etcd.Start(0)
	began := time.Now()
	for _, p := range servers {
		p.ready()
		t.Logf("%s is healthy %s after etcd was started", p.name, time.Since(began).Round(time.Millisecond))
		net := id(t, p.at("POST", "/network/v2.0/networks", token, `{"network":{"name":"after"}}`, 201), "network")
		for _, q := range servers {
			q.at("GET", "/network/v2.0/networks/"+net, token, "", 200)
		}
	}
}

// metrics checks that an operator finds what matters.
func metrics(t *testing.T, p *proc) {
	t.Helper()
	_, _, text := p.get("http://"+p.debug+"/metrics", "")
	have := map[string]float64{}
	for _, line := range strings.Split(text, "\n") {
		if name, value, ok := strings.Cut(line, " "); ok && !strings.HasPrefix(line, "#") {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Errorf("metric %q: %v", line, err)
			}
			have[name] = v
		}
	}
	for name, least := range map[string]float64{
		"yakumo_store_commits_total": 100, "yakumo_store_revision": 100, "go_goroutines": 5, "process_resident_memory_bytes": 1e6,
		`yakumo_api_request_seconds_count{code="201",method="POST",route="/v2.0/networks",service="network"}`: 100,
		"yakumo_store_conflicts_total": 0, "yakumo_store_relists_total": 0, "yakumo_store_undecoded_total": 0,
		"yakumo_link_hosts": 0, "yakumo_hosts": 0, "yakumo_hosts_up": 0, "yakumo_servers": 0, "yakumo_servers_error": 0, "yakumo_ports": 0, "yakumo_networks": 0, "yakumo_routers": 0, "yakumo_floating_ips": 0, "yakumo_gateways_without_host": 0,
	} {
		if v, ok := have[name]; !ok || v < least {
			t.Errorf("%s is %v (there: %v), want %v at least", name, v, ok, least)
		}
	}
	if v, ok := have["yakumo_store_repairs_total"]; !ok || v != 0 {
		t.Errorf("yakumo_store_repairs_total is %v", v)
	}
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/goroutine?debug=1"} {
		if code, _, _ := p.get("http://"+p.debug+path, ""); code != 200 {
			t.Errorf("%s gives %d", path, code)
		}
		if code, _, _ := p.get("http://"+p.api+path, ""); code != 404 {
			t.Errorf("%s is on the API's address: %d", path, code)
		}
	}
	if code, _, _ := p.get("http://"+p.api+"/metrics", ""); code != 404 {
		t.Errorf("metrics are on the API's address: %d", code)
	}
}
