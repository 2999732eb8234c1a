// Package cli is the operator's and the user's commands: thin clients of the API. They read
// the same OS_* environment as the stock OpenStack client, print a table for people and
// JSON with -o json, and import nothing of the server but fault.
package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"yakumo/fault"
)

// JSON prints v for programs.
func JSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// Table prints rows for people; the first is the header.
func Table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(t, strings.Join(r, "\t"))
	}
	return t.Flush()
}

// Client speaks to the API with a token.
type Client struct {
	base  string // scheme://host:port
	token string
	http  *http.Client
}

// Credentials are what the OS_* variables hold.
type Credentials struct {
	AuthURL, Username, Password, Project, UserDomain, ProjectDomain string
}

// FromEnv reads the OS_* variables.
func FromEnv() (Credentials, error) {
	c := Credentials{AuthURL: os.Getenv("OS_AUTH_URL"), Username: os.Getenv("OS_USERNAME"), Password: os.Getenv("OS_PASSWORD"),
		Project: os.Getenv("OS_PROJECT_NAME"), UserDomain: or(os.Getenv("OS_USER_DOMAIN_NAME"), "Default"), ProjectDomain: or(os.Getenv("OS_PROJECT_DOMAIN_NAME"), "Default")}
	if c.AuthURL == "" || c.Username == "" || c.Password == "" || c.Project == "" {
		return c, fault.New(fault.Invalid, "Set OS_AUTH_URL, OS_USERNAME, OS_PASSWORD and OS_PROJECT_NAME first; in a lab: . .yakumo/openrc")
	}
	return c, nil
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// Login gets a token.
func Login(ctx context.Context, c Credentials) (*Client, error) {
	base, _, ok := strings.Cut(c.AuthURL, "/identity")
	if !ok {
		return nil, fault.New(fault.Invalid, "OS_AUTH_URL is %s; Yakumo's ends in /identity or /identity/v3.", c.AuthURL)
	}
	cl := &Client{base: base, http: &http.Client{Timeout: time.Minute}}
	body := map[string]any{"auth": map[string]any{
		"identity": map[string]any{"methods": []string{"password"}, "password": map[string]any{"user": map[string]any{
			"name": c.Username, "password": c.Password, "domain": map[string]any{"name": c.UserDomain}}}},
		"scope": map[string]any{"project": map[string]any{"name": c.Project, "domain": map[string]any{"name": c.ProjectDomain}}},
	}}
	resp, err := cl.do(ctx, http.MethodPost, "/identity/v3/auth/tokens", body, nil)
	if err != nil {
		return nil, err
	}
	cl.token = resp.Header.Get("X-Subject-Token")
	return cl, nil
}

// Do makes a call; in and out are JSON, nil for none.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	_, err := c.do(ctx, method, path, in, out)
	return err
}

// refusal makes an error of an answer that is one.
func refusal(resp *http.Response, body []byte) error {
	var e struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
		Neutron struct {
			Message string `json:"message"`
		} `json:"NeutronError"`
	}
	if json.Unmarshal(body, &e) == nil && or(e.Error.Message, e.Neutron.Message) != "" {
		return fault.New(fault.Invalid, "%s", or(e.Error.Message, e.Neutron.Message))
	}
	return fmt.Errorf("%s %s: %s: %.300s", resp.Request.Method, resp.Request.URL.Path, resp.Status, body)
}

// Stream makes a call whose answer may be long, and copies it to w as it comes.
func (c *Client) Stream(ctx context.Context, path string, w io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-Auth-Token", c.token)
	resp, err := (&http.Client{Transport: c.http.Transport}).Do(req) // without the time limit
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "The API at %s cannot be reached: is the cloud running?", c.base)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if err != nil {
			return err
		}
		return refusal(resp, b)
	}
	_, err = io.Copy(w, resp.Body)
	return err
}

func (c *Client) do(ctx context.Context, method, path string, in, out any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if c.token != "" {
		req.Header.Set("X-Auth-Token", c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "The API at %s cannot be reached: is the cloud running?", c.base)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		return nil, refusal(resp, b)
	}
	if out != nil {
		if err := json.Unmarshal(b, out); err != nil {
			return nil, fmt.Errorf("%s %s: %w", method, path, err)
		}
	}
	return resp, nil
}
