package fence_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"yakumo/compute"
	"yakumo/model"
	"yakumo/store"
)

// TestQuiet: where nothing goes wrong, servers boot, and move in every way.
func TestQuiet(t *testing.T) {
	wrong, story := simulate(t, shape{servers: 1, hosts: 2, lease: 30}, func(c *cloud) {
		id := c.create("a", func(n *compute.NewServer) { n.Metadata = map[string]string{model.HAKey: model.HARestart} })
		settle := func(what string) {
			if !c.wait(time.Minute, func() bool { return c.settled(id) == nil }) {
				c.blame("%s: %v", what, c.settled(id))
			}
		}
		settle("boot")
		for range 2 {
			from := c.get(id).Host
			c.must(func(tx *store.Tx) error {
				_, err := c.admin.comp.MoveLive(tx, scope(), id, compute.MoveRequest{})
				return err
			})
			settle("live")
			if c.get(id).Host == from {
				c.blame("it has not moved")
			}
		}
		c.must(func(tx *store.Tx) error { _, err := c.admin.comp.Resize(tx, scope(), id, c.flavors[1]); return err })
		if !c.wait(time.Minute, func() bool { return compute.State(c.get(id)) == compute.Resized }) {
			c.blame("resize: %v", c.settled(id))
		}
		c.must(func(tx *store.Tx) error { _, err := c.admin.comp.Confirm(tx, scope(), id); return err })
		settle("confirmed")
		c.sleep(5 * time.Minute)
		settle("later")
		c.tell("%+v", c.get(id).Status)
	})
	if testing.Verbose() {
		fmt.Println(strings.Join(story, "\n"))
	}
	if wrong != "" {
		t.Fatalf("%s\n%s", wrong, strings.Join(story, "\n"))
	}
}
