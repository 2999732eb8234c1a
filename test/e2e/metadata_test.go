package e2e_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// metadata is the part of meta_data.json that tests look at.
type metadata struct {
	UUID       string            `json:"uuid"`
	Hostname   string            `json:"hostname"`
	Name       string            `json:"name"`
	ProjectID  string            `json:"project_id"`
	PublicKeys map[string]string `json:"public_keys"`
}

func readMetadata(t *testing.T, g *guest, line string) metadata {
	t.Helper()
	var m metadata
	text := g.must(t, line)
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatalf("%s: %s: %v: %s", g.name, line, err, text)
	}
	return m
}

// TestGuestsAreToldWhatTheyAre: DHCP, the metadata service and the config drive.
func TestGuestsAreToldWhatTheyAre(t *testing.T) {
	w := shared(t)
	size := networkMTU(t, w)
	for _, c := range []struct {
		g    *guest
		ten  *tenant
		data string
		keys map[string]string
	}{
		{w.blue1, w.blue, blueData, map[string]string{"blue": blueKey}},
		{w.blue2, w.blue, blueData, map[string]string{"blue": blueKey}},
		{w.red1, w.red, redData, nil},
	} {
		g := c.g
		for _, line := range []struct{ do, want string }{
			{"hostname", g.name},
			{"cat /sys/class/net/eth0/mtu", fmt.Sprint(size)},
			{"ip -4 -o addr show dev eth0 | awk '{print $4}'", g.addr + "/24"},
			{"ip -4 route show default | awk '{print $3}'", "10.50.0.1"},
			{"awk '/nameserver/ {print $2}' /etc/resolv.conf", "192.0.2.53"},
			{"cat /root/user-data", strings.TrimSuffix(strings.Split(strings.ReplaceAll(c.data, "$(id -un)", "root"), "echo ")[1], " >/root/user-data\n")},
			// The service answers each guest with what is its own, by both dialects. Two of them
			// have the same address.
			{"curl -sf -m 10 http://169.254.169.254/openstack/latest/user_data", strings.TrimSpace(c.data)},
			{"curl -sf -m 10 http://169.254.169.254/latest/meta-data/local-ipv4", g.addr},
			{"curl -sf -m 10 http://169.254.169.254/latest/meta-data/hostname | cut -d. -f1", g.name},
			{"curl -sf -m 10 http://169.254.169.254/latest/user-data", strings.TrimSpace(c.data)},
		} {
			if got := g.must(t, line.do); got != line.want {
				t.Errorf("%s: %s: got %q, want %q", g.name, line.do, got, line.want)
			}
		}
		m := readMetadata(t, g, "curl -sf -m 10 http://169.254.169.254/openstack/latest/meta_data.json")
		check := func(where string, m metadata) {
			if m.UUID != g.id || m.Name != g.name || m.ProjectID != c.ten.id || !strings.HasPrefix(m.Hostname, g.name) {
				t.Errorf("%s, %s (%s): got %+v", g.name, where, g.id, m)
			}
			if strings.TrimSpace(m.PublicKeys["blue"]) != c.keys["blue"] {
				t.Errorf("%s, %s: the keys are %v", g.name, where, m.PublicKeys)
			}
		}
		check("metadata service", m)
		keys, _ := g.run(t, "cat ~cirros/.ssh/authorized_keys")
		if strings.TrimSpace(keys) != c.keys["blue"] && c.keys != nil {
			t.Errorf("%s: authorized_keys holds %q", g.name, keys)
		}
		drive, status := g.run(t, "blkid -L config-2")
		if has := status == 0; has != (g == w.blue2) {
			t.Errorf("%s: config drive: %v, %q", g.name, has, drive)
		} else if has {
			g.must(t, "mkdir -p /mnt/config && mount -o ro "+drive+" /mnt/config")
			check("config drive", readMetadata(t, g, "cat /mnt/config/openstack/latest/meta_data.json"))
			if got := g.must(t, "cat /mnt/config/openstack/latest/user_data"); got != strings.TrimSpace(c.data) {
				t.Errorf("%s: user data on the config drive: %q", g.name, got)
			}
			g.must(t, "umount /mnt/config")
		}
	}
	// Each found it at the first try: it was there before the guest asked.
	for _, g := range []*guest{w.blue1, w.blue2, w.red1} {
		log, err := fix.drivers[g.host].ConsoleLog(t.Context(), g.id, 0)
		if err != nil {
			t.Fatal(err)
		}
		said := regexp.MustCompile(`data source: [^\n]*, found in [0-9.]+ s(, at try \d+)?`).FindSubmatch(log)
		if said == nil || len(said[1]) > 0 {
			t.Errorf("%s: its data source: %q", g.name, said)
		}
	}
	// A guest does not get another's by claiming to be it.
	out, _ := w.blue1.run(t, "curl -s -m 10 -H 'X-Instance-ID: "+w.blue2.id+"' -H 'X-Forwarded-For: "+w.blue2.addr+"' http://169.254.169.254/openstack/latest/meta_data.json")
	if strings.Contains(out, w.blue2.id) {
		t.Errorf("blue-1 gets the metadata of blue-2: %s", out)
	}
}
