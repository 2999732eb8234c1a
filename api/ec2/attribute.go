package ec2

import (
	"slices"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

type valueOf[T any] struct {
	Value T `xml:"value"`
}

type instanceValues struct {
	ID        string           `xml:"instanceId"`
	Groups    *set[group]      `xml:"groupSet"`
	Disks     *set[mapped]     `xml:"blockDeviceMapping"`
	Kept      *valueOf[bool]   `xml:"disableApiTermination"`
	Optimized *valueOf[bool]   `xml:"ebsOptimized"`
	ENA       *valueOf[bool]   `xml:"enaSupport"`
	Shutdown  *valueOf[string] `xml:"instanceInitiatedShutdownBehavior"`
	Type      *valueOf[string] `xml:"instanceType"`
	Kernel    *struct{}        `xml:"kernel"`
	Ramdisk   *struct{}        `xml:"ramdisk"`
	Codes     *struct{}        `xml:"productCodes"`
	Root      *valueOf[string] `xml:"rootDeviceName"`
	Checked   *valueOf[bool]   `xml:"sourceDestCheck"`
	SRIOV     *struct{}        `xml:"sriovNetSupport"`
	UserData  *userData        `xml:"userData"`
	NoStop    *valueOf[bool]   `xml:"disableApiStop"`
}

// userData has a value only where there is some.
type userData struct {
	Value string `xml:"value,omitempty"`
}

func (d *dialect) describeInstanceAttribute(q *request) (any, error) {
	id, err := q.must("InstanceId")
	if err != nil {
		return nil, err
	}
	name, err := q.must("Attribute")
	if err != nil {
		return nil, err
	}
	r := q.Snapshot()
	s, err := q.serverOf(r, id)
	if err != nil {
		return nil, err
	}
	x := showInstance(r, s)
	out := instanceValues{ID: x.ID}
	switch name {
	case "groupSet":
		out.Groups = &x.Groups
	case "blockDeviceMapping":
		out.Disks = &x.Disks
	case "disableApiTermination":
		out.Kept = &valueOf[bool]{s.Locked}
	case "disableApiStop":
		out.NoStop = &valueOf[bool]{s.Locked}
	case "ebsOptimized":
		out.Optimized = &valueOf[bool]{false}
	case "enaSupport":
		out.ENA = &valueOf[bool]{false}
	case "instanceInitiatedShutdownBehavior":
		out.Shutdown = &valueOf[string]{"stop"}
	case "instanceType":
		out.Type = &valueOf[string]{x.Type}
	case "kernel":
		out.Kernel = &struct{}{}
	case "ramdisk":
		out.Ramdisk = &struct{}{}
	case "productCodes":
		out.Codes = &struct{}{}
	case "rootDeviceName":
		out.Root = &valueOf[string]{x.Root}
	case "sourceDestCheck":
		out.Checked = &valueOf[bool]{x.Checked}
	case "sriovNetSupport":
		out.SRIOV = &struct{}{}
	case "userData":
		if !q.Caller.Has("member") { // secrets are written into it
			return nil, fault.Coded(fault.Forbidden, "UnauthorizedOperation", "You are not authorized to perform this operation.")
		}
		out.UserData = &userData{s.UserData}
	default:
		return nil, badValue("Value (%s) for parameter attribute is invalid. Unknown attribute.", api.Clip(name))
	}
	return out, nil
}

// modifyInstanceAttribute changes the security groups of an instance's first interface. Else what an instance is does not change here.
func (d *dialect) modifyInstanceAttribute(q *request) (any, error) {
	id, err := q.must("InstanceId")
	if err != nil {
		return nil, err
	}
	groups := q.strs("GroupId")
	if name := q.str("Attribute"); name == "groupSet" && len(groups) == 0 {
		groups = []string{q.str("Value")}
	}
	if _, err := q.serverOf(q.Snapshot(), id); err != nil {
		return nil, err
	}
	switch {
	case q.params.has("InstanceType") || q.str("Attribute") == "instanceType":
		return nil, unsupported("The type of an instance changes by a resize, which is confirmed: use openstack server resize.")
	case len(groups) == 0:
		return nil, unsupported("Of an instance, only its security groups are changed.")
	}
	return done{true}, q.update(func(tx *store.Tx) error {
		s, err := q.serverOf(tx, id)
		if err != nil {
			return err
		}
		return d.regroup(q, tx, s, groups)
	})
}

// regroup gives the first interface of a server the groups.
func (d *dialect) regroup(q *request, tx *store.Tx, s *model.Server, ids []string) error {
	if err := idle(s, "modified"); err != nil {
		return err
	}
	var want []string
	for _, id := range ids {
		g, err := find(tx, store.SecurityGroups, groupID, id, func(g *model.SecurityGroup) bool { return q.mine(g.ProjectID) })
		if err != nil {
			return err
		}
		if !slices.Contains(want, g.ID) {
			want = append(want, g.ID)
		}
	}
	if len(s.Ports) == 0 {
		return fault.Coded(fault.Conflict, "IncorrectInstanceState", "The instance '%s' has no interface.", instanceID.id(s.ID))
	}
	_, err := d.net.UpdatePort(tx, q.netScope(), s.Ports[0], network.PortSpec{Groups: &want})
	return recoding{fault.Invalid: "InvalidParameterValue", fault.NotFound: "InvalidGroup.NotFound", fault.Conflict: "InvalidParameterCombination"}.of(err)
}
