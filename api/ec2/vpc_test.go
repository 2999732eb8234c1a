package ec2_test

import (
	"net/netip"
	"strings"
	"testing"

	"yakumo/api/apitest"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

// outside makes the external network.
func (c *cloud) outside() {
	c.t.Helper()
	yes, name := true, "outside"
	c.update(func(tx *store.Tx) error {
		sc := network.Scope{ProjectID: apitest.Staff, Admin: true}
		w, err := c.network.CreateNetwork(tx, sc, network.NetworkSpec{Name: &name, External: &yes})
		if err != nil {
			return err
		}
		_, err = c.network.CreateSubnet(tx, sc, network.SubnetSpec{NetworkID: w.ID, CIDR: netip.MustParsePrefix("198.51.100.0/28")})
		return err
	})
}

// made gives the id in the element that an operation answers with.
func (c *cloud) made(element, operation string, params ...string) string {
	c.t.Helper()
	code, body := c.call("red", operation, params...)
	_, rest, ok := strings.Cut(body, "<"+element+">")
	id, _, _ := strings.Cut(rest, "<")
	if code != 200 || !ok {
		c.t.Fatalf("%s: %d %s", operation, code, body)
	}
	return id
}

// says checks that an answer has every one of the texts.
func (c *cloud) says(operation string, params []string, want ...string) string {
	c.t.Helper()
	code, body := c.call("red", operation, params...)
	for _, w := range want {
		if code != 200 || !strings.Contains(body, w) {
			c.t.Errorf("%s %v: no %s in %d %s", operation, params, w, code, body)
		}
	}
	return body
}

// row gives the id of the row that an EC2 id was made of.
func row[T any](c *cloud, t *store.Table[T], id string, of func(*T) string) string {
	c.t.Helper()
	_, hex, _ := strings.Cut(id, "-")
	for x := range t.All(c.store.Snapshot()) {
		if strings.HasPrefix(strings.ReplaceAll(of(x), "-", ""), hex) {
			return of(x)
		}
	}
	c.t.Fatalf("%s names no row", id)
	return ""
}

func TestVPCs(t *testing.T) {
	c := running(t)
	c.outside()
	v := c.made("vpcId", "CreateVpc", "CidrBlock", "10.7.0.1/16", "TagSpecification.1.ResourceType", "vpc", "TagSpecification.1.Tag.1.Key", "Name", "TagSpecification.1.Tag.1.Value", "mine",
		"TagSpecification.1.Tag.2.Key", "team", "TagSpecification.1.Tag.2.Value", "x")
	c.says("DescribeVpcs", []string{"VpcId.1", v}, "<cidrBlock>10.7.0.0/16</cidrBlock>", "<key>Name</key><value>mine</value>", "<key>team</key>", "<isDefault>false</isDefault>")
	c.refused(400, "InvalidVpc.Range", "red", "CreateVpc", "CidrBlock", "10.0.0.0/8")
	c.refused(400, "InvalidVpc.Range", "red", "CreateVpc", "CidrBlock", "127.0.0.0/16")
	c.refused(400, "InvalidParameterValue", "red", "CreateVpc", "CidrBlock", "10.0.0")
	c.refused(400, "UnsupportedOperation", "red", "CreateVpc", "CidrBlock", "10.0.0.0/16", "InstanceTenancy", "dedicated")
	c.refused(412, "DryRunOperation", "red", "CreateVpc", "CidrBlock", "10.0.0.0/16", "DryRun", "true")

	s := c.made("subnetId", "CreateSubnet", "VpcId", v, "CidrBlock", "10.7.1.0/24", "AvailabilityZone", "nova")
	c.refused(400, "InvalidSubnet.Conflict", "red", "CreateSubnet", "VpcId", v, "CidrBlock", "10.7.1.128/25")
	c.refused(400, "InvalidSubnet.Range", "red", "CreateSubnet", "VpcId", v, "CidrBlock", "10.8.0.0/24")
	c.refused(400, "InvalidSubnet.Range", "red", "CreateSubnet", "VpcId", v, "CidrBlock", "10.7.2.0/30")
	c.refused(400, "InvalidParameterValue", "red", "CreateSubnet", "VpcId", v, "CidrBlock", "10.7.2.0/24", "AvailabilityZone", "moon")
	c.refused(400, "InvalidVpcID.NotFound", "red", "CreateSubnet", "VpcId", "vpc-00000000000000000", "CidrBlock", "10.7.2.0/24")
	c.says("DescribeSubnets", []string{"Filter.1.Name", "vpc-id", "Filter.1.Value.1", v}, "<subnetId>"+s, "<availableIpAddressCount>253<", "<availabilityZone>nova<", "<vpcId>"+v)
	c.refused(400, "UnsupportedOperation", "red", "ModifySubnetAttribute", "SubnetId", s, "MapPublicIpOnLaunch.Value", "true")
	c.must(nil, "red", "ModifySubnetAttribute", "SubnetId", s, "MapPublicIpOnLaunch.Value", "false")
	c.says("DescribeVpcAttribute", []string{"VpcId", v, "Attribute", "enableDnsSupport"}, "<enableDnsSupport><value>true<")
	c.must(nil, "red", "ModifyVpcAttribute", "VpcId", v, "EnableDnsSupport.Value", "true")
	c.refused(400, "UnsupportedOperation", "red", "ModifyVpcAttribute", "VpcId", v, "EnableDnsHostnames.Value", "true")

	// The way out: the gateway is for the VPC first, and its router's with the first route.
	g := c.made("internetGatewayId", "CreateInternetGateway")
	a := c.made("allocationId", "AllocateAddress", "Domain", "vpc")
	nic := c.made("networkInterfaceId", "CreateNetworkInterface", "SubnetId", s, "PrivateIpAddress", "10.7.1.9", "Description", "a card")
	c.refused(400, "InvalidIPAddress.InUse", "red", "CreateNetworkInterface", "SubnetId", s, "PrivateIpAddress", "10.7.1.9")
	c.refused(400, "Gateway.NotAttached", "red", "AssociateAddress", "AllocationId", a, "NetworkInterfaceId", nic)
	c.must(nil, "red", "AttachInternetGateway", "InternetGatewayId", g, "VpcId", v)
	c.refused(400, "Resource.AlreadyAssociated", "red", "AttachInternetGateway", "InternetGatewayId", g, "VpcId", v)
	c.says("DescribeInternetGateways", []string{"Filter.1.Name", "attachment.vpc-id", "Filter.1.Value.1", v}, "<internetGatewayId>"+g, "<state>available<")
	table := c.made("routeTableId", "DescribeRouteTables", "Filter.1.Name", "vpc-id", "Filter.1.Value.1", v)
	if b := c.says("DescribeRouteTables", nil, "<destinationCidrBlock>10.7.0.0/16</destinationCidrBlock><gatewayId>local<", "<main>true<"); strings.Contains(b, "0.0.0.0/0") {
		t.Error(b)
	}
	c.refused(400, "InvalidParameterValue", "red", "CreateRoute", "RouteTableId", table, "DestinationCidrBlock", "10.7.1.0/24", "GatewayId", g)
	c.refused(400, "UnsupportedOperation", "red", "CreateRoute", "RouteTableId", table, "DestinationCidrBlock", "192.0.2.0/24", "GatewayId", g)
	c.must(nil, "red", "CreateRoute", "RouteTableId", table, "DestinationCidrBlock", "0.0.0.0/0", "GatewayId", g)
	c.must(nil, "red", "CreateRoute", "RouteTableId", table, "DestinationCidrBlock", "0.0.0.0/0", "GatewayId", g)
	c.says("DescribeRouteTables", []string{"RouteTableId.1", table}, "<destinationCidrBlock>0.0.0.0/0</destinationCidrBlock><gatewayId>"+g)
	c.must(nil, "red", "DeleteRoute", "RouteTableId", table, "DestinationCidrBlock", "0.0.0.0/0")
	c.refused(400, "InvalidRoute.NotFound", "red", "DeleteRoute", "RouteTableId", table, "DestinationCidrBlock", "0.0.0.0/0")

	// An address opens it too.
	link := c.made("associationId", "AssociateAddress", "AllocationId", a, "NetworkInterfaceId", nic)
	c.says("DescribeAddresses", []string{"AllocationId.1", a}, "<associationId>"+link, "<privateIpAddress>10.7.1.9<", "<networkInterfaceId>"+nic)
	c.says("DescribeRouteTables", []string{"RouteTableId.1", table}, "<gatewayId>"+g)
	c.refused(400, "DependencyViolation", "red", "DeleteRoute", "RouteTableId", table, "DestinationCidrBlock", "0.0.0.0/0")
	c.refused(400, "DependencyViolation", "red", "DetachInternetGateway", "InternetGatewayId", g, "VpcId", v)
	c.refused(400, "InvalidIPAddress.InUse", "red", "ReleaseAddress", "AllocationId", a)
	second := c.made("allocationId", "AllocateAddress")
	c.refused(400, "Resource.AlreadyAssociated", "red", "AssociateAddress", "AllocationId", second, "NetworkInterfaceId", nic, "AllowReassociation", "false")
	next := c.made("associationId", "AssociateAddress", "AllocationId", second, "NetworkInterfaceId", nic)
	c.refused(400, "InvalidAssociationID.NotFound", "red", "DisassociateAddress", "AssociationId", link)
	c.must(nil, "red", "ReleaseAddress", "AllocationId", a)

	// An instance: its card, a second one, a route by it.
	port := row(c, store.Ports, nic, func(p *model.Port) string { return p.ID })
	i := c.guest(red, port)
	c.says("DescribeNetworkInterfaces", []string{"Filter.1.Name", "attachment.instance-id", "Filter.1.Value.1", i}, "<networkInterfaceId>"+nic, "<status>in-use<", "<deviceIndex>0<", "<allocationId>"+second, "<description>a card<")
	c.says("DescribeAddresses", []string{"Filter.1.Name", "instance-id", "Filter.1.Value.1", i}, "<allocationId>"+second)
	c.refused(400, "InvalidNetworkInterface.InUse", "red", "DeleteNetworkInterface", "NetworkInterfaceId", nic)
	c.must(nil, "red", "CreateRoute", "RouteTableId", table, "DestinationCidrBlock", "192.168.0.0/16", "InstanceId", i)
	c.refused(400, "RouteAlreadyExists", "red", "CreateRoute", "RouteTableId", table, "DestinationCidrBlock", "0.0.0.0/0", "InstanceId", i)
	c.says("DescribeRouteTables", []string{"RouteTableId.1", table}, "<destinationCidrBlock>192.168.0.0/16</destinationCidrBlock><instanceId>"+i)
	card := c.made("networkInterfaceId", "CreateNetworkInterface", "SubnetId", s, "PrivateIpAddress", "10.7.1.8", "ClientToken", "once")
	if again := c.made("networkInterfaceId", "CreateNetworkInterface", "SubnetId", s, "PrivateIpAddress", "10.7.1.8", "ClientToken", "once"); again != card {
		t.Errorf("the same request made another card: %s, %s", card, again)
	}
	c.refused(400, "InvalidParameterValue", "red", "AttachNetworkInterface", "NetworkInterfaceId", card, "InstanceId", i, "DeviceIndex", "0")
	joint := c.made("attachmentId", "AttachNetworkInterface", "NetworkInterfaceId", card, "InstanceId", i, "DeviceIndex", "1")
	c.eventually("the card is in the guest", func() bool {
		_, b := c.call("red", "DescribeNetworkInterfaces", "NetworkInterfaceId.1", card)
		return strings.Contains(b, "<status>attached<")
	})
	c.must(nil, "red", "DetachNetworkInterface", "AttachmentId", joint)
	c.eventually("the card is out of the guest", func() bool {
		_, b := c.call("red", "DescribeNetworkInterfaces", "NetworkInterfaceId.1", card)
		return strings.Contains(b, "<status>available<")
	})
	c.refused(400, "InvalidAttachmentID.NotFound", "red", "DetachNetworkInterface", "AttachmentId", joint)
	c.says("AssignPrivateIpAddresses", []string{"NetworkInterfaceId", card, "PrivateIpAddress.1", "10.7.1.77"}, "<privateIpAddress>10.7.1.77<")
	more := c.made("privateIpAddress", "AssignPrivateIpAddresses", "NetworkInterfaceId", card, "SecondaryPrivateIpAddressCount", "1")
	c.refused(400, "InvalidIPAddress.InUse", "red", "AssignPrivateIpAddresses", "NetworkInterfaceId", card, "PrivateIpAddress.1", "10.7.1.9")
	c.refused(400, "InvalidParameterValue", "red", "AssignPrivateIpAddresses", "NetworkInterfaceId", card, "PrivateIpAddress.1", "10.7.2.9")
	c.refused(400, "PrivateIpAddressLimitExceeded", "red", "AssignPrivateIpAddresses", "NetworkInterfaceId", card, "SecondaryPrivateIpAddressCount", "4")
	c.says("DescribeNetworkInterfaces", []string{"Filter.1.Name", "addresses.private-ip-address", "Filter.1.Value.1", more}, "<networkInterfaceId>"+card, "<privateIpAddress>10.7.1.77</privateIpAddress><primary>false<")
	c.must(nil, "red", "AssociateAddress", "AllocationId", second, "NetworkInterfaceId", card, "PrivateIpAddress", more)
	c.must(nil, "red", "UnassignPrivateIpAddresses", "NetworkInterfaceId", card, "PrivateIpAddress.1", more)
	c.refused(400, "InvalidParameterValue", "red", "UnassignPrivateIpAddresses", "NetworkInterfaceId", card, "PrivateIpAddress.1", more)
	if got := c.made("associationId", "AssociateAddress", "AllocationId", second, "NetworkInterfaceId", nic); got != next {
		t.Errorf("the same association has another id: %s, %s", next, got)
	}
	group := c.made("groupId", "CreateSecurityGroup", "GroupName", "web", "GroupDescription", "x", "VpcId", v)
	c.must(nil, "red", "ModifyNetworkInterfaceAttribute", "NetworkInterfaceId", card, "SecurityGroupId.1", group)
	c.says("DescribeNetworkInterfaces", []string{"Filter.1.Name", "group-id", "Filter.1.Value.1", group}, "<networkInterfaceId>"+card)
	c.says("DescribeSecurityGroups", []string{"Filter.1.Name", "vpc-id", "Filter.1.Value.1", v, "Filter.2.Name", "group-name", "Filter.2.Value.1", "web"}, "<vpcId>"+v)
	c.refused(400, "UnsupportedOperation", "red", "ModifyNetworkInterfaceAttribute", "NetworkInterfaceId", card, "SourceDestCheck.Value", "false")
	c.says("DescribeNetworkAcls", []string{"Filter.1.Name", "association.subnet-id", "Filter.1.Value.1", s}, "<ruleAction>allow<", "<vpcId>"+v)
	c.says("DescribeDhcpOptions", nil, "<key>domain-name-servers<")

	// Nobody else's, and nothing for readers.
	for op, params := range map[string][]string{
		"DescribeVpcs": {"VpcId.1", v}, "DeleteVpc": {"VpcId", v}, "DescribeVpcAttribute": {"VpcId", v, "Attribute", "enableDnsSupport"}, "ModifyVpcAttribute": {"VpcId", v, "EnableDnsSupport.Value", "true"},
		"CreateSubnet": {"VpcId", v, "CidrBlock", "10.7.9.0/24"}, "DescribeSubnets": {"SubnetId.1", s}, "DeleteSubnet": {"SubnetId", s}, "ModifySubnetAttribute": {"SubnetId", s, "MapPublicIpOnLaunch.Value", "false"},
		"DescribeInternetGateways": {"InternetGatewayId.1", g}, "AttachInternetGateway": {"InternetGatewayId", g, "VpcId", v}, "DetachInternetGateway": {"InternetGatewayId", g, "VpcId", v},
		"DeleteInternetGateway": {"InternetGatewayId", g}, "DescribeRouteTables": {"RouteTableId.1", table}, "CreateRoute": {"RouteTableId", table, "DestinationCidrBlock", "192.0.2.0/24", "InstanceId", i},
		"DeleteRoute": {"RouteTableId", table, "DestinationCidrBlock", "192.168.0.0/16"}, "DescribeAddresses": {"AllocationId.1", second}, "AssociateAddress": {"AllocationId", second, "NetworkInterfaceId", nic},
		"DisassociateAddress": {"AssociationId", next}, "ReleaseAddress": {"AllocationId", second}, "CreateNetworkInterface": {"SubnetId", s}, "DescribeNetworkInterfaces": {"NetworkInterfaceId.1", nic},
		"DeleteNetworkInterface": {"NetworkInterfaceId", card}, "AssignPrivateIpAddresses": {"NetworkInterfaceId", card, "SecondaryPrivateIpAddressCount", "1"},
		"UnassignPrivateIpAddresses": {"NetworkInterfaceId", card, "PrivateIpAddress.1", "10.7.1.77"}, "AttachNetworkInterface": {"NetworkInterfaceId", card, "InstanceId", i, "DeviceIndex", "1"}, "DetachNetworkInterface": {"AttachmentId", joint},
		"ModifyNetworkInterfaceAttribute": {"NetworkInterfaceId", card, "SecurityGroupId.1", group}, "DescribeNetworkAcls": {"NetworkAclId.1", "acl-" + v[4:]}, "DescribeDhcpOptions": {"DhcpOptionsId.1", "dopt-" + v[4:]},
	} {
		if code, b := c.call("blue", op, params...); code != 400 || !strings.Contains(b, ".NotFound</Code>") {
			t.Errorf("%s: %d %s", op, code, b)
		}
		if !strings.HasPrefix(op, "Describe") {
			c.refused(403, "UnauthorizedOperation", "red-reader", op, params...)
		}
	}
	for _, op := range []string{"CreateDefaultVpc", "CreateInternetGateway", "AllocateAddress", "CreateVpc"} {
		c.refused(403, "UnauthorizedOperation", "red-reader", op, "CidrBlock", "10.0.0.0/16")
	}

	// Everything goes, each when nothing needs it.
	c.refused(400, "DependencyViolation", "red", "DeleteVpc", "VpcId", v)
	c.refused(400, "DependencyViolation", "red", "DeleteSubnet", "SubnetId", s)
	c.refused(400, "DependencyViolation", "red", "DeleteInternetGateway", "InternetGatewayId", g)
	c.update(func(tx *store.Tx) error {
		return c.compute.Delete(tx, scopeOf(red), row(c, store.Servers, i, func(s *model.Server) string { return s.ID }))
	})
	c.eventually("the guest is gone", func() bool {
		_, b := c.call("red", "DescribeNetworkInterfaces", "NetworkInterfaceId.1", nic)
		return strings.Contains(b, "<status>available<")
	})
	c.must(nil, "red", "DisassociateAddress", "AssociationId", next)
	c.must(nil, "red", "ReleaseAddress", "AllocationId", second)
	c.refused(400, "InvalidAllocationID.NotFound", "red", "DescribeAddresses", "AllocationId.1", second)
	c.must(nil, "red", "DeleteRoute", "RouteTableId", table, "DestinationCidrBlock", "192.168.0.0/16")
	c.must(nil, "red", "DetachInternetGateway", "InternetGatewayId", g, "VpcId", v)
	c.refused(400, "Gateway.NotAttached", "red", "DetachInternetGateway", "InternetGatewayId", g, "VpcId", v)
	c.must(nil, "red", "DeleteInternetGateway", "InternetGatewayId", g)
	for _, x := range []string{nic, card} {
		c.must(nil, "red", "DeleteNetworkInterface", "NetworkInterfaceId", x)
	}
	c.must(nil, "red", "DeleteSubnet", "SubnetId", s)
	c.refused(400, "DependencyViolation", "red", "DeleteVpc", "VpcId", v) // its security group
	c.must(nil, "red", "DeleteSecurityGroup", "GroupId", group)
	c.must(nil, "red", "DeleteVpc", "VpcId", v)
	c.refused(400, "InvalidVpcID.NotFound", "red", "DescribeVpcs", "VpcId.1", v)
	if n := network.Used(c.store.Snapshot(), red, network.QuotaNetwork) + network.Used(c.store.Snapshot(), red, network.QuotaPort) + network.Used(c.store.Snapshot(), red, network.QuotaRouter); n != 0 {
		t.Errorf("%d things are left", n)
	}
}

func TestDefaultVPCAndOthersRouters(t *testing.T) {
	c := newCloud(t)
	c.outside()
	v := c.made("vpcId", "CreateDefaultVpc")
	c.refused(400, "DefaultVpcAlreadyExists", "red", "CreateDefaultVpc")
	c.says("DescribeVpcs", []string{"Filter.1.Name", "is-default", "Filter.1.Value.1", "true"}, "<vpcId>"+v, "<cidrBlock>172.31.0.0/16<")
	c.says("DescribeSubnets", []string{"Filter.1.Name", "default-for-az", "Filter.1.Value.1", "true"}, "<cidrBlock>172.31.0.0/20<")
	c.says("DescribeRouteTables", nil, "<destinationCidrBlock>0.0.0.0/0<")
	c.must(nil, "red", "AuthorizeSecurityGroupIngress", "GroupName", "default", "IpProtocol", "tcp", "FromPort", "22", "ToPort", "22", "CidrIp", "0.0.0.0/0")
	c.says("DescribeSecurityGroups", []string{"GroupName.1", "default"}, "<vpcId>"+v)

	// A router of the OpenStack dialect is a VPC too, once it has a subnet; its gateway is an internet gateway.
	name := "theirs"
	c.update(func(tx *store.Tx) error {
		sc := network.Scope{ProjectID: red}
		w, err := c.network.CreateNetwork(tx, sc, network.NetworkSpec{Name: &name})
		if err != nil {
			return err
		}
		var out model.ID
		for x := range store.Networks.List(tx, "name", "outside") {
			out = x.ID
		}
		r, err := c.network.CreateRouter(tx, sc, network.RouterSpec{Name: &name, Gateway: &network.GatewaySpec{NetworkID: out}})
		if err != nil {
			return err
		}
		for _, block := range []string{"10.1.0.0/24", "10.1.3.0/24"} {
			s, err := c.network.CreateSubnet(tx, sc, network.SubnetSpec{NetworkID: w.ID, CIDR: netip.MustParsePrefix(block), Name: &name})
			if err != nil {
				return err
			}
			if _, err := c.network.AddInterface(tx, sc, r.ID, network.InterfaceSpec{SubnetID: s.ID}); err != nil {
				return err
			}
		}
		_, err = c.network.CreateRouter(tx, sc, network.RouterSpec{Name: &name}) // no subnet: no VPC
		return err
	})
	b := c.says("DescribeVpcs", []string{"Filter.1.Name", "tag:Name", "Filter.1.Value.1", "theirs"}, "<cidrBlock>10.1.0.0/22<", "<isDefault>false<")
	if strings.Count(b, "<vpcId>") != 1 {
		t.Error(b)
	}
	theirs := c.made("vpcId", "DescribeVpcs", "Filter.1.Name", "cidr", "Filter.1.Value.1", "10.1.0.0/22")
	g := c.made("internetGatewayId", "DescribeInternetGateways", "Filter.1.Name", "attachment.vpc-id", "Filter.1.Value.1", theirs)
	s := c.made("subnetId", "DescribeSubnets", "Filter.1.Name", "cidr-block", "Filter.1.Value.1", "10.1.3.0/24")
	c.must(nil, "red", "DetachInternetGateway", "InternetGatewayId", g, "VpcId", theirs)
	c.refused(400, "InvalidInternetGatewayID.NotFound", "red", "DescribeInternetGateways", "InternetGatewayId.1", g)
	c.must(nil, "red", "DeleteSubnet", "SubnetId", s)
	if n := network.Used(c.store.Snapshot(), red, network.QuotaNetwork); n != 2 { // theirs stays with its other subnet
		t.Errorf("%d networks", n)
	}

	c.update(func(tx *store.Tx) error {
		return store.Quotas.Put(tx, &model.Quota{Service: network.QuotaService, ProjectID: red, Limits: map[string]int{network.QuotaRouter: 3, network.QuotaSubnet: 2, network.QuotaFloatingIP: 0}})
	})
	c.refused(400, "VpcLimitExceeded", "red", "CreateVpc", "CidrBlock", "10.0.0.0/16")
	c.refused(400, "SubnetLimitExceeded", "red", "CreateSubnet", "VpcId", v, "CidrBlock", "172.31.16.0/20")
	c.refused(400, "AddressLimitExceeded", "red", "AllocateAddress")
	for range 2 {
		c.must(nil, "red", "CreateInternetGateway")
	}
	c.refused(400, "InternetGatewayLimitExceeded", "red", "CreateInternetGateway")
}
