package nova_test

import (
	"fmt"
	"strings"
	"testing"

	"yakumo/model"
)

// TestAggregates takes an aggregate from its making to its end, with all that is refused on the way, and
// what zone, metadata and tenants mean for where servers go.
func TestAggregates(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	c.host("h2")
	a := c.must(200, "admin", "POST", "/os-aggregates", object{"aggregate": object{"name": "fast", "availability_zone": "east"}}, "2.41")
	if a["name"] != "fast" || a["availability_zone"] != "east" || a["uuid"] == nil || a["hosts"] != nil {
		t.Fatalf("made: %v", a)
	}
	one := fmt.Sprint("/os-aggregates/", a["id"])
	b := c.must(200, "admin", "POST", "/os-aggregates", object{"aggregate": object{"name": "other", "availability_zone": "west"}})
	two := fmt.Sprint("/os-aggregates/", b["id"])
	for _, x := range []struct {
		code         int
		kind         string
		method, path string
		body         object
	}{
		{409, "conflictingRequest", "POST", "/os-aggregates", object{"aggregate": object{"name": "fast"}}},
		{400, "badRequest", "POST", "/os-aggregates", object{"aggregate": object{"name": ""}}},
		{400, "badRequest", "POST", "/os-aggregates", object{"aggregate": object{"name": "x", "availability_zone": "a:b"}}},
		{400, "badRequest", "POST", "/os-aggregates", object{"aggregate": object{"name": "x", "color": "red"}}},
		{400, "badRequest", "PUT", one, object{"aggregate": object{}}},
		{409, "conflictingRequest", "PUT", one, object{"aggregate": object{"name": "other"}}},
		{404, "itemNotFound", "GET", "/os-aggregates/99", nil},
		{400, "badRequest", "GET", "/os-aggregates/x", nil},
		{404, "itemNotFound", "POST", one + "/action", object{"add_host": object{"host": "nowhere"}}},
		{404, "itemNotFound", "POST", one + "/action", object{"remove_host": object{"host": "h1"}}},
		{400, "badRequest", "POST", one + "/action", object{"add_host": object{}}},
		{400, "badRequest", "POST", one + "/action", object{"add_host": object{"host": "h1"}, "remove_host": object{"host": "h1"}}},
		{400, "badRequest", "POST", one + "/action", object{"jump": object{}}},
		{400, "badRequest", "POST", one + "/action", object{"set_metadata": object{"metadata": object{"availability_zone": "a:b"}}}},
	} {
		c.refused(x.code, x.kind, "admin", x.method, x.path, x.body)
	}
	act := func(path string, body object) object {
		t.Helper()
		return c.must(200, "admin", "POST", path+"/action", body)
	}
	if got := act(one, object{"add_host": object{"host": "h1"}}); fmt.Sprint(got["hosts"]) != "[h1]" {
		t.Errorf("with a host: %v", got)
	}
	c.refused(409, "conflictingRequest", "admin", "POST", one+"/action", object{"add_host": object{"host": "h1"}})
	c.refused(409, "conflictingRequest", "admin", "POST", two+"/action", object{"add_host": object{"host": "h1"}})
	c.refused(400, "badRequest", "admin", "DELETE", one, nil)
	if got := act(one, object{"set_metadata": object{"metadata": object{"ssd": "true", "gone": "x"}}}); got["metadata"].(object)["ssd"] != "true" || got["metadata"].(object)["availability_zone"] != "east" {
		t.Errorf("with metadata: %v", got)
	}
	if got := act(one, object{"set_metadata": object{"metadata": object{"gone": nil}}}); got["metadata"].(object)["gone"] != nil {
		t.Errorf("without an item: %v", got)
	}

	// The zone is the hosts', and servers that ask for it go there.
	if raw := string(c.do("red", "GET", "/os-availability-zone", nil).raw); !strings.Contains(raw, "east") || !strings.Contains(raw, "nova") {
		t.Errorf("zones: %s", raw)
	}
	id := c.boot("red", "eastern", "availability_zone", "east")
	c.wait("red", id, "status", "ACTIVE")
	if s := c.must(200, "admin", "GET", "/servers/"+id, nil); s["OS-EXT-SRV-ATTR:host"] != "h1" || s["OS-EXT-AZ:availability_zone"] != "east" {
		t.Errorf("in the zone: %v", s)
	}
	c.refused(400, "badRequest", "admin", "PUT", one, object{"aggregate": object{"availability_zone": "north"}}) // it has a server that asked for east

	// A flavor that asks for what only the aggregate has goes there, too; and one that asks for what none has, nowhere.
	spec := func(value string) {
		c.must(200, "admin", "POST", "/flavors/1/os-extra_specs", object{"extra_specs": object{"aggregate_instance_extra_specs:ssd": value}})
	}
	spec("<or> yes <or> true")
	for i := range 3 {
		id := c.boot("red", fmt.Sprint("ssd-", i))
		c.wait("red", id, "status", "ACTIVE")
		if s := c.must(200, "admin", "GET", "/servers/"+id, nil); s["OS-EXT-SRV-ATTR:host"] != "h1" {
			t.Errorf("server %d is on %v", i, s["OS-EXT-SRV-ATTR:host"])
		}
	}
	spec("no")
	id = c.boot("red", "nowhere")
	s := c.wait("red", id, "status", "ERROR")
	if text := fmt.Sprint(s["fault"].(object)["message"]); !strings.Contains(text, "2 of 2: it is in no aggregate that the flavor asks for") {
		t.Errorf("why: %s", text)
	}
	spec("true")

	// A host kept for another project.
	act(one, object{"set_metadata": object{"metadata": object{"filter_tenant_id": blue}}})
	id = c.boot("red", "not-here")
	if text := fmt.Sprint(c.wait("red", id, "status", "ERROR")["fault"].(object)["message"]); !strings.Contains(text, "1 of 2: it is kept for other projects") {
		t.Errorf("why: %s", text)
	}
	act(one, object{"remove_host": object{"host": "h1"}})
	if raw := string(c.do("red", "GET", "/os-availability-zone", nil).raw); strings.Contains(raw, "east") {
		t.Errorf("zones in the end: %s", raw)
	}
	c.must(200, "admin", "PUT", one, object{"aggregate": object{"name": "last", "availability_zone": nil}})
	for _, path := range []string{one, two} {
		if got := c.do("admin", "DELETE", path, nil); got.status != 200 {
			t.Errorf("delete: %d %s", got.status, got.raw)
		}
	}
	if rows := c.rows("admin", "/os-aggregates"); len(rows) != 0 {
		t.Errorf("left: %v", rows)
	}
}

// TestCacheImages: the hosts of an aggregate, and no others, are asked to fetch images.
func TestCacheImages(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	in, out := c.host("h1"), c.host("h2")
	c.must(200, "admin", "POST", "/os-aggregates", object{"aggregate": object{"name": "a"}})
	path := "/os-aggregates/1"
	c.must(200, "admin", "POST", path+"/action", object{"add_host": object{"host": "h1"}})
	ask := func(ids ...string) object {
		list := []object{}
		for _, id := range ids {
			list = append(list, object{"id": id})
		}
		return object{"cache": list}
	}
	c.refused(404, "itemNotFound", "admin", "POST", path+"/images", ask(c.image), "2.80")
	c.refused(404, "itemNotFound", "admin", "POST", "/os-aggregates/7/images", ask(c.image), "2.81")
	for _, body := range []object{ask(), ask("x"), ask(model.NewID()), ask(c.image, c.image), {}} {
		c.refused(400, "badRequest", "admin", "POST", path+"/images", body, "2.81")
	}
	if a := c.do("admin", "POST", path+"/images", ask(c.image), "2.81"); a.status != 202 || len(a.raw) > 0 {
		t.Errorf("%d %s", a.status, a.raw)
	}
	if got := in.Cached(); len(got) != 1 || got[0] != c.image || len(out.Cached()) != 0 {
		t.Errorf("asked: %v, and of a host that is in no aggregate %v", got, out.Cached())
	}
	// A host that is not there is none of the request's faults.
	c.hosts.mu.Lock()
	delete(c.hosts.by, in.ID())
	c.hosts.mu.Unlock()
	c.must(202, "admin", "POST", path+"/images", ask(c.image), "2.81")
}
