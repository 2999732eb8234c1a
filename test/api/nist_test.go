package api_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"yakumo/api/apitest"
	"yakumo/compute"
	"yakumo/model"
	"yakumo/store"
)

type object = apitest.Object

// user is somebody of a project, with nothing but what a password gives.
type user struct {
	t              *testing.T
	c              *cloud
	token, project string
}

// signIn gives a user of the project of the same name.
func signIn(t *testing.T, c *cloud, name, password string) *user {
	t.Helper()
	a := apitest.Do(t, c.Front, "", "POST", "/identity/v3/auth/tokens", object{"auth": object{
		"identity": object{"methods": []string{"password"}, "password": object{"user": object{"name": name, "domain": object{"id": "default"}, "password": password}}},
		"scope":    object{"project": object{"name": name, "domain": object{"id": "default"}}},
	}})
	if a.Status != http.StatusCreated {
		t.Fatalf("%s cannot sign in: %d %s", name, a.Status, a.Raw)
	}
	return &user{t, c, a.Header.Get("X-Subject-Token"), a.Body["token"].(object)["project"].(object)["id"].(string)}
}

// call makes a call of a service that must succeed, and gives the one member of what it answers, or all of it.
func (u *user) call(method, path string, body any) object {
	u.t.Helper()
	a := u.try(method, path, body)
	if a.Status/100 != 2 {
		u.t.Fatalf("%s %s: %d %s", method, path, a.Status, a.Raw)
	}
	if len(a.Body) == 1 {
		for _, v := range a.Body {
			if o, ok := v.(object); ok {
				return o
			}
		}
	}
	return a.Body
}

func (u *user) try(method, path string, body any) apitest.Answer {
	u.t.Helper()
	var version []string
	if strings.HasPrefix(path, "/compute") {
		version = []string{"OpenStack-API-Version", "compute 2.90"}
	}
	return apitest.Do(u.t, u.c.Front, u.token, method, path, body, version...)
}

// make makes something and gives its id.
func (u *user) make(path, member string, o object) string {
	u.t.Helper()
	if member != "" {
		o = object{member: o}
	}
	return u.call("POST", path, o)["id"].(string)
}

// becomes waits until what is at the path has the status; gone for what is to be there no more.
func (u *user) becomes(path, status string) {
	u.t.Helper()
	sub := u.c.Store.Subscribe()
	defer sub.Close()
	end, last := time.Now().Add(90*time.Second), apitest.Answer{}
	for time.Now().Before(end) {
		last = u.try("GET", path, nil)
		o := last.Body
		if len(o) == 1 {
			for _, v := range o {
				o, _ = v.(object)
			}
		}
		if last.Status == http.StatusNotFound && status == gone || last.Status == http.StatusOK && o["status"] == status && o["OS-EXT-STS:task_state"] == nil {
			return
		}
		if _, err := sub.Next(u.t.Context()); err != nil {
			break
		}
	}
	u.t.Fatalf("%s does not become %s: %d %s", path, status, last.Status, last.Raw)
}

const gone = "gone"

func (u *user) flavor(name string) string {
	u.t.Helper()
	for _, f := range u.call("GET", "/compute/v2.1/flavors", nil)["flavors"].([]any) {
		if f.(object)["name"] == name {
			return f.(object)["id"].(string)
		}
	}
	u.t.Fatalf("there is no flavor %s", name)
	return ""
}

func (u *user) image() string {
	u.t.Helper()
	return u.call("GET", "/image/v2/images?visibility=public", nil)["images"].([]any)[0].(object)["id"].(string)
}

// wire makes a network with a subnet and gives both.
func (u *user) wire(cidr string) (network, subnet string) {
	u.t.Helper()
	network = u.make("/network/v2.0/networks", "network", object{"name": "wire"})
	return network, u.make("/network/v2.0/subnets", "subnet", object{"network_id": network, "ip_version": 4, "cidr": cidr})
}

// TestNIST shows, one by one, that this is a cloud by NIST's definition of infrastructure as a service (SP 800-145, section 2).
func TestNIST(t *testing.T) {
	c := startWholeCloud(t, 3)
	newMember(t, c, "red")
	newMember(t, c, "blue")
	admin := signIn(t, c, "admin", adminPassword)
	admin.make("/compute/v2.1/flavors", "flavor", object{"name": "larger", "vcpus": 2, "ram": 256, "disk": 2})
	public := admin.make("/network/v2.0/networks", "network", object{"name": "public", "router:external": true})
	admin.make("/network/v2.0/subnets", "subnet", object{"network_id": public, "ip_version": 4, "cidr": "203.0.113.0/24", "enable_dhcp": false})
	c.Calls.take()
	t.Run("on-demand self-service", func(t *testing.T) { userDay(t, c, public) })
	t.Run("broad network access", func(t *testing.T) { broadAccess(t, c) })
	t.Run("resource pooling", func(t *testing.T) { pooling(t, c) })
	t.Run("rapid elasticity", func(t *testing.T) { elasticity(t, c) })
	t.Run("measured service", func(t *testing.T) { measured(t, c) })
}

// userDay is a whole day's work of a member of a project, from the first network to the last delete. The log of calls says afterwards that
// nobody but he has called, and that nothing he called for needs an administrator.
func userDay(t *testing.T, c *cloud, public string) {
	u := signIn(t, c, "red", "red-password")
	wire, subnet := u.wire("10.7.0.0/24")
	router := u.make("/network/v2.0/routers", "router", object{"name": "way-out", "external_gateway_info": object{"network_id": public}})
	u.call("PUT", "/network/v2.0/routers/"+router+"/add_router_interface", object{"subnet_id": subnet})
	group := u.make("/network/v2.0/security-groups", "security_group", object{"name": "ssh"})
	u.make("/network/v2.0/security-group-rules", "security_group_rule", object{"security_group_id": group, "direction": "ingress", "protocol": "tcp",
		"port_range_min": 22, "port_range_max": 22, "remote_ip_prefix": "0.0.0.0/0"})
	if k := u.call("POST", "/compute/v2.1/os-keypairs", object{"keypair": object{"name": "mine", "type": "ssh"}}); !strings.Contains(k["private_key"].(string), "PRIVATE KEY") {
		t.Errorf("a key pair without a key: %v", k)
	}
	const servers = "/compute/v2.1/servers"
	web := u.make(servers, "server", object{"name": "web", "imageRef": u.image(), "flavorRef": u.flavor("tiny"), "key_name": "mine", "networks": []object{{"uuid": wire}},
		"security_groups": []object{{"name": "ssh"}}})
	u.becomes(servers+"/"+web, "ACTIVE")
	action := func(body object) { t.Helper(); u.call("POST", servers+"/"+web+"/action", body) }

	port := u.call("GET", "/network/v2.0/ports?device_id="+web, nil)["ports"].([]any)[0].(object)["id"].(string)
	floating := u.make("/network/v2.0/floatingips", "floatingip", object{"floating_network_id": public, "port_id": port})
	volumes := "/volume/v3/" + u.project + "/volumes"
	disk := u.make(volumes, "volume", object{"name": "data", "size": 1})
	u.becomes(volumes+"/"+disk, "available")
	u.call("POST", servers+"/"+web+"/os-volume_attachments", object{"volumeAttachment": object{"volumeId": disk}})
	u.becomes(volumes+"/"+disk, "in-use")

	action(object{"os-stop": nil})
	u.becomes(servers+"/"+web, "SHUTOFF")
	action(object{"os-start": nil})
	u.becomes(servers+"/"+web, "ACTIVE")
	a := u.try("POST", servers+"/"+web+"/action", object{"createImage": object{"name": "evening"}})
	snapshot, _ := a.Body["image_id"].(string)
	if a.Status != http.StatusAccepted || snapshot == "" {
		t.Fatalf("a snapshot: %d %s", a.Status, a.Raw)
	}
	u.becomes("/image/v2/images/"+snapshot, "active")
	u.becomes(servers+"/"+web, "ACTIVE")
	u.call("DELETE", servers+"/"+web+"/os-volume_attachments/"+disk, nil)
	u.becomes(volumes+"/"+disk, "available")
	action(object{"resize": object{"flavorRef": u.flavor("larger")}})
	u.becomes(servers+"/"+web, "VERIFY_RESIZE")
	action(object{"confirmResize": nil})
	u.becomes(servers+"/"+web, "ACTIVE")
	if url, _ := u.call("POST", servers+"/"+web+"/remote-consoles", object{"remote_console": object{"protocol": "vnc", "type": "novnc"}})["url"].(string); url == "" {
		t.Error("no console")
	}
	action(object{"os-getConsoleOutput": object{"length": 1}})
	if n := len(u.call("GET", servers+"/"+web+"/os-instance-actions", nil)["instanceActions"].([]any)); n < 6 {
		t.Errorf("only %d actions are remembered", n)
	}
	u.call("GET", "/compute/v2.1/limits", nil)
	if usage := u.call("GET", "/compute/v2.1/os-simple-tenant-usage/"+u.project+"?start=2020-01-01T00:00:00", nil); len(usage["server_usages"].([]any)) != 1 {
		t.Errorf("the day is measured as %v", usage)
	}

	u.call("DELETE", servers+"/"+web, nil)
	u.becomes(servers+"/"+web, gone)
	u.call("DELETE", volumes+"/"+disk, nil)
	u.becomes(volumes+"/"+disk, gone)
	for _, path := range []string{"/image/v2/images/" + snapshot, "/network/v2.0/floatingips/" + floating, "/compute/v2.1/os-keypairs/mine"} {
		u.call("DELETE", path, nil)
	}
	u.call("PUT", "/network/v2.0/routers/"+router+"/remove_router_interface", object{"subnet_id": subnet})
	for _, path := range []string{"routers/" + router, "networks/" + wire, "security-groups/" + group} {
		u.call("DELETE", "/network/v2.0/"+path, nil)
	}

	calls := c.Calls.take()
	id, _ := store.Users.Holder(c.Store.Snapshot(), "default,red")
	for _, call := range calls {
		signing := call["path"] == "/identity/v3/auth/tokens"
		if call["admin"] == true || call["access"] == "admin" || call["user"] != id && !signing {
			t.Errorf("the day needed an administrator: %v", call)
		}
	}
	if len(calls) < 50 {
		t.Errorf("%d calls are logged", len(calls))
	}
}

// broadAccess: each service of the catalogue says by HTTP what it is and which versions it has, to whoever asks over the network, and what it
// tells is JSON that any client reads.
func broadAccess(t *testing.T, c *cloud) {
	u := signIn(t, c, "red", "red-password")
	found, served := map[string]bool{}, []string{"identity", "compute", "network", "image", "block-storage"} // by this test's cloud
	for _, s := range u.call("GET", "/identity/v3/auth/catalog", nil)["catalog"].([]any) {
		for _, e := range s.(object)["endpoints"].([]any) {
			x := e.(object)
			if x["interface"] != "public" || !slices.Contains(served, s.(object)["type"].(string)) {
				continue
			}
			url := strings.ReplaceAll(x["url"].(string), "/"+u.project, "")
			r, err := http.Get(url)
			if err != nil {
				t.Errorf("%s is not reached: %v", url, err)
				continue
			}
			r.Body.Close()
			if kind := r.Header.Get("Content-Type"); r.StatusCode/100 > 3 || !strings.HasPrefix(kind, "application/json") {
				t.Errorf("%s answers %d %s", url, r.StatusCode, kind)
			}
			found[s.(object)["type"].(string)] = true
		}
	}
	for _, kind := range served {
		if !found[kind] {
			t.Errorf("the catalogue has no %s: %v", kind, slices.Sorted(maps.Keys(found)))
		}
	}
}

// pooling: servers of two projects, with the same addresses, share hosts that neither is told of; each sees its own alone.
func pooling(t *testing.T, c *cloud) {
	const servers = "/compute/v2.1/servers"
	used, ids := map[model.ID][]string{}, map[string][]string{}
	members := []*user{signIn(t, c, "red", "red-password"), signIn(t, c, "blue", "blue-password")}
	for _, u := range members {
		wire, _ := u.wire("10.7.0.0/24")
		for i := range 4 {
			id := u.make(servers, "server", object{"name": fmt.Sprint("s", i), "imageRef": u.image(), "flavorRef": u.flavor("tiny"), "networks": []object{{"uuid": wire}}})
			u.becomes(servers+"/"+id, "ACTIVE")
			ids[u.project] = append(ids[u.project], id)
		}
	}
	for s := range store.Servers.All(c.Store.Snapshot()) {
		if !slices.Contains(used[s.Host], s.ProjectID) {
			used[s.Host] = append(used[s.Host], s.ProjectID)
		}
	}
	shared := 0
	for _, projects := range used {
		if len(projects) == 2 {
			shared++
		}
	}
	if shared == 0 || len(used) < 2 {
		t.Errorf("hosts and who has servers on them: %v", used)
	}
	for i, u := range members {
		list := u.try("GET", servers+"/detail", nil)
		if n := len(list.Body["servers"].([]any)); n != 4 {
			t.Errorf("%d servers are listed", n)
		}
		for h := range store.Hosts.All(c.Store.Snapshot()) {
			if strings.Contains(string(list.Raw), `"`+h.Name+`"`) || strings.Contains(string(list.Raw), h.ID) {
				t.Errorf("a tenant is told of the host %s", h.Name)
			}
		}
		for _, id := range ids[members[1-i].project] {
			if a := u.try("GET", servers+"/"+id, nil); a.Status != http.StatusNotFound {
				t.Errorf("another project's server: %d", a.Status)
			}
		}
	}
	for _, u := range members {
		for _, id := range ids[u.project] {
			u.call("DELETE", servers+"/"+id, nil)
			u.becomes(servers+"/"+id, gone)
		}
		u.call("DELETE", "/network/v2.0/networks/"+u.call("GET", "/network/v2.0/networks?name=wire", nil)["networks"].([]any)[0].(object)["id"].(string), nil)
	}
}

// elasticity: a project has ten servers by one call and none by ten more, and the hosts have back what they gave. What a project may have is
// a number that an administrator raises, not what it was set up with.
func elasticity(t *testing.T, c *cloud) {
	const servers = "/compute/v2.1/servers"
	taken := func() (vcpus int) {
		snap := c.Store.Snapshot()
		for h := range store.Hosts.All(snap) {
			size, _ := compute.Used(snap, h.ID)
			vcpus += size.VCPUs
		}
		return vcpus
	}
	u := signIn(t, c, "red", "red-password")
	wire, _ := u.wire("10.8.0.0/24")
	many := func(n int) apitest.Answer {
		return u.try("POST", servers, object{"server": object{"name": "herd", "imageRef": u.image(), "flavorRef": u.flavor("tiny"), "min_count": n, "max_count": n, "networks": []object{{"uuid": wire}}}})
	}
	before := taken()
	for _, n := range []int{10, 24} {
		if n > 10 {
			if a := many(n); a.Status != http.StatusForbidden || !strings.Contains(string(a.Raw), "Quota exceeded") {
				t.Errorf("more than the quota: %d %s", a.Status, a.Raw)
			}
			admin := signIn(t, c, "admin", adminPassword)
			admin.call("PUT", "/compute/v2.1/os-quota-sets/"+u.project, object{"quota_set": object{"instances": n, "cores": n}})
		}
		if a := many(n); a.Status != http.StatusAccepted {
			t.Fatalf("%d servers: %d %s", n, a.Status, a.Raw)
		}
		list := u.call("GET", servers, nil)["servers"].([]any)
		for _, s := range list {
			u.becomes(servers+"/"+s.(object)["id"].(string), "ACTIVE")
		}
		if len(list) != n || taken() != before+n {
			t.Errorf("%d servers, and %d vCPUs are taken, %d before", len(list), taken(), before)
		}
		for _, s := range list {
			u.call("DELETE", servers+"/"+s.(object)["id"].(string), nil)
		}
		for _, s := range list {
			u.becomes(servers+"/"+s.(object)["id"].(string), gone)
		}
		if taken() != before {
			t.Errorf("%d vCPUs are taken after all is deleted, %d before", taken(), before)
		}
	}
	u.call("DELETE", "/network/v2.0/networks/"+wire, nil)
}

// measured: what a project has is counted as it comes and goes, told to it and to who runs the cloud, and to nobody else; the sum of what was
// used is that of its servers' times.
func measured(t *testing.T, c *cloud) {
	const servers = "/compute/v2.1/servers"
	u, other, admin := signIn(t, c, "blue", "blue-password"), signIn(t, c, "red", "red-password"), signIn(t, c, "admin", adminPassword)
	have := func() float64 {
		return u.call("GET", "/compute/v2.1/limits", nil)["absolute"].(object)["totalInstancesUsed"].(float64)
	}
	usage := func(u *user, project string) object {
		return u.call("GET", "/compute/v2.1/os-simple-tenant-usage/"+project+"?start=2020-01-01T00:00:00", nil)
	}
	wire, _ := u.wire("10.9.0.0/24")
	id := u.make(servers, "server", object{"name": "m", "imageRef": u.image(), "flavorRef": u.flavor("larger"), "networks": []object{{"uuid": wire}}})
	u.becomes(servers+"/"+id, "ACTIVE")
	if have() != 1 {
		t.Errorf("%v servers are counted", have())
	}
	u.call("DELETE", servers+"/"+id, nil)
	u.becomes(servers+"/"+id, gone)
	if have() != 0 {
		t.Errorf("%v servers are counted after the delete", have())
	}
	mine := usage(u, u.project)
	vcpus, found := 0.0, false
	for _, x := range mine["server_usages"].([]any) {
		s := x.(object)
		vcpus += s["hours"].(float64) * s["vcpus"].(float64)
		found = found || s["instance_id"] == id && s["hours"].(float64) > 0 && s["vcpus"] == 2.0 && s["ended_at"] != nil
	}
	if total := mine["total_vcpus_usage"].(float64); !found || total <= 0 || total < vcpus*0.999999 || total > vcpus*1.000001 {
		t.Errorf("vCPU hours: %v in all, %v of the servers; the server is there: %v", mine["total_vcpus_usage"], vcpus, found)
	}
	if got := usage(admin, u.project); got["total_vcpus_usage"] != mine["total_vcpus_usage"] {
		t.Errorf("an administrator is told of %v, the project of %v", got["total_vcpus_usage"], mine["total_vcpus_usage"])
	}
	if a := other.try("GET", "/compute/v2.1/os-simple-tenant-usage/"+u.project, nil); a.Status != http.StatusForbidden {
		t.Errorf("another project is told: %d", a.Status)
	}
	u.call("DELETE", "/network/v2.0/networks/"+wire, nil)
}
