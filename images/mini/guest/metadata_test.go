package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// serve answers the given paths and 404 for all others.
func serve(t *testing.T, texts map[string]string) metadata {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if text, ok := texts[r.URL.Path]; ok {
			fmt.Fprint(w, text)
			return
		}
		http.NotFound(w, r)
	}))
	t.Cleanup(s.Close)
	return metadata{address: s.Listener.Addr().String()}
}

func TestMetadata(t *testing.T) {
	for _, c := range []struct {
		name   string
		texts  map[string]string
		source string
		want   instance
	}{
		{"OpenStack", map[string]string{
			"/openstack/latest/meta_data.json": `{"uuid":"u1","hostname":"a.b","name":"a","public_keys":{"z":"ssh-rsa Z\n","k":"# mine\nssh-rsa A\nssh-rsa B"}}`,
			"/openstack/latest/user_data":      "#!/bin/sh\n",
			"/latest/meta-data/instance-id":    "not asked",
		}, "metadata service", instance{"u1", "a.b", []string{"ssh-rsa A", "ssh-rsa B", "ssh-rsa Z"}, []byte("#!/bin/sh\n")}},
		{"OpenStack without host name and user data", map[string]string{
			"/openstack/latest/meta_data.json": `{"uuid":"u2","name":"only-a-name"}`,
		}, "metadata service", instance{"u2", "only-a-name", nil, nil}},
		{"EC2", map[string]string{
			"/latest/meta-data/instance-id":               "i-0000002a\n",
			"/latest/meta-data/local-hostname":            "ip-10-0-0-1.ec2.internal",
			"/latest/meta-data/public-keys/":              "0=mine\n1=yours",
			"/latest/meta-data/public-keys/0/openssh-key": "ssh-rsa A mine\n",
			"/latest/meta-data/public-keys/1/openssh-key": "ssh-rsa B yours\n",
			"/latest/user-data":                           "hello",
		}, "metadata service (EC2 paths)", instance{"i-0000002a", "ip-10-0-0-1.ec2.internal", []string{"ssh-rsa A mine", "ssh-rsa B yours"}, []byte("hello")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inst, source, err := serve(t, c.texts).read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if source != c.source || inst.id != c.want.id || inst.hostname != c.want.hostname ||
				!slices.Equal(inst.keys, c.want.keys) || string(inst.userData) != string(c.want.userData) {
				t.Errorf("got %+v from %s, want %+v from %s", *inst, source, c.want, c.source)
			}
		})
	}
}

func TestMetadataRefused(t *testing.T) {
	for name, texts := range map[string]map[string]string{
		"nothing there":  {},
		"not JSON":       {"/openstack/latest/meta_data.json": "<html>"},
		"no uuid":        {"/openstack/latest/meta_data.json": "{}"},
		"empty id":       {"/latest/meta-data/instance-id": " \n"},
		"key that is no": {"/latest/meta-data/instance-id": "i-1", "/latest/meta-data/public-keys/": "0=a"},
	} {
		if inst, _, err := serve(t, texts).read(t.Context()); err == nil {
			t.Errorf("%s: no error but %+v", name, inst)
		}
	}
}

func TestReadResponse(t *testing.T) {
	for _, c := range []struct{ text, body, err string }{
		{"HTTP/1.0 200 OK\r\n\r\nbody", "body", ""},
		{"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody", "body", ""},
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nbody", "bo", ""},
		{"HTTP/1.1 200\r\n\r\n", "", ""},
		{"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody", "", "ends after 4 of 9"},
		{"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nbody", "", "content length"},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "", "transfer encoding"},
		{"HTTP/1.1 404 Not Found\r\n\r\nbody", "", "not found"},
		{"HTTP/1.1 500 Oops\r\n\r\nbody", "", "500"},
		{"SSH-2.0-dropbear\r\n", "", "not an HTTP answer"},
		{"", "", "read status line"},
		{"HTTP/1.0 200 OK\r\n\r\n" + strings.Repeat("x", metadataMax+1), "", "larger than"},
	} {
		body, err := readResponse(strings.NewReader(c.text))
		if string(body) != c.body || (err == nil) != (c.err == "") || (err != nil && !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%.60q: got %.20q, %v; want %q, %q", c.text, body, err, c.body, c.err)
		}
	}
}

func FuzzReadResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nbody"))
	f.Add([]byte("HTTP/1.1 404 Not Found\r\n\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		body, err := readResponse(strings.NewReader(string(text)))
		if err != nil && body != nil {
			t.Error("both a body and an error")
		}
		if len(body) > metadataMax {
			t.Error("body too large")
		}
		if errors.Is(err, errNotFound) && !strings.HasPrefix(string(text), "HTTP/1.") {
			t.Error("found no path in no answer")
		}
	})
}

func FuzzOpenstackMetadata(f *testing.F) {
	f.Add([]byte(`{"uuid":"u","hostname":"h","public_keys":{"k":"ssh-rsa A\n"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		inst, err := parseOpenstackMetadata(text)
		if err != nil {
			return
		}
		if inst.id == "" {
			t.Error("instance without id")
		}
		for _, k := range inst.keys {
			if k == "" || strings.ContainsAny(k, "\n") {
				t.Errorf("key line %q", k)
			}
		}
	})
}
