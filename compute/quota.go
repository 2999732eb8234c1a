package compute

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// QuotaService is the service's name in the table of quotas.
const QuotaService = "compute"

// Resources that a quota limits, by Nova's names. The last group limits nothing here: it
// is kept and shown because clients set it.
const (
	QuotaInstances = "instances"
	QuotaCores     = "cores"
	QuotaRAM       = "ram"
	QuotaKeyPairs  = "key_pairs"
	QuotaMetadata  = "metadata_items"

	QuotaServerGroups  = "server_groups"
	QuotaGroupMembers  = "server_group_members"
	QuotaFiles         = "injected_files"
	QuotaFileBytes     = "injected_file_content_bytes"
	QuotaFilePathBytes = "injected_file_path_bytes"
	QuotaFloatingIPs   = "floating_ips"
	QuotaFixedIPs      = "fixed_ips"
	QuotaGroups        = "security_groups"
	QuotaGroupRules    = "security_group_rules"
)

// DefaultQuotas gives Nova's defaults.
func DefaultQuotas() map[string]int {
	return map[string]int{
		QuotaInstances: 10, QuotaCores: 20, QuotaRAM: 51200, QuotaKeyPairs: 100, QuotaMetadata: 128,
		QuotaServerGroups: 10, QuotaGroupMembers: 10, QuotaFiles: 5, QuotaFileBytes: 10240, QuotaFilePathBytes: 255,
		QuotaFloatingIPs: -1, QuotaFixedIPs: -1, QuotaGroups: -1, QuotaGroupRules: -1,
	}
}

// class is the key of the limits that an administrator set for all projects.
const class = "class,default"

// Defaults gives the limits of a project that has none of its own.
func (c *Compute) Defaults(r store.Reader) map[string]int {
	out := maps.Clone(c.cfg.Defaults)
	if q, ok := store.Quotas.Get(r, model.QuotaKey(QuotaService, class)); ok {
		maps.Copy(out, q.Limits)
	}
	return out
}

// SetDefaults changes the limits that are named, for all projects that have none of their own.
//
// Errors: as SetQuota's.
func (c *Compute) SetDefaults(tx *store.Tx, limits map[string]int) error {
	return c.SetQuota(tx, class, limits, true)
}

// Quota gives the limits of a project, -1 for none.
func (c *Compute) Quota(r store.Reader, project model.ID) map[string]int {
	out := c.Defaults(r)
	if q, ok := store.Quotas.Get(r, model.QuotaKey(QuotaService, project)); ok {
		maps.Copy(out, q.Limits)
	}
	return out
}

// Force says that a limit may be below what is used.
type Force bool

// SetQuota changes the limits that are named.
//
// Errors: fault.Invalid for an unknown name, a limit below -1, or one below what is used
// without force.
func (c *Compute) SetQuota(tx *store.Tx, project model.ID, limits map[string]int, force Force) error {
	q := model.Quota{Service: QuotaService, ProjectID: project, Limits: map[string]int{}}
	if old, ok := store.Quotas.Get(tx, q.Key()); ok {
		maps.Copy(q.Limits, old.Limits)
	}
	used := Usage(tx, project)
	for _, k := range slices.Sorted(maps.Keys(limits)) {
		v := limits[k]
		if _, ok := c.cfg.Defaults[k]; !ok || v < -1 {
			return fault.New(fault.Invalid, "Quota limit %d for %s must be -1 or more.", v, k)
		}
		if !force && v >= 0 && v < used[k] {
			return fault.New(fault.Invalid, "Quota limit %d for %s must be greater than or equal to already used and reserved %d.", v, k, used[k])
		}
		q.Limits[k] = v
	}
	return store.Quotas.Put(tx, &q)
}

// ResetQuota gives the project the defaults again; where it has them, that is success.
func (c *Compute) ResetQuota(tx *store.Tx, project model.ID) error {
	return store.Quotas.Delete(tx, model.QuotaKey(QuotaService, project))
}

// Usage counts what a project uses of what is limited by project.
func Usage(r store.Reader, project model.ID) map[string]int {
	sum := store.Servers.Sum(r, "project", project)
	out := map[string]int{QuotaInstances: sum.Rows, QuotaCores: sum.Amounts[0], QuotaRAM: sum.Amounts[1]}
	out[QuotaServerGroups] = store.ServerGroups.Count(r, "project", project)
	return out
}

// quotaSlack is how many servers below its limit a project may be for creations on several
// servers of the API to go on without waiting for each other; nearer to the limit they are
// put in order, so that the limit is exact.
const quotaSlack = 256

// Spend refuses what would exceed the project's quota: n servers of the flavor.
func (c *Compute) Spend(tx *store.Tx, project model.ID, f *model.Flavor, n int) error {
	return c.spend(tx, project, map[string]int{QuotaInstances: n, QuotaCores: n * f.VCPUs, QuotaRAM: n * f.MemoryMiB})
}

// spend refuses what would exceed the project's quota. What is asked nothing of is not looked at.
func (c *Compute) spend(tx *store.Tx, project model.ID, want map[string]int) error {
	limits := c.Quota(tx, project)
	if unlimited(limits) {
		return nil
	}
	used := Usage(tx, project)
	var over, asked, have, allowed []string
	near := false
	for _, k := range []string{QuotaCores, QuotaInstances, QuotaRAM} {
		limit := limits[k]
		if limit < 0 || want[k] == 0 {
			continue
		}
		if used[k]+want[k] > limit {
			over, asked = append(over, k), append(asked, fmt.Sprint(want[k]))
			have, allowed = append(have, fmt.Sprint(used[k])), append(allowed, fmt.Sprint(limit))
		}
		near = near || used[k]+want[k]*quotaSlack > limit
	}
	if len(over) > 0 {
		names := strings.Join(over, ", ")
		return fault.New(fault.OverQuota, "Quota exceeded for %s: Requested %s, but already used %s of %s %s",
			names, strings.Join(asked, ", "), strings.Join(have, ", "), strings.Join(allowed, ", "), names)
	}
	mark := "quota,compute," + project
	tx.Mark(mark)
	if near {
		tx.Guard(mark)
	}
	return nil
}

// Room gives how many servers of the flavor the project's quota leaves room for, at most want.
func (c *Compute) Room(r store.Reader, project model.ID, f *model.Flavor, want int) int {
	limits := c.Quota(r, project)
	if unlimited(limits) {
		return want
	}
	used := Usage(r, project)
	for k, each := range map[string]int{QuotaInstances: 1, QuotaCores: f.VCPUs, QuotaRAM: f.MemoryMiB} {
		if limits[k] >= 0 && each > 0 {
			want = min(want, (limits[k]-used[k])/each)
		}
	}
	return max(want, 0)
}

// unlimited tells whether nothing limits servers, so that nothing must be counted.
func unlimited(limits map[string]int) bool {
	return limits[QuotaInstances] < 0 && limits[QuotaCores] < 0 && limits[QuotaRAM] < 0
}
