package agent

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"yakumo/datapath/pipeline"
	"yakumo/model"
)

// hand hands in a password as the guest with the n-th alias.
func hand(a *Agent, n uint32, path, body string) int {
	r := httptest.NewRequest("POST", "http://169.254.169.254"+path, strings.NewReader(body))
	env := pipeline.DefaultEnv()
	r.RemoteAddr = netip.AddrPortFrom(env.Alias(n), 40000).String()
	w := httptest.NewRecorder()
	a.meta.ServeHTTP(w, r)
	return w.Code
}

// TestPassword: a guest hands in a password once; it is reported, it outlives the agent, and another may come
// only after the owner has cleared it.
func TestPassword(t *testing.T) {
	w, a, s, _, alias := two(t)
	const path = "/openstack/latest/password"
	for _, tc := range []struct {
		path, body string
		want       int
	}{
		{path, "", 400}, {path, strings.Repeat("x", 1021), 400}, {path, "a\xff", 400}, {"/openstack/2012-08-10/password", "x", 405},
		{"/openstack/1999-01-01/password", "x", 405}, {"/openstack/latest/user_data", "x", 405}, {"/password", "x", 405},
	} {
		if got := hand(a.Agent, alias[0], tc.path, tc.body); got != tc.want {
			t.Errorf("POST %s %.20q: %d, want %d", tc.path, tc.body, got, tc.want)
		}
	}
	full := strings.Repeat("y", 1020)
	if got := hand(a.Agent, alias[0], "/openstack/2013-04-04/password", full); got != 200 {
		t.Fatalf("the first password: %d", got)
	}
	if got := hand(a.Agent, alias[0], path, "another"); got != 409 {
		t.Errorf("a second one: %d", got)
	}
	read := func(n uint32) string { return ask(a.Agent, n, "GET", path).Body.String() }
	if read(alias[0]) != full || read(alias[1]) != "" {
		t.Error("a guest does not read its own password")
	}
	waitFor(t, "the password to be reported", func() bool { return w.side.server(s[0].ID).Sealed == full })
	if r := w.side.server(s[1].ID); r.Sealed != "" {
		t.Errorf("the other guest's report: %+v", r)
	}
	// The store has it; then it is cleared.
	known := with(s[0], func(s *model.HostServer) { s.Sealed = full })
	w.side.apply(t, change(6, known))
	if hand(a.Agent, alias[0], path, "another") != 409 || read(alias[0]) != full {
		t.Error("a password that the store has is no more")
	}
	w.side.apply(t, change(7, with(known, func(s *model.HostServer) { s.Sealed, s.SealedClears = "", 1 })))
	if got := read(alias[0]); got != "" {
		t.Errorf("after it was cleared: %q", got)
	}
	if got := hand(a.Agent, alias[0], path, "new"); got != 200 || read(alias[0]) != "new" {
		t.Errorf("after it was cleared: %d %q", got, read(alias[0]))
	}
	waitFor(t, "the new password to be reported", func() bool {
		r := w.side.server(s[0].ID)
		return r.Sealed == "new" && r.SealedClears == 1
	})
}

// TestVersionsHaveWhatTheyHad: each version of the OpenStack format has the files and the members that came with it or
// before, and the config drive has the same.
func TestVersionsHaveWhatTheyHad(t *testing.T) {
	in := &instance{seed: []byte("seed"), row: &model.HostServer{ID: model.NewID(), Name: "a", ProjectID: "p", Zone: "z", UserData: "aGk=", LaunchIndex: 3,
		VCPUs: 2, ExtraSpecs: map[string]string{"hw:cpu_policy": "mixed", "hw:cpu_dedicated_mask": "1"}, Reservation: "r-abc", VendorData: json.RawMessage(`{"proxy":"http://x"}`)}}
	members := map[string]string{"random_seed": "2013-04-04", "project_id": "2015-10-15", "devices": "2016-06-30", "dedicated_cpus": "2020-10-14"}
	files := map[string]string{"meta_data.json": "2012-08-10", "user_data": "2012-08-10", "password": "2013-04-04", "vendor_data.json": "2013-10-17",
		"network_data.json": "2015-10-15", "vendor_data2.json": "2016-10-06"}
	drive, err := in.drive()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range openstackVersions {
		for name, since := range files {
			there := v.name == "latest" || v.name >= since
			body, kind, err := in.lookup("/openstack/" + v.name + "/" + name)
			if err != nil || (kind != "") != there {
				t.Errorf("%s/%s: %q, %v", v.name, name, kind, err)
			}
			if got, on := drive["openstack/"+v.name+"/"+name]; on != (there && name != "password") || on && string(got) != string(body) {
				t.Errorf("the drive's %s/%s: %v %s, the service's: %s", v.name, name, on, got, body)
			}
		}
		var doc map[string]any
		if err := json.Unmarshal(drive["openstack/"+v.name+"/meta_data.json"], &doc); err != nil {
			t.Fatal(err)
		}
		for name, since := range members {
			if _, there := doc[name]; there != (v.name == "latest" || v.name >= since) {
				t.Errorf("%s: meta_data.json has %v", v.name, slices.Sorted(maps.Keys(doc)))
			}
		}
		if own, there := doc["dedicated_cpus"]; there && !reflect.DeepEqual(own, []any{1.0}) {
			t.Errorf("%s: its own CPUs are %v", v.name, own)
		}
		if doc["launch_index"] != 3.0 || doc["availability_zone"] != "z" {
			t.Errorf("%s: %v", v.name, doc)
		}
	}
	for path, want := range map[string]string{
		"/openstack/latest/vendor_data.json": `{"proxy":"http://x"}`, "/openstack/latest/vendor_data2.json": `{"static":{"proxy":"http://x"}}`,
		"/latest/meta-data/ami-launch-index": "3", "/latest/meta-data/reservation-id": "r-abc",
	} {
		if got, _, err := in.lookup(path); err != nil || string(got) != want {
			t.Errorf("%s: %s, %v", path, got, err)
		}
	}
	var ec2 map[string]any
	if err := json.Unmarshal(drive["ec2/latest/meta-data.json"], &ec2); err != nil || ec2["ami-launch-index"] != "3" || ec2["instance-id"] == "" {
		t.Errorf("the drive's EC2 document: %v, %v", ec2, err)
	}
	if string(drive["ec2/2009-04-04/user-data"]) != "hi" {
		t.Error("the drive has no EC2 user data")
	}
}

// TestDeviceTags: tagged cards and disks are told with where the guest finds them, by the service and on the drive.
func TestDeviceTags(t *testing.T) {
	w, a, s, p, alias := two(t)
	tagged := with(s[1], func(s *model.HostServer) {
		s.NICs = []model.HostNIC{{PortID: p[1].ID, MAC: p[1].MAC, MTU: 1450, Tag: "front"}}
	})
	w.side.apply(t, change(6, tagged))
	w.settled(t, s[1].ID, tagged.Generation, model.PhaseReady, model.PowerRunning)
	var doc openstackDocument
	if err := json.Unmarshal(ask(a.Agent, alias[1], "GET", "/openstack/latest/meta_data.json").Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	want := deviceDocument{Type: "nic", Bus: "pci", Address: "0000:00:02.0", MAC: p[1].MAC, Tags: []string{"front"}}
	if doc.Devices == nil || len(*doc.Devices) != 1 || fmt.Sprint((*doc.Devices)[0]) != fmt.Sprint(want) {
		t.Errorf("the devices are %+v", doc.Devices)
	}
	if got := ask(a.Agent, alias[0], "GET", "/openstack/latest/meta_data.json").Body.String(); !strings.Contains(got, `"devices":[]`) {
		t.Errorf("devices without tags: %s", got)
	}
	// A volume, whose place the hypervisor does not know.
	in := &instance{row: &model.HostServer{Volumes: []model.HostDisk{{VolumeID: "v1", Device: "/dev/vdb", Tag: "data"}, {VolumeID: "v2", Device: "/dev/vdc"}}}}
	if got := fmt.Sprint(in.devices()); got != fmt.Sprint([]deviceDocument{{Type: "disk", Path: "/dev/vdb", Serial: "v1", Tags: []string{"data"}}}) {
		t.Errorf("the disks are %s", got)
	}
	if got, _, _ := in.lookup("/latest/meta-data/block-device-mapping/ebs1"); string(got) != "/dev/vdc" {
		t.Errorf("ebs1 is %s", got)
	}
	in.row.Volumes[0].Boot, in.row.Volumes[0].Device = true, "/dev/sda"
	if got, _, _ := in.lookup("/latest/meta-data/block-device-mapping/ami"); string(got) != "sda" {
		t.Errorf("a guest that boots from a volume: ami is %s", got)
	}
	in.public = netip.MustParseAddr("198.51.100.7")
	if got, _, _ := in.lookup("/latest/meta-data/public-ipv4"); string(got) != "198.51.100.7" {
		t.Errorf("public-ipv4 is %s", got)
	}
}
