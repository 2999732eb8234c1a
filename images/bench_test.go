package images_test

import (
	"fmt"
	"testing"
	"time"

	"yakumo/images"
	"yakumo/model"
	"yakumo/store"
)

// BenchmarkUpload is the rate of one upload into files, hashes and flush included.
func BenchmarkUpload(b *testing.B) {
	const size = 128 << 20
	s := newShelf(b)
	b.SetBytes(size)
	for b.Loop() {
		img := s.queued(b, "raw")
		if _, err := s.Upload(b.Context(), owner, img.ID, images.Expect{Size: size}, &generated{n: size}); err != nil {
			b.Fatal(err)
		}
		if err := s.Delete(b.Context(), owner, img.ID); err != nil {
			b.Fatal(err)
		}
		if err := s.Collect(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// fill adds n images of p1, a tenth of them public and a tenth of another project, shared with it.
func (s *shelf) fill(t testing.TB, n int) {
	t.Helper()
	start := time.Now().Add(-24 * time.Hour)
	for from := 0; from < n; from += 500 {
		if _, err := s.st.Update(t.Context(), func(tx *store.Tx) error {
			for i := from; i < min(n, from+500); i++ {
				img := &model.Image{
					Meta: model.NewMeta("p1", fmt.Sprintf("image-%05d", i*7919%n), start.Add(time.Duration(i)*time.Second)), Status: model.ImageActive,
					Visibility: model.VisibilityPrivate, DiskFormat: "raw", ContainerFormat: "bare",
					Properties: map[string]string{"os": "debian"},
				}
				switch i % 10 {
				case 3:
					img.Visibility = model.VisibilityPublic
				case 7:
					img.ProjectID, img.Visibility = "p2", model.VisibilityShared
					img.Members = map[model.ID]model.ImageMember{"p1": {Status: model.MemberAccepted}}
				}
				if err := store.Images.Put(tx, img); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

func BenchmarkList(b *testing.B) {
	s := newShelf(b)
	s.fill(b, 10_000)
	page, _, err := s.List(s.st.Snapshot(), owner, images.Query{Limit: 5000})
	if err != nil {
		b.Fatal(err)
	}
	middle := page[len(page)-1].ID
	for _, c := range []struct {
		name string
		by   images.Caller
		q    images.Query
	}{
		{"first page of 25", owner, images.Query{Limit: 25}},
		{"middle page of 25", owner, images.Query{Limit: 25, Marker: middle}},
		{"page of 1000", owner, images.Query{Limit: 1000}},
		{"administrator, page of 25", images.Caller{ProjectID: "p9", Admin: true}, images.Query{Limit: 25}},
		{"by name, page of 25", owner, images.Query{Limit: 25, Sort: []images.SortKey{{Key: "name"}}}},
		{"one name of all", owner, images.Query{Limit: 25, Match: func(i *model.Image) bool { return i.Name == "image-00001" }}},
		{"all", owner, images.Query{}},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				rows, _, err := s.List(s.st.Snapshot(), c.by, c.q)
				if err != nil || len(rows) == 0 {
					b.Fatalf("%d rows, %v", len(rows), err)
				}
			}
		})
	}
}
