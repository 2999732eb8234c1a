package model_test

import (
	"net/netip"
	"regexp"
	"testing"
	"time"

	"yakumo/model"
)

func TestIDsAreVersion4(t *testing.T) {
	re := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	hex := regexp.MustCompile(`^[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}$`)
	for range 100 {
		if id := model.NewID(); !re.MatchString(id) {
			t.Fatalf("NewID() = %q", id)
		}
		if id := model.NewHexID(); !hex.MatchString(id) {
			t.Fatalf("NewHexID() = %q", id)
		}
	}
}

func TestAddrRangeIsInclusive(t *testing.T) {
	r := model.AddrRange{Start: netip.MustParseAddr("10.0.0.2"), End: netip.MustParseAddr("10.0.0.9")}
	for addr, want := range map[string]bool{"10.0.0.1": false, "10.0.0.2": true, "10.0.0.9": true, "10.0.0.10": false} {
		if got := r.Contains(netip.MustParseAddr(addr)); got != want {
			t.Errorf("Contains(%s) = %v", addr, got)
		}
	}
}

func TestActionsSortByTime(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 9, time.UTC)
	a := model.Action{ServerID: "s", RequestID: "req-z", StartedAt: at}
	b := model.Action{ServerID: "s", RequestID: "req-a", StartedAt: at.Add(time.Nanosecond)}
	if !(a.Key() < b.Key()) {
		t.Errorf("%q is not before %q", a.Key(), b.Key())
	}
}

func TestAssignmentKeysTellTargetsApart(t *testing.T) {
	seen := map[string]model.Assignment{}
	for _, a := range []model.Assignment{
		{RoleID: "r", UserID: "x", ProjectID: "y"},
		{RoleID: "r", GroupID: "x", ProjectID: "y"},
		{RoleID: "r", UserID: "x", DomainID: "y"},
		{RoleID: "r", UserID: "x", DomainID: "y", Inherited: true},
		{RoleID: "r", UserID: "x", System: true},
	} {
		if other, ok := seen[a.Key()]; ok {
			t.Errorf("%+v and %+v share the key %q", a, other, a.Key())
		}
		seen[a.Key()] = a
	}
}

func TestImagesSortNewestFirst(t *testing.T) {
	at := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	image := func(d time.Duration, id string) *model.Image {
		return &model.Image{Meta: model.Meta{ID: id, CreatedAt: at.Add(d)}}
	}
	sorted := []*model.Image{
		image(time.Hour, "b"), image(time.Microsecond, "a"), image(0, "f"), image(0, "a"), image(0, "1"), image(-time.Second, "9"), image(-60*365*24*time.Hour, "0"),
	}
	for i := 1; i < len(sorted); i++ {
		if a, b := sorted[i-1].NewestFirst(), sorted[i].NewestFirst(); a >= b {
			t.Errorf("%d sorts at or after %d: %q, %q", i-1, i, a, b)
		}
	}
}

func TestImageCopyHasHardware(t *testing.T) {
	img := model.Image{Properties: map[string]string{"hw_disk_bus": "scsi", "os_distro": "debian", "note": "x"}}
	if got := img.Copy().Hardware; len(got) != 1 || got["hw_disk_bus"] != "scsi" {
		t.Errorf("%v", got)
	}
	if got := (&model.Image{Properties: map[string]string{"note": "x"}}).Copy().Hardware; got != nil {
		t.Errorf("%v", got)
	}
}
