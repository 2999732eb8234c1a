package network

import (
	"maps"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// QuotaService is the service's name in the table of quotas.
const QuotaService = "network"

// Resources that a quota limits, by Neutron's names.
const (
	QuotaNetwork    = "network"
	QuotaSubnet     = "subnet"
	QuotaPort       = "port"
	QuotaGroup      = "security_group"
	QuotaRule       = "security_group_rule"
	QuotaRouter     = "router"
	QuotaFloatingIP = "floatingip"
	QuotaPool       = "subnetpool"
	QuotaPolicy     = "rbac_policy"
	QuotaAddresses  = "address_group"
	QuotaTrunk      = "trunk"
	QuotaTapService = "tap_service"
	QuotaTapFlow    = "tap_flow"
)

// QuotaNames gives the resources that a quota limits.
func QuotaNames() []string {
	return []string{QuotaNetwork, QuotaSubnet, QuotaPort, QuotaGroup, QuotaRule, QuotaRouter, QuotaFloatingIP, QuotaPool, QuotaPolicy, QuotaAddresses,
		QuotaTrunk, QuotaTapService, QuotaTapFlow}
}

// DefaultQuotas gives Neutron's defaults.
func DefaultQuotas() map[string]int {
	return map[string]int{QuotaNetwork: 100, QuotaSubnet: 100, QuotaPort: 500, QuotaGroup: 10, QuotaRule: 100, QuotaRouter: 10, QuotaFloatingIP: 50,
		QuotaPool: -1, QuotaPolicy: 10, QuotaAddresses: -1,
		QuotaTrunk: -1, QuotaTapService: 1, QuotaTapFlow: 10}
}

// Defaults gives the limits of a project that has none of its own.
func (n *Network) Defaults() map[string]int { return maps.Clone(n.defaults) }

// Quota gives the limits of a project, -1 for none.
func (n *Network) Quota(r store.Reader, project model.ID) map[string]int {
	out := n.Defaults()
	if q, ok := store.Quotas.Get(r, model.QuotaKey(QuotaService, project)); ok {
		maps.Copy(out, q.Limits)
	}
	return out
}

// SetQuota changes the limits that are named. The names are of QuotaNames, the limits ≥ -1.
func (n *Network) SetQuota(tx *store.Tx, project model.ID, limits map[string]int) error {
	q := model.Quota{Service: QuotaService, ProjectID: project, Limits: map[string]int{}}
	if old, ok := store.Quotas.Get(tx, q.Key()); ok {
		maps.Copy(q.Limits, old.Limits)
	}
	for k, v := range limits {
		if _, ok := n.defaults[k]; !ok || v < -1 {
			return fault.Coded(fault.Invalid, "HTTPBadRequest", "Invalid input for %s. Reason: '%d' is no limit of a quota.", clip(k), v)
		}
		q.Limits[k] = v
	}
	return store.Quotas.Put(tx, &q)
}

// ResetQuota gives the project the defaults again. It reports fault.NotFound where the
// project has no limits of its own.
func (n *Network) ResetQuota(tx *store.Tx, project model.ID) error {
	key := model.QuotaKey(QuotaService, project)
	if _, ok := store.Quotas.Get(tx, key); !ok {
		return fault.Coded(fault.NotFound, "TenantQuotaNotFound", "Quota for tenant %s could not be found.", project)
	}
	return store.Quotas.Delete(tx, key)
}

// Used counts what a project has of a resource.
func Used(r store.Reader, project model.ID, resource string) int {
	switch resource {
	case QuotaNetwork:
		return store.Networks.Count(r, "project", project)
	case QuotaSubnet:
		return store.Subnets.Count(r, "project", project)
	case QuotaPort:
		return store.Ports.Count(r, "project", project)
	case QuotaGroup:
		return store.SecurityGroups.Count(r, "project", project)
	case QuotaRule:
		return store.SecurityRules.Count(r, "project", project)
	case QuotaPool:
		return store.SubnetPools.Count(r, "project", project)
	case QuotaPolicy:
		return store.RBACPolicies.Count(r, "project", project)
	case QuotaAddresses:
		return store.AddressGroups.Count(r, "project", project)
	case QuotaRouter:
		return store.Routers.Count(r, "project", project)
	case QuotaFloatingIP:
		return store.FloatingIPs.Count(r, "project", project)
	case QuotaTrunk:
		return store.Trunks.Count(r, "project", project)
	case QuotaTapService:
		return store.TapServices.Count(r, "project", project)
	case QuotaTapFlow:
		return store.TapFlows.Count(r, "project", project)
	}
	return 0
}

// quotaSlack is how far below its limit a project may be for creations on several servers
// to go on without waiting for each other. Nearer to the limit they are put in order, so
// that the limit is exact; it is more than one transaction's rows times the servers that
// can be between snapshot and commit at once.
const quotaSlack = 512

// spend refuses what would exceed the project's quota.
func (n *Network) spend(tx *store.Tx, project model.ID, resource string, count int) error {
	limit := n.Quota(tx, project)[resource]
	if limit < 0 {
		return nil
	}
	used := Used(tx, project, resource)
	if used+count > limit {
		return fault.Coded(fault.OverQuota, "OverQuota", "Quota exceeded for resources: ['%s'].", resource)
	}
	mark := "quota," + project + "," + resource
	tx.Mark(mark)
	if limit-used < quotaSlack {
		tx.Guard(mark)
	}
	return nil
}
