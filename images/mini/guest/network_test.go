package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestPlans(t *testing.T) {
	const text = `{
	"links": [
		{"id": "l0", "type": "phy", "ethernet_mac_address": "FA:16:3E:00:00:01", "mtu": 1450},
		{"id": "l1", "type": "ovs", "ethernet_mac_address": "fa:16:3e:00:00:02"},
		{"id": "l2", "type": "ovs", "ethernet_mac_address": "fa:16:3e:00:00:99"}],
	"networks": [
		{"id": "n0", "type": "ipv4", "link": "l0", "ip_address": "10.0.0.5", "netmask": "255.255.255.0", "gateway": "10.0.0.1",
		 "routes": [{"network": "192.168.7.9", "netmask": "255.255.0.0", "gateway": "10.0.0.9"}],
		 "services": [{"type": "dns", "address": "10.0.0.2"}]},
		{"id": "n1", "type": "ipv6", "link": "l0", "ip_address": "fd00::5", "netmask": "ffff:ffff:ffff:ffff::", "gateway": "fd00::1"},
		{"id": "n2", "type": "ipv4_dhcp", "link": "l1"},
		{"id": "n3", "type": "ipv4", "link": "l2", "ip_address": "10.0.0.6/24"}],
	"services": [{"type": "dns", "address": "9.9.9.9"}, {"type": "ntp", "address": "10.0.0.3"}]}`
	var d networkData
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	got, err := d.plans(map[string]string{"fa:16:3e:00:00:01": "eth0", "fa:16:3e:00:00:02": "eth1"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"eth0": `link set eth0 up
link set eth0 mtu 1450
-4 address replace 10.0.0.5/24 dev eth0
-4 route replace default via 10.0.0.1 dev eth0 onlink
-4 route replace 192.168.0.0/16 via 10.0.0.9 dev eth0 onlink
-6 address replace fd00::5/64 dev eth0
-6 route replace default via fd00::1 dev eth0 onlink
true [10.0.0.2 9.9.9.9 9.9.9.9]`,
		"eth1": "link set eth1 up\nfalse []",
	} {
		var lines []string
		for _, c := range got[name].commands {
			lines = append(lines, strings.Join(c, " "))
		}
		lines = append(lines, fmt.Sprint(got[name].fixed, got[name].dns))
		if text := strings.Join(lines, "\n"); text != want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, text, want)
		}
	}
	if len(got) != 2 {
		t.Errorf("%d interfaces have a plan, want 2", len(got))
	}
}

func TestPlansRefuse(t *testing.T) {
	for _, n := range []networkEntry{
		{Link: "l", Type: "ipv4", Address: "10.0.0"},
		{Link: "l", Type: "ipv4", Address: "10.0.0.1/40"},
		{Link: "l", Type: "ipv4", Address: "10.0.0.1", Netmask: "24"},
		{Link: "l", Type: "ipv4", Address: "10.0.0.1", Netmask: "255.0.255.0"},
		{Link: "l", Type: "ipv6", Address: "fd00::1", Netmask: "255.255.255.0"},
		{Link: "l", Type: "ipv4", Address: "10.0.0.1/24", Routes: []route{{Network: "x", Gateway: "10.0.0.2"}}},
	} {
		var d networkData
		if err := json.Unmarshal([]byte(`{"links":[{"id":"l","ethernet_mac_address":"m"}]}`), &d); err != nil {
			t.Fatal(err)
		}
		d.Networks = []networkEntry{n}
		if _, err := d.plans(map[string]string{"m": "eth0"}); err == nil {
			t.Errorf("%+v: no error", n)
		}
	}
}

func FuzzNetworkData(f *testing.F) {
	f.Add([]byte(`{"links":[{"id":"l","ethernet_mac_address":"m"}],"networks":[{"link":"l","type":"ipv4","ip_address":"10.0.0.1","netmask":"255.255.255.0"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var d networkData
		if json.Unmarshal(text, &d) != nil {
			return
		}
		plans, err := d.plans(map[string]string{"m": "eth0"})
		if err == nil && len(plans) > 1 {
			t.Errorf("%d plans for one interface", len(plans))
		}
	})
}
