package images

import (
	"cmp"
	"iter"
	"slices"
	"strings"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// VisibilityAll asks a list for whatever the caller may see, community images included.
const VisibilityAll = "all"

// Query is what a list is to hold.
type Query struct {
	// Visibility: "" lists the caller's own images, public ones and those whose offer the
	// caller's project has accepted; one of the visibilities lists only such images;
	// VisibilityAll lists all. An administrator's list has every project's images, those of
	// the community only where they are asked for.
	Visibility string
	// MemberStatus is the answer under which images of others are listed: "" accepted,
	// pending, rejected, or "all".
	MemberStatus string
	// Hidden lists the hidden images instead of the others.
	Hidden bool
	// Match narrows the list; nil takes all.
	Match func(*model.Image) bool
	// Sort is the order; none: the newest first. Creation time and id, downwards, break ties.
	Sort []SortKey
	// Marker is the id of the image after which the page begins; empty: at the start.
	Marker model.ID
	// Limit is the length of the page; 0: no limit.
	Limit int
}

// SortKey is one key of an order.
type SortKey struct {
	Key  string // one of SortKeys
	Desc bool
}

type order func(a, b *model.Image) int

func orders() map[string]order {
	return map[string]order{
		"name":             func(a, b *model.Image) int { return cmp.Compare(a.Name, b.Name) },
		"status":           func(a, b *model.Image) int { return cmp.Compare(a.Status, b.Status) },
		"container_format": func(a, b *model.Image) int { return cmp.Compare(a.ContainerFormat, b.ContainerFormat) },
		"disk_format":      func(a, b *model.Image) int { return cmp.Compare(a.DiskFormat, b.DiskFormat) },
		"visibility":       func(a, b *model.Image) int { return cmp.Compare(a.Visibility, b.Visibility) },
		"owner":            func(a, b *model.Image) int { return cmp.Compare(a.ProjectID, b.ProjectID) },
		"size":             func(a, b *model.Image) int { return cmp.Compare(a.Size, b.Size) },
		"virtual_size":     func(a, b *model.Image) int { return cmp.Compare(a.VirtualSize, b.VirtualSize) },
		"min_disk":         func(a, b *model.Image) int { return cmp.Compare(a.MinDiskGiB, b.MinDiskGiB) },
		"min_ram":          func(a, b *model.Image) int { return cmp.Compare(a.MinRAMMiB, b.MinRAMMiB) },
		"checksum":         func(a, b *model.Image) int { return cmp.Compare(a.Checksum, b.Checksum) },
		"id":               func(a, b *model.Image) int { return cmp.Compare(a.ID, b.ID) },
		"created_at":       func(a, b *model.Image) int { return a.CreatedAt.Compare(b.CreatedAt) },
		"updated_at":       func(a, b *model.Image) int { return a.UpdatedAt.Compare(b.UpdatedAt) },
	}
}

// SortKeys gives the keys that a list may be sorted by.
func SortKeys() []string {
	var out []string
	for k := range orders() {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// List gives one page of the images that the query asks for, and whether more follow. In
// the default order it costs what it returns and what Match refuses on the way.
//
// Errors: fault.Invalid for an unknown marker, sort key or visibility.
func (m *Images) List(r store.Reader, by Caller, q Query) (page []*model.Image, more bool, err error) {
	if q.Visibility != "" && q.Visibility != VisibilityAll && !slices.Contains(visibilities, q.Visibility) {
		return nil, false, fault.New(fault.Invalid, "Invalid visibility value: %s", q.Visibility)
	}
	var marker *model.Image
	if q.Marker != "" {
		if marker, err = m.Get(r, by, q.Marker); err != nil {
			return nil, false, fault.New(fault.Invalid, "The marker %s could not be found.", q.Marker)
		}
	}
	if len(q.Sort) > 0 {
		return m.listSorted(r, by, q, marker)
	}
	for img := range candidates(r, by, q, marker) {
		if !q.takes(by, img) {
			continue
		}
		if q.Limit > 0 && len(page) == q.Limit {
			return page, true, nil
		}
		page = append(page, img)
	}
	return page, false, nil
}

func (m *Images) listSorted(r store.Reader, by Caller, q Query, marker *model.Image) ([]*model.Image, bool, error) {
	compare, err := comparison(q.Sort)
	if err != nil {
		return nil, false, err
	}
	var rows []*model.Image
	for img := range candidates(r, by, q, nil) {
		if q.takes(by, img) && (marker == nil || compare(img, marker) > 0) {
			rows = append(rows, img)
		}
	}
	slices.SortFunc(rows, compare)
	if q.Limit > 0 && len(rows) > q.Limit {
		return rows[:q.Limit], true, nil
	}
	return rows, false, nil
}

// comparison makes a total order of the keys.
func comparison(keys []SortKey) (order, error) {
	known := orders()
	var by []order
	for _, k := range append(slices.Clone(keys), SortKey{"created_at", true}, SortKey{"id", true}) {
		o, ok := known[k.Key]
		if !ok {
			return nil, fault.New(fault.Invalid, "Invalid sort key: '%s'. It must be one of %s.", k.Key, strings.Join(SortKeys(), ", "))
		}
		if k.Desc {
			by = append(by, func(a, b *model.Image) int { return o(b, a) })
		} else {
			by = append(by, o)
		}
	}
	return func(a, b *model.Image) int {
		for _, o := range by {
			if c := o(a, b); c != 0 {
				return c
			}
		}
		return 0
	}, nil
}

// takes tells whether the image is in the caller's list.
func (q *Query) takes(by Caller, img *model.Image) bool {
	if img.Hidden != q.Hidden {
		return false
	}
	if q.Visibility != "" && q.Visibility != VisibilityAll && img.Visibility != q.Visibility {
		return false
	}
	own := by.ProjectID != "" && img.ProjectID == by.ProjectID
	if !own {
		switch {
		case img.Visibility == model.VisibilityCommunity && q.Visibility == "":
			return false
		case by.Admin || img.Visibility == model.VisibilityPublic || img.Visibility == model.VisibilityCommunity:
		case img.Visibility == model.VisibilityShared:
			mem, ok := img.Members[by.ProjectID]
			if !ok || by.ProjectID == "" || q.MemberStatus != "all" && mem.Status != cmp.Or(q.MemberStatus, model.MemberAccepted) {
				return false
			}
		default:
			return false
		}
	}
	return q.Match == nil || q.Match(img)
}

// candidates gives, newest first and each once, at least the images that takes accepts
// and that come after the marker.
func candidates(r store.Reader, by Caller, q Query, marker *model.Image) iter.Seq[*model.Image] {
	from := ""
	if marker != nil {
		from = marker.NewestFirst()
	}
	after := func(seq iter.Seq[*model.Image]) iter.Seq[*model.Image] {
		return func(yield func(*model.Image) bool) {
			for img := range seq {
				if (marker == nil || img.NewestFirst() > from) && !yield(img) {
					return
				}
			}
		}
	}
	if by.Admin {
		return after(store.Images.Seek(r, "newest", "", from))
	}
	under := func(index, value string) iter.Seq[*model.Image] {
		return after(store.Images.Seek(r, index, value+",", value+","+from))
	}
	sources := []iter.Seq[*model.Image]{under("visibility_newest", model.VisibilityPublic)}
	if q.Visibility == model.VisibilityCommunity || q.Visibility == VisibilityAll {
		sources = append(sources, under("visibility_newest", model.VisibilityCommunity))
	}
	if by.ProjectID != "" {
		// Not by Seek: an image has a value in this index for each of its members.
		offered := store.Images.Prefix(r, "member_newest", by.ProjectID+",")
		sources = append(sources, under("project_newest", by.ProjectID), after(offered))
	}
	return merge(sources)
}

// merge makes one sorted sequence of several, each image once.
func merge(sources []iter.Seq[*model.Image]) iter.Seq[*model.Image] {
	return func(yield func(*model.Image) bool) {
		type head struct {
			img  *model.Image
			key  string
			next func() (*model.Image, bool)
		}
		var heads []*head
		for _, s := range sources {
			next, stop := iter.Pull(s)
			defer stop()
			if img, ok := next(); ok {
				heads = append(heads, &head{img, img.NewestFirst(), next})
			}
		}
		last := ""
		for len(heads) > 0 {
			least := 0
			for i, h := range heads {
				if h.key < heads[least].key {
					least = i
				}
			}
			h := heads[least]
			if h.key != last && !yield(h.img) {
				return
			}
			last = h.key
			img, ok := h.next()
			if !ok {
				heads = slices.Delete(heads, least, least+1)
				continue
			}
			h.img, h.key = img, img.NewestFirst()
		}
	}
}
