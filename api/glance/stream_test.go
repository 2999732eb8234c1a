package glance_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"yakumo/api"
	"yakumo/api/glance"
)

// begin sends the head of an upload and a first part of its body on a connection of its own.
func (c *cloud) begin(id, framing, part string) net.Conn {
	c.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(c.url, "http://"))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { conn.Close() })
	if _, err := fmt.Fprintf(conn, "PUT /image/v2/images/%s/file HTTP/1.1\r\nHost: x\r\nX-Auth-Token: p1/member\r\nContent-Type: application/octet-stream\r\n%s\r\n\r\n%s", id, framing, part); err != nil {
		c.t.Fatal(err)
	}
	return conn
}

func (c *cloud) untilStatus(id, status string) {
	c.t.Helper()
	for deadline := time.Now().Add(90 * time.Second); ; <-time.After(5 * time.Millisecond) {
		got := c.want(200, "p1/reader", "GET", "/v2/images/"+id, nil).str("status")
		if got == status {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("the image is %s, not %s in time", got, status)
		}
	}
}

func TestConnectionBreaksInTheMiddle(t *testing.T) {
	c := newCloud(t)
	for name, k := range map[string][2]string{
		"of a known length": {"Content-Length: 100000", "half"},
		"of chunks":         {"Transfer-Encoding: chunked", "4\r\nhalf\r\n"},
		"of a chunk":        {"Transfer-Encoding: chunked", "ffff\r\nhalf"},
	} {
		id := c.image("p1/member", nil)
		conn := c.begin(id, k[0], k[1])
		c.untilStatus(id, "saving")
		c.want(409, "p1/member", "PUT", "/v2/images/"+id+"/file", strings.NewReader("other"))
		c.want(204, "p1/member", "GET", "/v2/images/"+id+"/file", nil)
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		c.untilStatus(id, "queued")
		r := c.want(200, "p1/reader", "GET", "/v2/images/"+id, nil)
		if r.json["size"] != nil || r.json["checksum"] != nil {
			t.Errorf("%s: a broken upload left %s", name, r.body)
		}
		c.want(204, "p1/member", "PUT", "/v2/images/"+id+"/file", strings.NewReader("whole"))
		if r := c.want(200, "p1/reader", "GET", "/v2/images/"+id+"/file", nil); string(r.body) != "whole" {
			t.Errorf("%s: the image holds %q", name, r.body)
		}
	}
}

func TestChunkedUpload(t *testing.T) {
	c := newCloud(t)
	id := c.image("p1/member", nil)
	conn := c.begin(id, "Transfer-Encoding: chunked", "4\r\nfour\r\n3\r\nand\r\n0\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 204 {
		t.Errorf("the upload: %s", resp.Status)
	}
	if r := c.want(200, "p1/reader", "GET", "/v2/images/"+id+"/file", nil); string(r.body) != "fourand" {
		t.Errorf("the image holds %q", r.body)
	}
}

// A sender that falls silent is given up, though its connection stays.
func TestSilentSender(t *testing.T) {
	c := newCloud(t)
	quick := glance.New(glance.Config{Images: c.images, IdleTimeout: 50 * time.Millisecond})
	front, err := api.New(api.Config{Store: c.st, Auth: callers{}, Services: []api.Service{quick}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(front)
	defer srv.Close()
	c.url = srv.URL
	id := c.image("p1/member", nil)
	conn := c.begin(id, "Content-Length: 100000", strings.Repeat("x", 70_000))
	if err := conn.SetReadDeadline(time.Now().Add(90 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatalf("the server keeps waiting: %v", err)
	}
	if !strings.HasPrefix(string(answer), "HTTP/1.1 400") {
		t.Errorf("the answer is %q", answer)
	}
	c.untilStatus(id, "queued")
}

// What is refused before the data is read is refused without reading it.
func TestRefusalDoesNotReadTheData(t *testing.T) {
	c := newCloud(t)
	id := c.active("p1/member", "x", nil)
	conn := c.begin(id, "Content-Length: 1000000000\r\nExpect: 100-continue", "")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 409 {
		t.Errorf("the answer is %s, want 409 at once", resp.Status)
	}
	queued := c.image("p1/member", nil)
	conn = c.begin(queued, "Content-Length: 2000000000\r\nExpect: 100-continue", "")
	if resp, err = http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 413 {
		t.Errorf("the answer is %s, want 413 at once", resp.Status)
	}
}
