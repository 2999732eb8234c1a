package ec2_test

import (
	"strings"
	"testing"

	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

// with gives the parameters that name a permission.
func with(prefix string, pairs ...string) []string {
	var out []string
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, "IpPermissions."+prefix+"."+pairs[i], pairs[i+1])
	}
	return out
}

func TestSecurityGroups(t *testing.T) {
	c := newCloud(t)
	var g struct {
		ID string `xml:"groupId"`
	}
	create := []string{"GroupName", "web", "GroupDescription", "for the web", "TagSpecification.1.ResourceType", "security-group", "TagSpecification.1.Tag.1.Key", "team", "TagSpecification.1.Tag.1.Value", "a=b"}
	c.must(&g, "red", "CreateSecurityGroup", create...)
	if !strings.HasPrefix(g.ID, "sg-") {
		t.Fatalf("%+v", g)
	}
	c.refused(400, "InvalidGroup.Duplicate", "red", "CreateSecurityGroup", create...)
	c.refused(400, "InvalidParameterValue", "red", "CreateSecurityGroup", "GroupName", "default", "GroupDescription", "x")
	c.refused(400, "MissingParameter", "red", "CreateSecurityGroup", "GroupName", "x")
	shown := func(params ...string) string {
		t.Helper()
		_, body := c.call("red", "DescribeSecurityGroups", params...)
		return body
	}
	// A new one lets everything out and nothing in; the project's own lets its members in.
	if b := shown("GroupId.1", g.ID); !strings.Contains(b, "<ipPermissions></ipPermissions>") || !strings.Contains(b, "<ipProtocol>-1</ipProtocol>") || !strings.Contains(b, "<cidrIp>0.0.0.0/0</cidrIp>") ||
		!strings.Contains(b, "<key>team</key><value>a=b</value>") {
		t.Error(b)
	}
	if b := shown("GroupName.1", "default"); !strings.Contains(b, "<ipPermissions><item><ipProtocol>-1</ipProtocol><groups><item><userId>"+red) || strings.Count(b, "<userId>") != 1 {
		t.Error(b)
	}

	in := func(code string, params ...string) {
		t.Helper()
		params = append([]string{"GroupId", g.ID}, params...)
		if code == "" {
			c.must(nil, "red", "AuthorizeSecurityGroupIngress", params...)
		} else {
			c.refused(400, code, "red", "AuthorizeSecurityGroupIngress", params...)
		}
	}
	ssh := with("1", "IpProtocol", "tcp", "FromPort", "22", "ToPort", "22", "IpRanges.1.CidrIp", "203.0.113.0/24", "IpRanges.1.Description", "office", "Ipv6Ranges.1.CidrIpv6", "2001:db8::/32")
	in("", ssh...)
	in("InvalidPermission.Duplicate", ssh...)
	in("", with("1", "IpProtocol", "icmp", "FromPort", "8", "ToPort", "-1", "IpRanges.1.CidrIp", "0.0.0.0/0")...)
	in("", with("1", "IpProtocol", "udp", "FromPort", "0", "ToPort", "65535", "IpRanges.1.CidrIp", "10.0.0.0/8")...)
	in("", with("1", "IpProtocol", "-1", "Groups.1.GroupId", g.ID)...)
	in("InvalidPermission.Duplicate", with("1", "IpProtocol", "-1", "Groups.1.GroupId", g.ID)...)
	in("", "IpProtocol", "47", "CidrIp", "10.0.0.1/32")
	in("InvalidPermission.Duplicate", "IpProtocol", "47", "CidrIp", "10.0.0.1/32")
	for code, params := range map[string][]string{
		"MissingParameter":      {},
		"InvalidParameterValue": with("1", "IpProtocol", "tcp", "FromPort", "22", "ToPort", "21", "IpRanges.1.CidrIp", "0.0.0.0/0"),
		"UnsupportedOperation":  with("1", "IpProtocol", "-1", "PrefixListIds.1.PrefixListId", "pl-1"),
		"InvalidGroup.NotFound": with("1", "IpProtocol", "-1", "Groups.1.GroupId", "sg-00000000000000000"),
	} {
		in(code, params...)
	}
	for _, bad := range [][]string{
		with("1", "IpProtocol", "tcp", "IpRanges.1.CidrIp", "0.0.0.0/0"), with("1", "IpProtocol", "-1", "IpRanges.1.CidrIp", "10.0.0"), with("1", "IpProtocol", "-1", "IpRanges.1.CidrIp", "::/0"),
		with("1", "IpProtocol", "carrier-pigeon", "IpRanges.1.CidrIp", "10.0.0.0/8"), with("1", "IpProtocol", "-1"), with("1", "IpProtocol", "icmp", "FromPort", "300", "ToPort", "0", "IpRanges.1.CidrIp", "10.0.0.0/8"),
	} {
		in("InvalidParameterValue", bad...)
	}
	// One that is there spoils the request: the other is not made.
	in("InvalidPermission.Duplicate", append(with("1", "IpProtocol", "tcp", "FromPort", "80", "ToPort", "80", "IpRanges.1.CidrIp", "0.0.0.0/0"), with("2", "IpProtocol", "tcp", "FromPort", "22", "ToPort", "22", "IpRanges.1.CidrIp", "203.0.113.0/24")...)...)
	b := shown("GroupId.1", g.ID)
	for _, want := range []string{"<fromPort>22</fromPort><toPort>22</toPort>", "<cidrIp>203.0.113.0/24</cidrIp><description>office</description>", "<cidrIpv6>2001:db8::/32</cidrIpv6>", "<fromPort>8</fromPort><toPort>-1</toPort>",
		"<ipProtocol>udp</ipProtocol><fromPort>0</fromPort><toPort>65535</toPort>", "<ipProtocol>47</ipProtocol>"} {
		if !strings.Contains(b, want) {
			t.Errorf("%s is not in %s", want, b)
		}
	}
	if strings.Contains(b, "<fromPort>80<") {
		t.Error(b)
	}
	for filter, n := range map[string]int{"group-name=web": 1, "ip-permission.cidr=203.0.113.0/24": 1, "ip-permission.protocol=udp": 1, "egress.ip-permission.cidr=0.0.0.0/0": 2, "tag:team=a=b": 1, "vpc-id=vpc-1": 0} {
		name, value, _ := strings.Cut(filter, "=")
		if b := shown("Filter.1.Name", name, "Filter.1.Value.1", value); strings.Count(b, "<groupDescription>") != n {
			t.Errorf("%s: %s", filter, b)
		}
	}

	// Rules by themselves, and back.
	var rules struct {
		Rules []struct {
			ID       string `xml:"securityGroupRuleId"`
			Egress   bool   `xml:"isEgress"`
			Protocol string `xml:"ipProtocol"`
		} `xml:"securityGroupRuleSet>item"`
	}
	c.must(&rules, "red", "DescribeSecurityGroupRules", "Filter.1.Name", "group-id", "Filter.1.Value.1", g.ID)
	udp := ""
	for _, r := range rules.Rules {
		if r.Protocol == "udp" {
			udp = r.ID
		}
	}
	if len(rules.Rules) != 9 || udp == "" {
		t.Errorf("%+v", rules)
	}
	c.must(nil, "red", "RevokeSecurityGroupIngress", "GroupId", g.ID, "SecurityGroupRuleId.1", udp)
	c.refused(400, "InvalidSecurityGroupRuleId.NotFound", "red", "RevokeSecurityGroupIngress", "GroupId", g.ID, "SecurityGroupRuleId.1", udp)
	c.must(nil, "red", "RevokeSecurityGroupIngress", append([]string{"GroupId", g.ID}, ssh...)...)
	c.refused(400, "InvalidPermission.NotFound", "red", "RevokeSecurityGroupIngress", append([]string{"GroupId", g.ID}, ssh...)...)
	c.must(nil, "red", "RevokeSecurityGroupEgress", append([]string{"GroupId", g.ID}, with("1", "IpProtocol", "-1", "IpRanges.1.CidrIp", "0.0.0.0/0", "Ipv6Ranges.1.CidrIpv6", "::/0")...)...)
	if b := shown("GroupId.1", g.ID); !strings.Contains(b, "<ipPermissionsEgress></ipPermissionsEgress>") || strings.Contains(b, "<fromPort>22") {
		t.Error(b)
	}

	// Another group's rule, and a member, keep it.
	var other struct {
		ID string `xml:"groupId"`
	}
	c.must(&other, "red", "CreateSecurityGroup", "GroupName", "db", "GroupDescription", "for data")
	c.must(nil, "red", "AuthorizeSecurityGroupIngress", append([]string{"GroupId", other.ID}, with("1", "IpProtocol", "tcp", "FromPort", "5432", "ToPort", "5432", "Groups.1.GroupId", g.ID)...)...)
	c.refused(400, "DependencyViolation", "red", "DeleteSecurityGroup", "GroupId", g.ID)
	c.must(nil, "red", "DeleteSecurityGroup", "GroupName", "db")
	name := "wire"
	c.update(func(tx *store.Tx) error {
		sc := network.Scope{ProjectID: red}
		w, err := c.network.CreateNetwork(tx, sc, network.NetworkSpec{Name: &name})
		if err != nil {
			return err
		}
		var groups []string
		for x := range store.SecurityGroups.List(tx, "name", "web") {
			groups = append(groups, x.ID)
		}
		_, err = c.network.CreatePort(tx, sc, network.PortSpec{NetworkID: w.ID, Groups: &groups, Name: &name})
		return err
	})
	c.refused(400, "DependencyViolation", "red", "DeleteSecurityGroup", "GroupId", g.ID)
	c.refused(400, "CannotDelete", "red", "DeleteSecurityGroup", "GroupName", "default")
	c.refused(400, "InvalidGroup.NotFound", "red", "DeleteSecurityGroup", "GroupName", "db")

	// Nobody else's.
	for op, params := range map[string][]string{"DescribeSecurityGroups": {"GroupId.1", g.ID}, "DeleteSecurityGroup": {"GroupId", g.ID}, "AuthorizeSecurityGroupIngress": append([]string{"GroupId", g.ID}, ssh...),
		"RevokeSecurityGroupIngress": append([]string{"GroupId", g.ID}, ssh...), "AuthorizeSecurityGroupEgress": append([]string{"GroupId", g.ID}, ssh...), "RevokeSecurityGroupEgress": append([]string{"GroupId", g.ID}, ssh...)} {
		c.refused(400, "InvalidGroup.NotFound", "blue", op, params...)
		if !strings.HasPrefix(op, "Describe") {
			c.refused(403, "UnauthorizedOperation", "red-reader", op, params...)
		}
	}
	c.refused(403, "UnauthorizedOperation", "red-reader", "CreateSecurityGroup", create...)
	c.refused(400, "InvalidSecurityGroupRuleId.NotFound", "blue", "DescribeSecurityGroupRules", "SecurityGroupRuleId.1", rules.Rules[0].ID)
	n := 0
	for range store.SecurityRules.List(c.store.Snapshot(), "project", red) {
		n++
	}
	if n != 8 { // of web: echo, gre, its members' two; of default: members' two, everything out two
		t.Errorf("%d rules", n)
	}
	c.update(func(tx *store.Tx) error {
		return store.Quotas.Put(tx, &model.Quota{Service: network.QuotaService, ProjectID: red, Limits: map[string]int{network.QuotaGroup: 2, network.QuotaRule: 8}})
	})
	c.refused(400, "SecurityGroupLimitExceeded", "red", "CreateSecurityGroup", "GroupName", "more", "GroupDescription", "x")
	in("RulesPerSecurityGroupLimitExceeded", ssh...)
}
