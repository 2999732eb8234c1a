package nova

import (
	"net/http"
	"slices"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/store"
)

func (d *dialect) quotaRoutes(route adder) {
	route(http.MethodGet, "/limits", api.Reader, 1, d.limits)
	route(http.MethodGet, "/os-quota-sets/{project}", api.Reader, 1, d.showQuota)
	route(http.MethodGet, "/os-quota-sets/{project}/detail", api.Reader, 1, d.detailQuota)
	route(http.MethodGet, "/os-quota-sets/{project}/defaults", api.Reader, 1, d.defaultQuota)
	route(http.MethodPut, "/os-quota-sets/{project}", api.Admin, 1, d.updateQuota)
	route(http.MethodDelete, "/os-quota-sets/{project}", api.Admin, 1, d.deleteQuota)
	route(http.MethodGet, "/os-quota-class-sets/{class}", api.Admin, 1, d.showQuotaClass)
	route(http.MethodPut, "/os-quota-class-sets/{class}", api.Admin, 1, d.updateQuotaClass)
}

// quotaNames gives the resources that the request's microversion has quotas of.
func quotaNames(c *api.Context) []string {
	out := []string{compute.QuotaCores, compute.QuotaInstances, compute.QuotaRAM, compute.QuotaKeyPairs, compute.QuotaMetadata,
		compute.QuotaServerGroups, compute.QuotaGroupMembers}
	if !at(c, 36) {
		out = append(out, compute.QuotaFixedIPs, compute.QuotaFloatingIPs, compute.QuotaGroups, compute.QuotaGroupRules)
	}
	if !at(c, 57) {
		out = append(out, compute.QuotaFiles, compute.QuotaFileBytes, compute.QuotaFilePathBytes)
	}
	return out
}

// ownProject gives the project of the path, which others than an administrator may only
// name where it is their own.
func ownProject(c *api.Context) (string, error) {
	p := c.Param("project")
	if !c.Caller.CloudAdmin && p != c.Caller.ProjectID {
		return "", fault.New(fault.Forbidden, "Policy doesn't allow os_compute_api:os-quota-sets:show to be performed.")
	}
	return safeName(p), nil
}

func quotaSet(c *api.Context, limits map[string]int) object {
	o := object{}
	for _, k := range quotaNames(c) {
		o[k] = limits[k]
	}
	return o
}

func (d *dialect) showQuota(c *api.Context) error {
	p, err := ownProject(c)
	if err != nil {
		return err
	}
	o := quotaSet(c, d.c.Quota(c.Snapshot(), p))
	o["id"] = p
	return c.JSON(http.StatusOK, object{"quota_set": o})
}

func (d *dialect) defaultQuota(c *api.Context) error {
	p, err := ownProject(c)
	if err != nil {
		return err
	}
	o := quotaSet(c, d.c.Defaults(c.Snapshot()))
	o["id"] = p
	return c.JSON(http.StatusOK, object{"quota_set": o})
}

func (d *dialect) detailQuota(c *api.Context) error {
	p, err := ownProject(c)
	if err != nil {
		return err
	}
	snap := c.Snapshot()
	limits, used := d.c.Quota(snap, p), compute.Usage(snap, p)
	o := object{"id": p}
	for _, k := range quotaNames(c) {
		o[k] = object{"limit": limits[k], "in_use": used[k], "reserved": 0}
	}
	return c.JSON(http.StatusOK, object{"quota_set": o})
}

// classNames gives the resources of which the request's microversion tells a class's limits: what the network service limits only in old ones,
// and server groups only in newer ones.
func classNames(c *api.Context) []string {
	out := quotaNames(c)
	if at(c, 50) {
		return slices.DeleteFunc(out, func(k string) bool {
			return k == compute.QuotaFixedIPs || k == compute.QuotaFloatingIPs || k == compute.QuotaGroups || k == compute.QuotaGroupRules
		})
	}
	return slices.DeleteFunc(out, func(k string) bool { return k == compute.QuotaServerGroups || k == compute.QuotaGroupMembers })
}

// quotaClass refuses a class that is not the one whose limits all projects have.
func quotaClass(c *api.Context) error {
	if c.Param("class") != "default" {
		return fault.New(fault.NotFound, "Quota class %s could not be found.", api.Clip(c.Param("class")))
	}
	return nil
}

func (d *dialect) classSet(c *api.Context) object {
	o, limits := object{}, d.c.Defaults(c.Snapshot())
	for _, k := range classNames(c) {
		o[k] = limits[k]
	}
	return o
}

func (d *dialect) showQuotaClass(c *api.Context) error {
	if err := quotaClass(c); err != nil {
		return err
	}
	o := d.classSet(c)
	o["id"] = "default"
	return c.JSON(http.StatusOK, object{"quota_class_set": o})
}

func (d *dialect) updateQuotaClass(c *api.Context) error {
	if err := quotaClass(c); err != nil {
		return err
	}
	m := members{}
	for _, k := range classNames(c) {
		m[k] = integer(-1, 1<<31-1)
	}
	body, err := decode(c, exactly(members{"quota_class_set": exactly(m)}, "quota_class_set"))
	if err != nil {
		return err
	}
	o, limits := body["quota_class_set"].(object), map[string]int{}
	for k := range o {
		limits[k] = num(o, k, 0)
	}
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error { return d.c.SetDefaults(tx, limits) }); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"quota_class_set": d.classSet(c)})
}

func (d *dialect) updateQuota(c *api.Context) error {
	m := members{"force": boolean, "tenant_id": text(1, 255)}
	for _, k := range quotaNames(c) {
		m[k] = integer(-1, 1<<31-1)
	}
	body, err := decode(c, exactly(members{"quota_set": exactly(m)}, "quota_set"))
	if err != nil {
		return err
	}
	o := body["quota_set"].(object)
	limits := map[string]int{}
	for _, k := range quotaNames(c) {
		if _, there := o[k]; there {
			limits[k] = num(o, k, 0)
		}
	}
	p := safeName(c.Param("project"))
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		return d.c.SetQuota(tx, p, limits, compute.Force(truth(o, "force")))
	}); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"quota_set": quotaSet(c, d.c.Quota(c.Snapshot(), p))})
}

func (d *dialect) deleteQuota(c *api.Context) error {
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error { return d.c.ResetQuota(tx, safeName(c.Param("project"))) }); err != nil {
		return err
	}
	return c.Empty(http.StatusAccepted)
}

// limits shows the project's limits and what it uses of them.
func (d *dialect) limits(c *api.Context) error {
	if err := unknownQuery(c, 75, "reserved", "tenant_id"); err != nil {
		return err
	}
	p := c.Caller.ProjectID
	if asked := c.Query().Get("tenant_id"); asked != "" && asked != p {
		if !c.Caller.CloudAdmin {
			return fault.New(fault.Forbidden, "Policy doesn't allow os_compute_api:limits:other_project to be performed.")
		}
		p = safeName(asked)
	}
	snap := c.Snapshot()
	q, used := d.c.Quota(snap, p), compute.Usage(snap, p)
	o := object{
		"maxTotalInstances": q[compute.QuotaInstances], "maxTotalCores": q[compute.QuotaCores], "maxTotalRAMSize": q[compute.QuotaRAM],
		"maxTotalKeypairs": q[compute.QuotaKeyPairs], "maxServerMeta": q[compute.QuotaMetadata], "maxServerGroups": q[compute.QuotaServerGroups],
		"maxServerGroupMembers": q[compute.QuotaGroupMembers], "totalInstancesUsed": used[compute.QuotaInstances],
		"totalCoresUsed": used[compute.QuotaCores], "totalRAMUsed": used[compute.QuotaRAM], "totalServerGroupsUsed": used[compute.QuotaServerGroups],
	}
	if !at(c, 36) {
		o["maxSecurityGroups"], o["maxSecurityGroupRules"], o["totalSecurityGroupsUsed"] = q[compute.QuotaGroups], q[compute.QuotaGroupRules], 0
		o["maxTotalFloatingIps"], o["totalFloatingIpsUsed"] = q[compute.QuotaFloatingIPs], 0
	}
	if !at(c, 39) {
		o["maxImageMeta"] = q[compute.QuotaMetadata]
	}
	if !at(c, 57) {
		o["maxPersonality"], o["maxPersonalitySize"] = q[compute.QuotaFiles], q[compute.QuotaFileBytes]
	}
	return c.JSON(http.StatusOK, object{"limits": object{"rate": []any{}, "absolute": o}})
}
