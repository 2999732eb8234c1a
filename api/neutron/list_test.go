package neutron_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestFilters(t *testing.T) {
	c := newCloud(t)
	w, w2 := c.network("red", "a"), c.network("red", "b")
	s := c.subnet("red", w, "10.0.0.0/24")
	c.subnet("red", w2, "10.0.0.0/24")
	g := c.must(201, "red", "POST", "/v2.0/security-groups", object{"security_group": object{"name": "g"}})["id"].(string)
	p1 := c.port("red", w, "name", "one", "fixed_ips", []object{{"ip_address": "10.0.0.77"}}, "device_id", "d1", "mac_address", "FA-16-3E-00-00-01", "security_groups", []string{g})["id"].(string)
	p2 := c.port("red", w, "name", "two", "fixed_ips", []object{{"ip_address": "10.0.0.78"}}, "admin_state_up", false)["id"].(string)
	p3 := c.port("red", w2, "name", "two", "fixed_ips", []object{{"ip_address": "10.0.0.77"}})["id"].(string)
	for id, tags := range map[string][]string{p1: {"x", "y"}, p2: {"y"}} {
		c.must(200, "red", "PUT", "/v2.0/ports/"+id+"/tags", object{"tags": tags})
	}
	for query, want := range map[string][]string{
		"":                                 {p1, p2, p3},
		"name=one":                         {p1},
		"name=one&name=two":                {p1, p2, p3},
		"name=two&network_id=" + w:         {p2},
		"name=none":                        {},
		"id=" + p1 + "&id=" + p3:           {p1, p3},
		"id=" + p1 + "&id=" + p1:           {p1},
		"network_id=" + w:                  {p1, p2},
		"network_id=nowhere":               {},
		"device_id=d1":                     {p1},
		"device_id=":                       {p2, p3},
		"mac_address=fa:16:3E:00:00:01":    {p1},
		"admin_state_up=False":             {p2},
		"admin_state_up=true":              {p1, p3},
		"status=DOWN":                      {p1, p2, p3},
		"security_groups=" + g:             {p1},
		"fixed_ips=ip_address%3D10.0.0.77": {p1, p3},
		"fixed_ips=ip_address%3D10.0.0.77&fixed_ips=subnet_id%3D" + s:       {p1},
		"fixed_ips=ip_address%3D10.0.0.77&fixed_ips=ip_address%3D10.0.0.78": {p1, p2, p3},
		"fixed_ips=subnet_id%3D" + s:                                        {p1, p2},
		"fixed_ips=ip_address_substr%3D0.78":                                {p2},
		"tags=y":                                                            {p1, p2},
		"tags=x,y":                                                          {p1},
		"tags-any=x,z":                                                      {p1},
		"not-tags=x,y":                                                      {p2, p3},
		"not-tags-any=x,y":                                                  {p3},
		"tags=y&not-tags=x":                                                 {p2},
		"project_id=" + red:                                                 {p1, p2, p3},
		"tenant_id=" + blue:                                                 {},
		"revision_number=2&tags=x":                                          {p1},
		"binding:vnic_type=normal":                                          {p1, p2, p3},
		"port_security_enabled=False":                                       {},
	} {
		got := ids(c.list("red", "/v2.0/ports?"+query))
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("ports?%s: %v, want %v", query, got, want)
		}
	}
	for query, want := range map[string][]string{
		"name=a": {w}, "shared=False": {w, w2}, "shared=True": {}, "router:external=False": {w, w2}, "mtu=1450": {w, w2},
		"subnets=" + s: {w}, "status=ACTIVE&name=b": {w2},
	} {
		got := ids(c.list("red", "/v2.0/networks?"+query))
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("networks?%s: %v, want %v", query, got, want)
		}
	}
	if got := ids(c.list("red", "/v2.0/subnets?cidr=10.0.0.0/24&network_id="+w)); !slices.Equal(got, []string{s}) {
		t.Errorf("subnets: %v", got)
	}
	if got := c.list("red", "/v2.0/security-group-rules?direction=egress&ethertype=IPv4&security_group_id="+g); len(got) != 1 {
		t.Errorf("rules: %v", got)
	}
	for _, query := range []string{"ports?nme=one", "networks?fixed_ips=x", "security-group-rules?tags=x", "ports?fixed_ips=nonsense",
		"ports?limit=-1", "ports?limit=x", "ports?sort_key=nothing", "ports?sort_key=name&sort_dir=up", "ports?marker=nowhere", "agents?x=y"} {
		if a := c.do("admin", "GET", "/v2.0/"+query, nil); a.status != 400 || a.body["NeutronError"] == nil {
			t.Errorf("%s: %d %s", query, a.status, a.raw)
		}
	}
	row := c.list("red", "/v2.0/ports?fields=id&fields=name&name=one")[0]
	if len(row) != 2 || row["id"] != p1 || row["name"] != "one" {
		t.Errorf("fields: %v", row)
	}
	if one := c.must(200, "red", "GET", "/v2.0/ports/"+p1+"?fields=mac_address", nil); len(one) != 1 || one["mac_address"] != "fa:16:3e:00:00:01" {
		t.Errorf("fields of one: %v", one)
	}
}

// TestPages: every walk in pages of every size, forwards and backwards, in every order,
// sees each row once and in order.
func TestPages(t *testing.T) {
	c := newCloud(t)
	for i := range 7 {
		c.network("red", fmt.Sprintf("n%d", i%3))
	}
	for _, sorting := range []string{"", "sort_key=name&sort_dir=asc", "sort_key=name&sort_dir=desc&sort_key=id&sort_dir=asc", "sort_key=created_at", "sort_key=mtu"} {
		all := ids(c.list("red", "/v2.0/networks?"+sorting))
		if len(all) != 7 {
			t.Fatalf("%v", all)
		}
		for limit := 1; limit <= 8; limit++ {
			for _, back := range []bool{false, true} {
				next := fmt.Sprintf("/v2.0/networks?%s&limit=%d", sorting, limit)
				rel := "next"
				if back {
					next, rel = next+"&page_reverse=True", "previous"
				}
				var seen []string
				for range 20 {
					a := c.do("red", "GET", next, nil)
					if a.status != http.StatusOK {
						t.Fatalf("%s: %d %s", next, a.status, a.raw)
					}
					var page []string
					for _, r := range a.body["networks"].([]any) {
						page = append(page, r.(object)["id"].(string))
					}
					if len(page) > limit || len(page) == 0 {
						t.Fatalf("%s: %d rows", next, len(page))
					}
					if back {
						seen = append(slices.Clone(page), seen...)
					} else {
						seen = append(seen, page...)
					}
					next = ""
					links, _ := a.body["networks_links"].([]any)
					for _, l := range links {
						if l.(object)["rel"] == rel {
							u, err := url.Parse(l.(object)["href"].(string))
							if err != nil {
								t.Fatal(err)
							}
							next = strings.TrimPrefix(u.RequestURI(), "/network")
						}
					}
					if next == "" {
						break
					}
				}
				if !slices.Equal(seen, all) {
					t.Errorf("%q, limit %d, backwards %v: %v, want %v", sorting, limit, back, seen, all)
				}
			}
		}
	}
	names := []string{}
	for _, r := range c.list("red", "/v2.0/networks?sort_key=name&sort_dir=desc") {
		names = append(names, r["name"].(string))
	}
	if !slices.Equal(names, []string{"n2", "n2", "n1", "n1", "n0", "n0", "n0"}) {
		t.Errorf("sorted by name: %v", names)
	}
}

func TestSharedNetworksAreListed(t *testing.T) {
	c := newCloud(t)
	w := c.must(201, "admin", "POST", "/v2.0/networks", object{"network": object{"shared": true}})["id"].(string)
	s := c.subnet("admin", w, "10.0.0.0/24")
	mine := c.network("red", "mine")
	want := []string{w, mine}
	slices.Sort(want)
	if got := ids(c.list("red", "/v2.0/networks")); !slices.Equal(got, want) {
		t.Errorf("networks: %v", got)
	}
	if got := ids(c.list("red", "/v2.0/subnets")); !slices.Equal(got, []string{s}) {
		t.Errorf("subnets: %v", got)
	}
	if got := ids(c.list("admin", "/v2.0/networks?shared=True")); !slices.Equal(got, []string{w}) {
		t.Errorf("shared: %v", got)
	}
	p := c.port("red", w)["id"].(string)
	if got := ids(c.list("blue", "/v2.0/ports")); len(got) != 0 {
		t.Errorf("another project sees the port: %v", got)
	}
	q := c.must(201, "admin", "POST", "/v2.0/ports", object{"port": object{"network_id": mine, "project_id": blue}})["id"].(string)
	want = []string{p, q}
	slices.Sort(want)
	if got := ids(c.list("red", "/v2.0/ports")); !slices.Equal(got, want) {
		t.Errorf("red, who owns the network of %s, lists %v", q, got)
	}
	c.must(204, "red", "DELETE", "/v2.0/ports/"+q, nil)
	c.refused(403, "PolicyNotAuthorized", "red", "DELETE", "/v2.0/networks/"+w, nil)
	c.refused(403, "PolicyNotAuthorized", "red", "PUT", "/v2.0/networks/"+w, object{"network": object{"name": "x"}})
	c.refused(403, "PolicyNotAuthorized", "red", "PUT", "/v2.0/subnets/"+s, object{"subnet": object{"name": "x"}})
	c.refused(403, "PolicyNotAuthorized", "red", "PUT", "/v2.0/networks/"+w+"/tags", object{"tags": []string{"x"}})
}

// TestTenThousandPorts bounds the time of a list, generously: the benchmark tells it well.
func TestTenThousandPorts(t *testing.T) {
	c := newCloud(t)
	fillPorts(t, c, 10_000)
	start := time.Now()
	a := c.do("red", "GET", "/v2.0/ports", nil)
	if a.status != 200 || len(a.body["ports"].([]any)) != 10_000 {
		t.Fatalf("%d", a.status)
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("listing 10,000 ports took %s", took)
	}
}

// fillPorts gives red a network with so many ports, and no quotas.
func fillPorts(t testing.TB, c *cloud, count int) (network string) {
	t.Helper()
	c.must(200, "admin", "PUT", "/v2.0/quotas/"+red, object{"quota": object{"port": -1, "network": -1, "subnet": -1}})
	network = c.network("red", "w")
	c.subnet("red", network, "10.0.0.0/16")
	for made := 0; made < count; made += 200 {
		ports := make([]object, min(200, count-made))
		for i := range ports {
			ports[i] = object{"network_id": network, "name": fmt.Sprintf("p%d", made+i)}
		}
		if a := c.do("red", "POST", "/v2.0/ports", object{"ports": ports}); a.status != 201 {
			t.Fatalf("%d %s", a.status, a.raw)
		}
	}
	return network
}
