package ec2

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

func (d *dialect) instanceOperations(add adder) {
	add("DescribeInstances", api.Reader, d.describeInstances, "InstanceId", "Filter", "MaxResults", "NextToken")
	add("StartInstances", api.Member, d.startInstances, "InstanceId")
	add("StopInstances", api.Member, d.stopInstances, "InstanceId", "Hibernate", "Force")
	add("RebootInstances", api.Member, d.rebootInstances, "InstanceId")
	add("TerminateInstances", api.Member, d.terminateInstances, "InstanceId")
	add("DescribeInstanceStatus", api.Reader, d.describeInstanceStatus, "InstanceId", "Filter", "MaxResults", "NextToken", "IncludeAllInstances")
	add("GetConsoleOutput", api.Member, // as Nova has it: secrets are printed to consoles
		d.consoleOutput, "InstanceId", "Latest")
	add("DescribeInstanceAttribute", api.Reader, d.describeInstanceAttribute, "InstanceId", "Attribute")
	add("ModifyInstanceAttribute", api.Member, d.modifyInstanceAttribute, "InstanceId", "Attribute", "Value", "GroupId", "InstanceType", "UserData", "SourceDestCheck",
		"DisableApiTermination", "InstanceInitiatedShutdownBehavior", "BlockDeviceMapping")
}

// instanceErrors are EC2's codes for what package compute answers about an instance.
var instanceErrors = recoding{fault.Conflict: "IncorrectInstanceState", fault.NotFound: "InvalidInstanceID.NotFound", fault.OverQuota: "InstanceLimitExceeded",
	fault.Forbidden: "OperationNotPermitted"}

// state is EC2's state of an instance.
type state struct {
	Code int    `xml:"code"`
	Name string `xml:"name"`
}

// The states.
var (
	pending      = state{0, "pending"}
	active       = state{16, "running"}
	shuttingDown = state{32, "shutting-down"}
	terminated   = state{48, "terminated"}
	stopping     = state{64, "stopping"}
	stopped      = state{80, "stopped"}
)

// stateOf gives EC2's state of a server. What could not be made is terminated, as there; what has no guest that runs is stopped, and starting
// it undoes whatever stopped it.
func stateOf(s *model.Server) state {
	switch {
	case s.Status.Phase == model.PhaseGone:
		return terminated
	case s.Deleted:
		return shuttingDown
	}
	switch compute.State(s) {
	case compute.Building:
		return pending
	case compute.Errored:
		switch {
		case s.Status.LaunchedAt.IsZero():
			return terminated
		case s.Status.Power == model.PowerRunning:
			return active
		}
		return stopped
	case compute.Stopped, compute.Paused, compute.Suspended, compute.Shelved, compute.ShelvedOffloaded:
		if s.Status.Task != "" && s.Power == model.PowerRunning && slices.Contains(starting, s.Status.Task) {
			return pending
		}
		return stopped
	}
	if slices.Contains(halting, s.Status.Task) {
		return stopping
	}
	return active
}

// Tasks after which a guest runs, and after which it does not.
var (
	starting = []string{compute.TaskStart, compute.TaskHardReboot, compute.TaskUnpause, compute.TaskResume, compute.TaskUnshelve}
	halting  = []string{compute.TaskStop, compute.TaskPause, compute.TaskSuspend, compute.TaskShelve, compute.TaskShelving, compute.TaskOffload}
)

// reason is why an instance is in its state.
type reason struct {
	Code    string `xml:"code"`
	Message string `xml:"message"`
}

// instance is an instance as it is shown.
type instance struct {
	ID           string      `xml:"instanceId"`
	Image        string      `xml:"imageId,omitempty"`
	State        state       `xml:"instanceState"`
	PrivateName  string      `xml:"privateDnsName"`
	PublicName   string      `xml:"dnsName"`
	Reason       string      `xml:"reason"`
	Key          string      `xml:"keyName,omitempty"`
	Index        int         `xml:"amiLaunchIndex"`
	Type         string      `xml:"instanceType"`
	LaunchedAt   string      `xml:"launchTime"`
	Place        place       `xml:"placement"`
	Monitoring   string      `xml:"monitoring>state"`
	Subnet       string      `xml:"subnetId,omitempty"`
	VPC          string      `xml:"vpcId,omitempty"`
	Private      string      `xml:"privateIpAddress,omitempty"`
	Public       string      `xml:"ipAddress,omitempty"`
	IPv6         string      `xml:"ipv6Address,omitempty"`
	Checked      bool        `xml:"sourceDestCheck"`
	Groups       set[group]  `xml:"groupSet"`
	Why          *reason     `xml:"stateReason"`
	Architecture string      `xml:"architecture"`
	RootType     string      `xml:"rootDeviceType"`
	Root         string      `xml:"rootDeviceName"`
	Disks        set[mapped] `xml:"blockDeviceMapping"`
	Virtual      string      `xml:"virtualizationType"`
	Token        string      `xml:"clientToken"`
	Tags         set[tag]    `xml:"tagSet"`
	Hypervisor   string      `xml:"hypervisor"`
	NICs         set[nic]    `xml:"networkInterfaceSet"`
}

type place struct {
	Zone    string `xml:"availabilityZone"`
	Group   string `xml:"groupName"`
	Tenancy string `xml:"tenancy"`
}

// mapped is a volume of an instance.
type mapped struct {
	Device string `xml:"deviceName"`
	EBS    struct {
		Volume string `xml:"volumeId"`
		Status string `xml:"status"`
		At     string `xml:"attachTime,omitempty"`
		Remove bool   `xml:"deleteOnTermination"`
	} `xml:"ebs"`
}

// rootDevice is the root disk's name, as Nova has it.
const rootDevice = "/dev/vda"

// zoneOf gives the zone that a server is in: its host's, or the one that it is to be in.
func zoneOf(r store.Reader, s *model.Server) string {
	if h, ok := store.Hosts.Get(r, s.Host); ok {
		return h.Zone
	}
	return s.Zone
}

func showInstance(r store.Reader, s *model.Server) instance {
	x := instance{ID: instanceID.id(s.ID), State: stateOf(s), Key: s.KeyName, Index: s.LaunchIndex, Type: s.Flavor.Name, LaunchedAt: stamp(s.CreatedAt),
		Place: place{zoneOf(r, s), "", "default"}, Monitoring: "disabled", Checked: true, Architecture: cmp.Or(s.Arch, "x86_64"), RootType: "instance-store", Root: rootDevice,
		Virtual: "hvm", Token: s.Token, Tags: tagSet(tagged(&s.Meta, s.Metadata)), Hypervisor: "xen"}
	if s.ImageID != "" {
		x.Image = imageID.id(s.ImageID)
	}
	if f := s.Status.Fault; f != nil && (x.State == terminated || x.State == stopped) {
		x.Why = &reason{"Server.InternalError", f.Message}
		x.Reason = x.Why.Code + ": " + f.Message
	}
	if x.State == terminated {
		return x
	}
	for i, id := range s.Ports {
		if p, ok := store.Ports.Get(r, id); ok {
			x.NICs.Items = append(x.NICs.Items, showNIC(r, p, i))
		}
	}
	if len(x.NICs.Items) > 0 {
		n := &x.NICs.Items[0]
		x.Subnet, x.VPC, x.Private, x.Groups, x.Checked = n.Subnet, n.VPC, n.Private, n.Groups, n.Checked
		if x.Private != "" {
			x.PrivateName = s.HostName
		}
		if len(n.IPv6.Items) > 0 {
			x.IPv6 = n.IPv6.Items[0].Address
		}
		if n.Association != nil {
			x.Public, x.PublicName = n.Association.Public, n.Association.Public
		}
	}
	for i := range s.Volumes {
		u := &s.Volumes[i]
		if u.Boot {
			x.RootType, x.Root = "ebs", u.Device
		}
		v, ok := store.Volumes.Get(r, u.VolumeID)
		if !ok {
			continue
		}
		for j := range v.Attachments {
			if v.Attachments[j].ServerID == s.ID {
				a := showAttachment(r, v, &v.Attachments[j])
				m := mapped{Device: u.Device}
				m.EBS.Volume, m.EBS.Status, m.EBS.At, m.EBS.Remove = a.Volume, a.Status, a.At, a.Remove
				x.Disks.Items = append(x.Disks.Items, m)
			}
		}
	}
	return x
}

// remembered is for how long an instance that is terminated is shown, as there.
const remembered = time.Hour

func rememberedAt(s *model.Server, now time.Time) bool {
	return now.Sub(s.Status.TerminatedAt) < remembered
}

func serverProject(s *model.Server) model.ID { return s.ProjectID }

// instances gives the caller's servers: those that ids name, each of which must be there, or all. Those that are terminated are among them for
// a while.
func (q *request) instances(r store.Reader, ids []string) ([]*model.Server, error) {
	now := time.Now()
	if len(ids) == 0 {
		out, err := chosen(q, r, store.Servers, instanceID, nil, serverProject)
		for s := range store.GoneServers.Prefix(r, "project_newest", q.Caller.ProjectID+",") {
			if rememberedAt(s, now) {
				out = append(out, s)
			}
		}
		return out, err
	}
	var out []*model.Server
	seen := map[string]bool{}
	for _, id := range ids {
		s, err := q.instance(r, id)
		if err != nil {
			return nil, err
		}
		if !seen[id] {
			out = append(out, s)
		}
		seen[id] = true
	}
	return out, nil
}

// instance gives the caller's server, also one that was terminated a while ago.
func (q *request) instance(r store.Reader, id string) (*model.Server, error) {
	s, err := q.serverOf(r, id)
	if !fault.Is(err, fault.NotFound) {
		return s, err
	}
	now := time.Now()
	gone, gerr := find(r, store.GoneServers, instanceID, id, func(s *model.Server) bool { return q.mine(s.ProjectID) && rememberedAt(s, now) })
	if gerr != nil {
		return nil, err
	}
	return gone, nil
}

// instanceFilters are the filters of DescribeInstances.
var instanceFilters = []string{"instance-id", "image-id", "instance-type", "instance-state-name", "instance-state-code", "key-name", "availability-zone", "reservation-id", "owner-id",
	"private-ip-address", "ip-address", "network-interface.addresses.private-ip-address", "network-interface.addresses.association.public-ip", "network-interface.network-interface-id",
	"network-interface.subnet-id", "network-interface.vpc-id", "network-interface.mac-address", "network-interface.group-id", "network-interface.group-name", "association.public-ip",
	"subnet-id", "vpc-id", "group-id", "group-name", "instance.group-id", "instance.group-name",
	"block-device-mapping.volume-id", "block-device-mapping.device-name", "block-device-mapping.status", "block-device-mapping.delete-on-termination", "root-device-name",
	"root-device-type", "architecture", "hypervisor", "virtualization-type", "launch-time", "launch-index", "client-token", "private-dns-name", "dns-name", "tenancy", "tag-key", "tag:"}

func instanceAttribute(s *model.Server, x *instance, name string) (out []string) {
	for i := range x.NICs.Items {
		n := &x.NICs.Items[i]
		switch name {
		case "network-interface.addresses.private-ip-address":
			for _, a := range n.Addresses.Items {
				out = append(out, a.Private)
			}
		case "network-interface.addresses.association.public-ip", "association.public-ip":
			for _, a := range n.Addresses.Items {
				if a.Association != nil {
					out = append(out, a.Association.Public)
				}
			}
		case "network-interface.network-interface-id":
			out = append(out, n.ID)
		case "network-interface.subnet-id":
			out = append(out, n.Subnet)
		case "network-interface.vpc-id":
			out = append(out, n.VPC)
		case "network-interface.mac-address":
			out = append(out, n.MAC)
		case "network-interface.group-id", "group-id", "instance.group-id":
			for _, g := range n.Groups.Items {
				out = append(out, g.ID)
			}
		case "network-interface.group-name", "group-name", "instance.group-name":
			for _, g := range n.Groups.Items {
				out = append(out, g.Name)
			}
		}
	}
	for _, m := range x.Disks.Items {
		switch name {
		case "block-device-mapping.volume-id":
			out = append(out, m.EBS.Volume)
		case "block-device-mapping.device-name":
			out = append(out, m.Device)
		case "block-device-mapping.status":
			out = append(out, m.EBS.Status)
		case "block-device-mapping.delete-on-termination":
			out = append(out, strconv.FormatBool(m.EBS.Remove))
		}
	}
	if v, ok := map[string]string{"instance-id": x.ID, "image-id": x.Image, "instance-type": x.Type, "instance-state-name": x.State.Name,
		"instance-state-code": strconv.Itoa(x.State.Code), "key-name": x.Key, "availability-zone": x.Place.Zone, "reservation-id": s.Reservation, "owner-id": s.ProjectID,
		"private-ip-address": x.Private, "ip-address": x.Public, "subnet-id": x.Subnet, "vpc-id": x.VPC, "root-device-name": x.Root, "root-device-type": x.RootType,
		"architecture": x.Architecture, "hypervisor": x.Hypervisor, "virtualization-type": x.Virtual, "launch-time": x.LaunchedAt, "launch-index": strconv.Itoa(x.Index),
		"client-token": x.Token, "private-dns-name": x.PrivateName, "dns-name": x.PublicName, "tenancy": x.Place.Tenancy}[name]; ok {
		return []string{v}
	}
	return append(out, tagValues(name, tagged(&s.Meta, s.Metadata))...)
}

// reservation is the instances that one request made.
type reservation struct {
	ID     string        `xml:"reservationId"`
	Owner  string        `xml:"ownerId"`
	Groups set[group]    `xml:"groupSet"`
	Of     set[instance] `xml:"instancesSet"`
}

// shownServer is a server with what is shown of it.
type shownServer struct {
	*model.Server
	instance
}

func (d *dialect) describeInstances(q *request) (any, error) {
	filters, err := q.filters(instanceFilters...)
	if err != nil {
		return nil, err
	}
	r := q.Snapshot()
	rows, err := q.instances(r, q.strs("InstanceId"))
	if err != nil {
		return nil, err
	}
	var all []shownServer
	for _, s := range rows {
		x := shownServer{s, showInstance(r, s)}
		if passes(filters, func(name string) []string { return instanceAttribute(s, &x.instance, name) }) {
			all = append(all, x)
		}
	}
	var body struct {
		Reservations set[reservation] `xml:"reservationSet"`
		Next         string           `xml:"nextToken,omitempty"`
	}
	all, body.Next, err = paged(q, all, func(x shownServer) string { return x.instance.ID })
	if err != nil {
		return nil, err
	}
	body.Reservations = reservationsOf(all)
	return body, nil
}

// reservationsOf sorts instances into the requests that made them.
func reservationsOf(all []shownServer) set[reservation] {
	var out set[reservation]
	at := map[string]int{}
	for _, x := range all {
		id := cmp.Or(x.Reservation, "r-"+x.instance.ID[2:])
		i, there := at[id]
		if !there {
			i = len(out.Items)
			at[id] = i
			out.Items = append(out.Items, reservation{ID: id, Owner: x.ProjectID})
		}
		out.Items[i].Of.Items = append(out.Items[i].Of.Items, x.instance)
	}
	return out
}
