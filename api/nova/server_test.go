package nova_test

import (
	"testing"
)

func TestServerComesAndGoes(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	h := c.host("h1")
	id := c.boot("red", "web 1")
	s := c.wait("red", id, "status", "ACTIVE")
	t.Log(s)
	if n := len(h.Guests()); n != 1 {
		t.Errorf("the host has %d guests", n)
	}
	if rows := c.rows("red", "/servers/detail"); len(rows) != 1 || rows[0]["name"] != "web 1" {
		t.Errorf("list: %v", rows)
	}
	if rows := c.rows("blue", "/servers"); len(rows) != 0 {
		t.Errorf("another project lists %v", rows)
	}
	c.refused(404, "itemNotFound", "blue", "GET", "/servers/"+id, nil)
	c.refused(404, "itemNotFound", "blue", "DELETE", "/servers/"+id, nil)
	if a := c.do("red", "DELETE", "/servers/"+id, nil); a.status != 204 {
		t.Fatalf("delete: %d %s", a.status, a.raw)
	}
	c.gone("red", id)
	if n := len(h.Guests()); n != 0 {
		t.Errorf("the host has %d guests", n)
	}
}
