package ec2

import (
	"yakumo/model"
	"yakumo/store"
)

// group names a security group.
type group struct {
	ID   string `xml:"groupId"`
	Name string `xml:"groupName"`
}

func groupsOf(r store.Reader, ids []model.ID) (out set[group]) {
	for _, id := range ids {
		if g, ok := store.SecurityGroups.Get(r, id); ok {
			out.Items = append(out.Items, group{groupID.id(g.ID), g.Name})
		}
	}
	return out
}

// association is a public address of a private one.
type association struct {
	Public string `xml:"publicIp"`
	Name   string `xml:"publicDnsName"`
	Owner  string `xml:"ipOwnerId"`
}

type privateAddress struct {
	Private     string       `xml:"privateIpAddress"`
	Primary     bool         `xml:"primary"`
	Association *association `xml:"association"`
}

type ipv6Address struct {
	Address string `xml:"ipv6Address"`
}

// nic is an interface as its instance shows it.
type nic struct {
	ID          string              `xml:"networkInterfaceId"`
	Subnet      string              `xml:"subnetId,omitempty"`
	VPC         string              `xml:"vpcId,omitempty"`
	Description string              `xml:"description"`
	Owner       string              `xml:"ownerId"`
	Status      string              `xml:"status"`
	MAC         string              `xml:"macAddress"`
	Private     string              `xml:"privateIpAddress,omitempty"`
	Checked     bool                `xml:"sourceDestCheck"`
	Groups      set[group]          `xml:"groupSet"`
	Attachment  attached            `xml:"attachment"`
	Association *association        `xml:"association"`
	Addresses   set[privateAddress] `xml:"privateIpAddressesSet"`
	IPv6        set[ipv6Address]    `xml:"ipv6AddressesSet"`
	Type        string              `xml:"interfaceType"`
}

type attached struct {
	ID     string `xml:"attachmentId"`
	Index  int    `xml:"deviceIndex"`
	Status string `xml:"status"`
	At     string `xml:"attachTime"`
	Remove bool   `xml:"deleteOnTermination"`
}

// showNIC shows the port that is an instance's interface of that index.
func showNIC(r store.Reader, p *model.Port, index int) nic {
	x := nic{ID: interfaceID.id(p.ID), Description: p.Description, Owner: p.ProjectID, Status: "in-use", MAC: p.MAC, Checked: p.PortSecurity,
		Groups: groupsOf(r, p.Groups), Type: "interface",
		Attachment: attached{ID: attachmentID(p.ID, p.DeviceID), Index: index, Status: "attached", At: stamp(p.CreatedAt), Remove: p.Owned}}
	public := map[string]*association{}
	for f := range store.FloatingIPs.List(r, "port", p.ID) {
		public[f.FixedAddress.String()] = &association{f.Address.String(), "", f.ProjectID}
	}
	for _, f := range p.FixedIPs {
		if !f.Address.Is4() {
			x.IPv6.Items = append(x.IPv6.Items, ipv6Address{f.Address.String()})
			continue
		}
		if s, ok := store.Subnets.Get(r, f.SubnetID); ok && x.Subnet == "" {
			x.Subnet = subnetID.id(s.ID)
			if v := routerOf(r, s, s.ProjectID); v != nil {
				x.VPC = vpcID.id(v.ID)
			}
		}
		a := privateAddress{f.Address.String(), x.Private == "", public[f.Address.String()]}
		if a.Primary {
			x.Private, x.Association = a.Private, a.Association
		}
		x.Addresses.Items = append(x.Addresses.Items, a)
	}
	return x
}
