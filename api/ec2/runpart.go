package ec2

import (
	"net/netip"
	"slices"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/images"
	"yakumo/launch"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
	"yakumo/volume"
)

// subnetSeen gives a subnet that the caller may have interfaces on.
func (d *dialect) subnetSeen(q *request, r store.Reader, id string) (*model.Subnet, error) {
	return find(r, store.Subnets, subnetID, id, func(s *model.Subnet) bool {
		_, err := d.net.GetSubnet(r, q.netScope(), s.ID)
		return err == nil
	})
}

// groupIDs gives the caller's security groups that ids name.
func (q *request) groupIDs(r store.Reader, ids []string) ([]string, error) {
	var out []string
	for _, id := range ids {
		g, err := find(r, store.SecurityGroups, groupID, id, func(g *model.SecurityGroup) bool { return q.mine(g.ProjectID) })
		if err != nil {
			return nil, err
		}
		if !slices.Contains(out, g.ID) {
			out = append(out, g.ID)
		}
	}
	return out, nil
}

// privateAddress reads an address of IPv4 in a subnet; "": any.
func privateAddressIn(s *model.Subnet, text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil || !a.Is4() {
		return a, badValue("Value (%s) for parameter privateIpAddress is invalid. It is no address of IPv4.", api.Clip(text))
	}
	if !s.CIDR.Contains(a) {
		return a, badValue("Address %s does not fall within the subnet's address range", a)
	}
	return a, nil
}

// readInterfaces reads what networks the instances are to be on.
func (d *dialect) readInterfaces(q *request, r store.Reader, w *wanted) (err error) {
	if w.Groups, err = q.groupIDs(r, q.strs("SecurityGroupId")); err != nil {
		return err
	}
	for _, name := range q.strs("SecurityGroup") {
		if name != network.DefaultGroup && !slices.ContainsFunc(slices.Collect(store.SecurityGroups.List(r, "name", name)), func(g *model.SecurityGroup) bool { return q.mine(g.ProjectID) }) {
			return fault.Coded(fault.NotFound, "InvalidGroup.NotFound", "The security group '%s' does not exist", api.Clip(name))
		}
		w.Groups = append(w.Groups, name)
	}
	list := q.list("NetworkInterface")
	switch id := q.str("SubnetId"); {
	case len(list) > 0 && (id != "" || len(w.Groups) > 0 || q.str("PrivateIpAddress") != ""):
		return fault.Coded(fault.Invalid, "InvalidParameterCombination", "Network interfaces and an instance-level subnet ID, security groups or address may not be specified on the same request")
	case len(list) > 0:
		return d.readNICs(q, r, w, list)
	case id != "":
		n, err := d.newNIC(q, r, w, id, q.str("PrivateIpAddress"))
		w.NICs = []launch.NIC{n}
		return err
	case q.str("PrivateIpAddress") != "":
		return missing("SubnetId")
	}
	if v := usual(q.vpcs(r)); v != nil && v.isDefault() && len(v.subnets) > 0 {
		n, err := d.newNIC(q, r, w, subnetID.id(v.subnets[0].ID), "")
		w.NICs = []launch.NIC{n}
		return err
	}
	w.Auto = true
	return nil
}

// newNIC gives a new interface in a subnet.
func (d *dialect) newNIC(q *request, r store.Reader, w *wanted, subnet, address string) (launch.NIC, error) {
	s, err := d.subnetSeen(q, r, subnet)
	if err != nil {
		return launch.NIC{}, err
	}
	a, err := privateAddressIn(s, address)
	if err != nil {
		return launch.NIC{}, err
	}
	if a.IsValid() {
		if w.Max > 1 {
			return launch.NIC{}, fault.Coded(fault.Invalid, "InvalidParameterCombination", "An address may be given to one instance only.")
		}
		if _, taken := store.Ports.Holder(r, store.PortAddressClaim(s.ID, a.String())); taken {
			return launch.NIC{}, fault.Coded(fault.Conflict, "InvalidIPAddress.InUse", "Address %s is in use.", a)
		}
	}
	return launch.NIC{Network: s.NetworkID, Subnet: s.ID, Fixed: a}, nil
}

// nicParams are what is known of NetworkInterface.n.
var nicParams = []string{"DeviceIndex", "SubnetId", "NetworkInterfaceId", "PrivateIpAddress", "SecurityGroupId", "DeleteOnTermination", "AssociatePublicIpAddress", "NetworkCardIndex", "InterfaceType"}

func (d *dialect) readNICs(q *request, r store.Reader, w *wanted, list []*param) error {
	at := map[int]*param{}
	for _, p := range list {
		for name := range p.parts {
			if !slices.Contains(nicParams, name) {
				return fault.Coded(fault.Invalid, "UnknownParameter", "The parameter NetworkInterface.%s is not recognized", api.Clip(name))
			}
		}
		i, err := p.number("DeviceIndex", 0, compute.MaxPorts-1, -1)
		if err != nil {
			return err
		}
		if i < 0 || at[i] != nil {
			return badValue("Each network interface requires a device index of its own.")
		}
		at[i] = p
	}
	var groups []string
	fresh := 0
	for i := range len(list) {
		p := at[i]
		if p == nil {
			return badValue("The device indexes of the network interfaces have a gap: there is no %d.", i)
		}
		n, err := d.readNIC(q, r, w, p)
		if err != nil {
			return err
		}
		w.NICs = append(w.NICs, n)
		if n.Port != "" {
			continue
		}
		ids, err := q.groupIDs(r, p.strs("SecurityGroupId"))
		if err != nil {
			return err
		}
		if fresh++; fresh > 1 && !slices.Equal(ids, groups) {
			return unsupported("The new interfaces of an instance get the same security groups: make the interface before, or change its groups after.")
		}
		groups = ids
	}
	w.Groups = groups
	return nil
}

func (d *dialect) readNIC(q *request, r store.Reader, w *wanted, p *param) (launch.NIC, error) {
	public, _, err := p.truth("AssociatePublicIpAddress")
	if err != nil {
		return launch.NIC{}, err
	}
	if public {
		return launch.NIC{}, unsupported("A public address is associated after: AllocateAddress, AssociateAddress.")
	}
	remove, said, err := p.truth("DeleteOnTermination")
	if err != nil {
		return launch.NIC{}, err
	}
	id := p.str("NetworkInterfaceId")
	if id == "" {
		if p.str("SubnetId") == "" {
			return launch.NIC{}, missing("NetworkInterface.SubnetId")
		}
		if said && !remove {
			return launch.NIC{}, unsupported("An interface that is made with an instance goes with it: make it before, where it is to stay.")
		}
		return d.newNIC(q, r, w, p.str("SubnetId"), p.str("PrivateIpAddress"))
	}
	switch {
	case p.has("SubnetId") || p.has("PrivateIpAddress") || p.has("SecurityGroupId"):
		return launch.NIC{}, fault.Coded(fault.Invalid, "InvalidParameterCombination", "A network interface that is there has its subnet, address and security groups.")
	case said && remove:
		return launch.NIC{}, unsupported("An interface that was there before an instance stays when that goes.")
	case w.Max > 1:
		return launch.NIC{}, fault.Coded(fault.Invalid, "InvalidParameterCombination", "A network interface may be given to one instance only.")
	}
	port, err := find(r, store.Ports, interfaceID, id, func(p *model.Port) bool { return q.mine(p.ProjectID) })
	switch {
	case err != nil:
		return launch.NIC{}, err
	case port.DeviceID != "":
		return launch.NIC{}, fault.Coded(fault.Conflict, "InvalidNetworkInterface.InUse", "Interface: [%s] in use.", id)
	}
	return launch.NIC{Port: port.ID}, nil
}

// rootNames are how clients name the root disk.
var rootNames = []string{rootDevice, "/dev/sda1", "/dev/sda", "/dev/xvda"}

// readDisks reads what volumes the instances are to have.
func (d *dialect) readDisks(q *request, r store.Reader, w *wanted) error {
	var devices []string
	for _, p := range q.list("BlockDeviceMapping") {
		device := p.str("DeviceName")
		root := slices.Contains(rootNames, device)
		switch {
		case p.has("NoDevice"):
			continue
		case p.str("VirtualName") != "":
			return unsupported("Instance store volumes come with the instance type.")
		case !deviceRE.MatchString(device):
			return fault.Coded(fault.Invalid, "InvalidBlockDeviceMapping", "Invalid device name %s", api.Clip(device))
		case slices.Contains(devices, device):
			return fault.Coded(fault.Invalid, "InvalidBlockDeviceMapping", "Device name %s is given twice", device)
		}
		devices = append(devices, device)
		x, err := d.readDisk(q, r, w, p.Part("Ebs"), root)
		if err != nil {
			return err
		}
		if !root {
			x.Device = device
		}
		w.Disks = append(w.Disks, x)
	}
	if len(w.Disks) > compute.MaxVolumes {
		return fault.Coded(fault.Invalid, "InvalidBlockDeviceMapping", "An instance has at most %d volumes.", compute.MaxVolumes)
	}
	if w.BootDisk() != nil {
		w.ImageID = ""
	}
	return nil
}

// diskParams are what is known of BlockDeviceMapping.n.Ebs.
var diskParams = []string{"SnapshotId", "VolumeSize", "DeleteOnTermination", "VolumeType", "Encrypted"}

func (d *dialect) readDisk(q *request, r store.Reader, w *wanted, p *param, root bool) (launch.Disk, error) {
	x := launch.Disk{Source: "blank", Boot: root, Remove: true}
	for name := range p.parts {
		if !slices.Contains(diskParams, name) {
			return x, fault.Coded(fault.Invalid, "UnknownParameter", "The parameter BlockDeviceMapping.Ebs.%s is not recognized", api.Clip(name))
		}
	}
	encrypted, _, err := p.truth("Encrypted")
	if err != nil {
		return x, err
	}
	if encrypted {
		return x, unsupported("Encrypted volumes are not offered by this cloud.")
	}
	if remove, said, err := p.truth("DeleteOnTermination"); err != nil {
		return x, err
	} else if said {
		x.Remove = remove
	}
	if x.SizeGiB, err = p.number("VolumeSize", 1, volume.MaxSizeGiB, 0); err != nil {
		return x, err
	}
	if t := p.str("VolumeType"); t != "" {
		found, err := q.volumeTypeOf(r, t)
		if err != nil {
			return x, err
		}
		x.Type = found.ID
	}
	if id := p.str("SnapshotId"); id != "" {
		s, err := q.snapshotOf(r, id)
		switch {
		case err != nil:
			return x, err
		case s.State != volume.Available:
			return x, incorrect("Snapshot '%s' is in the '%s' state.", id, snapshotState(s))
		case x.SizeGiB != 0 && x.SizeGiB < s.SizeGiB:
			return x, badValue("The volume size is invalid for this volume: %d GiB is less than the %d GiB of the snapshot.", x.SizeGiB, s.SizeGiB)
		}
		x.Source, x.ID = "snapshot", s.ID
		return x, nil
	}
	if root {
		img, _ := store.Images.Get(r, w.ImageID)
		if img != nil && images.Mapping(img) != "" {
			return x, unsupported("The image names the root volume itself: it is made as it says.")
		}
		x.Source, x.ID = "image", w.ImageID
	}
	if x.SizeGiB == 0 {
		return x, fault.Coded(fault.Invalid, "InvalidBlockDeviceMapping", "A volume that is made of no snapshot needs a size.")
	}
	return x, nil
}
