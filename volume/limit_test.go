package volume_test

import (
	"strings"
	"testing"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
	"yakumo/store/storetest"
	"yakumo/volume"
)

// TestLimits: what QoS specs bound at the guest, and what they cannot.
func TestLimits(t *testing.T) {
	w := newWorld(t, storetest.New(t))
	var typ *model.VolumeType
	w.do(func(tx *store.Tx) (err error) {
		name := "bound"
		typ, err = w.v.CreateType(tx, volume.TypeSpec{Name: &name})
		return err
	})
	limits := func(consumer string, specs map[string]string, size int) (got *model.DiskLimits, refusal error) {
		t.Helper()
		var q *model.VolumeQoS
		if refusal = w.try(func(tx *store.Tx) (err error) {
			q, err = w.v.CreateQoS(tx, "q", consumer, specs)
			return err
		}); refusal != nil {
			return nil, refusal
		}
		w.do(func(tx *store.Tx) error { return w.v.Associate(tx, q.ID, typ.ID, true) })
		got, err := w.v.VolumeLimits(w.s.Snapshot(), &model.Volume{TypeID: typ.ID, SizeGiB: size})
		if err != nil {
			t.Fatal(err)
		}
		w.do(func(tx *store.Tx) error { return w.v.DeleteQoS(tx, q.ID, true) })
		return got, nil
	}
	for _, c := range []struct {
		consumer, specs string
		want            model.DiskLimits
	}{
		{"front-end", "total_iops_sec=100", model.DiskLimits{TotalIOPS: 100}},
		{"both", "read_bytes_sec=5 write_bytes_sec=6 write_bytes_sec_max=7", model.DiskLimits{ReadBytes: 5, WriteBytes: 6, WriteBytesMax: 7}},
		{"front-end", "total_iops_sec_per_gb=10 total_iops_sec_per_gb_min=50", model.DiskLimits{TotalIOPS: 50}},
		{"front-end", "total_iops_sec_per_gb=100 total_iops_sec_per_gb_min=50 size_iops_sec=4096", model.DiskLimits{TotalIOPS: 300, RequestBytes: 4096}},
		{"front-end", "colour=red", model.DiskLimits{}},
		{"back-end", "total_iops_sec=100 read_iops_sec=x", model.DiskLimits{}},
	} {
		specs := map[string]string{}
		for f := range strings.FieldsSeq(c.specs) {
			k, v, _ := strings.Cut(f, "=")
			specs[k] = v
		}
		got, err := limits(c.consumer, specs, 3)
		if err != nil || (got == nil) != (c.want == model.DiskLimits{}) || got != nil && *got != c.want {
			t.Errorf("%s %s gives %+v, %v", c.consumer, c.specs, got, err)
		}
	}
	for _, specs := range []map[string]string{
		{"total_iops_sec": "0"}, {"total_iops_sec": "many"}, {"total_iops_sec": "-5"}, {"read_bytes_sec": "1000000000000001"}, {"total_bytes_sec": "1", "read_bytes_sec": "1"},
		{"read_iops_sec_max": "5"}, {"size_iops_sec": "4096"}, {"total_iops_sec_per_gb": "x"},
	} {
		if _, err := limits("both", specs, 1); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v gives %v", specs, err)
		}
	}
}
