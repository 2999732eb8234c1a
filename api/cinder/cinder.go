// Package cinder speaks Cinder's dialect, the Block Storage API v3 with its microversions:
// volumes, snapshots, backups, types, QoS specs, transfers, attachments, quotas, and errors
// in Cinder's form. What may be done is decided in package volume, which image may be read in
// images; a request that touches both is composed here, in one transaction of the store.
//
// Source: the Block Storage API reference, https://docs.openstack.org/api-ref/block-storage/v3/,
// and its microversion history.
//
// Served are the microversions 3.0 to 3.70. Every route stands with and without the project's id behind /v3.
// Groups, clusters, replication, encryption and managing what a back end already has are not offered.
//
// Reads and writes only through volume, images and the store's tables. May import: api, fault,
// model, volume, images, store. Must not import: another dialect, agent, hypervisor, datapath.
package cinder

import (
	"cmp"
	"net/http"
	"time"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/images"
	"yakumo/model"
	"yakumo/store"
	"yakumo/volume"
)

// Config makes the service.
type Config struct {
	Volumes *volume.Volumes
	Images  *images.Images
}

// The microversions that are served.
var (
	oldest = api.Version{Major: 3, Minor: 0}
	newest = api.Version{Major: 3, Minor: 70}
)

// maxLimit is the largest page of a list, and its default, as in Cinder.
const maxLimit = 1000

// dialect serves the routes.
type dialect struct {
	v   *volume.Volumes
	img *images.Images
}

type object = map[string]any

// New gives the service at /volume.
func New(cfg Config) api.Service {
	d := &dialect{v: cfg.Volumes, img: cfg.Images}
	return api.Service{
		Name: "block-storage", Prefix: "/volume", Routes: d.routes(), Error: writeError, RequestIDHeader: "X-Compute-Request-Id",
		Versions: &api.VersionRange{Service: "volume", Min: oldest, Max: newest},
	}
}

// at tells whether the request's microversion is 3.minor or newer.
func at(c *api.Context, minor int) bool { return c.Version.AtLeast(3, minor) }

// adder adds a route that is there from microversion 3.min on.
type adder func(method, path string, access api.Access, min int, h api.Handler)

func (d *dialect) routes() []api.Route {
	out := []api.Route{
		{Method: http.MethodGet, Pattern: "/", Access: api.Public, Handle: d.versions, NoSync: true},
		{Method: http.MethodGet, Pattern: "/v3", Access: api.Public, Handle: d.version, NoSync: true},
		{Method: http.MethodGet, Pattern: "/v3/", Access: api.Public, Handle: d.version, NoSync: true},
	}
	route := func(method, path string, access api.Access, min int, h api.Handler) {
		for _, root := range []string{"/v3", "/v3/{tenant}"} {
			out = append(out, api.Route{Method: method, Pattern: root + path, Access: access, MinVersion: api.Version{Major: 3, Minor: min}, Handle: func(c *api.Context) error {
				if p := c.Param("tenant"); p != "" && p != c.Caller.ProjectID {
					return badRequest("Malformed request url")
				}
				return h(c)
			}})
		}
	}
	d.volumeRoutes(route)
	d.snapshotRoutes(route)
	d.backupRoutes(route)
	d.typeRoutes(route)
	d.qosRoutes(route)
	d.transferRoutes(route)
	d.attachmentRoutes(route)
	d.quotaRoutes(route)
	d.serviceRoutes(route)
	return out
}

// scope says on whose behalf the request is made.
func scope(c *api.Context) volume.Scope {
	return volume.Scope{ProjectID: c.Caller.ProjectID, UserID: c.Caller.UserID, Admin: c.Caller.CloudAdmin, RequestID: c.RequestID}
}

// update runs f in a transaction; what it gives is that of the run that was committed.
func update[T any](c *api.Context, f func(tx *store.Tx) (T, error)) (T, error) {
	var out T
	_, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) (err error) {
		out, err = f(tx)
		return err
	})
	return out, err
}

// do runs f in a transaction.
func do(c *api.Context, f func(tx *store.Tx) error) error {
	_, err := c.Store().Update(c.R.Context(), f)
	return err
}

// needProject refuses a token of no project for what needs one.
func needProject(c *api.Context) error {
	if c.Caller.ProjectID == "" {
		return badRequest("The token is of no project: a volume needs one.")
	}
	return nil
}

// adminOnly refuses what Cinder's policy leaves to administrators.
func adminOnly(c *api.Context, rule string) error {
	if !c.Caller.CloudAdmin {
		return fault.New(fault.Forbidden, "Policy doesn't allow %s to be performed.", rule)
	}
	return nil
}

type link struct {
	Rel  string `json:"rel"`
	Href string `json:"href"`
}

// links of a resource such as "volumes/<id>".
func links(c *api.Context, path string) []link {
	root := "/v3/"
	if p := c.Caller.ProjectID; p != "" {
		root += p + "/"
	}
	return []link{{"self", c.URL(root + path)}, {"bookmark", c.URL("/" + path)}}
}

func versionDoc(c *api.Context) object {
	return object{
		"id": "v3.0", "status": "CURRENT", "version": newest.String(), "min_version": oldest.String(), "updated": "2022-03-30T00:00:00Z",
		"links":       []any{link{"self", c.URL("/v3/")}, object{"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/api-ref/block-storage/v3/"}},
		"media-types": []any{object{"base": "application/json", "type": "application/vnd.openstack.volume+json;version=3"}},
	}
}

func (d *dialect) versions(c *api.Context) error {
	return c.JSON(http.StatusMultipleChoices, object{"versions": []any{versionDoc(c)}})
}

func (d *dialect) version(c *api.Context) error {
	return c.JSON(http.StatusOK, object{"versions": []any{versionDoc(c)}})
}

// errorNames are the members under which Cinder's errors stand.
var errorNames = map[int]string{
	http.StatusBadRequest: "badRequest", http.StatusForbidden: "forbidden", http.StatusNotFound: "itemNotFound",
	http.StatusMethodNotAllowed: "badMethod", http.StatusConflict: "conflictingRequest", http.StatusRequestEntityTooLarge: "overLimit",
	http.StatusUnsupportedMediaType: "badMediaType", http.StatusNotImplemented: "notImplemented", http.StatusServiceUnavailable: "serviceUnavailable",
}

// writeError answers in Cinder's form; without a valid token, in that of Keystone's
// middleware, which stands before Cinder.
func writeError(c *api.Context, status int, err error) {
	text := api.Text(status, err)
	var body object
	if status == http.StatusUnauthorized {
		body = object{"error": object{"code": status, "title": "Unauthorized", "message": text}}
	} else {
		if fault.Is(err, fault.OverQuota) {
			status = http.StatusRequestEntityTooLarge
		}
		e := object{"code": status, "message": text}
		if fault.Is(err, fault.OverQuota) {
			e["retryAfter"] = "0"
			c.W.Header().Set("Retry-After", "0")
		}
		body = object{cmp.Or(errorNames[status], "computeFault"): e}
	}
	if err := c.JSON(status, body); err != nil {
		c.Log.Error("an error could not be written", "err", err)
	}
}

// badRequest refuses a request.
func badRequest(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }

// notOffered refuses what Cinder has and this cloud has not.
func notOffered(what string) error {
	return fault.New(fault.NotImplemented, "%s is not offered by this cloud.", what)
}

// stamp writes a time as Cinder does; nil for none.
func stamp(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format("2006-01-02T15:04:05.000000")
}

// changed writes the time of the last change; nil for what never changed.
func changed(m *model.Meta) any {
	if m.UpdatedAt.Equal(m.CreatedAt) {
		return nil
	}
	return stamp(m.UpdatedAt)
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
