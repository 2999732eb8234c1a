package ec2_test

import (
	"encoding/base64"
	"net/netip"
	"strings"
	"testing"

	"yakumo/compute"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

// subnet makes a network with a subnet of a project, and gives EC2's id of it and the network.
func (c *cloud) subnet(project model.ID, block string) (string, *model.Subnet) {
	c.t.Helper()
	var s *model.Subnet
	name := "lan"
	c.update(func(tx *store.Tx) error {
		w, err := c.network.CreateNetwork(tx, network.Scope{ProjectID: project}, network.NetworkSpec{Name: &name})
		if err != nil {
			return err
		}
		cidr := netip.MustParsePrefix(block)
		s, err = c.network.CreateSubnet(tx, network.Scope{ProjectID: project}, network.SubnetSpec{NetworkID: w.ID, Name: &name, IPVersion: 4, CIDR: cidr})
		return err
	})
	return ec2ID("subnet", s.ID), s
}

// types adds a flavor.
func (c *cloud) types() {
	c.t.Helper()
	c.update(func(tx *store.Tx) error {
		return store.Flavors.Put(tx, &model.Flavor{ID: "1", Name: "m1.tiny", VCPUs: 1, MemoryMiB: 128, DiskGiB: 1, Public: true, RxTxFactor: 1})
	})
}

// run runs instances and gives them.
func (c *cloud) run(params ...string) []shownInstance {
	c.t.Helper()
	var body struct {
		ID string          `xml:"reservationId"`
		Of []shownInstance `xml:"instancesSet>item"`
	}
	c.must(&body, "red", "RunInstances", params...)
	if !strings.HasPrefix(body.ID, "r-") {
		c.t.Errorf("%+v", body)
	}
	return body.Of
}

func TestRunInstances(t *testing.T) {
	c := running(t)
	c.types()
	ami, img := c.image(red, "mini", model.VisibilityPrivate)
	theirs, _ := c.image(blue, "blue's", model.VisibilityPrivate)
	base := []string{"ImageId", ami, "InstanceType", "m1.tiny"}
	with := func(params ...string) []string { return append(append([]string{}, base...), params...) }

	// As little as can be said.
	i := c.becomes(c.run(base...)[0].ID, "running")
	if i.Image != ami || i.Type != "m1.tiny" || i.Priv != "" || i.tag("Name") != "" {
		t.Errorf("%+v", i)
	}

	// On a network, with all that there is.
	subnet, row := c.subnet(red, "10.0.0.0/24")
	c.must(nil, "red", "CreateKeyPair", "KeyName", "mine", "KeyType", "ed25519")
	var group string
	c.update(func(tx *store.Tx) error {
		g, err := c.network.EnsureDefaultGroup(tx, red)
		if err == nil {
			group = ec2ID("sg", g.ID)
		}
		return err
	})
	data := base64.StdEncoding.EncodeToString([]byte("#!/bin/sh\n"))
	full := with("SubnetId", subnet, "PrivateIpAddress", "10.0.0.77", "SecurityGroupId.1", group, "KeyName", "mine", "UserData", data, "Placement.AvailabilityZone", "nova",
		"ClientToken", "t1", "TagSpecification.1.ResourceType", "instance", "TagSpecification.1.Tag.1.Key", "Name", "TagSpecification.1.Tag.1.Value", "web",
		"TagSpecification.1.Tag.2.Key", "team", "TagSpecification.1.Tag.2.Value", "x", "TagSpecification.2.ResourceType", "volume", "TagSpecification.2.Tag.1.Key", "Name",
		"TagSpecification.2.Tag.1.Value", "data", "BlockDeviceMapping.1.DeviceName", "/dev/sdf", "BlockDeviceMapping.1.Ebs.VolumeSize", "2",
		"BlockDeviceMapping.1.Ebs.DeleteOnTermination", "false")
	c.refused(412, "DryRunOperation", "red", "RunInstances", append(full, "DryRun", "true")...)
	if n := len(c.instances("red")); n != 1 {
		t.Fatalf("a dry run left %d instances", n)
	}
	made := c.run(full...)
	if again := c.run(full...); len(made) != 1 || len(again) != 1 || again[0].ID != made[0].ID {
		t.Fatalf("the same request made others: %+v %+v", made, again)
	}
	c.refused(400, "IdempotentParameterMismatch", "red", "RunInstances", with("ClientToken", "t1")...)
	i = c.becomes(made[0].ID, "running")
	if i.Priv != "10.0.0.77" || i.Subnet != subnet || i.Key != "mine" || i.tag("Name") != "web" || i.tag("team") != "x" || i.Token != "t1" || len(i.Groups) != 1 || i.Groups[0] != group ||
		len(i.Disks) != 1 || i.Disks[0].Device != "/dev/sdf" || i.Disks[0].Remove {
		t.Errorf("%+v", i)
	}
	if v := c.describe("red", "VolumeId.1", i.Disks[0].Volume)[0]; v.Size != 2 || v.Tags[0].Value != "data" {
		t.Errorf("%+v", v)
	}
	if _, body := c.call("red", "DescribeInstanceAttribute", "InstanceId", i.ID, "Attribute", "userData"); !strings.Contains(body, "<value>"+data+"</value>") {
		t.Error(body)
	}
	if got := c.instances("red", "Filter.1.Name", "network-interface.addresses.private-ip-address", "Filter.1.Value.1", "10.0.0.*"); len(got) != 1 {
		t.Errorf("%+v", got)
	}
	c.refused(400, "InvalidGroup.NotFound", "red", "ModifyInstanceAttribute", "InstanceId", i.ID, "GroupId.1", "sg-0123456789abcdef0")
	c.must(nil, "red", "ModifyInstanceAttribute", "InstanceId", i.ID, "GroupId.1", group)
	c.refused(400, "UnsupportedOperation", "red", "ModifyInstanceAttribute", "InstanceId", i.ID, "InstanceType.Value", "m1.large")

	// Several at once, on a volume of the image; with one network there is no doubt which.
	several := c.run(with("MinCount", "2", "MaxCount", "2", "BlockDeviceMapping.1.DeviceName", "/dev/vda", "BlockDeviceMapping.1.Ebs.VolumeSize", "1",
		"TagSpecification.1.ResourceType", "instance", "TagSpecification.1.Tag.1.Key", "Name", "TagSpecification.1.Tag.1.Value", "node")...)
	if len(several) != 2 || several[0].Index == several[1].Index {
		t.Fatalf("%+v", several)
	}
	for _, x := range several {
		x = c.becomes(x.ID, "running")
		if x.tag("Name") != "node" || x.Root != "ebs" || len(x.Disks) != 1 || !x.Disks[0].Remove || x.Subnet != subnet {
			t.Errorf("%+v", x)
		}
	}
	if a, b := c.server(several[0].ID).HostName, c.server(several[1].ID).HostName; a == b {
		t.Errorf("two guests call themselves %s", a)
	}

	// An interface that was there before.
	var port *model.Port
	c.update(func(tx *store.Tx) (err error) {
		port, err = c.network.CreatePort(tx, network.Scope{ProjectID: red}, network.PortSpec{NetworkID: row.NetworkID})
		return err
	})
	eni := ec2ID("eni", port.ID)
	x := c.run(with("NetworkInterface.1.DeviceIndex", "0", "NetworkInterface.1.NetworkInterfaceId", eni, "NetworkInterface.2.DeviceIndex", "1", "NetworkInterface.2.SubnetId", subnet,
		"NetworkInterface.2.SecurityGroupId.1", group)...)[0]
	c.becomes(x.ID, "running")
	if _, body := c.call("red", "DescribeInstances", "InstanceId.1", x.ID); !strings.Contains(body, eni) || strings.Count(body, "<networkInterfaceId>") != 2 {
		t.Error(body)
	}
	if len(c.server(x.ID).Ports) != 2 || c.server(x.ID).Ports[0] != port.ID {
		t.Errorf("%+v", c.server(x.ID).Ports)
	}

	// What is wrong makes nothing.
	other, _ := c.subnet(blue, "10.9.0.0/24")
	count := func() (servers, volumes, ports int) {
		snap := c.store.Snapshot()
		return store.Servers.Count(snap, "project", red), store.Volumes.Count(snap, "project", red), store.Ports.Count(snap, "project", red)
	}
	s0, v0, p0 := count()
	for _, bad := range [][]string{
		{"MissingParameter", "ImageId", ami},
		{"MissingParameter", "InstanceType", "m1.tiny"},
		{"InvalidAMIID.NotFound", "ImageId", theirs, "InstanceType", "m1.tiny"},
		{"InvalidAMIID.Malformed", "ImageId", "mini", "InstanceType", "m1.tiny"},
		{"InvalidInstanceType", "ImageId", ami, "InstanceType", "huge"},
		append([]string{"InvalidParameterCombination"}, with("MinCount", "3", "MaxCount", "2")...),
		append([]string{"InvalidParameterValue"}, with("MinCount", "0")...),
		append([]string{"InvalidKeyPair.NotFound"}, with("KeyName", "none")...),
		append([]string{"InvalidGroup.NotFound"}, with("SecurityGroup.1", "none")...),
		append([]string{"InvalidSubnetID.NotFound"}, with("SubnetId", other)...),
		append([]string{"InvalidIPAddress.InUse"}, with("SubnetId", subnet, "PrivateIpAddress", "10.0.0.77")...),
		append([]string{"InvalidParameterValue"}, with("SubnetId", subnet, "PrivateIpAddress", "10.1.0.77")...),
		append([]string{"InvalidNetworkInterface.InUse"}, with("NetworkInterface.1.DeviceIndex", "0", "NetworkInterface.1.NetworkInterfaceId", eni)...),
		append([]string{"InvalidParameterCombination"}, with("SubnetId", subnet, "NetworkInterface.1.DeviceIndex", "0", "NetworkInterface.1.SubnetId", subnet)...),
		append([]string{"InvalidZone.NotFound"}, with("Placement.AvailabilityZone", "moon")...),
		append([]string{"InvalidUserData.Malformed"}, with("UserData", "?")...),
		append([]string{"InvalidBlockDeviceMapping"}, with("BlockDeviceMapping.1.DeviceName", "/dev/sdf")...),
		append([]string{"InvalidSnapshot.NotFound"}, with("BlockDeviceMapping.1.DeviceName", "/dev/sdf", "BlockDeviceMapping.1.Ebs.SnapshotId", "snap-0123456789abcdef0")...),
		append([]string{"UnknownParameter"}, with("BlockDeviceMapping.1.DeviceName", "/dev/sdf", "BlockDeviceMapping.1.Ebs.Iops", "100")...),
		append([]string{"UnknownParameter"}, with("IamInstanceProfile.Name", "x")...),
		append([]string{"InvalidParameterValue"}, with("TagSpecification.1.ResourceType", "vpc")...),
		append([]string{"InstanceLimitExceeded"}, with("MinCount", "100", "MaxCount", "100")...),
	} {
		c.refused(400, bad[0], "red", "RunInstances", bad[1:]...)
	}
	for _, more := range [][]string{{"Monitoring.Enabled", "true"}, {"DisableApiTermination", "true"}, {"InstanceInitiatedShutdownBehavior", "terminate"}, {"Placement.Tenancy", "dedicated"},
		{"NetworkInterface.1.DeviceIndex", "0", "NetworkInterface.1.SubnetId", subnet, "NetworkInterface.1.AssociatePublicIpAddress", "true"}} {
		c.refused(400, "UnsupportedOperation", "red", "RunInstances", with(more...)...)
	}
	c.refused(403, "UnauthorizedOperation", "red-reader", "RunInstances", base...)
	if s, v, p := count(); s != s0 || v != v0 || p != p0 {
		t.Errorf("%d servers, %d volumes, %d ports; there were %d, %d, %d", s, v, p, s0, v0, p0)
	}

	// With a default VPC, in its subnet.
	var vpc struct {
		ID string `xml:"vpc>vpcId"`
	}
	c.must(&vpc, "red", "CreateDefaultVpc")
	if _, body := c.call("red", "DescribeAccountAttributes", "AttributeName.1", "default-vpc"); !strings.Contains(body, vpc.ID) {
		t.Error(body)
	}
	c.becomes(c.run(base...)[0].ID, "running")
	if got := c.instances("red", "Filter.1.Name", "vpc-id", "Filter.1.Value.1", vpc.ID); len(got) != 1 || !strings.HasPrefix(got[0].Priv, "172.31.") {
		t.Errorf("%+v", got)
	}

	// What no host can have is terminated, and says why.
	c.update(func(tx *store.Tx) error {
		return store.Flavors.Put(tx, &model.Flavor{ID: "9", Name: "huge", VCPUs: 1, MemoryMiB: 40000, DiskGiB: 1 << 20, Public: true, RxTxFactor: 1})
	})
	if x := c.becomes(c.run("ImageId", ami, "InstanceType", "huge")[0].ID, "terminated"); !strings.Contains(x.Reason, "No valid host") {
		t.Errorf("%+v", x)
	}
	if compute.VolumeBacked(c.server(i.ID)) || img.Status != model.ImageActive {
		t.Error("the instance of an image boots from a volume")
	}
}
