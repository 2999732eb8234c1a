package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestDrainCommands(t *testing.T) {
	left := 2
	_, asked := fakeAPI(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + r.URL.Path {
		case "POST /yakumo/v1/hosts/h1/drain", "GET /yakumo/v1/hosts/h1/drain":
			servers := []string{`{"id":"s1","name":"web","state":"active","moving":true,"progress":{"memory_total":2097152,"memory_remaining":1048576}}`,
				`{"id":"s2","name":"db","state":"suspended","why":"It sleeps."}`}[:left]
			fmt.Fprintf(w, `{"drain":{"host":"h1","draining":true,"done":%v,"servers":[%s]}}`, left == 0, strings.Join(servers, ","))
			if r.Method == "GET" {
				left = max(0, left-1)
			}
		case "DELETE /yakumo/v1/hosts/h1/drain":
			fmt.Fprint(w, `{"drain":{"host":"h1","draining":false,"done":true,"servers":[]}}`)
		case "POST /yakumo/v1/hosts/h1/fence":
			fmt.Fprint(w, `{"host":{"name":"h1","fenced":true}}`)
		default:
			w.WriteHeader(404)
			fmt.Fprint(w, `{"error":{"message":"There is no host none."}}`)
		}
	})
	ctx := t.Context()
	out, err := stdout(t, func() error { return (&hostDrain{Name: "h1", Reason: "why not", Output: "text"}).Run(ctx) })
	if err != nil || !strings.Contains(out, "moving") || !strings.Contains(out, "1 of 2 MiB") || !strings.Contains(out, "It sleeps.") {
		t.Errorf("drain: %v\n%s", err, out)
	}
	if last := (*asked)[len(*asked)-1]; last != `POST /yakumo/v1/hosts/h1/drain tok {"reason":"why not"}` {
		t.Errorf("asked %s", last)
	}
	out, err = stdout(t, func() error {
		return (&hostDrain{Name: "h1", Wait: true, Every: time.Millisecond, Output: "text"}).Run(ctx)
	})
	if err != nil || out != "h1: 2 servers left\nh1: 1 servers left\nh1 has no servers.\n" {
		t.Errorf("drain --wait: %v\n%s", err, out)
	}
	left = 2
	out, err = stdout(t, func() error {
		return (&hostDrain{Name: "h1", Wait: true, Every: time.Minute, Timeout: time.Millisecond, Output: "json"}).Run(ctx)
	})
	var d DrainInfo
	if err == nil || json.Unmarshal([]byte(out), &d) != nil || len(d.Servers) != 2 || d.Servers[0].Progress.MemoryRemaining != 1<<20 {
		t.Errorf("drain --wait --timeout: %v\n%s", err, out)
	}
	out, err = stdout(t, func() error { return (&hostUndrain{Name: "h1", Output: "json"}).Run(ctx) })
	if err != nil || json.Unmarshal([]byte(out), &d) != nil || d.Draining {
		t.Errorf("undrain: %v\n%s", err, out)
	}
	out, err = stdout(t, func() error { return (&hostFence{Name: "h1", ConfirmedOff: true, Output: "json"}).Run(ctx) })
	var h HostInfo
	if err != nil || json.Unmarshal([]byte(out), &h) != nil || !h.Fenced || h.State() != "down, fenced" {
		t.Errorf("fence: %v\n%s", err, out)
	}
	if last := (*asked)[len(*asked)-1]; last != `POST /yakumo/v1/hosts/h1/fence tok {"confirmed_off":true}` {
		t.Errorf("asked %s", last)
	}
	if err := (&hostDrain{Name: "none", Output: "text"}).Run(ctx); err == nil || !strings.Contains(err.Error(), "no host none") {
		t.Errorf("no host: %v", err)
	}
}
