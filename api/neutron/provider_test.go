package neutron_test

import (
	"testing"

	"yakumo/model"
	"yakumo/store"
)

// TestProviderAttributes: what administrators choose of a segment, and who sees it.
func TestProviderAttributes(t *testing.T) {
	c := newCloud(t)
	h := *c.host("h1")
	h.BridgeMappings = []string{"physnet1"}
	if _, err := c.store.Update(t.Context(), func(tx *store.Tx) error { return store.Hosts.Put(tx, &h) }); err != nil {
		t.Fatal(err)
	}
	made := c.must(201, "admin", "POST", "/v2.0/networks", object{"network": object{"name": "v", "shared": true, "provider:network_type": "vlan",
		"provider:physical_network": "physnet1", "provider:segmentation_id": "100"}})
	id := made["id"].(string)
	if made["provider:network_type"] != "vlan" || made["provider:physical_network"] != "physnet1" || made["provider:segmentation_id"] != 100.0 || made["mtu"] != 1500.0 {
		t.Errorf("made %v", made)
	}
	flat := c.must(201, "admin", "POST", "/v2.0/networks", object{"network": object{"provider:network_type": "flat", "provider:physical_network": "physnet1", "provider:segmentation_id": nil}})
	if v, there := flat["provider:segmentation_id"]; v != nil || !there {
		t.Errorf("a flat network shows %v", flat)
	}
	seen := c.must(200, "red", "GET", "/v2.0/networks/"+id, nil)
	if _, there := seen["provider:network_type"]; there || seen["vlan_transparent"] != false {
		t.Errorf("a tenant sees %v", seen)
	}
	for _, q := range []string{"provider:network_type=vlan", "provider:physical_network=physnet1&provider:segmentation_id=100"} {
		if rows := c.list("admin", "/v2.0/networks?"+q); len(rows) != 1 || rows[0]["id"] != id {
			t.Errorf("%s finds %v", q, rows)
		}
	}
	ours := c.must(201, "red", "POST", "/v2.0/networks", object{"network": object{"vlan_transparent": true, "segments": []any{}}})
	if ours["vlan_transparent"] != true || ours["mtu"] != 1446.0 {
		t.Errorf("a transparent network: %v", ours)
	}
	c.must(201, "red", "POST", "/v2.0/networks", object{"network": object{"vlan_transparent": nil}})
	before := c.state()
	c.refused(409, "VlanIdInUse", "admin", "POST", "/v2.0/networks", object{"network": object{"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 100}})
	c.refused(409, "FlatNetworkInUse", "admin", "POST", "/v2.0/networks", object{"network": object{"provider:network_type": "flat", "provider:physical_network": "physnet1"}})
	c.refused(400, "InvalidInput", "admin", "PUT", "/v2.0/networks/"+id, object{"network": object{"provider:segmentation_id": 101}})
	c.refused(400, "HTTPBadRequest", "admin", "POST", "/v2.0/networks", object{"network": object{"provider:network_type": 5}})
	c.refused(400, "HTTPBadRequest", "admin", "POST", "/v2.0/networks", object{"network": object{"provider:segmentation_id": "many"}})
	segment := object{"provider:network_type": model.NetworkVXLAN}
	c.refused(501, "HTTPNotImplemented", "admin", "POST", "/v2.0/networks", object{"network": object{"segments": []object{segment, segment}}})
	c.refused(400, "SegmentsSetInConjunctionWithProviders", "admin", "POST", "/v2.0/networks", object{"network": object{"segments": []object{segment}, "provider:network_type": "gre"}})
	c.refused(400, "HTTPBadRequest", "admin", "POST", "/v2.0/networks", object{"network": object{"segments": []object{{"vlan": 5}}}})
	c.refused(409, "VlanIdInUse", "admin", "POST", "/v2.0/networks", object{"network": object{"segments": []object{{"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 100}}}})
	c.refused(403, "PolicyNotAuthorized", "red", "POST", "/v2.0/networks", object{"network": object{"segments": []object{segment}}})
	c.refused(400, "HTTPBadRequest", "red", "PUT", "/v2.0/networks/"+ours["id"].(string), object{"network": object{"vlan_transparent": false}})
	c.refused(400, "HTTPBadRequest", "red", "POST", "/v2.0/networks", object{"network": object{"vlan_transparent": "perhaps"}})
	if after := c.state(); after != before {
		t.Errorf("what was refused has changed something:\n%s\n%s", before, after)
	}
}
