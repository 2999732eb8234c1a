// Package apitest is what the tests of several dialects share: callers, and requests to a front without a network.
//
// It owns no state. It reads and writes what the front that it is given does. May import: api, fault. Must not import: a dialect.
package apitest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"yakumo/api"
	"yakumo/fault"
)

// Tokens is an api.Authenticator that knows its callers by their tokens.
type Tokens map[string]*api.Caller

// Authenticate implements api.Authenticator.
func (t Tokens) Authenticate(_ context.Context, token string) (*api.Caller, error) {
	if c, ok := t[token]; ok {
		return c, nil
	}
	return nil, fault.New(fault.Unauthorized, "The request you have made requires authentication.")
}

// Projects of the tests, as Keystone writes ids.
const (
	Red   = "11111111111111111111111111111111"
	Blue  = "22222222222222222222222222222222"
	Staff = "33333333333333333333333333333333"
	Green = "44444444444444444444444444444444"
)

// Callers are members of Red, Blue and Green by those names; "red-reader" and "red-admin"; "admin" of the cloud in Staff, and "system" in no
// project; "unscoped", who has no role.
func Callers() Tokens {
	member, admin := []string{"member", "reader"}, []string{"admin", "member", "reader"}
	return Tokens{
		"red":        {UserID: "u1", ProjectID: Red, RoleNames: member},
		"red-reader": {UserID: "u2", ProjectID: Red, RoleNames: []string{"reader"}},
		"red-admin":  {UserID: "u3", ProjectID: Red, RoleNames: admin},
		"blue":       {UserID: "u4", ProjectID: Blue, RoleNames: member},
		"green":      {UserID: "u8", ProjectID: Green, RoleNames: member},
		"admin":      {UserID: "u5", ProjectID: Staff, RoleNames: admin, CloudAdmin: true},
		"system":     {UserID: "u6", System: true, RoleNames: admin, CloudAdmin: true},
		"unscoped":   {UserID: "u7"},
	}
}

// Object is a JSON object.
type Object = map[string]any

// Answer is a response with its body read.
type Answer struct {
	Status int
	Header http.Header
	Raw    []byte
	Body   Object // nil where there was none
}

// Do makes a request of the front; body nil: none, a string: as it is, else as JSON. Token "" is none; headers are names and values. An answer
// with a body that is no JSON object ends the test.
func Do(t testing.TB, front http.Handler, token, method, path string, body any, headers ...string) Answer {
	t.Helper()
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = bytes.NewReader([]byte(b))
	default:
		enc, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		r = bytes.NewReader(enc)
	}
	req := httptest.NewRequestWithContext(t.Context(), method, path, r)
	if token != "" {
		req.Header.Set("X-Auth-Token", token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	front.ServeHTTP(w, req)
	a := Answer{Status: w.Code, Header: w.Header(), Raw: w.Body.Bytes()}
	if len(a.Raw) > 0 {
		if err := json.Unmarshal(a.Raw, &a.Body); err != nil {
			t.Fatalf("%s %s answers %d with no JSON object: %q", method, path, a.Status, a.Raw)
		}
	}
	return a
}
