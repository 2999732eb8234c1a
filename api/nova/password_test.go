package nova_test

import (
	"testing"

	"yakumo/model"
	"yakumo/store"
)

func TestServerPassword(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	h := c.host("h1")
	id := c.boot("red", "mine")
	c.wait("red", id, "status", "ACTIVE")
	path := "/servers/" + id + "/os-server-password"
	read := func() any { return c.do("red-reader", "GET", path, nil).body["password"] }
	if got := read(); got != "" {
		t.Errorf("before the guest has handed one in: %v", got)
	}
	s, _ := store.Servers.Get(c.store.Snapshot(), id)
	if err := c.compute.ServerReports(t.Context(), h.ID(), []model.ServerReport{{ServerID: id, Generation: s.Generation, Phase: model.PhaseReady, Power: model.PowerRunning, Sealed: "c2VhbGVk"}}); err != nil {
		t.Fatal(err)
	}
	if got := read(); got != "c2VhbGVk" {
		t.Errorf("the password is %v", got)
	}
	c.refused(404, "itemNotFound", "blue", "GET", path, nil)
	c.refused(404, "itemNotFound", "blue", "DELETE", path, nil)
	c.refused(403, "forbidden", "red-reader", "DELETE", path, nil)
	c.must(204, "red", "DELETE", path, nil)
	if got := read(); got != "" {
		t.Errorf("after it was cleared: %v", got)
	}
}

// TestTaggedCard: a card's tag is kept with its port, for the guest to read.
func TestTaggedCard(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	body := object{"server": object{"name": "tagged", "imageRef": c.image, "flavorRef": "1", "networks": []object{{"uuid": c.network, "tag": "front"}, {"uuid": c.network}}}}
	id := c.must(202, "red", "POST", "/servers", body, "2.42")["id"].(string)
	s, _ := store.Servers.Get(c.store.Snapshot(), id)
	if len(s.Ports) != 2 || len(s.PortTags) != 1 || s.PortTags[s.Ports[0]] != "front" {
		t.Errorf("ports %v, tags %v", s.Ports, s.PortTags)
	}
	c.refused(400, "badRequest", "red", "POST", "/servers", body, "2.31")
}
