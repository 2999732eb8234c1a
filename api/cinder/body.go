package cinder

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"yakumo/api"
	"yakumo/fault"
)

// body is an object of a request; the first value that is wrong is kept and told by err.
type body struct {
	o     object
	wrong error
}

// read gives the member of the request's body.
func read(c *api.Context, member string) (*body, error) {
	o, err := readAll(c)
	if err != nil {
		return nil, err
	}
	v, there := o[member]
	if !there {
		return nil, badRequest("Invalid input for field/attribute %s. '%s' is a required property", member, member)
	}
	in, ok := v.(object)
	if !ok {
		return nil, badRequest("Invalid input for field/attribute %s. Value: %s. %s is not of type 'object'", member, api.Quoted(v), api.Quoted(v))
	}
	return &body{o: in}, nil
}

// readAll gives the request's body. Numbers are json.Number.
func readAll(c *api.Context) (object, error) {
	var raw json.RawMessage
	if err := c.Decode(&raw); err != nil {
		if fault.Is(err, fault.Invalid) {
			return nil, badRequest("Malformed request body")
		}
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, badRequest("Malformed request body")
	}
	o, ok := v.(object)
	if !ok {
		return nil, badRequest("Malformed request body")
	}
	return o, nil
}

// err gives what was wrong first.
func (b *body) err() error { return b.wrong }

func (b *body) refuse(name string, v any, format string, args ...any) {
	if b.wrong == nil {
		b.wrong = badRequest("Invalid input for field/attribute %s. Value: %s. %s", name, api.Quoted(v), fmt.Sprintf(format, args...))
	}
}

// has tells whether the member is there and not null.
func (b *body) has(name string) bool { return b.o[name] != nil }

// text gives a string of at most 255 characters, "" where it is not there.
func (b *body) text(name string) string { return b.long(name, 255) }

func (b *body) long(name string, most int) string {
	v := b.o[name]
	if v == nil {
		return ""
	}
	s, ok := v.(string)
	switch {
	case !ok:
		b.refuse(name, v, "%s is not of type 'string'", api.Quoted(v))
	case utf8.RuneCountInString(s) > most:
		b.refuse(name, v, "%s is too long", api.Quoted(v))
	case strings.ContainsRune(s, 0) || !utf8.ValidString(s):
		b.refuse(name, v, "it has characters that are not allowed")
	}
	return s
}

// optional gives a string for an update; nil where it is not there. null empties it.
func (b *body) optional(name string) *string {
	if _, there := b.o[name]; !there {
		return nil
	}
	s := b.text(name)
	return &s
}

// needed gives a string that must be there.
func (b *body) needed(name string) string {
	if s := b.text(name); s != "" || b.wrong != nil {
		return s
	}
	if b.wrong == nil {
		b.wrong = badRequest("Invalid input for field/attribute %s. '%s' is a required property", name, name)
	}
	return ""
}

// number gives an integer, also one in a string; none where it is not there.
func (b *body) number(name string, least, most, none int) int {
	v := b.o[name]
	if v == nil {
		return none
	}
	n, ok := integer(v)
	if !ok {
		b.refuse(name, v, "%s is not of type 'integer'", api.Quoted(v))
		return none
	}
	if n < least || n > most {
		b.refuse(name, v, "%d is not between %d and %d", n, least, most)
	}
	return n
}

func integer(v any) (int, bool) {
	s := ""
	switch v := v.(type) {
	case json.Number:
		s = v.String()
	case string:
		s = strings.TrimSpace(v)
	default:
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil
}

// truth gives a boolean, as Cinder takes it: also in a string, or as 0 and 1.
func (b *body) truth(name string) bool {
	v := b.o[name]
	if v == nil {
		return false
	}
	t, ok := truth(v)
	if !ok {
		b.refuse(name, v, "%s is not of type 'boolean'", api.Quoted(v))
	}
	return t
}

func truth(v any) (value, ok bool) {
	switch v := v.(type) {
	case bool:
		return v, true
	case json.Number:
		return v.String() == "1", v.String() == "0" || v.String() == "1"
	case string:
		switch strings.ToLower(strings.TrimSpace(v)) {
		case "true", "t", "yes", "y", "on", "1":
			return true, true
		case "false", "f", "no", "n", "off", "0", "":
			return false, true
		}
	}
	return false, false
}

// strings gives an object of strings; nil where it is not there. Values of extra specs may be null, which is "".
func (b *body) strings(name string) map[string]string {
	v, there := b.o[name]
	if !there || v == nil {
		return nil
	}
	o, ok := v.(object)
	if !ok {
		b.refuse(name, v, "%s is not of type 'object'", api.Quoted(v))
		return nil
	}
	out := make(map[string]string, len(o))
	for _, k := range slices.Sorted(maps.Keys(o)) {
		s, ok := o[k].(string)
		if n, isNumber := o[k].(json.Number); isNumber {
			s, ok = n.String(), true
		}
		if t, isBool := o[k].(bool); isBool {
			s, ok = pythonBool(t), true
		}
		if !ok && o[k] != nil {
			b.refuse(name, o[k], "%s is not of type 'string'", api.Quoted(o[k]))
		}
		if k == "" || len(k) > 255 || len(s) > 255 {
			b.refuse(name, k, "Metadata property key and value are 1 to 255 characters long.")
		}
		out[k] = s
	}
	return out
}

func pythonBool(t bool) string {
	if t {
		return "True"
	}
	return "False"
}

// inner gives an object within; an empty one where it is not there.
func (b *body) inner(name string) *body {
	v := b.o[name]
	if v == nil {
		return &body{o: object{}}
	}
	o, ok := v.(object)
	if !ok {
		b.refuse(name, v, "%s is not of type 'object'", api.Quoted(v))
		return &body{o: object{}}
	}
	return &body{o: o}
}
