package api_test

import (
	"testing"

	"yakumo/model"
	"yakumo/store"
)

// newMember makes a project with a user of its own, who is a member; both are called name.
func newMember(t *testing.T, c *cloud, name string) (project model.ID) {
	t.Helper()
	u, err := c.Identity.CreateUser(t.Context(), model.User{Name: name, DomainID: "default", Enabled: true}, name+"-password")
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.Identity.CreateProject(t.Context(), model.Project{Name: name, DomainID: "default", Enabled: true})
	if err != nil {
		t.Fatal(err)
	}
	member, ok := store.Roles.Holder(c.Store.Snapshot(), ",member")
	if !ok {
		t.Fatal("there is no role member")
	}
	if err := c.Identity.Assign(t.Context(), model.Assignment{RoleID: member, UserID: u.ID, ProjectID: p.ID}); err != nil {
		t.Fatal(err)
	}
	return p.ID
}

// TestStockNetwork does with Debian's stock client what its users do with networks: each
// resource from create to delete, set and unset, and what must be refused.
func TestStockNetwork(t *testing.T) {
	c, _ := startNetworkCloud(t)
	newMember(t, c, "demo")
	other := newMember(t, c, "other")
	admin := startStock(t, c, "admin", adminPassword, "admin")
	s := startStock(t, c, "demo", "demo-password", "demo")
	o := startStock(t, c, "other", "other-password", "other")
	s.ids["other"] = other

	t.Run("networks and subnets", func(t *testing.T) { stockSubnets(at(t, s), at(t, o), at(t, admin)) })
	t.Run("ports", func(t *testing.T) { stockPorts(at(t, s), at(t, o)) })
	t.Run("routers", func(t *testing.T) { stockRouters(at(t, s), at(t, o), at(t, admin)) })
	t.Run("floating IPs", func(t *testing.T) { stockFloating(at(t, s), at(t, o), at(t, admin)) })
	t.Run("security groups", func(t *testing.T) { stockGroups(at(t, s), at(t, o)) })
	t.Run("pools and scopes", func(t *testing.T) { stockPools(at(t, s), at(t, admin)) })
	t.Run("RBAC", func(t *testing.T) { stockRBAC(at(t, s), at(t, o)) })
	t.Run("QoS", func(t *testing.T) { stockQoS(at(t, s), at(t, admin)) })
	t.Run("trunks", func(t *testing.T) { stockTrunks(at(t, s)) })
	t.Run("provider networks", func(t *testing.T) { stockProviders(at(t, s), at(t, admin)) })
	t.Run("the rest", func(t *testing.T) { stockRest(at(t, s), at(t, admin)) })
	for n := range store.Networks.All(c.Store.Snapshot()) {
		if n.Name != "public" {
			t.Errorf("network %s is left", n.Name)
		}
	}
	for p := range store.Ports.All(c.Store.Snapshot()) {
		t.Errorf("port %s of %s is left", p.ID, p.DeviceOwner)
	}
}

// at gives the client to a part of a test.
func at(t *testing.T, s *stock) *stock {
	part := *s
	part.t = t
	return &part
}

func stockSubnets(s, o, admin *stock) {
	s.make("net", "network create --description a~net --mtu 1400 --dns-domain example.org. --tag red blue")
	s.wants("network show blue", "mtu=1400", "dns_domain=example.org.", "tags=red", "status=ACTIVE", "router:external=", "shared=false")
	s.do("network set --name green --no-tag --tag new --disable $net")
	s.wants("network show $net", "name=green", "tags=new", "admin_state_up=false")
	s.do("network unset --all-tag $net")
	s.do("network set --enable --name blue $net")
	s.refused("Only an administrator may set 'shared'", "network create --share x")
	s.refused("MTU", "network create --mtu 9000 big")
	o.refused("No Network found", "network show $net") // $net is not o's: the text itself

	s.make("sub", "subnet create --network blue --subnet-range 10.0.0.0/24 --gateway 10.0.0.254 --dns-nameserver 192.0.2.53 --allocation-pool start=10.0.0.10,end=10.0.0.99 --host-route destination=10.9.0.0/16,gateway=10.0.0.9 v4")
	s.wants("subnet show v4", "gateway_ip=10.0.0.254", "dns_nameservers=192.0.2.53", "allocation_pools=10.0.0.99", "host_routes=10.9.0.0/16", "enable_dhcp=true")
	s.do("subnet set --dns-nameserver 192.0.2.54 --no-host-route --allocation-pool start=10.0.0.120,end=10.0.0.130 --name four --no-dhcp v4")
	s.wants("subnet show four", "dns_nameservers=192.0.2.54", "allocation_pools=10.0.0.120", "enable_dhcp=false")
	s.do("subnet unset --dns-nameserver 192.0.2.53 --allocation-pool start=10.0.0.120,end=10.0.0.130 four")
	s.do("subnet set --gateway none --dhcp four")
	s.wants("subnet show four", "gateway_ip=null")
	s.refused("overlaps", "subnet create --network blue --subnet-range 10.0.0.128/25 again")
	s.refused("cidr", "subnet create --network blue --subnet-range 10.0.1.7/24 crooked")
	s.refused("not valid on subnet", "subnet create --network blue --subnet-range 10.0.2.0/24 --gateway 10.0.3.1 far")
	s.make("six", "subnet create --network blue --ip-version 6 --subnet-range fd00:1::/64 --ipv6-ra-mode slaac --ipv6-address-mode slaac v6")
	s.wants("subnet show v6", "ipv6_ra_mode=slaac", "gateway_ip=fd00:1::")
	s.refused("", "subnet create --network blue --ip-version 6 --subnet-range fd00:2::/64 --ipv6-ra-mode slaac --ipv6-address-mode dhcpv6-stateful bad")
	s.refused("", "subnet create --network blue --ip-version 6 --subnet-range 10.5.0.0/24 bad")
	if n := len(s.list("subnet list --network blue --ip-version 6")); n != 1 {
		s.t.Errorf("%d IPv6 subnets", n)
	}
	if n := len(o.list("subnet list --subnet-range 10.0.0.0/24")); n != 0 {
		s.t.Errorf("another project lists %d subnets", n)
	}
	admin.do("ip availability list")
	admin.do("ip availability show blue")
	s.do("network delete blue")
	s.refused("No Subnet found", "subnet show v6")
}

func stockPorts(s, o *stock) {
	s.make("net", "network create wire")
	s.make("sub", "subnet create --network wire --subnet-range 10.1.0.0/24 wire4")
	s.make("port", "port create --network wire --fixed-ip subnet=wire4,ip-address=10.1.0.5 --mac-address 02:00:00:00:00:05 --allowed-address ip-address=10.1.0.77 --dns-name web --description a~port --tag t p1")
	s.wants("port show p1", "fixed_ips=10.1.0.5", "mac_address=02:00:00:00:00:05", "allowed_address_pairs=10.1.0.77", "dns_name=web", "status=DOWN", "tags=t", "port_security_enabled=true")
	s.do("port set --no-allowed-address --fixed-ip subnet=wire4,ip-address=10.1.0.6 --name p2 --disable $port")
	s.wants("port show p2", "fixed_ips=10.1.0.6", "allowed_address_pairs=[]", "admin_state_up=false")
	s.do("port unset --fixed-ip subnet=wire4,ip-address=10.1.0.5 p2")
	s.do("port set --no-security-group --disable-port-security p2")
	s.wants("port show p2", "port_security_enabled=false", "security_group_ids=[]")
	s.refused("", "port create --network wire --fixed-ip subnet=wire4,ip-address=10.1.0.6 twice")
	s.refused("not a valid IP", "port create --network wire --fixed-ip subnet=wire4,ip-address=10.7.0.6 far")
	s.refused("", "port create --network wire --mac-address 01:00:00:00:00:01 group")
	s.refused("in use", "network delete wire")
	s.refused("", "subnet delete wire4")
	o.ids["port"] = s.ids["port"]
	o.refused("No Port found", "port show $port")
	o.refused("No Port found", "port set --name mine $port")
	if n := len(s.list("port list --network wire --long")); n != 1 {
		s.t.Errorf("%d ports", n)
	}
	if n := len(s.list("port list --fixed-ip ip-address=10.1.0.6")); n != 1 {
		s.t.Errorf("%d ports with the address", n)
	}
	s.do("port delete p2")
	s.do("network delete wire")
}

func stockRouters(s, o, admin *stock) {
	s.do("network create left")
	s.do("subnet create --network left --subnet-range 10.2.0.0/24 left4")
	s.do("network create right")
	s.do("subnet create --network right --subnet-range 10.3.0.0/24 right4")
	s.make("router", "router create --description a~router --tag edge r1")
	admin.ids["router"] = s.ids["router"]
	s.wants("router show r1", "status=ACTIVE", "admin_state_up=true", "tags=edge", "external_gateway_info=null")
	s.do("router add subnet r1 left4")
	s.refused("", "router add subnet r1 left4")
	s.make("rport", "port create --network right --fixed-ip subnet=right4,ip-address=10.3.0.77 rp")
	s.do("router add port r1 rp")
	s.wants("router show r1", "interfaces_info=10.3.0.77")
	s.refused("", "port delete rp")
	s.refused("", "router delete r1")
	s.refused("", "subnet delete left4")
	s.do("router set --external-gateway public --route destination=10.9.0.0/16,gateway=10.2.0.9 r1")
	s.wants("router show r1", "external_gateway_info=203.0.113.", "routes=10.9.0.0/16")
	s.refused("Only an administrator", "router set --external-gateway public --disable-snat r1")
	admin.do("router set --external-gateway public --disable-snat $router")
	s.wants("router show r1", "external_gateway_info=\"enable_snat\":false")
	s.do("router set --disable --name r2 r1")
	s.wants("router show r2", "admin_state_up=false")
	s.do("router set --enable --name r1 r2")
	s.refused("", "router set --route destination=10.9.0.0/16,gateway=192.0.2.9 r1")
	s.do("router unset --route destination=10.9.0.0/16,gateway=10.2.0.9 r1")
	s.do("router add route --route destination=10.8.0.0/16,gateway=10.2.0.9 r1")
	s.wants("router show r1", "routes=10.8.0.0/16")
	s.do("router remove route --route destination=10.8.0.0/16,gateway=10.2.0.9 r1")
	s.do("router unset --external-gateway r1")
	s.wants("router show r1", "external_gateway_info=null")
	o.ids["router"] = s.ids["router"]
	o.refused("No Router found", "router show $router")
	o.refused("No Router found", "router delete $router")
	s.refused("", "router remove subnet r1 nothing")
	s.do("router remove port r1 rp")
	s.do("router remove subnet r1 left4")
	admin.do("router list --long")
	s.do("router delete r1")
	s.do("network delete left right")
}

func stockFloating(s, o, admin *stock) {
	s.do("network create inner")
	s.do("subnet create --network inner --subnet-range 10.4.0.0/24 inner4")
	s.do("port create --network inner --fixed-ip subnet=inner4,ip-address=10.4.0.5 guest")
	s.make("fip", "floating ip create --description first public")
	s.refused("", "floating ip set --port guest $fip") // no router leads there yet
	s.do("router create edge")
	s.do("router add subnet edge inner4")
	s.do("router set --external-gateway public edge")
	s.do("floating ip set --port guest $fip")
	admin.make("bronze", "network qos policy create --share bronze")
	s.ids["bronze"] = admin.ids["bronze"]
	s.do("floating ip set --qos-policy bronze $fip")
	s.wants("floating ip show $fip", "qos_policy_id=$bronze")
	s.do("floating ip unset --qos-policy $fip")
	s.wants("floating ip show $fip", "qos_policy_id=null")
	s.do("router set --qos-policy bronze edge")
	admin.refused("", "network qos policy delete bronze")
	s.do("router unset --qos-policy edge")
	admin.do("network qos policy delete bronze")
	s.wants("floating ip show $fip", "fixed_ip_address=10.4.0.5", "floating_ip_address=203.0.113.", "router_id=")
	s.refused("", "router remove subnet edge inner4")
	s.refused("", "router unset --external-gateway edge")
	s.refused("", "floating ip create --port guest public") // it has one
	s.do("floating ip unset --port $fip")
	s.wants("floating ip show $fip", "fixed_ip_address=null", "status=DOWN")
	s.make("pf", "floating ip port forwarding create --port guest --internal-ip-address 10.4.0.5 --internal-protocol-port 22 --external-protocol-port 2222 --protocol tcp $fip")
	s.refused("", "floating ip port forwarding create --port guest --internal-ip-address 10.4.0.5 --internal-protocol-port 23 --external-protocol-port 2222 --protocol tcp $fip")
	s.do("floating ip port forwarding set --external-protocol-port 2223 $fip $pf")
	s.wants("floating ip port forwarding show $fip $pf", "external_port=2223", "internal_port=22", "protocol=tcp")
	if n := len(s.list("floating ip port forwarding list $fip")); n != 1 {
		s.t.Errorf("%d port forwardings", n)
	}
	o.ids["fip"] = s.ids["fip"]
	o.refused("", "floating ip show $fip")
	o.refused("", "floating ip delete $fip")
	s.refused("", "floating ip create inner")
	s.do("floating ip port forwarding delete $fip $pf")
	s.do("floating ip delete $fip")
	s.do("router unset --external-gateway edge")
	s.do("router remove subnet edge inner4")
	s.do("router delete edge")
	s.do("port delete guest")
	s.do("network delete inner")
}

func stockGroups(s, o *stock) {
	s.make("group", "security group create --description web~servers web")
	s.make("rule", "security group rule create --protocol tcp --dst-port 80:90 --remote-ip 192.0.2.0/24 web")
	s.do("security group rule create --protocol icmp --icmp-type 8 --ethertype IPv4 web")
	s.do("security group rule create --protocol ipv6-icmp --ethertype IPv6 web")
	s.do("security group rule create --protocol udp --dst-port 53 --remote-group web --egress web")
	s.do("security group rule create --protocol 112 web")
	s.refused("already exists", "security group rule create --protocol tcp --dst-port 80:90 --remote-ip 192.0.2.0/24 web")
	s.refused("", "security group rule create --protocol tcp --dst-port 90:80 web")
	s.refused("", "security group rule create --protocol 300 web")
	s.refused("", "security group rule create --protocol tcp --ethertype IPv6 --remote-ip 192.0.2.0/24 web")
	s.wants("security group rule show $rule", "port_range_min=80", "port_range_max=90", "remote_ip_prefix=192.0.2.0/24", "direction=ingress")
	s.do("security group set --name www web")
	s.do("security group set --tag x www")
	s.do("security group unset --all-tag www")
	s.make("addresses", "address group create --address 192.0.2.0/25 --address 198.51.100.7/32 offices")
	s.do("address group set --address 203.0.113.9/32 --name branch offices")
	s.do("address group unset --address 192.0.2.0/25 branch")
	s.wants("address group show branch", "addresses=203.0.113.9/32")
	s.do("security group rule create --protocol tcp --dst-port 22 --remote-address-group branch www")
	s.refused("", "address group delete branch")
	s.make("stateless", "security group create --stateless fast")
	s.wants("security group show fast", "stateful=false")
	s.do("network create g")
	s.do("port create --network g --security-group www gp")
	s.refused("", "security group delete www")
	s.refused("", "port set --security-group fast gp") // both kinds on one port
	s.refused("", "security group delete default")
	o.ids["group"] = s.ids["group"]
	o.refused("", "security group show $group")
	o.refused("", "security group rule create --protocol tcp $group")
	s.do("port delete gp")
	s.do("network delete g")
	s.do("security group rule delete $rule")
	s.do("security group delete www fast")
	s.do("address group delete branch")
}

func stockPools(s, admin *stock) {
	admin.make("scope", "address scope create --share --ip-version 4 world")
	admin.do("address scope set --name globe world")
	admin.make("pool", "subnet pool create --pool-prefix 10.64.0.0/16 --default-prefix-length 26 --min-prefix-length 24 --max-prefix-length 28 --address-scope globe --share shared")
	s.wants("subnet pool show shared", "default_prefixlen=26", "prefixes=10.64.0.0/16")
	s.refused("", "subnet pool set --name mine shared")
	s.do("network create pooled")
	s.do("subnet create --network pooled --subnet-pool shared first")
	s.do("subnet create --network pooled --subnet-pool shared --prefix-length 28 second")
	s.wants("subnet show first", "cidr=/26", "subnetpool_id=")
	s.wants("subnet show second", "cidr=/28")
	s.refused("", "subnet create --network pooled --subnet-pool shared --prefix-length 20 large")
	s.refused("", "subnet create --network pooled --subnet-pool shared --prefix-length 30 small")
	admin.do("subnet pool set --pool-prefix 10.65.0.0/16 --description wide shared")
	admin.refused("", "subnet pool delete shared")
	admin.refused("", "address scope delete globe")
	s.make("mine", "subnet pool create --pool-prefix 10.70.0.0/24 own")
	s.do("subnet pool set --tag x own")
	s.do("subnet pool unset --all-tag own")
	s.do("subnet pool delete own")
	s.do("network delete pooled")
	admin.do("subnet pool delete shared")
	admin.do("address scope delete globe")
}

func stockRBAC(s, o *stock) {
	s.make("net", "network create lent")
	s.do("subnet create --network lent --subnet-range 10.6.0.0/24 lent4")
	o.refused("No Network found", "network show lent")
	s.make("policy", "network rbac create --type network --action access_as_shared --target-project $other $net") // by its owner
	o.wants("network show lent", "shared=true")
	o.do("port create --network lent guest")
	s.refused("", "network rbac delete $policy")
	o.refused("", "network set --name stolen lent")
	o.refused("", "subnet create --network lent --subnet-range 10.7.0.0/24 x")
	o.do("port delete guest")
	s.wants("network rbac show $policy", "action=access_as_shared", "object_type=network")
	s.do("network rbac list --long")
	s.do("network rbac delete $policy")
	o.refused("No Network found", "network show lent")
	s.refused("", "network rbac create --type network --action access_as_external --target-all-projects $net")
	s.do("network delete lent")
}

func stockQoS(s, admin *stock) {
	admin.make("gold", "network qos policy create --share gold")
	s.ids["gold"] = admin.ids["gold"]
	admin.make("limit", "network qos rule create --type bandwidth-limit --max-kbps 5000 --max-burst-kbits 4000 --egress gold")
	admin.do("network qos rule create --type dscp-marking --dscp-mark 26 gold")
	admin.do("network qos rule create --type minimum-bandwidth --min-kbps 1000 --egress gold")
	admin.do("network qos rule set --max-kbps 6000 gold $limit")
	admin.wants("network qos rule show gold $limit", "max_kbps=6000", "direction=egress")
	admin.refused("", "network qos rule create --type dscp-marking --dscp-mark 5 gold")
	admin.refused("", "network qos rule create --type bandwidth-limit --max-kbps 1 --egress gold") // one a direction
	s.refused("", "network qos policy create mine")
	s.do("network qos rule type list")
	s.do("network create fast")
	s.do("network set --qos-policy gold fast")
	s.wants("network show fast", "qos_policy_id=$gold")
	s.do("port create --network fast --qos-policy gold fp")
	s.do("port unset --qos-policy fp")
	admin.refused("", "network qos policy delete gold")
	s.do("network set --no-qos-policy fast")
	s.do("port delete fp")
	s.do("network delete fast")
	admin.do("network qos policy set --no-share --name silver gold")
	admin.do("network qos rule delete silver $limit")
	admin.do("network qos policy delete silver")
}

func stockTrunks(s *stock) {
	s.do("network create tn")
	s.do("port create --network tn parent")
	s.do("port create --network tn sub1")
	s.do("port create --network tn sub2")
	s.make("trunk", "network trunk create --parent-port parent --subport port=sub1,segmentation-type=vlan,segmentation-id=101 tr")
	s.wants("network trunk show tr", "sub_ports=101", "status=")
	s.do("network trunk set --subport port=sub2,segmentation-type=vlan,segmentation-id=102 --description d tr")
	s.refused("", "network trunk set --subport port=sub2,segmentation-type=vlan,segmentation-id=102 tr")
	s.refused("", "port delete sub1")
	s.refused("", "port delete parent")
	s.do("network subport list --trunk tr")
	s.do("network trunk unset --subport sub2 tr")
	s.do("network trunk delete tr")
	s.do("port delete parent sub1 sub2")
	s.do("network delete tn")
}

func stockProviders(s, admin *stock) {
	admin.make("vlan", "network create --provider-network-type vlan --provider-physical-network physnet1 --provider-segment 101 v101")
	admin.wants("network show v101", "provider:segmentation_id=101", "provider:network_type=vlan", "provider:physical_network=physnet1", "mtu=1500")
	admin.refused("in use", "network create --provider-network-type vlan --provider-physical-network physnet1 --provider-segment 101 again")
	admin.refused("", "network create --provider-network-type vlan --provider-physical-network physnet1 --provider-segment 4095 high")
	admin.refused("", "network create --provider-network-type flat --provider-physical-network nowhere x")
	admin.refused("", "network create --provider-network-type ipsec x")
	admin.do("network create --provider-network-type geneve --provider-segment 70001 gn")
	admin.do("network create --provider-network-type gre gr")
	s.refused("", "network create --provider-network-type vlan mine")
	s.refused("No Network found", "network show v101")
	admin.do("network create --external --share outside2")
	admin.do("network set --internal outside2")
	admin.do("network delete v101 gn gr outside2")
}

func stockRest(s, admin *stock) {
	admin.do("network agent list")
	s.do("availability zone list --network")
	s.do("extension list --network")
	s.do("network service provider list")
}
