package libvirt

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"net"
	"slices"
	"strings"

	"yakumo/hypervisor"
)

type hostAtXML struct {
	Transport string `xml:"transport,attr,omitempty"`
	Socket    string `xml:"socket,attr,omitempty"`
	Name      string `xml:"name,attr,omitempty"`
	Port      string `xml:"port,attr,omitempty"`
}

type reconnectXML struct {
	Delay int `xml:"delay,attr"` // seconds
}

type authXML struct {
	User   string `xml:"username,attr"`
	Secret struct {
		Type string `xml:"type,attr"`
		UUID string `xml:"uuid,attr"`
	} `xml:"secret"`
}

// network2xml gives the source of a disk that is no file.
func network2xml(n hypervisor.NetworkDisk) sourceXML {
	x := sourceXML{Protocol: n.Protocol, Name: n.Name}
	if n.Protocol == "nbd" {
		x.Hosts = []hostAtXML{{Transport: "unix", Socket: n.Socket}}
		if n.Reconnect > 0 {
			x.Reconnect = &reconnectXML{n.Reconnect}
		}
		return x
	}
	for _, h := range n.Hosts {
		host, port, err := net.SplitHostPort(h)
		if err != nil {
			continue // not possible: it was checked
		}
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		x.Hosts = append(x.Hosts, hostAtXML{Name: host, Port: port})
	}
	x.Auth = &authXML{User: n.User}
	x.Auth.Secret.Type, x.Auth.Secret.UUID = "ceph", formatUUID(secretID(n))
	return x
}

type secretXML struct {
	XMLName   xml.Name `xml:"secret"`
	Ephemeral string   `xml:"ephemeral,attr"`
	Private   string   `xml:"private,attr"` // libvirt gives it to QEMU and to nobody else
	UUID      string   `xml:"uuid"`
	Usage     struct {
		Type string `xml:"type,attr"`
		Name string `xml:"name"`
	} `xml:"usage"`
}

// secretName names the key of a user of a cluster in libvirt; it has one for each.
func secretName(n hypervisor.NetworkDisk) string {
	return "yakumo " + n.User + " " + strings.Join(slices.Sorted(slices.Values(n.Hosts)), ",")
}

// secretID is a UUID (RFC 9562, version 8) that is always the same for one name.
func secretID(n hypervisor.NetworkDisk) (u [16]byte) {
	sum := sha256.Sum256([]byte(secretName(n)))
	copy(u[:], sum[:])
	u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80
	return u
}

// secrets gives libvirt the keys that a guest's disks need.
func (d *Driver) secrets(ctx context.Context, g hypervisor.Guest) error {
	for _, disk := range g.Disks {
		n := disk.Network
		if n == nil || n.Protocol != "rbd" {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(n.Secret)
		if err != nil {
			return err
		}
		id := secretID(*n)
		x := secretXML{Ephemeral: "no", Private: "yes", UUID: formatUUID(id)}
		x.Usage.Type, x.Usage.Name = "ceph", secretName(*n)
		text, err := xml.Marshal(x)
		if err != nil {
			return err
		}
		if _, err := d.ask(ctx, quick, procSecretDefine, new(encoder).str(string(text)).u32(0)); err != nil {
			return fmt.Errorf("define the key of Ceph's user %s: %w", n.User, err)
		}
		const usageCeph = 2 // VIR_SECRET_USAGE_TYPE_CEPH
		set := new(encoder).fixed(id[:]).i32(usageCeph).str(secretName(*n)).str(string(key)).u32(0)
		if _, err := d.ask(ctx, quick, procSecretSetValue, set); err != nil {
			return fmt.Errorf("set the key of Ceph's user %s: %w", n.User, err)
		}
	}
	return nil
}
