package nova

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"yakumo/api"
	"yakumo/fault"
)

// schema checks a JSON value; name is the member that holds it, "" for the whole body.
type schema func(name string, v any) error

// wrong refuses a value in the words of Nova's validator.
func wrong(name string, v any, format string, args ...any) error {
	msg := fmt.Sprintf(format, args...)
	if name == "" {
		return fault.New(fault.Invalid, "%s", msg)
	}
	return fault.New(fault.Invalid, "Invalid input for field/attribute %s. Value: %s. %s", name, plain(v), msg)
}

// plain writes a value for an error's text: strings bare, all else as JSON, cut short.
func plain(v any) string {
	if s, ok := v.(string); ok {
		return api.Clip(s)
	}
	return api.Quoted(v)
}

// decode reads the body, checks it, and gives it. Numbers are json.Number.
func decode(c *api.Context, s schema) (object, error) {
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
	if err := s("", v); err != nil {
		return nil, err
	}
	return v.(object), nil
}

// members of an object.
type members map[string]schema

// exactly checks an object that has no other members than these.
func exactly(m members, required ...string) schema {
	return func(name string, v any) error {
		o, ok := v.(object)
		if !ok {
			return wrong(name, v, "%s is not of type 'object'", api.Quoted(v))
		}
		for _, r := range required {
			if _, there := o[r]; !there {
				return wrong(name, v, "'%s' is a required property", r)
			}
		}
		var unknown []string
		for _, k := range slices.Sorted(maps.Keys(o)) { // the same request gets the same answer
			check, known := m[k]
			if !known {
				unknown = append(unknown, "'"+api.Clip(k)+"'")
				continue
			}
			if err := check(k, o[k]); err != nil {
				return err
			}
		}
		switch len(unknown) {
		case 0:
			return nil
		case 1:
			return wrong(name, v, "Additional properties are not allowed (%s was unexpected)", unknown[0])
		}
		return wrong(name, v, "Additional properties are not allowed (%s were unexpected)", strings.Join(unknown, ", "))
	}
}

func anything(string, any) error { return nil }

// nullOr allows null besides.
func nullOr(s schema) schema {
	return func(name string, v any) error {
		if v == nil {
			return nil
		}
		return s(name, v)
	}
}

func null(name string, v any) error {
	if v != nil {
		return wrong(name, v, "%s is not of type 'null'", api.Quoted(v))
	}
	return nil
}

// text of a length in characters.
func text(least, most int) schema {
	return func(name string, v any) error {
		s, ok := v.(string)
		switch n := utf8.RuneCountInString(s); {
		case !ok:
			return wrong(name, v, "%s is not of type 'string'", api.Quoted(v))
		case n < least:
			return wrong(name, v, "%s is too short", api.Quoted(v))
		case n > most:
			return wrong(name, v, "%s is too long", api.Quoted(v))
		}
		return nil
	}
}

// title is Nova's rule for names: 1 to 255 printable characters. Spaces around it are cut off.
func title(name string, v any) error {
	if err := text(1, 255)(name, v); err != nil {
		return err
	}
	s := v.(string)
	if strings.TrimSpace(s) == "" || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) && r != ' ' }) {
		return wrong(name, v, "An invalid 'name' value was provided. The name must be printable characters. Can not start or end with whitespace.")
	}
	return nil
}

// printable text without line breaks, of at most n characters, maybe empty.
func description(name string, v any) error {
	if v == nil {
		return nil
	}
	if err := text(0, 255)(name, v); err != nil {
		return err
	}
	if strings.ContainsFunc(v.(string), func(r rune) bool { return !unicode.IsPrint(r) && !unicode.IsSpace(r) }) {
		return wrong(name, v, "%s does not match the printable characters", api.Quoted(v))
	}
	return nil
}

func matching(re *regexp.Regexp, least, most int) schema {
	return func(name string, v any) error {
		if err := text(least, most)(name, v); err != nil {
			return err
		}
		if !re.MatchString(v.(string)) {
			return wrong(name, v, "%s does not match '%s'", api.Quoted(v), re)
		}
		return nil
	}
}

var uuidRE = regexp.MustCompile(`^[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}$`)

func uuid(name string, v any) error {
	s, ok := v.(string)
	if !ok {
		return wrong(name, v, "%s is not of type 'string'", api.Quoted(v))
	}
	if !uuidRE.MatchString(s) {
		return wrong(name, v, "%s is not a 'uuid'", api.Quoted(v))
	}
	return nil
}

func oneOf(values ...string) schema {
	return func(name string, v any) error {
		if s, ok := v.(string); ok && slices.Contains(values, s) {
			return nil
		}
		return wrong(name, v, "%s is not one of ['%s']", api.Quoted(v), strings.Join(values, "', '"))
	}
}

var (
	truths = []string{"True", "TRUE", "true", "1", "ON", "On", "on", "YES", "Yes", "yes"}
	lies   = []string{"False", "FALSE", "false", "0", "OFF", "Off", "off", "NO", "No", "no"}
)

// boolean is true or false, or one of the words for them that Nova takes.
func boolean(name string, v any) error {
	if _, ok := v.(bool); ok {
		return nil
	}
	if s, ok := v.(string); ok && (slices.Contains(truths, s) || slices.Contains(lies, s)) {
		return nil
	}
	return wrong(name, v, "%s is not one of [True, 'True', 'TRUE', 'true', '1', 'ON', 'On', 'on', 'YES', 'Yes', 'yes', False, 'False', 'FALSE', 'false', '0', 'OFF', 'Off', 'off', 'NO', 'No', 'no']", api.Quoted(v))
}

// integer in a range; a string of digits is one too, as in Nova.
func integer(least, most int64) schema {
	return func(name string, v any) error {
		n, ok := asInt(v)
		switch {
		case !ok:
			return wrong(name, v, "%s is not of type 'integer', 'string'", api.Quoted(v))
		case n < least:
			return wrong(name, v, "%s is less than the minimum of %d", plain(v), least)
		case n > most:
			return wrong(name, v, "%s is greater than the maximum of %d", plain(v), most)
		}
		return nil
	}
}

func asInt(v any) (int64, bool) {
	var s string
	switch x := v.(type) {
	case json.Number:
		s = x.String()
	case string:
		s = x
	default:
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// list of at most most items.
func list(item schema, least, most int) schema {
	return func(name string, v any) error {
		l, ok := v.([]any)
		switch {
		case !ok:
			return wrong(name, v, "%s is not of type 'array'", api.Quoted(v))
		case len(l) < least:
			return wrong(name, v, "%s is too short", api.Quoted(v))
		case len(l) > most:
			return wrong(name, v, "%s is too long", api.Quoted(v))
		}
		for i, x := range l {
			if err := item(strconv.Itoa(i), x); err != nil {
				return err
			}
		}
		return nil
	}
}

// either accepts what one of two accepts; the error is the first's.
func either(a, b schema) schema {
	return func(name string, v any) error {
		err := a(name, v)
		if err != nil && b(name, v) == nil {
			return nil
		}
		return err
	}
}

func address(version int) schema {
	return func(name string, v any) error {
		s, ok := v.(string)
		if ok && s == "" {
			return nil
		}
		a, err := netip.ParseAddr(s)
		if !ok || err != nil || a.Zone() != "" || version == 4 && !a.Is4() || version == 6 && !a.Is6() {
			return wrong(name, v, "%s is not a 'ipv%d'", api.Quoted(v), version)
		}
		return nil
	}
}

func anyAddress(name string, v any) error {
	s, ok := v.(string)
	if a, err := netip.ParseAddr(s); !ok || err != nil || a.Zone() != "" {
		return wrong(name, v, "%s is not valid under any of the given schemas", api.Quoted(v))
	}
	return nil
}

var itemRE = regexp.MustCompile(`^[a-zA-Z0-9-_:. ]{1,255}$`)

// items checks an object of strings: metadata, extra specs.
func items(name string, v any) error {
	o, ok := v.(object)
	if !ok {
		return wrong(name, v, "%s is not of type 'object'", api.Quoted(v))
	}
	for _, k := range slices.Sorted(maps.Keys(o)) {
		if !itemRE.MatchString(k) {
			return wrong(name, v, "Additional properties are not allowed ('%s' was unexpected)", api.Clip(k))
		}
		if err := text(0, 255)(k, o[k]); err != nil {
			return err
		}
	}
	return nil
}

// Getters of values that a schema has accepted.

func str(o object, name string) string { s, _ := o[name].(string); return s }

// strOr gives a pointer to a string member that is there; null is "".
func strPtr(o object, name string) *string {
	v, there := o[name]
	if !there {
		return nil
	}
	s, _ := v.(string)
	return &s
}

func truth(o object, name string) bool { return asBool(o[name]) }

func asBool(v any) bool {
	if b, ok := v.(bool); ok {
		return b
	}
	s, _ := v.(string)
	return slices.Contains(truths, s)
}

func num(o object, name string, otherwise int) int {
	n, ok := asInt(o[name])
	if !ok {
		return otherwise
	}
	return int(n)
}

func stringMap(v any) map[string]string {
	o, _ := v.(object)
	out := make(map[string]string, len(o))
	for k, x := range o {
		out[k], _ = x.(string)
	}
	return out
}
