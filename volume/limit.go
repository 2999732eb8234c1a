package volume

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// What QoS specs may bound at the guest, by Cinder's names: requests and bytes a second of reads, of writes or of both; with "_max" behind, what
// a burst may have; with "_per_gb" behind, for each GiB of the volume's size, at least "_per_gb_min". Others are left alone.
var limitNames = func() (out []string) {
	for _, of := range []string{"total", "read", "write"} {
		for _, unit := range []string{"bytes", "iops"} {
			out = append(out, of+"_"+unit+"_sec")
		}
	}
	return out
}()

// maxLimit is the largest bound, a second; libvirt's.
const maxLimit = 1_000_000_000_000_000

// atGuest tells whether the specs are for hypervisors.
func atGuest(q *model.VolumeQoS) bool { return q.Consumer == "front-end" || q.Consumer == "both" }

// checkLimits refuses specs of which no guest's bounds can be made.
func checkLimits(q *model.VolumeQoS) error {
	if !atGuest(q) {
		return nil
	}
	limits, err := limitsOf(q, 1)
	if err != nil {
		return err
	}
	for _, unit := range []string{"bytes_sec", "iops_sec", "bytes_sec_max", "iops_sec_max"} {
		if limits["total_"+unit] > 0 && (limits["read_"+unit] > 0 || limits["write_"+unit] > 0) {
			return fault.New(fault.Invalid, "Invalid qos specs: total_%s cannot stand beside a bound on reads or on writes.", unit)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		if base, burst := strings.CutSuffix(name, "_max"); burst && limits[base] == 0 {
			return fault.New(fault.Invalid, "Invalid qos specs: %s needs %s beside it.", name, base)
		}
	}
	if limits["size_iops_sec"] > 0 && limits["total_iops_sec"]+limits["read_iops_sec"]+limits["write_iops_sec"] == 0 {
		return fault.New(fault.Invalid, "Invalid qos specs: size_iops_sec needs a bound of requests beside it.")
	}
	return nil
}

// limitsOf reads the bounds of a volume of the size in GiB.
func limitsOf(q *model.VolumeQoS, size int) (map[string]int64, error) {
	out := map[string]int64{}
	read := func(name string) (int64, error) {
		s, ok := q.Specs[name]
		if !ok {
			return 0, nil
		}
		n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
		if err != nil || n < 1 || n > maxLimit {
			return 0, fault.New(fault.Invalid, "Invalid qos specs: %s is '%s', which is not a whole number from 1 to %d.", name, clip(s), maxLimit)
		}
		return n, nil
	}
	for _, name := range append(slices.Clone(limitNames), "size_iops_sec") {
		for _, suffix := range []string{"", "_max"} {
			if name == "size_iops_sec" && suffix != "" {
				continue
			}
			n, err := read(name + suffix)
			if err != nil {
				return nil, err
			}
			each, err := read(name + suffix + "_per_gb")
			if err != nil {
				return nil, err
			}
			least, err := read(name + suffix + "_per_gb_min")
			if err != nil {
				return nil, err
			}
			if each > 0 {
				n = max(min(each, maxLimit/int64(size))*int64(size), least)
			}
			if n > 0 {
				out[name+suffix] = n
			}
		}
	}
	return out, nil
}

// VolumeLimits gives the bounds that a guest's use of the volume has from now on; nil: none.
func (v *Volumes) VolumeLimits(r store.Reader, x *model.Volume) (*model.DiskLimits, error) {
	t, ok := store.VolumeTypes.Get(r, x.TypeID)
	if !ok || t.QoSID == "" {
		return nil, nil
	}
	q, ok := store.VolumeQoS.Get(r, t.QoSID)
	if !ok || !atGuest(q) {
		return nil, nil
	}
	limits, err := limitsOf(q, max(x.SizeGiB, 1))
	if err != nil || len(limits) == 0 {
		return nil, err
	}
	b, err := json.Marshal(limits) // a limit's name is that of its field
	if err != nil {
		return nil, err
	}
	out := new(model.DiskLimits)
	return out, json.Unmarshal(b, out)
}
