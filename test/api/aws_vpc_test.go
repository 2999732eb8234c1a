package api_test

import (
	"net/netip"
	"strings"
	"testing"

	"yakumo/network"
	"yakumo/store"
)

// TestStockVPC builds with the AWS CLI the VPC of docs/guide/ec2.md, with an instance, and takes it down.
func TestStockVPC(t *testing.T) {
	c := startVolumeCloud(t)
	newMember(t, c, "demo")
	net := network.New(network.Config{})
	name, yes, project := "public", true, adminProject(t, c)
	if _, err := c.Store.Update(t.Context(), func(tx *store.Tx) error {
		sc := network.Scope{ProjectID: project, Admin: true}
		w, err := net.CreateNetwork(tx, sc, network.NetworkSpec{Name: &name, External: &yes})
		if err != nil {
			return err
		}
		_, err = net.CreateSubnet(tx, sc, network.SubnetSpec{NetworkID: w.ID, CIDR: netip.MustParsePrefix("203.0.113.0/24")})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	a := startAWS(t, c, "demo")

	a.ids["vpc"] = a.text("create-vpc --cidr-block 10.7.0.0/16 --tag-specifications ResourceType=vpc,Tags=[{Key=Name,Value=shop}]", "Vpc.VpcId")
	a.ids["subnet"] = a.text("create-subnet --vpc-id $vpc --cidr-block 10.7.1.0/24", "Subnet.SubnetId")
	a.refused("InvalidSubnet.Conflict", "create-subnet --vpc-id $vpc --cidr-block 10.7.1.0/25")
	a.ids["igw"] = a.text("create-internet-gateway", "InternetGateway.InternetGatewayId")
	a.ec2(nil, "attach-internet-gateway --internet-gateway-id $igw --vpc-id $vpc")
	a.ids["table"] = a.text("describe-route-tables --filters Name=vpc-id,Values=$vpc", "RouteTables[0].RouteTableId")
	a.ec2(nil, "create-route --route-table-id $table --destination-cidr-block 0.0.0.0/0 --gateway-id $igw")
	a.ids["group"] = a.text("create-security-group --group-name web --description for~the~web --vpc-id $vpc", "GroupId")
	a.ec2(nil, "authorize-security-group-ingress --group-id $group --protocol tcp --port 80 --cidr 0.0.0.0/0")
	a.ec2(nil, "authorize-security-group-ingress --group-id $group --protocol icmp --port -1 --source-group $group")
	a.refused("InvalidPermission.Duplicate", "authorize-security-group-ingress --group-id $group --protocol tcp --port 80 --cidr 0.0.0.0/0")
	if got := a.text("describe-security-groups --filters Name=vpc-id,Values=$vpc Name=group-name,Values=web", "SecurityGroups[0].IpPermissions[].[IpProtocol,FromPort,ToPort,IpRanges[0].CidrIp,UserIdGroupPairs[0].GroupId]"); got !=
		"tcp\t80\t80\t0.0.0.0/0\tNone\nicmp\t-1\t-1\tNone\t"+a.ids["group"] {
		t.Errorf("the group allows %q", got)
	}

	a.ids["ami"] = a.text("describe-images --filters Name=name,Values=mini", "Images[0].ImageId")
	a.ids["web"] = a.text("run-instances --image-id $ami --instance-type tiny --subnet-id $subnet --security-group-ids $group", "Instances[0].InstanceId")
	a.becomes("describe-instances --instance-ids $web", "Reservations[0].Instances[0].State.Name", "running")
	a.ids["address"] = a.text("allocate-address --domain vpc", "AllocationId")
	a.ids["link"] = a.text("associate-address --allocation-id $address --instance-id $web", "AssociationId")
	public := a.text("describe-addresses --allocation-ids $address", "Addresses[0].PublicIp")
	if got := a.text("describe-instances --filters Name=vpc-id,Values=$vpc", "Reservations[].Instances[].[InstanceId,SubnetId,PublicIpAddress,SecurityGroups[0].GroupName,NetworkInterfaces[0].VpcId]"); got !=
		strings.Join([]string{a.ids["web"], a.ids["subnet"], public, "web", a.ids["vpc"]}, "\t") || public == "" {
		t.Errorf("the instance is %q", got)
	}

	// Nothing goes while something needs it; then all does.
	a.refused("DependencyViolation", "detach-internet-gateway --internet-gateway-id $igw --vpc-id $vpc")
	a.refused("DependencyViolation", "delete-security-group --group-id $group")
	a.refused("DependencyViolation", "delete-subnet --subnet-id $subnet")
	a.ec2(nil, "terminate-instances --instance-ids $web")
	a.becomes("describe-network-interfaces --filters Name=subnet-id,Values=$subnet", "length(NetworkInterfaces)", "0")
	for _, line := range []string{"release-address --allocation-id $address", "detach-internet-gateway --internet-gateway-id $igw --vpc-id $vpc", "delete-internet-gateway --internet-gateway-id $igw",
		"delete-subnet --subnet-id $subnet", "delete-security-group --group-id $group", "delete-vpc --vpc-id $vpc"} {
		a.ec2(nil, line)
	}
	a.refused("InvalidVpcID.NotFound", "describe-vpcs --vpc-ids $vpc")
}
