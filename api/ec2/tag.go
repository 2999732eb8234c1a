package ec2

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// labels is how the tags of a kind of thing are kept. There are no rows of tags: they are what the OpenStack dialects show too, and the tag
// "Name" is the thing's name where it has one that may be changed.
type labels struct {
	resource string // what EC2 calls the kind: volume, …
	// all gives the caller's things: EC2's id, and the tags, which are a copy.
	all func(q *request, r store.Reader) iter.Seq2[string, map[string]string]
	// change lets f change the tags of a thing; EC2's error for an id that names none.
	change func(q *request, tx *store.Tx, id string, f func(map[string]string) error) error
}

// labels gives how tags are kept, by kind.
func (d *dialect) labels() map[kind]labels {
	out := map[kind]labels{}
	d.instanceLabels(out)
	d.imageLabels(out)
	d.volumeLabels(out)
	d.networkLabels(out)
	return out
}

// Limits of tags, EC2's.
const (
	maxTags     = 50
	maxTagKey   = 128
	maxTagValue = 256
)

// nameTag is the tag that is the thing's name.
const nameTag = "Name"

type tag struct {
	Key   string `xml:"key"`
	Value string `xml:"value"`
}

// tagSet writes tags as EC2 does.
func tagSet(tags map[string]string) set[tag] {
	var out set[tag]
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		out.Items = append(out.Items, tag{k, tags[k]})
	}
	return out
}

// tagged gives a thing's tags: its metadata, and its name.
func tagged(m *model.Meta, metadata map[string]string) map[string]string {
	out := maps.Clone(metadata)
	if out == nil {
		out = map[string]string{}
	}
	if m.Name != "" {
		out[nameTag] = m.Name
	}
	return out
}

// tagValues gives what a thing has under the filters "tag-key" and "tag:…".
func tagValues(name string, tags map[string]string) []string {
	if name == "tag-key" {
		return slices.Collect(maps.Keys(tags))
	}
	if key, ok := strings.CutPrefix(name, "tag:"); ok {
		if v, ok := tags[key]; ok {
			return []string{v}
		}
	}
	return nil
}

// tagSpec reads the tags that a new thing is to have, of TagSpecification.n. resource is what EC2 calls the thing.
func (q *request) tagSpec(resource string) (map[string]string, error) {
	var out map[string]string
	for _, s := range q.list("TagSpecification") {
		if t := s.str("ResourceType"); t != resource {
			return nil, badValue("'%s' is not a valid taggable resource type for this operation.", api.Clip(t))
		}
		tags, err := readTags(s)
		if err != nil {
			return nil, err
		}
		if out != nil {
			return nil, badValue("Duplicate tag specification for resource type '%s'.", resource)
		}
		out = tags
	}
	return out, nil
}

// readTags reads Tag.n.Key and Tag.n.Value.
func readTags(p *param) (map[string]string, error) {
	out := map[string]string{}
	for _, t := range p.list("Tag") {
		k, v := t.str("Key"), t.str("Value")
		_, twice := out[k]
		switch {
		case k == "" || utf8.RuneCountInString(k) > maxTagKey:
			return nil, badValue("Tag key '%s' is invalid: it has 1 to %d characters.", api.Clip(k), maxTagKey)
		case strings.HasPrefix(strings.ToLower(k), "aws:"):
			return nil, badValue("Tag keys starting with 'aws:' are reserved for internal use")
		case utf8.RuneCountInString(v) > maxTagValue:
			return nil, badValue("The value of the tag '%s' is too long: it has at most %d characters.", api.Clip(k), maxTagValue)
		case k == nameTag && utf8.RuneCountInString(v) > maxTagValue-1:
			return nil, badValue("The value of the tag '%s' is too long: a name has at most %d characters.", nameTag, maxTagValue-1)
		case twice:
			return nil, badValue("Duplicate tag key '%s' specified.", api.Clip(k))
		}
		out[k] = v
	}
	if len(out) > maxTags {
		return nil, fault.Coded(fault.Invalid, "TagLimitExceeded", "The maximum number of tags of a resource is %d.", maxTags)
	}
	return out, nil
}

// named takes the name out of tags.
func named(tags map[string]string) (name string, rest map[string]string) {
	rest = maps.Clone(tags)
	delete(rest, nameTag)
	return tags[nameTag], rest
}

// relabel lets f change tags, and holds EC2's limit.
func relabel(tags map[string]string, f func(map[string]string) error) error {
	if err := f(tags); err != nil {
		return err
	}
	if len(tags) > maxTags {
		return fault.Coded(fault.Invalid, "TagLimitExceeded", "The maximum number of tags of a resource is %d.", maxTags)
	}
	return nil
}

// paged gives the part of a list that MaxResults and NextToken ask for, and the token of the next. It sorts by EC2's ids: a token is the last
// one of a page, which may be gone when the next is asked for.
func paged[T any](q *request, rows []T, id func(T) string) ([]T, string, error) {
	limit, err := q.params.number("MaxResults", 1, 1000, 0)
	if err != nil {
		return nil, "", err
	}
	slices.SortFunc(rows, func(a, b T) int { return cmp.Compare(id(a), id(b)) })
	return pageFrom(rows, q.str("NextToken"), limit, id)
}

// maxPageToken is how long a token of pages may be: a name may be in it.
const maxPageToken = 600

// pageFrom gives the part of a sorted list that begins behind a token, which is a row's id, and the token of the next; limit 0: the rest of it.
func pageFrom[T any](rows []T, after string, limit int, id func(T) string) ([]T, string, error) {
	if after != "" {
		if len(after) > maxPageToken || !strings.Contains(after, "-") {
			return nil, "", fault.Coded(fault.Invalid, "InvalidNextToken", "The token '%s' is invalid", api.Clip(after))
		}
		at := slices.IndexFunc(rows, func(r T) bool { return id(r) > after })
		if at < 0 {
			at = len(rows)
		}
		rows = rows[at:]
	}
	if limit > 0 && len(rows) > limit {
		return rows[:limit], id(rows[limit-1]), nil
	}
	return rows, "", nil
}
