package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestEnvironmentCommands(t *testing.T) {
	left, zone := 2, "east"
	_, asked := fakeAPI(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + r.URL.Path {
		case "PUT /yakumo/v1/environments/self", "GET /yakumo/v1/environments/self":
			servers := []string{`{"id":"s1","name":"web","state":"active","moving":true,"progress":{"memory_total":2097152,"memory_remaining":1048576}}`,
				`{"id":"s2","name":"db","state":"suspended","why":"It sleeps."}`}[:left]
			fmt.Fprintf(w, `{"environment":{"project":"p","zone":%q,"done":%v,"servers":[%s],"volumes":[%s]}}`, zone, left == 0, strings.Join(servers, ","),
				`{"id":"v1","name":"data","state":"in-use"}`[:min(left, 1)*42])
			if r.Method == "GET" {
				left = max(0, left-1)
			}
		case "DELETE /yakumo/v1/environments/p2":
			w.WriteHeader(204)
		default:
			w.WriteHeader(404)
			fmt.Fprint(w, `{"error":{"message":"There is no project none."}}`)
		}
	})
	ctx := t.Context()
	move := environmentMove{Zone: "east", Project: "self", Every: time.Millisecond, Output: "text"}
	out, err := stdout(t, func() error { return move.Run(ctx) })
	if err != nil || !strings.Contains(out, "1 of 2 MiB") || !strings.Contains(out, "It sleeps.") || !strings.Contains(out, "volume") {
		t.Errorf("move: %v\n%s", err, out)
	}
	if last := (*asked)[len(*asked)-1]; last != `PUT /yakumo/v1/environments/self tok {"zone":"east"}` {
		t.Errorf("asked %s", last)
	}
	move.Wait = true
	out, err = stdout(t, func() error { return move.Run(ctx) })
	if err != nil || out != "east: 2 servers and 1 volumes left\neast: 1 servers and 1 volumes left\nAll of project p is in east.\n" {
		t.Errorf("move --wait: %v\n%s", err, out)
	}
	left, move.Every, move.Timeout, move.Output = 2, time.Minute, time.Millisecond, "json"
	out, err = stdout(t, func() error { return move.Run(ctx) })
	var e EnvironmentInfo
	if err == nil || json.Unmarshal([]byte(out), &e) != nil || len(e.Servers) != 2 || len(e.Volumes) != 1 {
		t.Errorf("move --wait --timeout: %v\n%s", err, out)
	}
	zone, move.Every, move.Timeout = "west", time.Millisecond, time.Minute
	if _, err = stdout(t, func() error { return move.Run(ctx) }); err == nil || !strings.Contains(err.Error(), "somebody else") {
		t.Errorf("sent elsewhere meanwhile: %v", err)
	}
	if _, err = stdout(t, func() error { return (&environmentShow{Project: "self", Output: "json"}).Run(ctx) }); err != nil {
		t.Error(err)
	}
	if err := (&environmentRelease{Project: "p2"}).Run(ctx); err != nil {
		t.Error(err)
	}
	if err := (&environmentRelease{Project: "none"}).Run(ctx); err == nil || !strings.Contains(err.Error(), "no project none") {
		t.Errorf("none: %v", err)
	}
}
