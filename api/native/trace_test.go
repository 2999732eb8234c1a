package native_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/trace"
)

// tracer knows the port "mine" of project p.
type tracer struct{ c *cloud }

func (t tracer) Trace(_ context.Context, sc trace.Scope, req trace.Request) (*trace.Result, error) {
	t.c.asked = append(t.c.asked, fmt.Sprintf("trace %s %v %s:%d", sc.ProjectID, sc.Admin, req.Dst, req.DstPort))
	if req.Port != "mine" {
		return nil, fault.Coded(fault.NotFound, "PortNotFound", "Port %s could not be found.", req.Port)
	}
	return &trace.Result{Verdict: trace.Dropped, Reason: "why"}, nil
}

func (t tracer) Follow(ctx context.Context, sc trace.Scope, req trace.Request) (*trace.Result, error) {
	r, err := t.Trace(ctx, sc, req)
	if err == nil {
		r.Real = &trace.Followed{Agrees: true}
	}
	return r, err
}

func (t tracer) Frames(_ context.Context, sc trace.Scope, c trace.Capture, f func([]model.CapturedFrame) error) error {
	t.c.asked = append(t.c.asked, fmt.Sprintf("capture %s %v %+v", sc.ProjectID, sc.Admin, c))
	if c.Port != "mine" && c.Port != "torn" {
		return fault.Coded(fault.NotFound, "PortNotFound", "Port %s could not be found.", c.Port)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	if err := f([]model.CapturedFrame{{At: at, Size: 100, Data: []byte("0123456789abcdef")}, {At: at, Size: 3, Data: []byte("xyz")}}); err != nil {
		return err
	}
	if c.Port == "torn" {
		return errors.New("the host went away")
	}
	return nil
}

func TestTraces(t *testing.T) {
	c := newCloud(t)
	code, out := c.call("member", "POST", "/yakumo/v1/traces", `{"trace":{"port":"mine","dst":"10.0.0.1","protocol":"tcp","dst_port":80}}`)
	r, _ := out["trace"].(map[string]any)
	if code != 200 || r["verdict"] != "dropped" || r["reason"] != "why" || r["real"] != nil || c.asked[0] != "trace p false 10.0.0.1:80" {
		t.Errorf("%d %v, asked %v", code, out, c.asked)
	}
	code, out = c.call("admin", "POST", "/yakumo/v1/traces", `{"trace":{"port":"mine","dst":"fd00::1","inject":true}}`)
	r, _ = out["trace"].(map[string]any)
	if real, _ := r["real"].(map[string]any); code != 200 || real["agrees"] != true || c.asked[1] != "trace p true fd00::1:0" {
		t.Errorf("%d %v, asked %v", code, out, c.asked)
	}
	for body, want := range map[string]int{
		`{}`: 400, `nonsense`: 400, `{"trace":{}}`: 400, `{"trace":{"port":7}}`: 400, `{"trace":{"port":"mine","dst":"nowhere"}}`: 400,
		`{"trace":{"port":"mine","dst_port":70000}}`: 400, `{"trace":{"port":"other","dst":"10.0.0.1"}}`: 404,
	} {
		if code, out := c.call("member", "POST", "/yakumo/v1/traces", body); code != want {
			t.Errorf("%s gives %d %v, want %d", body, code, out, want)
		}
	}
}

// stream gets a body that is no JSON.
func (c *cloud) stream(path string) (*http.Response, []byte, error) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), "GET", c.url+path, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("X-Auth-Token", "member")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, b, err
}

func TestCapture(t *testing.T) {
	c := newCloud(t)
	resp, b, err := c.stream("/yakumo/v1/ports/mine/capture?seconds=5&count=2&snap_len=16")
	if err != nil || resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/vnd.tcpdump.pcap" {
		t.Fatalf("%v, %v: %s", resp, err, b)
	}
	if want := fmt.Sprintf("capture p false %+v", trace.Capture{Port: "mine", SnapLen: 16, Count: 2, For: 5 * time.Second}); c.asked[0] != want {
		t.Errorf("asked %q, want %q", c.asked[0], want)
	}
	r, err := pcapgo.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	data, info, err := r.ReadPacketData()
	if err != nil || string(data) != "0123456789abcdef" || info.Length != 100 || info.Timestamp.Nanosecond() != 6 {
		t.Errorf("first frame %q %+v, %v", data, info, err)
	}
	if data, _, err = r.ReadPacketData(); err != nil || string(data) != "xyz" {
		t.Errorf("second frame %q, %v", data, err)
	}
	// One that breaks off is not taken for whole.
	if _, _, err := c.stream("/yakumo/v1/ports/torn/capture"); err == nil {
		t.Error("a capture that broke off ended as if it were whole")
	}
	for _, q := range []string{"seconds=0", "seconds=3601", "seconds=x", "count=-1", "count=1000001", "snap_len=65536", "filter=tcp", "seconds="} {
		if resp, b, _ := c.stream("/yakumo/v1/ports/mine/capture?" + q); resp.StatusCode != 400 || !strings.Contains(string(b), "snap_len (1 to") {
			t.Errorf("%s gives %d %s", q, resp.StatusCode, b)
		}
	}
	if resp, b, _ := c.stream("/yakumo/v1/ports/other/capture"); resp.StatusCode != 404 {
		t.Errorf("another's port gives %d %s", resp.StatusCode, b)
	}
}
