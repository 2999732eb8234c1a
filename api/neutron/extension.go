package neutron

import (
	"net/http"

	"yakumo/api"
	"yakumo/fault"
)

type extension struct {
	Alias       string `json:"alias"`
	Name        string `json:"name"`
	Description string `json:"description"`
	Updated     string `json:"updated"`
	Links       []link `json:"links"`
}

// extensions are those that this service really serves. Clients decide by the alias what
// they may ask; names and dates are those by which Neutron's reference knows them.
func extensions() []extension {
	list := []extension{
		{Alias: "address-group", Name: "Address group", Description: "Sets of prefixes that rules refer to.", Updated: "2020-07-15T10:00:00-00:00"},
		{Alias: "address-scope", Name: "Address scope", Description: "Spaces of addresses that subnet pools are in.", Updated: "2015-07-26T10:00:00-00:00"},
		{Alias: "agent", Name: "agent", Description: "The hosts that wire ports.", Updated: "2013-02-03T10:00:00-00:00"},
		{Alias: "allowed-address-pairs", Name: "Allowed Address Pairs", Description: "Addresses that a port may use besides its own.", Updated: "2013-07-23T10:00:00-00:00"},
		{Alias: "auto-allocated-topology", Name: "Auto Allocated Topology Services", Description: "A project is given a network that reaches the outside.", Updated: "2016-01-01T00:00:00-00:00"},
		{Alias: "availability_zone", Name: "Availability Zone", Description: "The zones that hosts are in.", Updated: "2015-01-01T10:00:00-00:00"},
		{Alias: "binding", Name: "Port Binding", Description: "The host that a port is wired on, for administrators.", Updated: "2014-02-03T10:00:00-00:00"},
		{Alias: "default-subnetpools", Name: "Default Subnetpools", Description: "The pool of an IP version that subnets are cut from.", Updated: "2016-02-18T18:00:00-00:00"},
		{Alias: "dns-integration", Name: "DNS Integration", Description: "Names of ports and domains of networks.", Updated: "2015-08-15T18:00:00-00:00"},
		{Alias: "dvr", Name: "Distributed Virtual Router", Description: "Every router is distributed.", Updated: "2014-06-1T10:00:00-00:00"},
		{Alias: "empty-string-filtering", Name: "Empty String Filtering Extension", Description: "A filter with an empty value finds what has none.", Updated: "2018-10-09T10:00:00-00:00"},
		{Alias: "expose-port-forwarding-in-fip", Name: "Expose Port Forwarding in FIP", Description: "A floating IP shows what is forwarded.", Updated: "2019-01-01T10:00:00-00:00"},
		{Alias: "ext-gw-mode", Name: "Neutron L3 Configurable external gateway mode", Description: "A gateway's source NAT may be switched off.", Updated: "2013-03-28T10:00:00-00:00"},
		{Alias: "external-net", Name: "Neutron external network", Description: "Networks that gateways and floating IPs are of.", Updated: "2013-01-14T10:00:00-00:00"},
		{Alias: "extra_dhcp_opt", Name: "Neutron Extra DHCP options", Description: "Further DHCP options of a port.", Updated: "2013-03-17T12:00:00-00:00"},
		{Alias: "extraroute", Name: "Neutron Extra Route", Description: "Further routes of a router.", Updated: "2013-02-01T10:00:00-00:00"},
		{Alias: "extraroute-atomic", Name: "Atomically add/remove extra routes", Description: "Routes are added and removed one by one.", Updated: "2019-07-10T10:00:00-00:00"},
		{Alias: "filter-validation", Name: "Filter parameters validation", Description: "An unknown filter is refused.", Updated: "2018-03-21T10:00:00-00:00"},
		{Alias: "fip-port-details", Name: "Floating IP Port Details Extension", Description: "A floating IP shows the port that it stands for.", Updated: "2018-04-09T10:00:00-00:00"},
		{Alias: "floating-ip-port-forwarding", Name: "Floating IP Port Forwarding", Description: "Ports of a floating IP lead to ports inside.", Updated: "2018-05-12T10:00:00-00:00"},
		{Alias: "floating-ip-port-forwarding-description", Name: "Floating IP Port Forwarding new description field", Description: "What is forwarded has a description.", Updated: "2020-04-10T10:00:00-00:00"},
		{Alias: "floating-ip-port-forwarding-detail", Name: "Floating IP Port Forwarding new port id and port forwarding id fields", Description: "A floating IP shows the ids of what is forwarded.", Updated: "2020-08-25T10:00:00-00:00"},
		{Alias: "floating-ip-port-forwarding-port-ranges", Name: "Floating IP Port Forwarding support port range", Description: "Ranges of ports are forwarded.", Updated: "2021-04-10T10:00:00-00:00"},
		{Alias: "floatingip-pools", Name: "Floating IP Pools Extension", Description: "The subnets that floating IPs are of.", Updated: "2018-03-21T10:00:00-00:00"},
		{Alias: "ip-substring-filtering", Name: "IP address substring filtering", Description: "Ports are found by a part of an address.", Updated: "2017-11-28T09:00:00-00:00"},
		{Alias: "l3-ha", Name: "HA Router extension", Description: "A router's gateway has a stand-by on another host.", Updated: "2014-04-26T00:00:00-00:00"},
		{Alias: "l3_agent_scheduler", Name: "L3 Agent Scheduler", Description: "The hosts of a router's gateway are shown and chosen.", Updated: "2013-02-07T10:00:00-00:00"},
		{Alias: "net-mtu", Name: "Network MTU", Description: "The MTU of a network.", Updated: "2015-03-25T10:00:00-00:00"},
		{Alias: "net-mtu-writable", Name: "Network MTU (writable)", Description: "The MTU of a network may be set.", Updated: "2017-07-12T00:00:00-00:00"},
		{Alias: "network_availability_zone", Name: "Network Availability Zone", Description: "The zones that a network is meant for.", Updated: "2015-01-01T10:00:00-00:00"},
		{Alias: "network-ip-availability", Name: "Network IP Availability", Description: "How many addresses of a network are in use.", Updated: "2015-09-24T00:00:00-00:00"},
		{Alias: "pagination", Name: "Pagination support", Description: "Lists come in pages.", Updated: "2016-06-12T00:00:00-00:00"},
		{Alias: "port-mac-address-regenerate", Name: "Neutron Port MAC address regenerate", Description: "A null MAC address makes a new one.", Updated: "2018-05-03T10:00:00-00:00"},
		{Alias: "port-security", Name: "Port Security", Description: "The checks of a port's source addresses may be switched off.", Updated: "2012-07-23T10:00:00-00:00"},
		{Alias: "project-id", Name: "project_id field enabled", Description: "Resources have project_id beside tenant_id.", Updated: "2016-09-09T09:09:09-09:09"},
		{Alias: "provider", Name: "Provider Network", Description: "The segment of a network, for administrators.", Updated: "2012-09-07T10:00:00-00:00"},
		{Alias: "port-resource-request", Name: "Port Resource Request", Description: "What a port is promised, for administrators.", Updated: "2018-05-08T10:00:00-00:00"},
		{Alias: "port-resource-request-groups", Name: "Port Resource Request Groups", Description: "What a port is promised, in groups.", Updated: "2021-08-08T10:00:00-00:00"},
		{Alias: "qos", Name: "Quality of Service", Description: "Policies for the traffic of ports.", Updated: "2015-06-08T10:00:00-00:00"},
		{Alias: "qos-bw-limit-direction", Name: "Direction for QoS bandwidth limit rule", Description: "A limit holds for what a guest sends or what it receives.", Updated: "2017-04-10T10:00:00-00:00"},
		{Alias: "qos-bw-minimum-ingress", Name: "Ingress direction for QoS minimum bandwidth rule", Description: "A minimum may be for what a guest receives.", Updated: "2018-07-09T10:00:00-00:00"},
		{Alias: "qos-default", Name: "QoS default policy", Description: "New networks of a project take its default policy.", Updated: "2017-04-06T10:00:00-00:00"},
		{Alias: "qos-port-network-policy", Name: "QoS port network policy", Description: "A port shows its network's policy.", Updated: "2019-11-28T10:00:00-00:00"},
		{Alias: "qos-fip", Name: "Floating IP QoS", Description: "Policies limit floating IPs.", Updated: "2017-07-20T00:00:00-00:00"},
		{Alias: "qos-gateway-ip", Name: "Gateway IP QoS", Description: "Policies limit what leaves by a router's gateway address.", Updated: "2018-05-22T00:00:00-00:00"},
		{Alias: "qos-pps", Name: "QoS packet rate limit", Description: "Rules that limit packets per second.", Updated: "2021-02-06T10:00:00-00:00"},
		{Alias: "qos-pps-minimum", Name: "QoS minimum packet rate", Description: "Rules that promise packets per second.", Updated: "2021-06-15T10:00:00-00:00"},
		{Alias: "qos-pps-minimum-rule-alias", Name: "QoS minimum packet rate rule alias", Description: "Such a rule is reached without naming its policy.", Updated: "2021-11-04T10:00:00-00:00"},
		{Alias: "qos-rule-type-details", Name: "Details of QoS rule types", Description: "What rules of a type may say.", Updated: "2017-06-22T10:00:00-00:00"},
		{Alias: "qos-rule-type-filter", Name: "Filter for QoS rule types", Description: "All types of rules, or those that are kept.", Updated: "2021-06-24T10:00:00-00:00"},
		{Alias: "qos-rules-alias", Name: "QoS rules alias", Description: "A rule is reached without naming its policy.", Updated: "2018-10-07T10:00:00-00:00"},
		{Alias: "quota_details", Name: "Quota details management support", Description: "What of a quota is in use.", Updated: "2017-02-10T10:00:00-00:00"},
		{Alias: "quotas", Name: "Quota management support", Description: "Limits per project.", Updated: "2012-07-29T10:00:00-00:00"},
		{Alias: "rbac-policies", Name: "RBAC Policies", Description: "What a project shares with others.", Updated: "2015-06-17T12:15:12-07:00"},
		{Alias: "rbac-address-group", Name: "Add address_group type to RBAC", Description: "Address groups may be shared.", Updated: "2021-04-15T10:00:00-00:00"},
		{Alias: "rbac-address-scope", Name: "Add address_scope type to RBAC", Description: "Address scopes may be shared.", Updated: "2020-03-28T10:00:00-00:00"},
		{Alias: "rbac-subnetpool", Name: "Add subnetpool type to RBAC", Description: "Subnet pools may be shared.", Updated: "2020-01-28T10:00:00-00:00"},
		{Alias: "rbac-security-groups", Name: "Add security_group type to network RBAC", Description: "Security groups may be shared.", Updated: "2018-12-17T10:00:00-00:00"},
		{Alias: "revision-if-match", Name: "If-Match constraints based on revision_number", Description: "A change may insist on the revision that it is about.", Updated: "2016-12-11T00:00:00-00:00"},
		{Alias: "router", Name: "Neutron L3 Router", Description: "Routers and floating IPs.", Updated: "2012-07-20T10:00:00-00:00"},
		{Alias: "router_availability_zone", Name: "Router Availability Zone", Description: "The zones that a router's gateway is meant for.", Updated: "2015-01-01T10:00:00-00:00"},
		{Alias: "security-group", Name: "security-group", Description: "What traffic a port takes and sends.", Updated: "2012-10-05T10:00:00-00:00"},
		{Alias: "security-groups-default-rules", Name: "Default rules for security groups", Description: "Administrators choose the rules that new groups begin with.", Updated: "2022-12-19T10:00:00-00:00"},
		{Alias: "security-groups-normalized-cidr", Name: "Normalized CIDR field for security group rules", Description: "The prefix of a rule without the bits outside its mask.", Updated: "2019-07-18T10:00:00-00:00"},
		{Alias: "security-groups-remote-address-group", Name: "Remote address group id field for security group rules", Description: "A rule may name an address group as the other side.", Updated: "2020-08-28T10:00:00-00:00"},
		{Alias: "security-groups-rules-belongs-to-default-sg", Name: "Security groups rules belongs to the default security group", Description: "A rule tells whether it is of a default group.", Updated: "2022-12-19T10:00:00-00:00"},
		{Alias: "security-groups-shared-filtering", Name: "Security group filtering on the shared field", Description: "Groups are found by whether they are shared.", Updated: "2021-10-05T10:00:00-00:00"},
		{Alias: "sorting", Name: "Sorting support", Description: "Lists are sorted by the keys that are asked for.", Updated: "2016-06-12T00:00:00-00:00"},
		{Alias: "standard-attr-description", Name: "standard-attr-description", Description: "Resources have a description.", Updated: "2016-02-10T10:00:00-00:00"},
		{Alias: "standard-attr-revisions", Name: "Resource revision numbers", Description: "Resources count their changes.", Updated: "2016-04-11T10:00:00-00:00"},
		{Alias: "standard-attr-tag", Name: "Tag support for resources with standard attribute: floatingip, network, port, router, security_group, subnet, subnetpool", Description: "Resources have tags.", Updated: "2017-01-01T00:00:00-00:00"},
		{Alias: "standard-attr-timestamp", Name: "Resource timestamps", Description: "Resources tell when they were made and changed.", Updated: "2016-09-12T10:00:00-00:00"},
		{Alias: "stateful-security-group", Name: "Stateful security group", Description: "Groups without connection tracking.", Updated: "2019-11-26T09:00:00-00:00"},
		{Alias: "subnet_allocation", Name: "Subnet Allocation", Description: "Subnets are cut from pools.", Updated: "2015-03-30T10:00:00-00:00"},
		{Alias: "subnet_onboard", Name: "Subnet Onboard", Description: "The subnets of a network come to a pool.", Updated: "2017-05-15T10:00:00-00:00"},
		{Alias: "subnetpool-prefix-ops", Name: "Subnet Pool Prefix Operations", Description: "Prefixes of a pool come and go.", Updated: "2019-02-08T10:00:00-00:00"},
		{Alias: "subnet-service-types", Name: "Subnet service types", Description: "A subnet may be meant for ports of certain owners.", Updated: "2016-03-15T18:00:00-00:00"},
		{Alias: "taas", Name: "Neutron Tap as a Service", Description: "Frames of a port are copied to another.", Updated: "2015-01-14T10:00:00-00:00"},
		{Alias: "trunk", Name: "Trunk Extension", Description: "A port carries those of other networks with VLAN tags.", Updated: "2016-01-01T10:00:00-00:00"},
		{Alias: "trunk-details", Name: "Trunk port details", Description: "A port shows the trunk that it is the parent of.", Updated: "2016-01-01T10:00:00-00:00"},
		{Alias: "vlan-transparent", Name: "Vlantransparent", Description: "A network may carry VLAN tags of its guests.", Updated: "2015-03-23T09:00:00-07:00"},
	}
	for i := range list {
		list[i].Links = []link{}
	}
	return list
}

func (d *dialect) listExtensions(c *api.Context) error {
	return c.JSON(http.StatusOK, map[string]any{"extensions": extensions()})
}

func (d *dialect) showExtension(c *api.Context) error {
	for _, e := range extensions() {
		if e.Alias == c.Param("alias") {
			return c.JSON(http.StatusOK, map[string]any{"extension": e})
		}
	}
	return fault.Coded(fault.NotFound, "ExtensionNotFound", "Extension with alias %s does not exist", c.Param("alias"))
}
