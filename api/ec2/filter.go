package ec2

import (
	"regexp"
	"slices"
	"strings"

	"yakumo/api"
	"yakumo/fault"
)

// filter is one condition of a Describe operation: the thing has one of the values under the name.
type filter struct {
	name   string
	values []*regexp.Regexp
}

// filters reads Filter.n.Name and Filter.n.Value.m. allowed are the names that the operation knows; one that ends with a colon stands for
// all that begin so ("tag:").
func (q *request) filters(allowed ...string) ([]filter, error) {
	var out []filter
	for _, f := range q.list("Filter") {
		name := f.str("Name")
		known := slices.ContainsFunc(allowed, func(a string) bool { return a == name || strings.HasSuffix(a, ":") && strings.HasPrefix(name, a) })
		if !known {
			return nil, badValue("The filter '%s' is invalid", api.Clip(name))
		}
		x := filter{name: name}
		for _, v := range f.strs("Value") {
			x.values = append(x.values, wildcard(v))
		}
		if len(x.values) == 0 {
			return nil, fault.Coded(fault.Invalid, "InvalidParameterValue", "The filter '%s' has no value", api.Clip(name))
		}
		out = append(out, x)
	}
	return out, nil
}

// wildcard gives the expression of a filter's value: * stands for any characters, ? for one, a backslash takes the meaning from what follows.
func wildcard(v string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`(?s)^`)
	quoted := false
	for _, r := range v {
		switch {
		case quoted:
			b.WriteString(regexp.QuoteMeta(string(r)))
			quoted = false
		case r == '\\':
			quoted = true
		case r == '*':
			b.WriteString(`.*`)
		case r == '?':
			b.WriteByte('.')
		default:
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
	}
	b.WriteByte('$')
	return regexp.MustCompile(b.String())
}

// passes tells whether a thing meets all conditions. attribute gives its values under a filter's name.
func passes(filters []filter, attribute func(name string) []string) bool {
	for _, f := range filters {
		if !slices.ContainsFunc(attribute(f.name), func(v string) bool {
			return slices.ContainsFunc(f.values, func(re *regexp.Regexp) bool { return re.MatchString(v) })
		}) {
			return false
		}
	}
	return true
}
