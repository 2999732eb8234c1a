package images_test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"yakumo/images"
	"yakumo/model"
	"yakumo/store"
)

// Whatever there is and whoever asks, the pages of a list put together are what a plain
// filter and a plain sort make.
func TestPagesAgreeWithAPlainSort(t *testing.T) {
	s := newShelf(t)
	projects := []model.ID{"p1", "p2", "p3"}
	visibilities := images.Visibilities()
	statuses := []string{model.MemberPending, model.MemberAccepted, model.MemberRejected}
	start := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	rapid.Check(t, func(r *rapid.T) {
		var all []*model.Image
		for range rapid.IntRange(0, 25).Draw(r, "n") {
			img := &model.Image{
				Meta:       model.NewMeta(rapid.SampledFrom(projects).Draw(r, "owner"), rapid.SampledFrom([]string{"a", "b", "c"}).Draw(r, "name"), start.Add(time.Duration(rapid.IntRange(0, 5).Draw(r, "at"))*time.Second)),
				Visibility: rapid.SampledFrom(visibilities).Draw(r, "visibility"), Hidden: rapid.IntRange(0, 9).Draw(r, "hidden") == 0,
			}
			if img.Visibility == model.VisibilityShared {
				img.Members = rapid.MapOf(rapid.SampledFrom(projects), rapid.Map(rapid.SampledFrom(statuses), func(s string) model.ImageMember {
					return model.ImageMember{Status: s}
				})).Draw(r, "members")
			}
			all = append(all, img)
		}
		if _, err := s.st.Update(t.Context(), func(tx *store.Tx) error {
			for img := range store.Images.All(tx) {
				if err := store.Images.Delete(tx, img.ID); err != nil {
					return err
				}
			}
			for _, img := range all {
				if err := store.Images.Put(tx, img); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			r.Fatal(err)
		}
		by := images.Caller{ProjectID: rapid.SampledFrom(projects).Draw(r, "caller"), Admin: rapid.IntRange(0, 4).Draw(r, "admin") == 0}
		q := images.Query{
			Visibility:   rapid.SampledFrom(append([]string{"", images.VisibilityAll}, visibilities...)).Draw(r, "asked"),
			MemberStatus: rapid.SampledFrom(append([]string{"", "all"}, statuses...)).Draw(r, "answer"),
			Hidden:       rapid.Bool().Draw(r, "hidden ones"), Limit: rapid.IntRange(1, 8).Draw(r, "limit"),
		}
		byName := rapid.Bool().Draw(r, "by name")
		if byName {
			q.Sort = []images.SortKey{{Key: "name"}}
		}
		var want []string
		slices.SortFunc(all, func(a, b *model.Image) int {
			name := 0
			if byName {
				name = cmp.Compare(a.Name, b.Name)
			}
			return cmp.Or(name, b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.ID, a.ID))
		})
		for _, img := range all {
			if listed(by, q, img) {
				want = append(want, img.ID)
			}
		}
		var got []string
		for {
			page, more, err := s.List(s.st.Snapshot(), by, q)
			if err != nil {
				r.Fatal(err)
			}
			for _, img := range page {
				got = append(got, img.ID)
			}
			if !more {
				break
			}
			if len(page) != q.Limit {
				r.Fatalf("a page of %d with more behind it", len(page))
			}
			q.Marker = page[len(page)-1].ID
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			r.Fatalf("the pages hold %v, want %v", got, want)
		}
	})
}

// listed is the rule of lists, written down once more in the plainest way.
func listed(by images.Caller, q images.Query, img *model.Image) bool {
	own := img.ProjectID == by.ProjectID
	answer := q.MemberStatus
	if answer == "" {
		answer = model.MemberAccepted
	}
	mem, offered := img.Members[by.ProjectID]
	visible := own || by.Admin || img.Visibility == model.VisibilityPublic || img.Visibility == model.VisibilityCommunity ||
		img.Visibility == model.VisibilityShared && offered && (answer == "all" || mem.Status == answer)
	asked := q.Visibility == images.VisibilityAll || q.Visibility == img.Visibility ||
		q.Visibility == "" && (own || img.Visibility != model.VisibilityCommunity)
	return visible && asked && img.Hidden == q.Hidden
}
