package ec2

import (
	"cmp"
	"errors"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// recoding gives EC2's codes for the kinds of error that a part may answer with to one operation.
type recoding map[fault.Kind]string

// of gives a part's error with EC2's code in the place of the part's own; what is no answer to the client stays as it is.
func (m recoding) of(err error) error {
	var e *fault.Error
	if !errors.As(err, &e) || e.Kind == fault.Internal {
		return err
	}
	return &fault.Error{Kind: e.Kind, Code: cmp.Or(m[e.Kind], codes[e.Kind]), Text: e.Text, Cause: err}
}

// incorrect is the error of a thing that is in the wrong state.
func incorrect(format string, args ...any) error {
	return fault.Coded(fault.Conflict, "IncorrectState", format, args...)
}

// unsupported is the error of what EC2 knows and this cloud does not offer.
func unsupported(format string, args ...any) error {
	return fault.Coded(fault.NotImplemented, "UnsupportedOperation", format, args...)
}

// mine tells whether what belongs to the project is the caller's.
func (q *request) mine(project model.ID) bool {
	return project != "" && project == q.Caller.ProjectID
}

// chosen gives the caller's things of a project's index: those that ids name, each of which must be there, or all of them.
func chosen[T any](q *request, r store.Reader, t *store.Table[T], k kind, ids []string, project func(*T) model.ID) ([]*T, error) {
	var out []*T
	if len(ids) == 0 {
		for row := range t.List(r, "project", q.Caller.ProjectID) {
			out = append(out, row)
		}
		return out, nil
	}
	seen := map[string]bool{}
	for _, id := range ids {
		row, err := find(r, t, k, id, func(x *T) bool { return q.mine(project(x)) })
		if err != nil {
			return nil, err
		}
		if !seen[id] {
			out = append(out, row)
		}
		seen[id] = true
	}
	return out, nil
}

// unknownZone is the error of an availability zone that there is none of.
func unknownZone(name string) error {
	return fault.Coded(fault.Invalid, "InvalidZone.NotFound", "The zone '%s' does not exist.", api.Clip(name))
}
