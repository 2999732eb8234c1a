package nova_test

import (
	"net/netip"
	"testing"
	"time"

	"yakumo/model"
	"yakumo/store"
)

// TestFloatingAddress: a server shows its floating IP in the network of the address that it
// stands for.
func TestFloatingAddress(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	id := c.boot("red", "s")
	if _, err := c.store.Update(t.Context(), func(tx *store.Tx) error {
		for p := range store.Ports.List(tx, "device", id) {
			return store.FloatingIPs.Put(tx, &model.FloatingIP{Meta: model.NewMeta(red, "", time.Now()), NetworkID: "outside", Address: netip.MustParseAddr("203.0.113.7"),
				PortID: p.ID, FixedAddress: p.FixedIPs[0].Address, RouterID: "r"})
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	kinds := map[any]any{}
	for _, list := range c.must(200, "red", "GET", "/servers/"+id, nil)["addresses"].(object) {
		for _, a := range list.([]any) {
			kinds[a.(object)["OS-EXT-IPS:type"]] = a.(object)["addr"]
		}
	}
	if kinds["floating"] != "203.0.113.7" || kinds["fixed"] == nil || len(kinds) != 2 {
		t.Errorf("addresses: %v", kinds)
	}
}
