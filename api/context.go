package api

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"yakumo/fault"
	"yakumo/store"
)

// Context is one request.
type Context struct {
	W         http.ResponseWriter
	R         *http.Request
	Caller    *Caller // nil on a Public route
	Version   Version // the microversion in force, where the service has them
	RequestID string  // "req-<uuid>", on every log line
	GlobalID  string  // the caller's own request id, where it sent one
	Now       time.Time
	Log       *slog.Logger

	front *Front
	svc   *Service
}

// Param gives a {name} part of the path, unescaped.
func (c *Context) Param(name string) string {
	raw := chi.URLParam(c.R, name)
	if s, err := url.PathUnescape(raw); err == nil {
		return s
	}
	return raw
}

// Query gives the query's values.
func (c *Context) Query() url.Values { return c.R.URL.Query() }

// Snapshot gives the state; it holds every write that was answered before the request came.
func (c *Context) Snapshot() store.Snapshot { return c.front.cfg.Store.Snapshot() }

// Store gives the store.
func (c *Context) Store() *store.Store { return c.front.cfg.Store }

// JSON answers with a JSON body.
func (c *Context) JSON(status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.Bytes(status, "application/json", body)
}

// Bytes answers with a body of the type.
func (c *Context) Bytes(status int, contentType string, body []byte) error {
	c.W.Header().Set("Content-Type", contentType)
	c.W.WriteHeader(status)
	if c.R.Method == http.MethodHead {
		return nil
	}
	if _, err := c.W.Write(body); err != nil {
		c.Log.Debug("the client went away", "err", err)
	}
	return nil
}

// Empty answers without a body.
func (c *Context) Empty(status int) error {
	c.W.WriteHeader(status)
	return nil
}

// Decode reads the body, one JSON value and nothing after it, into v. Unknown members are
// ignored; dialects that refuse them decode into a type that tells.
func (c *Context) Decode(v any) error {
	if ct := c.R.Header.Get("Content-Type"); ct != "" {
		if mt, _, err := mime.ParseMediaType(ct); err != nil || !(mt == "application/json" || strings.HasSuffix(mt, "+json") || strings.HasSuffix(mt, "json-patch")) {
			return fault.New(fault.Unsupported, "The content type %q is not served; send application/json.", ct)
		}
	}
	return DecodeJSON(c.R.Body, v)
}

// DecodeJSON reads one JSON value and nothing after it.
func DecodeJSON(r io.Reader, v any) error {
	d := json.NewDecoder(r)
	err := d.Decode(v)
	var big *http.MaxBytesError
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &big):
		return err
	case errors.Is(err, io.EOF):
		return fault.New(fault.Invalid, "The request needs a JSON body.")
	case errors.As(err, &wrong):
		return fault.New(fault.Invalid, "Invalid input for field '%s': a JSON %s is of the wrong type.", wrong.Field, wrong.Value)
	case err != nil:
		return fault.Wrap(fault.Invalid, err, "The request body is not valid JSON.")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fault.New(fault.Invalid, "The request body has something after its JSON value.")
	}
	return nil
}

// origin is scheme://host of the request as the client wrote it.
func (c *Context) origin() string {
	scheme := "http"
	if c.R.TLS != nil {
		scheme = "https"
	}
	if p := c.R.Header.Get("X-Forwarded-Proto"); p == "http" || p == "https" {
		scheme = p
	}
	return scheme + "://" + c.R.Host
}

// Front gives the absolute URL of a path of the front, such as Front("/console/serial").
func (c *Context) Front(path string) string { return c.origin() + path }

// URL gives the absolute URL of a path of this service, such as URL("/v2.1/servers").
func (c *Context) URL(path string) string { return c.origin() + c.svc.Prefix + path }
