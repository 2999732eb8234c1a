package ec2

import (
	"cmp"
	"iter"
	"slices"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

func (d *dialect) tagOperations(add adder) {
	add("CreateTags", api.Member, d.createTags, "ResourceId", "Tag")
	add("DeleteTags", api.Member, d.deleteTags, "ResourceId", "Tag")
	add("DescribeTags", api.Reader, d.describeTags, "Filter", "MaxResults", "NextToken")
}

// relabelAll lets f change the tags of what the request names: of all, or of none.
func (d *dialect) relabelAll(q *request, f func(map[string]string) error) (any, error) {
	ids := q.strs("ResourceId")
	switch {
	case len(ids) == 0:
		return nil, missing("ResourceId")
	case len(ids) > maxTagged:
		return nil, badValue("At most %d resources may be named.", maxTagged)
	}
	slices.Sort(ids)
	kinds := d.labels()
	return done{true}, q.update(func(tx *store.Tx) error {
		for _, id := range slices.Compact(ids) {
			l, ok := kinds[kindOf(id)]
			if !ok {
				return fault.Coded(fault.Invalid, "InvalidID", "The ID '%s' is not valid", api.Clip(id))
			}
			if err := l.change(q, tx, id, f); err != nil {
				return err
			}
		}
		return nil
	})
}

// maxTagged is how many things one request may give tags.
const maxTagged = 100

// kindOf gives the kind that an id claims to be of.
func kindOf(id string) kind {
	for i := range id {
		if id[i] == '-' {
			return kind(id[:i])
		}
	}
	return ""
}

func (d *dialect) createTags(q *request) (any, error) {
	tags, err := readTags(q.params)
	if err != nil {
		return nil, err
	}
	if len(tags) == 0 {
		return nil, missing("Tag")
	}
	return d.relabelAll(q, func(has map[string]string) error {
		for k, v := range tags {
			has[k] = v
		}
		return nil
	})
}

// deleteTags takes tags away: of a key whatever its value, or where one is given, even an empty one, only with that; without any tag, all.
func (d *dialect) deleteTags(q *request) (any, error) {
	if _, err := readTags(q.params); err != nil {
		return nil, err
	}
	list := q.list("Tag")
	return d.relabelAll(q, func(has map[string]string) error {
		if len(list) == 0 {
			clear(has)
		}
		for _, t := range list {
			if v, ok := has[t.str("Key")]; ok && (!t.has("Value") || t.str("Value") == v) {
				delete(has, t.str("Key"))
			}
		}
		return nil
	})
}

type shownTag struct {
	Resource string `xml:"resourceId"`
	Type     string `xml:"resourceType"`
	Key      string `xml:"key"`
	Value    string `xml:"value"`
}

func (d *dialect) describeTags(q *request) (any, error) {
	filters, err := q.filters("resource-id", "resource-type", "key", "value", "tag-key", "tag:")
	if err != nil {
		return nil, err
	}
	r := q.Snapshot()
	var all []shownTag
	for _, l := range d.labels() {
		for id, tags := range l.all(q, r) {
			for k, v := range tags {
				t := shownTag{id, l.resource, k, v}
				if passes(filters, func(name string) []string {
					if v, ok := map[string]string{"resource-id": t.Resource, "resource-type": t.Type, "key": t.Key, "value": t.Value, "tag-key": t.Key}[name]; ok {
						return []string{v}
					}
					return tagValues(name, map[string]string{t.Key: t.Value})
				}) {
					all = append(all, t)
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b shownTag) int { return cmp.Or(cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Key, b.Key)) })
	var body struct {
		Tags set[shownTag] `xml:"tagSet"`
		Next string        `xml:"nextToken,omitempty"`
	}
	// A page ends with a thing's last tag, so that its id is the token.
	body.Tags.Items, body.Next, err = pagedTags(q, all)
	return body, err
}

// pagedTags gives a page of whole things' tags: at least as many as MaxResults asks for, at most one thing's more.
func pagedTags(q *request, all []shownTag) ([]shownTag, string, error) {
	var ids []string
	of := map[string][]shownTag{}
	for _, t := range all {
		if len(of[t.Resource]) == 0 {
			ids = append(ids, t.Resource)
		}
		of[t.Resource] = append(of[t.Resource], t)
	}
	limit, err := q.params.number("MaxResults", 5, 1000, len(all))
	if err != nil {
		return nil, "", err
	}
	ids, _, err = pageFrom(ids, q.str("NextToken"), 0, func(id string) string { return id })
	if err != nil {
		return nil, "", err
	}
	var out []shownTag
	for i, id := range ids {
		out = append(out, of[id]...)
		if len(out) >= limit && i < len(ids)-1 {
			return out, id, nil
		}
	}
	return out, "", nil
}

// instanceLabels adds how the tags of instances are kept: as the servers' metadata.
func (d *dialect) instanceLabels(out map[kind]labels) {
	out[instanceID] = labels{resource: "instance",
		all: func(q *request, r store.Reader) iter.Seq2[string, map[string]string] {
			return func(yield func(string, map[string]string) bool) {
				for s := range store.Servers.List(r, "project", q.Caller.ProjectID) {
					if !yield(instanceID.id(s.ID), tagged(&s.Meta, s.Metadata)) {
						return
					}
				}
			}
		},
		change: func(q *request, tx *store.Tx, id string, f func(map[string]string) error) error {
			s, err := q.serverOf(tx, id)
			if err != nil {
				return err
			}
			tags := tagged(&s.Meta, s.Metadata)
			if err := relabel(tags, f); err != nil {
				return err
			}
			return d.label(q, tx, s, tags)
		}}
}

// label gives a server tags.
func (d *dialect) label(q *request, tx *store.Tx, s *model.Server, tags map[string]string) error {
	name, metadata := named(tags)
	_, err := d.c.Label(tx, q.scope(), s.ID, name, metadata)
	return recoding{fault.Conflict: "IncorrectInstanceState", fault.OverQuota: "TagLimitExceeded"}.of(err)
}
