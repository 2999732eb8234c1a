// Package glance speaks the Image API v2 (OpenStack Glance) for package images: paths,
// JSON forms, JSON patches, filters and links, schemas, and errors as Glance's clients
// read them. What an image is and who may do what is package images' business.
//
// Source: the Image API v2 reference (docs.openstack.org/api-ref/image/v2) and the stock
// clients' behaviour. Served are versions 2.0 to 2.9 without the import of images from
// elsewhere, staging, and locations.
//
// Reads and writes nothing but through package images.
package glance

import (
	"cmp"
	"fmt"
	"net/http"
	"strings"
	"time"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/images"
)

// Config makes the service.
type Config struct {
	Images *images.Images
	// IdleTimeout is how long an upload may send nothing before it counts as broken;
	// default 60 s.
	IdleTimeout time.Duration
}

// service holds what the handlers need.
type service struct {
	images *images.Images
	idle   time.Duration
}

// noLimit is for bodies that are streams.
const noLimit = -1

// New makes the Image service; its prefix is /image.
func New(cfg Config) api.Service {
	s := &service{images: cfg.Images, idle: cmp.Or(cfg.IdleTimeout, time.Minute)}
	route := func(method, pattern string, access api.Access, h api.Handler) api.Route {
		return api.Route{Method: method, Pattern: pattern, Access: access, Handle: h}
	}
	stateless := func(method, pattern string, access api.Access, h api.Handler) api.Route {
		return api.Route{Method: method, Pattern: pattern, Access: access, Handle: h, NoSync: true}
	}
	return api.Service{
		Name: "image", Prefix: "/image", Error: writeError,
		Routes: []api.Route{
			stateless("GET", "/", api.Public, versions(http.StatusMultipleChoices)),
			stateless("GET", "/versions", api.Public, versions(http.StatusOK)),
			stateless("GET", "/v2", api.Public, versions(http.StatusOK)),
			stateless("GET", "/v2/", api.Public, versions(http.StatusOK)),

			route("GET", "/v2/images", api.Reader, s.list),
			route("POST", "/v2/images", api.Member, s.create),
			route("GET", "/v2/images/{id}", api.Reader, s.show),
			route("PATCH", "/v2/images/{id}", api.Member, s.patch),
			route("DELETE", "/v2/images/{id}", api.Member, s.remove),
			route("GET", "/v2/images/{id}/file", api.Reader, s.download),
			{Method: "PUT", Pattern: "/v2/images/{id}/file", Access: api.Member, Handle: s.upload, MaxBody: noLimit},
			{Method: "PUT", Pattern: "/v2/images/{id}/stage", Access: api.Member, Handle: s.stage, MaxBody: noLimit},
			route("POST", "/v2/images/{id}/import", api.Member, s.importImage),
			route("POST", "/v2/images/{id}/actions/deactivate", api.Member, s.deactivate),
			route("POST", "/v2/images/{id}/actions/reactivate", api.Member, s.reactivate),
			route("PUT", "/v2/images/{id}/tags/{tag}", api.Member, s.addTag),
			route("DELETE", "/v2/images/{id}/tags/{tag}", api.Member, s.removeTag),

			route("GET", "/v2/images/{id}/members", api.Reader, s.members),
			route("POST", "/v2/images/{id}/members", api.Member, s.addMember),
			route("GET", "/v2/images/{id}/members/{member}", api.Reader, s.member),
			route("PUT", "/v2/images/{id}/members/{member}", api.Member, s.setMember),
			route("DELETE", "/v2/images/{id}/members/{member}", api.Member, s.removeMember),

			stateless("GET", "/v2/schemas/{name}", api.Anyone, schema),
			stateless("GET", "/v2/info/import", api.Reader, importInfo),
			stateless("GET", "/v2/info/stores", api.Reader, stores),

			route("GET", "/v2/tasks", api.Admin, s.tasks),
			route("POST", "/v2/tasks", api.Admin, s.addTask),
			route("GET", "/v2/tasks/{id}", api.Admin, s.task),
		},
	}
}

func caller(c *api.Context) images.Caller {
	return images.Caller{ProjectID: c.Caller.ProjectID, Admin: c.Caller.CloudAdmin}
}

// writeError answers as Glance's WebOb does: HTML, JSON or plain text, whichever the
// client prefers; clients find the message in each. A 401 comes from Keystone's
// middleware, which speaks JSON alone.
func writeError(c *api.Context, status int, err error) {
	text, title := api.Text(status, err), http.StatusText(status)
	h := c.W.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	if status == http.StatusUnauthorized {
		answer(c, status, map[string]any{"error": map[string]any{"code": status, "title": title, "message": text}})
		return
	}
	code := fmt.Sprintf("%d %s", status, title)
	var body, mediaType string
	switch preferred(c.R.Header.Get("Accept")) {
	case "application/json":
		answer(c, status, map[string]any{"message": text, "code": code, "title": title})
		return
	case "text/html":
		mediaType = "text/html; charset=UTF-8"
		body = fmt.Sprintf("<html>\n <head>\n  <title>%s</title>\n </head>\n <body>\n  <h1>%s</h1>\n  %s<br /><br />\n </body>\n</html>", code, code, inHTML(text))
	default:
		mediaType = "text/plain; charset=UTF-8"
		body = code + "\n\n" + text + "\n"
	}
	c.Bytes(status, mediaType, []byte(body))
}

// inHTML escapes text for the body of a page. Quotes stay: clients show the text as it is.
func inHTML(text string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(text)
}

func answer(c *api.Context, status int, v any) {
	if err := c.JSON(status, v); err != nil {
		c.Log.Error("an error cannot be encoded", "err", err)
	}
}

// preferred chooses text/html or application/json by an Accept header, html where both
// are as good; "" where the client wants neither.
func preferred(accept string) string {
	if strings.TrimSpace(accept) == "" {
		return "text/html"
	}
	best := ""
	quality := map[string]float64{}
	exact := map[string]bool{}
	for _, part := range strings.Split(accept, ",") {
		mt, params, _ := strings.Cut(strings.TrimSpace(part), ";")
		mt = strings.ToLower(strings.TrimSpace(mt))
		q := 1.0
		for _, p := range strings.Split(params, ";") {
			if v, ok := strings.CutPrefix(strings.TrimSpace(p), "q="); ok {
				if _, err := fmt.Sscanf(v, "%g", &q); err != nil {
					q = 0
				}
			}
		}
		for _, offer := range []string{"text/html", "application/json"} {
			family, _, _ := strings.Cut(offer, "/")
			switch {
			case mt == offer:
				quality[offer], exact[offer] = q, true
			case (mt == "*/*" || mt == family+"/*") && !exact[offer]:
				quality[offer] = max(quality[offer], q)
			}
		}
	}
	for _, offer := range []string{"text/html", "application/json"} {
		if quality[offer] > 0 && (best == "" || quality[offer] > quality[best]) {
			best = offer
		}
	}
	return best
}

// versions lists the versions of the API, the newest first.
func versions(status int) api.Handler {
	return func(c *api.Context) error {
		var out []map[string]any
		for minor := 9; minor >= 0; minor-- {
			state := "SUPPORTED"
			if minor == 9 {
				state = "CURRENT"
			}
			out = append(out, map[string]any{
				"id": fmt.Sprintf("v2.%d", minor), "status": state,
				"links": []map[string]string{{"rel": "self", "href": c.URL("/v2/")}},
			})
		}
		return c.JSON(status, map[string]any{"versions": out})
	}
}

// importInfo names the ways to import an image from elsewhere: none.
func importInfo(c *api.Context) error {
	return c.JSON(http.StatusOK, map[string]any{"import-methods": map[string]any{
		"description": "Import methods available.", "type": "array", "value": []string{},
	}})
}

// storeName is what the one place where images are kept is called.
const storeName = "default"

func stores(c *api.Context) error {
	return c.JSON(http.StatusOK, map[string]any{"stores": []map[string]any{
		{"id": storeName, "description": "The images of this cloud", "default": true},
	}})
}

func (s *service) stage(c *api.Context) error {
	if _, err := s.images.Get(c.Snapshot(), caller(c), c.Param("id")); err != nil {
		return err
	}
	return fault.New(fault.Invalid, "Import method 'glance-direct' is not offered: upload the image's data to /v2/images/%s/file.", c.Param("id"))
}

func (s *service) importImage(c *api.Context) error {
	var body struct {
		Method struct {
			Name string `json:"name"`
		} `json:"method"`
	}
	if err := c.Decode(&body); err != nil {
		return err
	}
	if _, err := s.images.Get(c.Snapshot(), caller(c), c.Param("id")); err != nil {
		return err
	}
	if body.Method.Name == "" {
		return fault.New(fault.Invalid, "Import request requires a 'name' field in its 'method' object.")
	}
	return fault.New(fault.Invalid, "Unknown import method name '%s'. None is offered: upload the image's data to /v2/images/%s/file.", body.Method.Name, c.Param("id"))
}
