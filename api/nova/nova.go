// Package nova speaks Nova's dialect, the Compute API v2.1 with its microversions: bodies
// checked as Nova's schemas check them, states and tasks in Nova's words, filters, paging,
// and errors in Nova's form. What may be done is decided in package compute, what becomes
// of ports in network, which image may be booted in images; launch composes a server's creation.
//
// Source: the Compute API reference, https://docs.openstack.org/api-ref/compute/, and its
// microversion history.
//
// Served are the microversions 2.1 to 2.96: what a version adds, changes or removes on the
// routes that are here is followed.
//
// Reads and writes only through compute, launch, network, images, volume and the store's tables. May
// import: api, fault, model, compute, launch, network, images, volume, store. Must not import: another
// dialect, agent, hypervisor, datapath.
package nova

import (
	"cmp"
	"context"
	"hash/fnv"
	"net/http"
	"time"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/images"
	"yakumo/launch"
	"yakumo/model"
	"yakumo/network"
	"yakumo/volume"
)

// Asker puts a question to a host and waits for the answer; *link.Server is one.
type Asker interface {
	Ask(ctx context.Context, host model.ID, name string, body []byte) ([]byte, error)
}

// Config makes the service.
type Config struct {
	Compute *compute.Compute
	Network *network.Network
	Images  *images.Images
	Volumes *volume.Volumes // nil: this cloud has none
	Hosts   Asker
	// ConsoleWait bounds the time that a host may take to give a console log; default 5 s.
	ConsoleWait time.Duration
}

// The microversions that are served.
var (
	oldest = api.Version{Major: 2, Minor: 1}
	newest = api.Version{Major: 2, Minor: 96}
)

// maxLimit is the largest page of a list, and its default, as in Nova.
const maxLimit = 1000

// dialect serves the routes.
type dialect struct {
	c      *compute.Compute
	net    *network.Network
	img    *images.Images
	vols   *volume.Volumes
	launch *launch.Launcher
	ask    Asker
	wait   time.Duration
	// actions are those of POST servers/<id>/action by name.
	actions map[string]action
}

// New gives the service at /compute.
func New(cfg Config) api.Service {
	d := &dialect{c: cfg.Compute, net: cfg.Network, img: cfg.Images, vols: cfg.Volumes, launch: launch.New(launch.Config{Compute: cfg.Compute, Network: cfg.Network, Images: cfg.Images, Volumes: cfg.Volumes}), ask: cfg.Hosts, wait: cmp.Or(cfg.ConsoleWait, 5*time.Second)}
	d.actions = d.actionTable()
	return api.Service{
		Name: "compute", Prefix: "/compute", Routes: d.routes(), Error: writeError, RequestIDHeader: "X-Compute-Request-Id",
		Versions: &api.VersionRange{Service: "compute", Legacy: "X-OpenStack-Nova-API-Version", Min: oldest, Max: newest},
	}
}

// from gives a microversion 2.minor.
func from(minor int) api.Version { return api.Version{Major: 2, Minor: minor} }

// at tells whether the request's microversion is 2.minor or newer.
func at(c *api.Context, minor int) bool { return c.Version.AtLeast(2, minor) }

func (d *dialect) routes() []api.Route {
	static := func(path string, access api.Access, h api.Handler) api.Route {
		return api.Route{Method: http.MethodGet, Pattern: path, Access: access, Handle: h, NoSync: true}
	}
	out := []api.Route{
		static("/", api.Public, d.versions),
		static("/v2.1", api.Public, d.version),
		static("/v2.1/", api.Public, d.version),
		static("/v2.1/extensions", api.Anyone, d.listExtensions),
		static("/v2.1/extensions/{alias}", api.Anyone, d.showExtension),
	}
	route := func(method, path string, access api.Access, min int, h api.Handler) {
		out = append(out, api.Route{Method: method, Pattern: "/v2.1" + path, Access: access, Handle: h, MinVersion: from(min)})
	}
	d.serverRoutes(route)
	d.serverParts(route)
	d.migrationRoutes(route)
	d.flavorRoutes(route)
	d.keyPairRoutes(route)
	d.hypervisorRoutes(route)
	d.serviceRoutes(route)
	d.aggregateRoutes(route)
	d.quotaRoutes(route)
	d.consoleRoutes(route)
	d.groupRoutes(route)
	d.passwordRoutes(route)
	d.usageRoutes(route)
	d.hostRoutes(route)
	d.goneRoutes(route)
	return out
}

// adder adds a route below /v2.1 that is there from microversion 2.min on.
type adder func(method, path string, access api.Access, min int, h api.Handler)

// scope says on whose behalf the request is made.
func scope(c *api.Context) compute.Scope {
	return compute.Scope{ProjectID: c.Caller.ProjectID, UserID: c.Caller.UserID, Admin: c.Caller.CloudAdmin, RequestID: c.RequestID}
}

func netScope(c *api.Context) network.Scope {
	return network.Scope{ProjectID: c.Caller.ProjectID, Admin: c.Caller.CloudAdmin}
}

type object = map[string]any

type link struct {
	Rel  string `json:"rel"`
	Href string `json:"href"`
}

// links of a resource such as "servers/<id>".
func links(c *api.Context, path string) []link {
	return []link{{"self", c.URL("/v2.1/" + path)}, {"bookmark", c.URL("/" + path)}}
}

func versionDoc(c *api.Context) object {
	return object{
		"id": "v2.1", "status": "CURRENT", "version": newest.String(), "min_version": oldest.String(), "updated": "2013-07-23T11:33:21Z",
		"links": []link{{"self", c.URL("/v2.1/")}},
	}
}

func (d *dialect) versions(c *api.Context) error {
	return c.JSON(http.StatusOK, object{"versions": []any{versionDoc(c)}})
}

func (d *dialect) version(c *api.Context) error {
	doc := versionDoc(c)
	doc["links"] = []any{link{"self", c.URL("/v2.1/")},
		object{"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/api-ref/compute/"}}
	doc["media-types"] = []any{object{"base": "application/json", "type": "application/vnd.openstack.compute+json;version=2.1"}}
	return c.JSON(http.StatusOK, object{"version": doc})
}

// errorNames are the members under which Nova's errors stand.
var errorNames = map[int]string{
	http.StatusBadRequest: "badRequest", http.StatusForbidden: "forbidden", http.StatusNotFound: "itemNotFound",
	http.StatusMethodNotAllowed: "badMethod", http.StatusConflict: "conflictingRequest", http.StatusRequestEntityTooLarge: "overLimit",
	http.StatusUnsupportedMediaType: "badMediaType", http.StatusTooManyRequests: "overLimit", http.StatusNotImplemented: "notImplemented",
	http.StatusServiceUnavailable: "serviceUnavailable",
}

// writeError answers in Nova's form; without a valid token, in that of Keystone's
// middleware, which stands before Nova.
func writeError(c *api.Context, status int, err error) {
	text := api.Text(status, err)
	var body object
	if status == http.StatusUnauthorized {
		body = object{"error": object{"code": status, "title": "Unauthorized", "message": text}}
	} else {
		body = object{cmp.Or(errorNames[status], "computeFault"): object{"code": status, "message": text}}
	}
	if err := c.JSON(status, body); err != nil {
		c.Log.Error("an error could not be written", "err", err)
	}
}

// badRequest refuses a request.
func badRequest(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }

// notOffered refuses what Nova has and this cloud has not yet.
func notOffered(what string) error {
	return fault.New(fault.NotImplemented, "%s is not offered by this cloud yet.", what)
}

// asInvalid makes a 400 of a thing in a body that is not there.
func asInvalid(err error) error {
	if fault.Is(err, fault.NotFound) {
		text, _ := fault.Text(err)
		return fault.Wrap(fault.Invalid, err, "%s", text)
	}
	return err
}

// stamp writes a time as Nova does.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// micros writes a time as Nova does where it shows microseconds; nil for none.
func micros(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format("2006-01-02T15:04:05.000000")
}

// number makes the integer by which older microversions name a host or a key pair.
func number(id string) int {
	h := fnv.New32a()
	h.Write([]byte(id))
	return int(h.Sum32()&0x7fffffff) | 1
}
