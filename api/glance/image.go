package glance

import (
	"encoding/json"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
)

const timeForm = "2006-01-02T15:04:05Z"

func stamp(t time.Time) string { return t.UTC().Format(timeForm) }

// view is an image as the API shows it: its own properties stand beside the base ones.
func view(img *model.Image) map[string]any {
	out := make(map[string]any, 28+len(img.Properties))
	for k, v := range img.Properties {
		out[k] = v
	}
	path := "/v2/images/" + img.ID
	tags := img.Tags
	if tags == nil {
		tags = []string{}
	}
	maps.Copy(out, map[string]any{
		"id": img.ID, "name": orNull(img.Name), "status": img.Status, "visibility": img.Visibility,
		"disk_format": orNull(img.DiskFormat), "container_format": orNull(img.ContainerFormat),
		"owner": img.ProjectID, "protected": img.Protected, "os_hidden": img.Hidden,
		"min_disk": img.MinDiskGiB, "min_ram": img.MinRAMMiB,
		"size": nil, "virtual_size": nil,
		"checksum": orNull(img.Checksum), "os_hash_algo": orNull(img.HashAlgo), "os_hash_value": orNull(img.HashValue),
		"created_at": stamp(img.CreatedAt), "updated_at": stamp(img.UpdatedAt), "tags": tags,
		"self": path, "file": path + "/file", "schema": "/v2/schemas/image",
	})
	if img.BlobID != "" {
		out["size"] = img.Size
		if img.VirtualSize > 0 {
			out["virtual_size"] = img.VirtualSize
		}
		out["stores"] = storeName
	}
	return out
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// What a client may not set. Reserved names would be mistaken for something else by
// clients of older versions.
var (
	readOnly = []string{"created_at", "updated_at", "status", "checksum", "size", "virtual_size", "direct_url",
		"self", "file", "schema", "id", "os_hash_algo", "os_hash_value", "stores"}
	reserved       = []string{"is_public", "location", "locations", "deleted", "deleted_at"}
	reservedPrefix = "os_glance"
)

// base tells whether name is a property of every image.
func base(name string) bool {
	switch name {
	case "name", "visibility", "disk_format", "container_format", "owner", "protected", "os_hidden", "min_disk", "min_ram", "tags":
		return true
	}
	return slices.Contains(readOnly, name)
}

func settable(name string) error {
	switch {
	case slices.Contains(readOnly, name):
		return fault.New(fault.Forbidden, "Attribute '%s' is read-only.", name)
	case slices.Contains(reserved, name) || strings.HasPrefix(name, reservedPrefix):
		return fault.New(fault.Forbidden, "Attribute '%s' is reserved.", name)
	}
	return nil
}

// set gives the image one property.
func set(img *model.Image, name string, raw json.RawMessage) error {
	if err := settable(name); err != nil {
		return err
	}
	switch name {
	case "name":
		return nullable(name, raw, &img.Name)
	case "disk_format":
		return nullable(name, raw, &img.DiskFormat)
	case "container_format":
		return nullable(name, raw, &img.ContainerFormat)
	case "owner":
		return typed(name, "string", raw, &img.ProjectID)
	case "visibility":
		return typed(name, "string", raw, &img.Visibility)
	case "protected":
		return typed(name, "boolean", raw, &img.Protected)
	case "os_hidden":
		return typed(name, "boolean", raw, &img.Hidden)
	case "min_disk":
		return number(name, raw, &img.MinDiskGiB)
	case "min_ram":
		return number(name, raw, &img.MinRAMMiB)
	case "tags":
		img.Tags = nil
		return typed(name, "array", raw, &img.Tags)
	}
	var v string
	if err := typed(name, "string", raw, &v); err != nil {
		return err
	}
	if img.Properties == nil {
		img.Properties = map[string]string{}
	}
	img.Properties[name] = v
	return nil
}

func wrongType(name, want string) error {
	return fault.New(fault.Invalid, "Provided object does not match schema 'image': '%s' is not of type '%s'.", name, want)
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

func typed(name, want string, raw json.RawMessage, v any) error {
	if isNull(raw) {
		return wrongType(name, want)
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return wrongType(name, want)
	}
	return nil
}

func nullable(name string, raw json.RawMessage, v *string) error {
	if string(raw) == "null" {
		*v = ""
		return nil
	}
	return typed(name, "string", raw, v)
}

// number takes whole numbers, written as JSON allows: 1, 1.0, 1e3.
func number(name string, raw json.RawMessage, v *int) error {
	var f float64
	if err := typed(name, "integer", raw, &f); err != nil {
		return err
	}
	if f != math.Trunc(f) {
		return wrongType(name, "integer")
	}
	if f < 0 || f > math.MaxInt32 {
		return fault.New(fault.Invalid, "Provided object does not match schema 'image': '%s' is not between 0 and %d.", name, math.MaxInt32)
	}
	*v = int(f)
	return nil
}

func (s *service) create(c *api.Context) error {
	var body map[string]json.RawMessage
	if err := c.Decode(&body); err != nil {
		return err
	}
	if body == nil {
		return fault.New(fault.Invalid, "Provided object does not match schema 'image': it is not of type 'object'.")
	}
	var want model.Image
	// In order of names, so that of several errors always the same is told.
	for _, name := range slices.Sorted(maps.Keys(body)) {
		var err error
		if name == "id" {
			err = typed(name, "string", body[name], &want.ID)
		} else {
			err = set(&want, name, body[name])
		}
		if err != nil {
			return err
		}
	}
	img, err := s.images.Create(c.R.Context(), caller(c), want)
	if err != nil {
		return err
	}
	c.W.Header().Set("Location", c.URL("/v2/images/"+img.ID))
	return c.JSON(http.StatusCreated, view(img))
}

func (s *service) show(c *api.Context) error {
	img, err := s.images.Get(c.Snapshot(), caller(c), c.Param("id"))
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, view(img))
}

func (s *service) remove(c *api.Context) error {
	if err := s.images.Delete(c.R.Context(), caller(c), c.Param("id")); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

func (s *service) deactivate(c *api.Context) error {
	if err := s.images.Deactivate(c.R.Context(), caller(c), c.Param("id")); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

func (s *service) reactivate(c *api.Context) error {
	if err := s.images.Reactivate(c.R.Context(), caller(c), c.Param("id")); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

func (s *service) addTag(c *api.Context) error {
	if err := s.images.AddTag(c.R.Context(), caller(c), c.Param("id"), c.Param("tag")); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

func (s *service) removeTag(c *api.Context) error {
	if err := s.images.RemoveTag(c.R.Context(), caller(c), c.Param("id"), c.Param("tag")); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}
