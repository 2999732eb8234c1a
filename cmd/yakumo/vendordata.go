package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// maxVendorData bounds what each guest's host is told besides, in bytes.
const maxVendorData = 64 << 10

// vendorData makes the file of --vendor-data what guests are told, where it is not yet. Without the flag what
// another server was told stays.
func (c *serverCmd) vendorData(ctx context.Context, st *store.Store) error {
	if c.VendorData == "" {
		return nil
	}
	b, err := os.ReadFile(c.VendorData)
	if err != nil {
		return err
	}
	var small bytes.Buffer
	if json.Unmarshal(b, &map[string]any{}) != nil || json.Compact(&small, b) != nil {
		return fault.New(fault.Invalid, "%s does not hold a JSON object.", c.VendorData)
	}
	if small.Len() > maxVendorData {
		return fault.New(fault.Invalid, "%s has %d bytes; vendor data has at most %d.", c.VendorData, small.Len(), maxVendorData)
	}
	_, err = st.Update(ctx, func(tx *store.Tx) error {
		if old, ok := store.Settings.Get(tx, model.SettingVendorData); ok && bytes.Equal(old.Value, small.Bytes()) {
			return nil
		}
		return store.Settings.Put(tx, &model.Setting{Name: model.SettingVendorData, Value: small.Bytes()})
	})
	return err
}
