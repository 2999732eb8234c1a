package nova

import (
	"net/http"

	"yakumo/api"
	"yakumo/fault"
)

// extensions are those of Nova's former extensions whose routes or attributes are served.
var extensions = []struct{ alias, name string }{
	{"OS-DCF", "DiskConfig"}, {"OS-EXT-AZ", "ExtendedAvailabilityZone"}, {"OS-EXT-IPS", "ExtendedIps"}, {"OS-EXT-IPS-MAC", "ExtendedIpsMac"},
	{"OS-EXT-SRV-ATTR", "ExtendedServerAttributes"}, {"OS-EXT-STS", "ExtendedStatus"}, {"OS-FLV-DISABLED", "FlavorDisabled"},
	{"OS-FLV-EXT-DATA", "FlavorExtraData"}, {"OS-SRV-USG", "ServerUsage"}, {"os-availability-zone", "AvailabilityZone"},
	{"os-config-drive", "ConfigDrive"}, {"os-console-output", "ConsoleOutput"}, {"os-flavor-access", "FlavorAccess"},
	{"os-flavor-extra-specs", "FlavorExtraSpecs"}, {"os-flavor-manage", "FlavorManage"}, {"os-hypervisors", "Hypervisors"},
	{"os-instance-actions", "InstanceActions"}, {"os-interface", "AttachInterfaces"}, {"os-keypairs", "Keypairs"},
	{"os-lock-server", "LockServer"}, {"os-quota-sets", "Quotas"}, {"os-security-groups", "SecurityGroups"},
	{"os-aggregates", "Aggregates"}, {"os-hosts", "Hosts"}, {"os-migrations", "Migrations"}, {"os-quota-class-sets", "QuotaClasses"},
	{"os-server-groups", "ServerGroups"}, {"os-simple-tenant-usage", "SimpleTenantUsage"},
	{"os-server-start-stop", "ServerStartStop"}, {"os-services", "Services"}, {"os-user-data", "UserData"},
}

func extensionOf(alias, name string) object {
	return object{"alias": alias, "name": name, "description": name + ".", "links": []any{}, "namespace": "http://docs.openstack.org/compute/ext/fake_xml",
		"updated": "2014-12-03T00:00:00Z"}
}

func (d *dialect) listExtensions(c *api.Context) error {
	out := []object{}
	for _, x := range extensions {
		out = append(out, extensionOf(x.alias, x.name))
	}
	return c.JSON(http.StatusOK, object{"extensions": out})
}

func (d *dialect) showExtension(c *api.Context) error {
	for _, x := range extensions {
		if x.alias == c.Param("alias") {
			return c.JSON(http.StatusOK, object{"extension": extensionOf(x.alias, x.name)})
		}
	}
	return fault.New(fault.NotFound, "The resource could not be found.")
}
