package hostview_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"yakumo/hostview"
	"yakumo/model"
	"yakumo/store"
	"yakumo/store/storetest"
)

// TestVendorDataReachesEveryServer: what an operator tells guests is in every server's row, also of those that are told already.
func TestVendorDataReachesEveryServer(t *testing.T) {
	st := storetest.New(t)
	e := hostview.NewEngine(st, slog.New(slog.DiscardHandler))
	e.Unseal = func(place string, sealed []byte) ([]byte, error) {
		if string(sealed) != "sealed for "+place {
			return nil, errors.New("not this")
		}
		return []byte("password"), nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	go e.Run(ctx)
	put := func(f func(tx *store.Tx) error) {
		t.Helper()
		if _, err := st.Update(ctx, f); err != nil {
			t.Fatal(err)
		}
	}
	put(func(tx *store.Tx) error {
		for id, host := range map[model.ID]model.ID{"s1": "h1", "s2": "h1", "s3": "h2"} {
			s := &model.Server{Meta: model.Meta{ID: id}, Host: host, Reservation: "r-1", Sealed: "x", SealedClears: 2}
			s.AdminPass = []byte("sealed for " + s.PassPlace())
			if id == "s2" {
				s.AdminPass = []byte("damaged")
			}
			if err := store.Servers.Put(tx, s); err != nil {
				return err
			}
		}
		return nil
	})
	v := e.Open("h1")
	defer v.Close()
	told := map[model.ID]string{}
	next := func() {
		t.Helper()
		b, err := v.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range b.Upserts {
			if s, ok := r.(*model.HostServer); ok {
				told[s.ID] = string(s.VendorData)
				if want := map[model.ID]string{"s1": "password"}[s.ID]; s.AdminPass != want {
					t.Errorf("%s is told the password %q", s.ID, s.AdminPass)
				}
				if s.Reservation != "r-1" || s.Sealed != "x" || s.SealedClears != 2 {
					t.Errorf("the row of %s: %+v", s.ID, s)
				}
			}
		}
	}
	for len(told) < 2 {
		next()
	}
	for _, want := range []string{`{"a":1}`, `{}`} {
		put(func(tx *store.Tx) error {
			return store.Settings.Put(tx, &model.Setting{Name: model.SettingVendorData, Value: []byte(want)})
		})
		for told["s1"] != want || told["s2"] != want {
			next()
		}
	}
	if _, there := told["s3"]; there {
		t.Error("another host's server is told")
	}
}
