package ec2

import (
	"regexp"
	"strings"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/store"
)

// kind is what an id names: its prefix.
type kind string

// The kinds of things.
const (
	instanceID   kind = "i"
	imageID      kind = "ami"
	volumeID     kind = "vol"
	snapshotID   kind = "snap"
	keyID        kind = "key"
	vpcID        kind = "vpc"
	subnetID     kind = "subnet"
	groupID      kind = "sg"
	interfaceID  kind = "eni"
	allocationID kind = "eipalloc"
	gatewayID    kind = "igw"
	tableID      kind = "rtb"
	aclID        kind = "acl"
	dhcpID       kind = "dopt"
	ruleID       kind = "sgr"
)

// digits is how much of a UUID's 32 digits an id holds, as Amazon's own ids: 62 random bits, by which the row is found again.
const digits = 17

// id gives the EC2 id of a thing with a UUID.
func (k kind) id(uuid string) string {
	hex := strings.ReplaceAll(uuid, "-", "")
	return string(k) + "-" + hex[:min(digits, len(hex))]
}

var hexRE = regexp.MustCompile(`^[0-9a-f]{17}$`)

// prefix gives what the UUID that an EC2 id was made of begins with.
func (k kind) prefix(id string) (string, bool) {
	hex, ok := strings.CutPrefix(id, string(k)+"-")
	if !ok || !hexRE.MatchString(hex) {
		return "", false
	}
	return hex[:8] + "-" + hex[8:12] + "-" + hex[12:16] + "-" + hex[16:], true
}

// codeNames are what EC2 calls the kinds in its error codes.
var codeNames = map[kind]string{
	instanceID: "InvalidInstanceID", imageID: "InvalidAMIID", volumeID: "InvalidVolume", snapshotID: "InvalidSnapshot", keyID: "InvalidKeyPair", vpcID: "InvalidVpcID",
	subnetID: "InvalidSubnetID", groupID: "InvalidGroup", interfaceID: "InvalidNetworkInterfaceID", allocationID: "InvalidAllocationID",
	gatewayID: "InvalidInternetGatewayID", tableID: "InvalidRouteTableID", aclID: "InvalidNetworkAclID", dhcpID: "InvalidDhcpOptionID", ruleID: "InvalidSecurityGroupRuleId",
}

// nouns are what EC2 calls the kinds in its texts.
var nouns = map[kind]string{
	instanceID: "instance ID", imageID: "image id", volumeID: "volume", snapshotID: "snapshot", keyID: "key pair", vpcID: "vpc ID",
	subnetID: "subnet ID", groupID: "security group", interfaceID: "networkInterface ID", allocationID: "allocation ID",
	gatewayID: "internetGateway ID", tableID: "routeTable ID", aclID: "networkAcl ID", dhcpID: "dhcpOption ID", ruleID: "security group rule ID",
}

// find gives the thing that an EC2 id names and that may be seen, or EC2's error for an id that is malformed or names none.
func find[T any](r store.Reader, t *store.Table[T], k kind, id string, visible func(*T) bool) (*T, error) {
	prefix, ok := k.prefix(id)
	if !ok {
		return nil, fault.Coded(fault.Invalid, codeNames[k]+".Malformed", "Invalid id: %q (expecting \"%s-...\")", api.Clip(id), k)
	}
	for row := range t.Prefix(r, "id", prefix) {
		if visible(row) {
			return row, nil
		}
	}
	return nil, k.none(id)
}

// none is the error of an id that names nothing.
func (k kind) none(id string) error {
	return fault.Coded(fault.NotFound, codeNames[k]+".NotFound", "The %s '%s' does not exist", nouns[k], api.Clip(id))
}
