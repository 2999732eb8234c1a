package neutron_test

import (
	"fmt"
	"testing"

	"yakumo/model"
	"yakumo/store"
)

func TestNames(t *testing.T) {
	c := newCloud(t)
	w := c.must(201, "red", "POST", "/v2.0/networks", object{"network": object{"name": "w", "dns_domain": "Example.org."}})["id"].(string)
	c.subnet("red", w, "10.0.0.0/30", "gateway_ip", nil, "allocation_pools", []object{{"start": "10.0.0.1", "end": "10.0.0.1"}})
	c.must(201, "red", "POST", "/v2.0/subnets", object{"subnet": object{"network_id": w, "ip_version": 6, "cidr": "fd00::/64", "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}})
	p := c.port("red", w, "mac_address", "fa:16:3e:00:00:01", "dns_name", "Web1")
	at := "/v2.0/ports/" + p["id"].(string)
	names := func() string {
		t.Helper()
		out := ""
		for _, x := range c.must(200, "red", "GET", at, nil)["dns_assignment"].([]any) {
			a := x.(object)
			out += fmt.Sprint(a["hostname"], " ", a["ip_address"], " ", a["fqdn"], ";")
		}
		return out
	}
	if got := names(); p["dns_name"] != "web1" || got != "web1 10.0.0.1 web1.Example.org.;web1 fd00::f816:3eff:fe00:1 web1.Example.org.;" {
		t.Errorf("%v: %s", p["dns_name"], got)
	}
	set := func(name string) object { return object{"port": object{"dns_name": name}} }
	if got := c.must(200, "red", "PUT", at, set("db.example.org.")); got["dns_name"] != "db" {
		t.Errorf("a full name: %v", got["dns_name"])
	}
	for _, bad := range []string{"db.example.com.", "a.b", "-a", "a_b", ".example.org.", "x.", fmt.Sprintf("%064d", 1)} {
		c.refused(400, "HTTPBadRequest", "red", "PUT", at, set(bad))
	}
	c.must(200, "red", "PUT", at, set(""))
	if got := names(); got != "host-10-0-0-1 10.0.0.1 host-10-0-0-1.Example.org.;host-fd00--f816-3eff-fe00-1 fd00::f816:3eff:fe00:1 host-fd00--f816-3eff-fe00-1.Example.org.;" {
		t.Error(got)
	}
	// A server's port is called as the server is.
	if _, err := c.store.Update(t.Context(), func(tx *store.Tx) error {
		return store.Servers.Put(tx, &model.Server{Meta: model.NewMeta(red, "s", c.start()), HostName: "guest"})
	}); err != nil {
		t.Fatal(err)
	}
	for s := range store.Servers.All(c.store.Snapshot()) {
		c.must(200, "red", "PUT", at, object{"port": object{"device_id": s.ID, "device_owner": "compute:nova"}})
	}
	if got := names(); got != "guest 10.0.0.1 guest.Example.org.;guest fd00::f816:3eff:fe00:1 guest.Example.org.;" {
		t.Error(got)
	}
	c.must(200, "red", "PUT", "/v2.0/networks/"+w, object{"network": object{"dns_domain": ""}})
	if got := names(); got != "guest 10.0.0.1 guest.openstacklocal.;guest fd00::f816:3eff:fe00:1 guest.openstacklocal.;" {
		t.Error(got)
	}
}
