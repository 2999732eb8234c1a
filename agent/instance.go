package agent

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"yakumo/hypervisor"
	"yakumo/model"
)

// instance is what a guest may learn of itself: the one source of its config drive and of
// the metadata service. Formats: https://docs.openstack.org/nova/latest/user/metadata.html
// and https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-metadata.html.
type instance struct {
	row      *model.HostServer
	nics     []nic
	password string             // that the guest has handed in
	places   []hypervisor.Place // of devices, where any has a tag
	public   netip.Addr         // floating address of the first card
	seed     []byte             // random
	onDrive  bool               // it is for the config drive
}

type nic struct {
	model.HostNIC
	port    *model.HostPort    // nil: not told yet
	network *model.HostNetwork // nil: not told yet
}

func (a *Agent) instanceOf(ctx context.Context, row *model.HostServer) *instance {
	in := &instance{row: row, password: row.Sealed, seed: make([]byte, 512)}
	rand.Read(in.seed)
	if p, ok := a.ledger.progressOf(row.ID); ok && p.Sealed != "" && p.SealedClears == row.SealedClears {
		in.password = p.Sealed
	}
	if len(row.NICs) > 0 {
		in.public = a.ledger.publicOf(row.NICs[0].PortID)
	}
	if l, ok := a.cfg.Hypervisor.(hypervisor.Locator); ok && in.tagged() {
		var err error
		if in.places, err = l.Devices(ctx, row.ID); err != nil {
			a.log.Warn("a guest is not told where its tagged devices are", "server", row.ID, "err", err)
		}
	}
	for _, n := range row.NICs {
		x := nic{HostNIC: n, port: a.ledger.port(n.PortID)}
		if x.port != nil {
			x.network = a.ledger.network(x.port.NetworkID)
		}
		in.nics = append(in.nics, x)
	}
	return in
}

// subnet gives the subnet of an address, nil where it is not known.
func (n nic) subnet(id model.ID) *model.HostSubnet {
	if n.network == nil {
		return nil
	}
	for i := range n.network.Subnets {
		if n.network.Subnets[i].ID == id {
			return &n.network.Subnets[i]
		}
	}
	return nil
}

// addresses4 gives the IPv4 addresses of a card.
func (n nic) addresses4() (list []string) {
	if n.port == nil {
		return nil
	}
	for _, f := range n.port.FixedIPs {
		if f.Address.Is4() {
			list = append(list, f.Address.String())
		}
	}
	return list
}

// ec2ID gives the EC2 form of a UUID: a prefix and its first 17 hex digits, as many as
// EC2's own ids have.
func ec2ID(prefix string, id model.ID) string {
	hex := strings.ReplaceAll(id, "-", "")
	return prefix + hex[:min(17, len(hex))]
}

// hostName is the guest's full name, with the domain of its first network where that has one.
func (in *instance) hostName() string {
	name := in.row.HostName
	if name == "" {
		name = in.row.Name
	}
	if len(in.nics) > 0 && in.nics[0].network != nil && !strings.Contains(name, ".") {
		if d := strings.Trim(in.nics[0].network.DNSDomain, "."); d != "" {
			name += "." + d
		}
	}
	return name
}

// userData gives the user data as it was handed in, nil where there is none.
func (in *instance) userData() ([]byte, error) {
	if in.row.UserData == "" {
		return nil, nil
	}
	b, err := base64.StdEncoding.DecodeString(in.row.UserData)
	if err != nil {
		return nil, fmt.Errorf("user data: %w", err)
	}
	return b, nil
}

type keyDocument struct {
	Name string `json:"name"`
	Type string `json:"type"`
	Data string `json:"data"`
}

// tagged tells whether any device has a tag.
func (in *instance) tagged() bool {
	return slices.ContainsFunc(in.row.NICs, func(n model.HostNIC) bool { return n.Tag != "" }) ||
		slices.ContainsFunc(in.row.Volumes, func(d model.HostDisk) bool { return d.Tag != "" })
}

// deviceDocument is a tagged device in meta_data.json.
type deviceDocument struct {
	Type    string   `json:"type"` // nic or disk
	Bus     string   `json:"bus,omitempty"`
	Address string   `json:"address,omitempty"`
	MAC     string   `json:"mac,omitempty"`
	Path    string   `json:"path,omitempty"`
	Serial  string   `json:"serial,omitempty"`
	Tags    []string `json:"tags"`
}

// devices gives the tagged devices, cards first; never nil.
func (in *instance) devices() []deviceDocument {
	out := []deviceDocument{}
	place := func(is func(hypervisor.Place) bool) hypervisor.Place {
		if i := slices.IndexFunc(in.places, is); i >= 0 {
			return in.places[i]
		}
		return hypervisor.Place{}
	}
	for _, n := range in.row.NICs {
		if n.Tag != "" {
			p := place(func(p hypervisor.Place) bool { return p.MAC != "" && strings.EqualFold(p.MAC, n.MAC) })
			out = append(out, deviceDocument{Type: "nic", Bus: p.Bus, Address: p.Address, MAC: n.MAC, Tags: []string{n.Tag}})
		}
	}
	for _, d := range in.row.Volumes {
		if d.Tag != "" {
			p := place(func(p hypervisor.Place) bool { return p.Serial == d.VolumeID })
			out = append(out, deviceDocument{Type: "disk", Bus: p.Bus, Address: p.Address, Path: cmp.Or(p.Path, d.Device), Serial: d.VolumeID, Tags: []string{d.Tag}})
		}
	}
	return out
}

// openstackDocument is meta_data.json; later versions have more.
type openstackDocument struct {
	UUID             string            `json:"uuid"`
	Name             string            `json:"name"`
	Hostname         string            `json:"hostname"`
	LaunchIndex      int               `json:"launch_index"`
	AvailabilityZone string            `json:"availability_zone"`
	ProjectID        string            `json:"project_id,omitempty"` // from 2015-10-15
	Meta             map[string]string `json:"meta,omitempty"`
	PublicKeys       map[string]string `json:"public_keys,omitempty"`
	Keys             []keyDocument     `json:"keys,omitempty"`
	AdminPass        string            `json:"admin_pass,omitempty"`     // on the config drive only
	RandomSeed       string            `json:"random_seed,omitempty"`    // from 2013-04-04
	Devices          *[]deviceDocument `json:"devices,omitempty"`        // from 2016-06-30
	DedicatedCPUs    *[]int            `json:"dedicated_cpus,omitempty"` // from 2020-10-14
}

// metaData is meta_data.json of a version. The administrator's password is on the config drive alone, as in Nova: whoever is
// on the guest, with whatever rights, may ask the metadata service.
func (in *instance) metaData(version string) ([]byte, error) {
	since := func(v string) bool { return version == "latest" || version >= v }
	d := openstackDocument{
		UUID: in.row.ID, Name: in.row.Name, Hostname: in.hostName(), AvailabilityZone: in.row.Zone, LaunchIndex: in.row.LaunchIndex, Meta: in.row.Metadata,
	}
	if in.onDrive {
		d.AdminPass = in.row.AdminPass
	}
	if since("2013-04-04") {
		d.RandomSeed = base64.StdEncoding.EncodeToString(in.seed)
	}
	if since("2015-10-15") {
		d.ProjectID = in.row.ProjectID
	}
	if since("2016-06-30") {
		list := in.devices()
		d.Devices = &list
	}
	if since("2020-10-14") {
		own := append([]int{}, processorsOf(in.row).Dedicated...)
		d.DedicatedCPUs = &own
	}
	if in.row.PublicKey != "" {
		d.PublicKeys = map[string]string{in.row.KeyName: in.row.PublicKey}
		d.Keys = []keyDocument{{in.row.KeyName, "ssh", in.row.PublicKey}}
	}
	return json.Marshal(d)
}

type linkDocument struct {
	ID   string `json:"id"`
	VIF  string `json:"vif_id"`
	Type string `json:"type"`
	MTU  int    `json:"mtu,omitempty"`
	MAC  string `json:"ethernet_mac_address"`
}

type networkDocument struct {
	ID        string            `json:"id"`
	Type      string            `json:"type"`
	Link      string            `json:"link"`
	NetworkID string            `json:"network_id"`
	Address   string            `json:"ip_address,omitempty"`
	Netmask   string            `json:"netmask,omitempty"`
	Routes    []routeDocument   `json:"routes,omitempty"`
	Services  []serviceDocument `json:"services,omitempty"`
}

type routeDocument struct {
	Network string `json:"network"`
	Netmask string `json:"netmask"`
	Gateway string `json:"gateway"`
}

type serviceDocument struct {
	Type    string `json:"type"`
	Address string `json:"address"`
}

// networkData is network_data.json. A subnet that answers DHCP is left to it.
func (in *instance) networkData() ([]byte, error) {
	d := struct {
		Links    []linkDocument    `json:"links"`
		Networks []networkDocument `json:"networks"`
		Services []serviceDocument `json:"services"`
	}{[]linkDocument{}, []networkDocument{}, []serviceDocument{}}
	for _, n := range in.nics {
		link := linkDocument{ID: "tap" + n.PortID[:min(11, len(n.PortID))], VIF: n.PortID, Type: "ovs", MTU: n.MTU, MAC: n.MAC}
		d.Links = append(d.Links, link)
		if n.port == nil {
			continue
		}
		for _, f := range n.port.FixedIPs {
			s := n.subnet(f.SubnetID)
			if s == nil {
				continue
			}
			family, mask := "ipv4", 32
			if f.Address.Is6() {
				family, mask = "ipv6", 128
			}
			out := networkDocument{ID: "network" + strconv.Itoa(len(d.Networks)), Type: family + "_dhcp", Link: link.ID, NetworkID: n.port.NetworkID}
			if !s.DHCP {
				out.Type, out.Address, out.Netmask = family, f.Address.String(), netmask(s.CIDR.Bits(), mask)
				if s.Gateway.IsValid() {
					any := netip.IPv4Unspecified()
					if f.Address.Is6() {
						any = netip.IPv6Unspecified()
					}
					out.Routes = append(out.Routes, routeDocument{any.String(), netmask(0, mask), s.Gateway.String()})
				}
				for _, r := range s.Routes {
					out.Routes = append(out.Routes, routeDocument{r.Destination.Addr().String(), netmask(r.Destination.Bits(), mask), r.NextHop.String()})
				}
				for _, dns := range s.DNS {
					out.Services = append(out.Services, serviceDocument{"dns", dns.String()})
				}
			}
			d.Networks = append(d.Networks, out)
			for _, dns := range s.DNS {
				if e := (serviceDocument{"dns", dns.String()}); !slices.Contains(d.Services, e) {
					d.Services = append(d.Services, e)
				}
			}
		}
	}
	return json.Marshal(d)
}

// netmask writes a prefix length as an address of the family with size bits.
func netmask(bits, size int) string { return net.IP(net.CIDRMask(bits, size)).String() }

// openstackVersions are the versions of the OpenStack format, oldest first, with the files that came with each.
var openstackVersions = []struct {
	name  string
	files []string
}{
	{"2012-08-10", []string{"meta_data.json", "user_data"}},
	{"2013-04-04", []string{"password"}},
	{"2013-10-17", []string{"vendor_data.json"}},
	{"2015-10-15", []string{"network_data.json"}},
	{"2016-06-30", nil},
	{"2016-10-06", []string{"vendor_data2.json"}},
	{"2017-02-22", nil},
	{"2018-08-27", nil},
	{"2020-10-14", nil},
	{"latest", nil},
}

// openstackFile makes one file of a version of the OpenStack format; false where there is none.
func (in *instance) openstackFile(version, name string) ([]byte, bool, error) {
	switch name {
	case "meta_data.json":
		b, err := in.metaData(version)
		return b, true, err
	case "user_data":
		b, err := in.userData()
		return b, b != nil, err
	case "network_data.json":
		b, err := in.networkData()
		return b, true, err
	case "vendor_data.json":
		return in.vendorData(), true, nil
	case "vendor_data2.json": // what services of the operator's would say stands beside; there are none
		return slices.Concat([]byte(`{"static":`), in.vendorData(), []byte("}")), true, nil
	case "password":
		return []byte(in.password), true, nil
	}
	return nil, false, nil
}

// vendorData is what the operator tells every guest: a JSON object.
func (in *instance) vendorData() []byte {
	if len(in.row.VendorData) == 0 {
		return []byte("{}")
	}
	return in.row.VendorData
}

// openstackFiles gives the names of the files of a version, nil where it is unknown.
func (in *instance) openstackFiles(version string) []string {
	var files []string
	for _, v := range openstackVersions {
		for _, f := range v.files {
			if f != "user_data" || in.row.UserData != "" {
				files = append(files, f)
			}
		}
		if v.name == version {
			return files
		}
	}
	return nil
}

// ec2Versions are the versions of the EC2 format, oldest first.
var ec2Versions = []string{
	"1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15", "2008-02-01", "2008-09-01", "2009-04-04", "latest",
}

// tree is a folder of the EC2 format; a value is a string or another tree.
type tree map[string]any

// ec2 gives the folder "meta-data" of the EC2 format.
func (in *instance) ec2() tree {
	host := in.hostName()
	t := tree{
		"ami-id": ec2ID("ami-", in.row.Image.ImageID), "ami-launch-index": strconv.Itoa(in.row.LaunchIndex), "ami-manifest-path": "FIXED", // as there is no manifest
		"block-device-mapping": in.mapping(),
		"hostname":             host, "local-hostname": host, "public-hostname": host,
		"instance-action": "none", "instance-id": ec2ID("i-", in.row.ID), "instance-type": in.row.FlavorName,
		"placement":       tree{"availability-zone": in.row.Zone},
		"security-groups": strings.Join(in.row.Groups, "\n"),
		"reservation-id":  cmp.Or(in.row.Reservation, ec2ID("r-", in.row.ID)), "public-ipv4": "", "local-ipv4": "",
	}
	if in.public.IsValid() {
		t["public-ipv4"] = in.public.String()
	}
	if in.row.PublicKey != "" {
		t["public-keys"] = tree{"0": tree{"openssh-key": in.row.PublicKey}}
	}
	macs := tree{}
	for i, n := range in.nics {
		m := tree{
			"device-number": strconv.Itoa(i), "mac": n.MAC, "interface-id": ec2ID("eni-", n.PortID), "owner-id": in.row.ProjectID,
			"local-hostname": host, "local-ipv4s": strings.Join(n.addresses4(), "\n"), "security-groups": strings.Join(in.row.Groups, "\n"),
		}
		if n.port != nil {
			for _, f := range n.port.FixedIPs {
				if s := n.subnet(f.SubnetID); s != nil && f.Address.Is4() {
					m["subnet-id"], m["subnet-ipv4-cidr-block"] = ec2ID("subnet-", s.ID), s.CIDR.String()
					break
				}
			}
		}
		macs[n.MAC] = m
		if i == 0 {
			t["mac"] = n.MAC
			if a := n.addresses4(); len(a) > 0 {
				t["local-ipv4"] = a[0]
			}
		}
	}
	if len(macs) > 0 {
		t["network"] = tree{"interfaces": tree{"macs": macs}}
	}
	return t
}

// mapping gives the names of the guest's disks: its root disk, and volumes as ebs0, ebs1…
func (in *instance) mapping() tree {
	t := tree{"ami": "vda", "root": "/dev/vda"}
	n := 0
	for _, d := range in.row.Volumes {
		if d.Boot {
			if d.Device != "" {
				t["ami"], t["root"] = strings.TrimPrefix(d.Device, "/dev/"), d.Device
			}
			continue
		}
		if d.Device != "" {
			t["ebs"+strconv.Itoa(n)] = d.Device
			n++
		}
	}
	return t
}

// list names what a folder holds, one a line: a folder with a slash behind it, a key with its name.
func (in *instance) list(path string, t tree) string {
	names := make([]string, 0, len(t))
	for name, v := range t {
		switch {
		case path == "public-keys":
			name += "=" + in.row.KeyName
		case isTree(v):
			name += "/"
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, "\n")
}

func isTree(v any) bool {
	_, ok := v.(tree)
	return ok
}

// json gives the tree as JSON can hold it, for the config drive.
func (t tree) json() map[string]any {
	out := map[string]any{}
	for k, v := range t {
		if sub, ok := v.(tree); ok {
			out[k] = sub.json()
		} else {
			out[k] = v
		}
	}
	return out
}

// drive gives the files of the config drive by path.
func (in *instance) drive() (map[string][]byte, error) {
	in.onDrive = true
	files := map[string][]byte{}
	for _, v := range openstackVersions {
		for _, name := range in.openstackFiles(v.name) {
			if name == "password" {
				continue // only the service takes one
			}
			b, ok, err := in.openstackFile(v.name, name)
			if err != nil {
				return nil, err
			}
			if ok {
				files["openstack/"+v.name+"/"+name] = b
			}
		}
	}
	meta, err := json.Marshal(in.ec2().json())
	if err != nil {
		return nil, err
	}
	user, err := in.userData()
	if err != nil {
		return nil, err
	}
	for _, v := range []string{"2009-04-04", "latest"} {
		files["ec2/"+v+"/meta-data.json"] = meta
		if user != nil {
			files["ec2/"+v+"/user-data"] = user
		}
	}
	return files, nil
}
