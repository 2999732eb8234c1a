package glance

import (
	"encoding/json"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
)

// The media types of a change, with the draft of JSON Patch that each follows.
const (
	patchV21 = "application/openstack-images-v2.1-json-patch" // RFC 6902, draft 10
	patchV20 = "application/openstack-images-v2.0-json-patch" // draft 4: {"replace": "/name", "value": "x"}
)

// operation is one step of a JSON patch.
type operation struct {
	op    string // add, replace or remove
	path  []string
	value json.RawMessage
}

func (s *service) patch(c *api.Context) error {
	mt, _, err := mime.ParseMediaType(c.R.Header.Get("Content-Type"))
	if err != nil || mt != patchV21 && mt != patchV20 {
		c.W.Header().Set("Accept-Patch", patchV21+", "+patchV20)
		return fault.New(fault.Unsupported, "The content type of a change must be %s or %s.", patchV21, patchV20)
	}
	var body []map[string]json.RawMessage
	if err := api.DecodeJSON(c.R.Body, &body); err != nil {
		return err
	}
	ops, err := parsePatch(body, mt == patchV20)
	if err != nil {
		return err
	}
	img, err := s.images.Update(c.R.Context(), caller(c), c.Param("id"), func(img *model.Image) error {
		return apply(img, ops)
	})
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, view(img))
}

// parsePatch reads the steps of a patch.
func parsePatch(body []map[string]json.RawMessage, draft4 bool) ([]operation, error) {
	if body == nil {
		return nil, fault.New(fault.Invalid, "Request body must be a JSON array of operation objects.")
	}
	out := make([]operation, 0, len(body))
	for _, raw := range body {
		if raw == nil {
			return nil, fault.New(fault.Invalid, "Operations must be JSON objects.")
		}
		o, pointer, err := parseOperation(raw, draft4)
		if err != nil {
			return nil, err
		}
		if o.path, err = parsePointer(pointer); err != nil {
			return nil, err
		}
		value, given := raw["value"]
		if o.op != "remove" {
			if !given {
				return nil, fault.New(fault.Invalid, "Operation \"%s\" requires a member named \"value\".", o.op)
			}
			o.value = value
		}
		if len(o.path) > 1 && o.path[0] != "tags" || len(o.path) > 2 {
			return nil, fault.New(fault.Invalid, "Invalid JSON pointer for this resource: '%s'", pointer)
		}
		out = append(out, o)
	}
	return out, nil
}

func parseOperation(raw map[string]json.RawMessage, draft4 bool) (o operation, pointer string, err error) {
	names := []string{"add", "replace", "remove"}
	if draft4 {
		for _, op := range names {
			if p, ok := raw[op]; ok {
				if o.op != "" {
					return o, "", fault.New(fault.Invalid, "Operation objects must contain only one member named \"add\", \"remove\", or \"replace\".")
				}
				if json.Unmarshal(p, &pointer) != nil {
					return o, "", fault.New(fault.Invalid, "A JSON pointer must be a string.")
				}
				o.op = op
			}
		}
		if o.op == "" {
			return o, "", fault.New(fault.Invalid, "Operation objects must contain exactly one member named \"add\", \"remove\", or \"replace\".")
		}
		return o, pointer, nil
	}
	if json.Unmarshal(raw["op"], &o.op) != nil || !slices.Contains(names, o.op) {
		return o, "", fault.New(fault.Invalid, "Operations must be one of \"add\", \"remove\", or \"replace\".")
	}
	if json.Unmarshal(raw["path"], &pointer) != nil {
		return o, "", fault.New(fault.Invalid, "Operation objects must contain a member named \"path\", which is a string.")
	}
	return o, pointer, nil
}

// parsePointer splits a JSON pointer (RFC 6901) into its unescaped parts.
func parsePointer(p string) ([]string, error) {
	rest, ok := strings.CutPrefix(p, "/")
	if !ok {
		return nil, fault.New(fault.Invalid, "Pointer `%s` does not start with \"/\".", p)
	}
	if strings.Contains(rest, "//") || strings.HasSuffix(rest, "/") || rest == "" {
		return nil, fault.New(fault.Invalid, "Pointer `%s` contains an empty part.", p)
	}
	parts := strings.Split(rest, "/")
	for i, s := range parts {
		for j := range len(s) {
			if s[j] == '~' && (j+1 == len(s) || s[j+1] != '0' && s[j+1] != '1') {
				return nil, fault.New(fault.Invalid, "Pointer `%s` contains \"~\" not part of a recognized escape sequence.", p)
			}
		}
		parts[i] = strings.ReplaceAll(strings.ReplaceAll(s, "~1", "/"), "~0", "~")
	}
	return parts, nil
}

// apply does the steps of a patch in their order.
func apply(img *model.Image, ops []operation) error {
	for _, o := range ops {
		name := o.path[0]
		if err := settable(name); err != nil {
			return err
		}
		if len(o.path) == 2 {
			if err := o.tag(img); err != nil {
				return err
			}
			continue
		}
		_, there := img.Properties[name]
		switch {
		case o.op == "remove" && base(name):
			return fault.New(fault.Forbidden, "Property %s may not be removed.", name)
		case o.op != "add" && !base(name) && !there:
			return fault.New(fault.Conflict, "Property %s does not exist.", name)
		case o.op == "remove":
			delete(img.Properties, name)
		default:
			if err := set(img, name, o.value); err != nil {
				return err
			}
		}
	}
	return nil
}

// tag changes one element of the tags, by its place; "-" is the place after the last.
func (o *operation) tag(img *model.Image) error {
	n, err := strconv.Atoi(o.path[1])
	last := len(img.Tags) - 1
	if o.op == "add" {
		last++
	}
	if o.op == "add" && o.path[1] == "-" {
		n, err = last, nil
	}
	if err != nil || n < 0 || n > last {
		return fault.New(fault.Invalid, "Invalid JSON pointer for this resource: '/tags/%s'", o.path[1])
	}
	if o.op == "remove" {
		img.Tags = slices.Delete(img.Tags, n, n+1)
		return nil
	}
	var v string
	if err := typed("tags", "array", o.value, &v); err != nil {
		return err
	}
	if o.op == "add" {
		img.Tags = slices.Insert(img.Tags, n, v)
	} else {
		img.Tags[n] = v
	}
	return nil
}
