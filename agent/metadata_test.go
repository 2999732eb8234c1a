package agent

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"yakumo/datapath"
	"yakumo/datapath/pipeline"
	"yakumo/hypervisor/fake"
	"yakumo/model"
)

// ask asks the service as the guest with the n-th alias.
func ask(a *Agent, n uint32, method, path string, header ...string) *httptest.ResponseRecorder {
	env := pipeline.DefaultEnv()
	r := httptest.NewRequest(method, "http://169.254.169.254/", nil)
	r.URL.Path = path
	r.RemoteAddr = netip.AddrPortFrom(env.Alias(n), 40000).String()
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	a.meta.ServeHTTP(w, r)
	return w
}

// two starts an agent with two guests and gives the alias of each.
func two(t testing.TB) (w *world, a *running, servers [2]*model.HostServer, ports [2]*model.HostPort, alias [2]uint32) {
	w = newWorld(t.TempDir(), fake.HostConfig{})
	c := newCloud(w.side)
	a = w.startFor(t)
	rows := c.base()
	for i := range servers {
		servers[i], ports[i] = c.server()
		rows = append(rows, servers[i], ports[i])
	}
	servers[0].KeyName, servers[0].PublicKey = "my key", "ssh-ed25519 AAAA me"
	servers[0].UserData = base64.StdEncoding.EncodeToString([]byte("#!/bin/sh\nexit 3\n"))
	servers[0].Metadata = map[string]string{"role": "db"}
	servers[0].Groups = []string{"default", "web"}
	servers[0].ConfigDrive, servers[0].AdminPass = true, "first"
	w.side.apply(t, full(5, rows...))
	for i := range servers {
		w.settled(t, servers[i].ID, 1, model.PhaseReady, model.PowerRunning)
		for n := uint32(1); alias[i] == 0; n++ {
			env := pipeline.DefaultEnv()
			if o, ok := a.dp.MetadataOwner(env.Alias(n)); ok && o.Port == ports[i].ID {
				alias[i] = n
			} else if n > 1000 {
				t.Fatal("a port has no alias")
			}
		}
	}
	return w, a, servers, ports, alias
}

func TestMetadata(t *testing.T) {
	w, a, s, p, alias := two(t)
	ec2 := func(prefix string, id model.ID) string { return prefix + strings.ReplaceAll(id, "-", "")[:17] }
	mac := "/latest/meta-data/network/interfaces/macs/" + p[0].MAC + "/"
	for _, tc := range []struct {
		path, want string
		status     int
	}{
		{"/", "1.0\n2007-01-19\n2007-03-01\n2007-08-29\n2007-10-10\n2007-12-15\n2008-02-01\n2008-09-01\n2009-04-04\nlatest", 200},
		{"/latest", "meta-data\nuser-data", 200},
		{"/latest/", "meta-data\nuser-data", 200},
		{"/2009-04-04/meta-data/instance-id", ec2("i-", s[0].ID), 200},
		{"/latest/meta-data/ami-id", ec2("ami-", s[0].Image.ImageID), 200},
		{"/latest/meta-data/hostname", "s1.example.org", 200},
		{"/latest/meta-data/local-hostname", "s1.example.org", 200},
		{"/latest/meta-data/local-ipv4", "10.0.0.11", 200},
		{"//latest//meta-data//local-ipv4/", "10.0.0.11", 200},
		{"/latest/meta-data/public-keys/", "0=my key", 200},
		{"/latest/meta-data/public-keys/0/", "openssh-key", 200},
		{"/latest/meta-data/public-keys/0/openssh-key", "ssh-ed25519 AAAA me", 200},
		{"/latest/meta-data/placement/availability-zone", "nova", 200},
		{"/latest/meta-data/placement", "availability-zone", 200},
		{"/latest/meta-data/security-groups", "default\nweb", 200},
		{"/latest/meta-data/instance-type", "m1.tiny", 200},
		{"/latest/meta-data/mac", p[0].MAC, 200},
		{"/latest/meta-data/network/interfaces/macs/", p[0].MAC + "/", 200},
		{mac + "local-ipv4s", "10.0.0.11", 200},
		{mac + "subnet-ipv4-cidr-block", "10.0.0.0/24", 200},
		{mac + "device-number", "0", 200},
		{"/latest/user-data", "#!/bin/sh\nexit 3\n", 200},
		{"/openstack/latest/user_data", "#!/bin/sh\nexit 3\n", 200},
		{"/openstack/", "2012-08-10\n2013-04-04\n2013-10-17\n2015-10-15\n2016-06-30\n2016-10-06\n2017-02-22\n2018-08-27\n2020-10-14\nlatest", 200},
		{"/openstack/2012-08-10", "meta_data.json\nuser_data", 200},
		{"/openstack/latest/", "meta_data.json\nuser_data\npassword\nvendor_data.json\nnetwork_data.json\nvendor_data2.json", 200},
		{"/openstack/latest/vendor_data.json", "{}", 200},
		{"/openstack/latest/vendor_data2.json", `{"static":{}}`, 200},
		{"/openstack/latest/password", "", 200},
		{"/openstack/2012-08-10/network_data.json", "", 404},
		{"/openstack/latest/meta_data.json/x", "", 404},
		{"/openstack/1999-01-01/", "", 404},
		{"/openstack/latest/../../latest/user-data", "", 404},
		{"/latest/meta-data/nothing", "", 404},
		{"/latest/meta-data/instance-id/x", "", 404},
		{"/latest/../latest/user-data", "", 404},
		{"/latest/user-data/x", "", 404},
		{"/latest/dynamic/", "", 404},
		{"/etc/passwd", "", 404},
	} {
		got := ask(a.Agent, alias[0], "GET", tc.path)
		if got.Code != tc.status || tc.status == 200 && got.Body.String() != tc.want {
			t.Errorf("%s: %d %q, want %d %q", tc.path, got.Code, got.Body, tc.status, tc.want)
		}
	}

	var doc openstackDocument
	got := ask(a.Agent, alias[0], "GET", "/openstack/2018-08-27/meta_data.json")
	if err := json.Unmarshal(got.Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.UUID != s[0].ID || doc.Hostname != "s1.example.org" || doc.PublicKeys["my key"] != "ssh-ed25519 AAAA me" || doc.Meta["role"] != "db" ||
		doc.ProjectID != s[0].ProjectID || len(doc.Keys) != 1 || doc.AvailabilityZone != "nova" || len(doc.RandomSeed) != 684 {
		t.Errorf("meta_data.json: %+v", doc)
	}
	got = ask(a.Agent, alias[0], "GET", "/openstack/latest/network_data.json")
	want := `{"links":[{"id":"tap` + p[0].ID[:11] + `","vif_id":"` + p[0].ID + `","type":"ovs","mtu":1450,"ethernet_mac_address":"` + p[0].MAC +
		`"}],"networks":[{"id":"network0","type":"ipv4_dhcp","link":"tap` + p[0].ID[:11] + `","network_id":"` + p[0].NetworkID +
		`"}],"services":[{"type":"dns","address":"10.0.0.2"}]}`
	if got.Body.String() != want || got.Header().Get("Content-Type") != "application/json" {
		t.Errorf("network_data.json: %s", got.Body)
	}

	// A guest that only asked for its address is alive too.
	a.Notice(datapath.Event{Port: p[1].ID, Kind: datapath.Asked})
	waitFor(t, "the second guest's sign of life to be told", func() bool {
		r := w.side.server(s[1].ID)
		return len(r.Steps) == 3 && r.Steps[2].Step == model.StepUse && !r.Steps[2].FinishedAt.IsZero()
	})

	// The other guest sees its own, whatever it says of itself.
	for _, h := range [][]string{nil, {"X-Forwarded-For", "10.0.0.11"}, {"X-Instance-ID", s[0].ID}} {
		if got := ask(a.Agent, alias[1], "GET", "/latest/meta-data/instance-id", h...); got.Body.String() != ec2("i-", s[1].ID) {
			t.Errorf("the second guest reads %q", got.Body)
		}
	}
	for _, path := range []string{"/latest/user-data", "/openstack/latest/user_data", "/latest/meta-data/public-keys/"} {
		if got := ask(a.Agent, alias[1], "GET", path); got.Code != 404 {
			t.Errorf("the second guest reads %s: %d %q", path, got.Code, got.Body)
		}
	}
	if got := ask(a.Agent, alias[1], "GET", "/openstack/latest"); strings.Contains(got.Body.String(), "user_data") {
		t.Errorf("list of a guest without user data: %q", got.Body)
	}
	if got := ask(a.Agent, 999, "GET", "/latest/meta-data/instance-id"); got.Code != 404 {
		t.Errorf("a stranger reads %d %q", got.Code, got.Body)
	}
	for _, m := range []string{"POST", "PUT", "DELETE"} {
		if got := ask(a.Agent, alias[0], m, "/openstack/latest/meta_data.json"); got.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", m, got.Code)
		}
	}
	for range perPort {
		if !a.meta.enter(p[0].ID) {
			t.Fatal("refused too early")
		}
	}
	if got := ask(a.Agent, alias[0], "GET", "/"); got.Code != http.StatusTooManyRequests {
		t.Errorf("one request too many: %d", got.Code)
	}
	if got := ask(a.Agent, alias[1], "GET", "/"); got.Code != 200 {
		t.Errorf("the other guest suffers: %d", got.Code)
	}
	for range perPort {
		a.meta.leave(p[0].ID)
	}
	waitFor(t, "the first sign of life to be told", func() bool {
		r := w.side.server(s[0].ID)
		return len(r.Steps) == 3 && r.Steps[2].Step == model.StepUse && !r.Steps[2].FinishedAt.IsZero()
	})

	// A deleted server has no metadata any more, before anything else of it goes.
	w.side.apply(t, change(6, with(s[0], func(s *model.HostServer) { s.Deleted = true })))
	if got := ask(a.Agent, alias[0], "GET", "/latest/meta-data/instance-id"); got.Code != 404 {
		t.Errorf("a deleted server reads %d", got.Code)
	}
}

func TestNetworkDataWithoutDHCP(t *testing.T) {
	subnet4, subnet6 := model.NewID(), model.NewID()
	in := &instance{row: &model.HostServer{Name: "a"}, nics: []nic{{
		HostNIC: model.HostNIC{PortID: "p", MAC: "fa:16:3e:00:00:01"},
		port: &model.HostPort{NetworkID: "n", FixedIPs: []model.FixedIP{
			{SubnetID: subnet4, Address: netip.MustParseAddr("10.0.0.5")}, {SubnetID: subnet6, Address: netip.MustParseAddr("2001:db8::5")}}},
		network: &model.HostNetwork{Subnets: []model.HostSubnet{
			{ID: subnet4, CIDR: netip.MustParsePrefix("10.0.0.0/20"), Gateway: netip.MustParseAddr("10.0.0.1"), DNS: []netip.Addr{netip.MustParseAddr("9.9.9.9")},
				Routes: []model.Route{{Destination: netip.MustParsePrefix("10.8.0.0/16"), NextHop: netip.MustParseAddr("10.0.0.2")}}},
			{ID: subnet6, CIDR: netip.MustParsePrefix("2001:db8::/64")},
		}},
	}}}
	got, err := in.networkData()
	want := `{"links":[{"id":"tapp","vif_id":"p","type":"ovs","ethernet_mac_address":"fa:16:3e:00:00:01"}],"networks":[` +
		`{"id":"network0","type":"ipv4","link":"tapp","network_id":"n","ip_address":"10.0.0.5","netmask":"255.255.240.0","routes":[` +
		`{"network":"0.0.0.0","netmask":"0.0.0.0","gateway":"10.0.0.1"},{"network":"10.8.0.0","netmask":"255.255.0.0","gateway":"10.0.0.2"}],` +
		`"services":[{"type":"dns","address":"9.9.9.9"}]},` +
		`{"id":"network1","type":"ipv6","link":"tapp","network_id":"n","ip_address":"2001:db8::5","netmask":"ffff:ffff:ffff:ffff::"}],` +
		`"services":[{"type":"dns","address":"9.9.9.9"}]}`
	if err != nil || string(got) != want {
		t.Errorf("%v\n got %s\nwant %s", err, got, want)
	}
}

// FuzzLookup walks metadata paths: nothing but the guest's own files, and never a panic.
func FuzzLookup(f *testing.F) {
	for _, s := range []string{"", "/", "/latest/meta-data/public-keys/0/openssh-key", "/openstack/latest/../latest", "/latest/meta-data//", "/openstack/latest/user_data\x00", "/1.0/meta-data/network/interfaces/macs/fa:16:3e:00:00:01/mac", "/latest/meta-data/block-device-mapping/ami"} {
		f.Add(s)
	}
	in := &instance{row: &model.HostServer{ID: model.NewID(), Name: "a", PublicKey: "k", UserData: "aGk="}, nics: []nic{{HostNIC: model.HostNIC{PortID: model.NewID(), MAC: "fa:16:3e:00:00:01"}}}}
	f.Fuzz(func(t *testing.T, path string) {
		body, kind, err := in.lookup(path)
		if err != nil {
			t.Fatal(err)
		}
		if kind == "" && body != nil {
			t.Fatal("a body of nothing")
		}
		parts := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
		if kind != "" && len(parts) > 0 && parts[0] != "openstack" && !strings.Contains("1.0 2007-01-19 2007-03-01 2007-08-29 2007-10-10 2007-12-15 2008-02-01 2008-09-01 2009-04-04 latest", parts[0]) {
			t.Fatalf("%q is there", path)
		}
		for _, p := range parts {
			if kind != "" && (p == ".." || p == ".") {
				t.Fatalf("%q is there", path)
			}
		}
	})
}
