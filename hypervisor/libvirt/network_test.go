package libvirt

import (
	"strings"
	"testing"

	"yakumo/hypervisor"
)

func nbdDisk(reconnect int) hypervisor.Disk {
	return hypervisor.Disk{Format: "raw", BootOrder: 1, Serial: "v", Network: &hypervisor.NetworkDisk{Protocol: "nbd", Socket: "/run/v.nbd", Name: "v", Reconnect: reconnect}}
}

func rbdDisk(user string) hypervisor.Disk {
	return hypervisor.Disk{Format: "raw", BootOrder: 1, Network: &hypervisor.NetworkDisk{Protocol: "rbd", Name: "pool/v", Hosts: []string{"192.0.2.1:6789", "[2001:db8::1]:3300"}, User: user, Secret: "c2VjcmV0"}}
}

func TestNetworkDisks(t *testing.T) {
	g := sample()
	shared := nbdDisk(60)
	shared.Shared = true
	g.Disks = []hypervisor.Disk{shared, rbdDisk("a")}
	if err := g.Check(); err == nil {
		t.Error("two disks are first")
	}
	g.Disks[1].BootOrder = 2
	text, _, err := definition(g, platform{accelerator: "tcg"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`<source protocol="nbd" name="v"><host transport="unix" socket="/run/v.nbd"></host><reconnect delay="60"></reconnect></source>`,
		`<shareable></shareable>`,
		`<source protocol="rbd" name="pool/v"><host name="192.0.2.1" port="6789"></host><host name="[2001:db8::1]" port="3300"></host><auth username="a"><secret type="ceph" uuid="`,
		`cache="none"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the definition lacks %s:\n%s", want, text)
		}
	}
	if strings.Contains(text, "c2VjcmV0") || strings.Contains(text, "secret</") {
		t.Error("the key is in the definition")
	}
}
