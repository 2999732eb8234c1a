package api_test

import "testing"

// TestGophercloudAddresses runs gophercloud's own tests of networks, subnets and ports, of
// security and address groups, and of what is shared and cut from pools.
func TestGophercloudAddresses(t *testing.T) {
	c, external := startRouterCloud(t)
	env := map[string]string{"OS_EXTGW_ID": external}
	for _, a := range []acceptance{
		{Package: "networking/v2", Omit: map[string]string{"TestPortsTrustedVIFCRUD": "no network card is handed to a guest, so none is trusted"}},
		{Package: "networking/v2/extensions"},
		{Package: "networking/v2/extensions/subnetpools"},
		{Package: "networking/v2/extensions/rbacpolicies"},
		{Package: "networking/v2/extensions/dns", Skips: map[string]string{"TestDNSFloatingIPCRUD": "gophercloud skips it everywhere"}},
		{Package: "networking/v2/extensions/mtu"},
		{Package: "networking/v2/extensions/networkipavailabilities"},
		{Package: "networking/v2/extensions/quotas"},
		{Package: "networking/v2/extensions/layer3", Run: "^TestAddressScopes"},
	} {
		a.Env = env
		a.run(t, c)
	}
}
