package glance_test

import (
	"fmt"
	"testing"
	"time"

	"yakumo/model"
	"yakumo/store"
)

// BenchmarkListOf10000 reads all of 10,000 images over HTTP, a thousand a page, and the
// first page of 25.
func BenchmarkListOf10000(b *testing.B) {
	c := newCloud(b)
	start := time.Now().Add(-24 * time.Hour)
	for from := 0; from < 10_000; from += 500 {
		if _, err := c.st.Update(b.Context(), func(tx *store.Tx) error {
			for i := from; i < from+500; i++ {
				if err := store.Images.Put(tx, &model.Image{
					Meta: model.NewMeta("p1", fmt.Sprint("image ", i), start.Add(time.Duration(i)*time.Second)), Status: model.ImageActive,
					Visibility: model.VisibilityPrivate, DiskFormat: "raw", ContainerFormat: "bare", Properties: map[string]string{"os": "debian"},
				}); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			n := 0
			for path := "/v2/images?limit=1000"; path != ""; {
				r := c.want(200, "p1/reader", "GET", path, nil)
				n += len(r.json["images"].([]any))
				path = r.str("next")
			}
			if n != 10_000 {
				b.Fatalf("%d images", n)
			}
		}
	})
	b.Run("first page", func(b *testing.B) {
		for b.Loop() {
			c.want(200, "p1/reader", "GET", "/v2/images", nil)
		}
	})
}
