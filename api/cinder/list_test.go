package cinder_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"yakumo/model"
	"yakumo/store"
)

// fill puts n volumes of red into the store, the last the newest.
func (c *cloud) fill(n int) {
	c.t.Helper()
	began := time.Now().Add(-time.Hour)
	for first := 0; first < n; first += 200 {
		if _, err := c.store.Update(c.t.Context(), func(tx *store.Tx) error {
			for i := first; i < min(n, first+200); i++ {
				v := &model.Volume{Meta: model.NewMeta(red, fmt.Sprintf("v%05d", i), began.Add(time.Duration(i)*time.Millisecond)), SizeGiB: 1 + i%5, Zone: "nova", Engine: "local",
					Metadata: map[string]string{"n": fmt.Sprint(i % 3)}, Bootable: i%2 == 0, Status: model.VolumeStatus{State: "available"}}
				if err := store.Volumes.Put(tx, v); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			c.t.Fatal(err)
		}
	}
}

func names(a answer) []string {
	var out []string
	rows, _ := a.body["volumes"].([]any)
	for _, r := range rows {
		out = append(out, r.(object)["name"].(string))
	}
	return out
}

func TestLists(t *testing.T) {
	c := newCloud(t)
	c.fill(10)
	for query, want := range map[string]string{
		"limit=2":                             "v00009 v00008",
		"sort=name:asc&limit=2":               "v00000 v00001",
		"sort_key=name&sort_dir=asc&limit=1":  "v00000",
		"sort=size:desc,name:asc&limit=2":     "v00004 v00009",
		"name=v00003":                         "v00003",
		"name~=0004":                          "v00004",
		"bootable=true&sort=name:asc&limit=2": "v00000 v00002",
		"metadata=" + url.QueryEscape("{'n': '2'}") + "&sort=name": "v00008 v00005 v00002",
		"status=error":                          "",
		"offset=8":                              "v00001 v00000",
		"size=5&sort=name:asc":                  "v00004 v00009",
		"nonsense=1&limit=1":                    "v00009",
		"attach_status=attached":                "",
		"availability_zone=nova&limit=1":        "v00009",
		"project_id=" + blue + "&limit=1":       "v00009",
		"all_tenants=1&limit=1":                 "v00009",
		"sort=created_at:asc&limit=1&offset=1":  "v00001",
		"created_at=2001-01-01T00:00:00.000000": "",
	} {
		if a := c.want(200, "red", "3.70", "GET", "/volumes/detail?"+query, nil); strings.Join(names(a), " ") != want {
			t.Errorf("%s: %v, want %s", query, names(a), want)
		}
	}
	// Page by page, each volume once.
	seen, path, pages := map[string]bool{}, "/volumes?limit=3&sort=name:asc&with_count=true", 0
	for path != "" {
		a := c.want(200, "red", "3.70", "GET", path, nil)
		pages++
		if a.get("count") != 10.0 {
			t.Errorf("count is %v", a.get("count"))
		}
		for _, n := range names(a) {
			if seen[n] {
				t.Errorf("%s twice", n)
			}
			seen[n] = true
		}
		_, path, _ = strings.Cut(a.str("volumes_links.0.href"), "/volume/v3")
	}
	if len(seen) != 10 || pages != 4 {
		t.Errorf("%d volumes on %d pages", len(seen), pages)
	}
	for query, status := range map[string]int{"limit=-1": 400, "limit=x": 400, "sort=colour": 400, "sort=name:sideways": 400, "marker=nothing": 404, "offset=-1": 400, "metadata=x": 400} {
		c.want(status, "red", "3.70", "GET", "/volumes?"+query, nil)
	}
	if a := c.want(200, "blue", "3.70", "GET", "/volumes?all_tenants=True", nil); len(names(a)) != 0 {
		t.Errorf("blue sees %v", names(a))
	}
	if a := c.want(200, "admin", "3.70", "GET", "/volumes?all_tenants=True&project_id="+red, nil); len(names(a)) != 10 {
		t.Errorf("the administrator sees %v", names(a))
	}
	if a := c.want(200, "red", "3.36", "GET", "/volumes/summary", nil); a.get("volume-summary.total_count") != 10.0 || a.get("volume-summary.total_size") != 30.0 {
		t.Errorf("%s", a.raw)
	}
}

func TestServicesAndPools(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	if a := c.want(200, "admin", "3.7", "GET", "/os-services?binary=cinder-volume", nil); a.str("services.0.host") != "h1@local" || a.str("services.0.state") != "up" {
		t.Errorf("%s", a.raw)
	}
	c.volume(object{"size": 7})
	if a := c.want(200, "admin", "", "GET", "/scheduler-stats/get_pools?detail=true", nil); a.str("pools.0.name") != "h1@local#local" || a.get("pools.0.capabilities.allocated_capacity_gb") != 7.0 {
		t.Errorf("%s", a.raw)
	}
	if a := c.want(200, "admin", "", "GET", "/capabilities/h1@nfs", nil); a.str("storage_protocol") != "nfs" {
		t.Errorf("%s", a.raw)
	}
	c.want(404, "admin", "", "GET", "/capabilities/h2@nfs", nil)
	if a := c.want(200, "red", "", "GET", "/os-availability-zone", nil); a.str("availabilityZoneInfo.0.zoneName") != "nova" {
		t.Errorf("%s", a.raw)
	}
	for _, path := range []string{"/groups", "/group_types", "/clusters", "/consistencygroups", "/nothing"} {
		if a := c.want(404, "red", "3.70", "GET", path, nil); a.get("itemNotFound.code") != 404.0 {
			t.Errorf("%s", a.raw)
		}
	}
	c.want(405, "red", "", "PATCH", "/volumes", object{})
	c.want(406, "red", "3.999", "GET", "/volumes", nil)
	if a := c.do("", "", "GET", "/", nil); a.status != 200 || a.str("versions.0.version") != "3.70" {
		t.Errorf("%d %s", a.status, a.raw)
	}
}

func BenchmarkVolumes(b *testing.B) {
	c := newCloud(b)
	c.fill(10_000)
	if _, err := c.store.Update(b.Context(), func(tx *store.Tx) error {
		return c.v.SetQuota(tx, red, map[string]int{"volumes": -1, "gigabytes": -1})
	}); err != nil {
		b.Fatal(err)
	}
	b.Run("list 1000 of 10000 with details", func(b *testing.B) {
		for b.Loop() {
			c.want(200, "red", "3.70", "GET", "/volumes/detail", nil)
		}
	})
	b.Run("create beside 10000", func(b *testing.B) {
		for b.Loop() {
			c.want(202, "red", "3.70", "POST", "/volumes", object{"volume": object{"size": 1}})
		}
	})
}
