package volume

import (
	"maps"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// QuotaService is the service's name in the table of quotas.
const QuotaService = "volume"

// Resources that a quota limits, by Cinder's names. Those of a type have its name behind, as volumes_fast.
const (
	QuotaVolumes         = "volumes"
	QuotaSnapshots       = "snapshots"
	QuotaGigabytes       = "gigabytes"
	QuotaBackups         = "backups"
	QuotaBackupGigabytes = "backup_gigabytes"
	QuotaPerVolume       = "per_volume_gigabytes"
	QuotaGroups          = "groups"
)

// DefaultQuotas gives Cinder's defaults.
func DefaultQuotas() map[string]int {
	return map[string]int{QuotaVolumes: 10, QuotaSnapshots: 10, QuotaGigabytes: 1000, QuotaBackups: 10, QuotaBackupGigabytes: 1000,
		QuotaPerVolume: -1, QuotaGroups: 10}
}

// class is the key of the limits that an administrator set for all projects.
const class = "class,default"

// Defaults gives the limits of a project that has none of its own; those of types are -1.
func (v *Volumes) Defaults(r store.Reader) map[string]int {
	out := maps.Clone(v.cfg.Defaults)
	for t := range store.VolumeTypes.All(r) {
		for _, k := range []string{QuotaVolumes, QuotaGigabytes, QuotaSnapshots} {
			out[k+"_"+t.Name] = -1
		}
	}
	v.lay(r, out, class)
	return out
}

// Quota gives the limits of a project, -1 for none.
func (v *Volumes) Quota(r store.Reader, project model.ID) map[string]int {
	out := v.Defaults(r)
	v.lay(r, out, project)
	return out
}

// lay puts the limits that are kept under a name over those in out. A limit of a type that is gone is left out.
func (v *Volumes) lay(r store.Reader, out map[string]int, name string) {
	if q, ok := store.Quotas.Get(r, model.QuotaKey(QuotaService, name)); ok {
		for k, n := range q.Limits {
			if _, known := out[k]; known {
				out[k] = n
			}
		}
	}
}

// SetQuota changes the limits of a project that are named.
//
// Errors: fault.Invalid for a name that is none, or a limit below -1.
func (v *Volumes) SetQuota(tx *store.Tx, project model.ID, limits map[string]int) error {
	q := model.Quota{Service: QuotaService, ProjectID: project, Limits: map[string]int{}}
	if old, ok := store.Quotas.Get(tx, q.Key()); ok {
		maps.Copy(q.Limits, old.Limits)
	}
	known := v.Defaults(tx)
	for _, k := range slices.Sorted(maps.Keys(limits)) {
		if _, ok := known[k]; !ok {
			return fault.New(fault.Invalid, "Bad key(s) in quota set: %s", clip(k))
		}
		if limits[k] < -1 {
			return fault.New(fault.Invalid, "Quota limit %d for %s must be -1 or more.", limits[k], clip(k))
		}
		q.Limits[k] = limits[k]
	}
	return store.Quotas.Put(tx, &q)
}

// SetDefaults changes the limits of every project that has none of its own.
func (v *Volumes) SetDefaults(tx *store.Tx, limits map[string]int) error {
	return v.SetQuota(tx, class, limits)
}

// ResetQuota gives the project the defaults again; where it has them, that is success.
func (v *Volumes) ResetQuota(tx *store.Tx, project model.ID) error {
	return store.Quotas.Delete(tx, model.QuotaKey(QuotaService, project))
}

// Usage counts what a project uses of what is limited, with that of each type.
func Usage(r store.Reader, project model.ID) map[string]int {
	out := map[string]int{QuotaVolumes: 0, QuotaSnapshots: 0, QuotaGigabytes: 0, QuotaBackups: 0, QuotaBackupGigabytes: 0}
	names := map[model.ID]string{}
	for t := range store.VolumeTypes.All(r) {
		names[t.ID] = t.Name
	}
	add := func(k string, n int, typeID model.ID) {
		out[k] += n
		if name := names[typeID]; name != "" {
			out[k+"_"+name] += n
		}
	}
	types := map[model.ID]model.ID{}
	for x := range store.Volumes.List(r, "project", project) {
		types[x.ID] = x.TypeID
		add(QuotaVolumes, 1, x.TypeID)
		add(QuotaGigabytes, x.SizeGiB, x.TypeID)
		if c := x.Change; c != nil && names[c.TypeID] != "" { // what it will be is taken
			out[QuotaVolumes+"_"+names[c.TypeID]]++
			out[QuotaGigabytes+"_"+names[c.TypeID]] += x.SizeGiB
		}
		if c := x.Relocation; c != nil && c.TypeID != x.TypeID && names[c.TypeID] != "" {
			out[QuotaVolumes+"_"+names[c.TypeID]]++
			out[QuotaGigabytes+"_"+names[c.TypeID]] += x.SizeGiB
		}
	}
	for s := range store.VolumeSnapshots.List(r, "project", project) {
		add(QuotaSnapshots, 1, types[s.VolumeID])
		add(QuotaGigabytes, s.SizeGiB, types[s.VolumeID])
	}
	for b := range store.VolumeBackups.List(r, "project", project) {
		out[QuotaBackups]++
		out[QuotaBackupGigabytes] += b.SizeGiB
	}
	return out
}

// quotaSlack is how far below its limit a project may be for requests on several servers to go on
// without waiting for each other; nearer to the limit they are put in order, so that it is exact.
// Gigabytes are asked for in any number at once, so requests for them are always in order.
const quotaSlack = 512

// what is spent, by the resource.
type want map[string]int

// spend refuses what would exceed the project's quota, in Cinder's words.
func (v *Volumes) spend(tx *store.Tx, project model.ID, typeName string, w want) error {
	limits := v.Quota(tx, project)
	if per := limits[QuotaPerVolume]; w[QuotaVolumes] > 0 && per >= 0 && w[QuotaGigabytes] > per {
		return fault.New(fault.OverQuota, "Requested volume size %d is larger than maximum allowed limit %d.", w[QuotaGigabytes], per)
	}
	var used map[string]int
	near := false
	for _, k := range []string{QuotaVolumes, QuotaSnapshots, QuotaBackups, QuotaGigabytes, QuotaBackupGigabytes} {
		n, asked := w[k]
		if !asked {
			continue
		}
		names := []string{k}
		if typeName != "" && k != QuotaBackups && k != QuotaBackupGigabytes {
			names = append(names, k+"_"+typeName)
		}
		for _, name := range names {
			limit, ok := limits[name]
			if !ok || limit < 0 {
				continue
			}
			if used == nil {
				used = Usage(tx, project)
			}
			if used[name]+n > limit {
				return overQuota(k, name, n, used[name], limit)
			}
			near = near || k == QuotaGigabytes || k == QuotaBackupGigabytes || limit-used[name]-n < quotaSlack
		}
	}
	if used == nil {
		return nil
	}
	mark := "quota,volume," + project
	tx.Mark(mark)
	if near {
		tx.Guard(mark)
	}
	return nil
}

// spendType refuses what would exceed the project's quota of the type that a volume gets; in all it takes no more than before.
func (v *Volumes) spendType(tx *store.Tx, x *model.Volume, typeName string) error {
	w := want{QuotaVolumes: 1, QuotaGigabytes: x.SizeGiB}
	for s := range store.VolumeSnapshots.List(tx, "volume", x.ID) {
		w[QuotaSnapshots]++
		w[QuotaGigabytes] += s.SizeGiB
	}
	limits := v.Quota(tx, x.ProjectID)
	used := Usage(tx, x.ProjectID)
	for _, k := range []string{QuotaVolumes, QuotaSnapshots, QuotaGigabytes} {
		name := k + "_" + typeName
		if limit, ok := limits[name]; ok && limit >= 0 && w[k] > 0 {
			mark := "quota,volume," + x.ProjectID
			tx.Mark(mark)
			tx.Guard(mark)
			if used[name]+w[k] > limit {
				return overQuota(k, name, w[k], used[name], limit)
			}
		}
	}
	return nil
}

func overQuota(kind, name string, n, used, limit int) error {
	switch kind {
	case QuotaVolumes:
		return fault.New(fault.OverQuota, "VolumeLimitExceeded: Maximum number of volumes allowed (%d) exceeded for quota '%s'.", limit, name)
	case QuotaSnapshots:
		return fault.New(fault.OverQuota, "SnapshotLimitExceeded: Maximum number of snapshots allowed (%d) exceeded", limit)
	case QuotaBackups:
		return fault.New(fault.OverQuota, "BackupLimitExceeded: Maximum number of backups allowed (%d) exceeded", limit)
	case QuotaBackupGigabytes:
		return fault.New(fault.OverQuota, "VolumeBackupSizeExceedsAvailableQuota: Requested backup exceeds allowed Backup gigabytes quota. Requested %dG, quota is %dG and %dG has been consumed.", n, limit, used)
	}
	return fault.New(fault.OverQuota, "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed %s quota. Requested %dG, quota is %dG and %dG has been consumed.", name, n, limit, used)
}
