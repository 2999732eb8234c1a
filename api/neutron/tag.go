package neutron

import (
	"net/http"
	"slices"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/network"
	"yakumo/store"
)

func (d *dialect) tagRoutes(kind network.Tagged) []api.Route {
	all := "/v2.0/" + string(kind) + "/{id}/tags"
	one := all + "/{tag}"
	// change replaces the tags by what f makes of them.
	change := func(c *api.Context, f func(have []string) ([]string, error)) ([]string, error) {
		sc, id := scope(c), c.Param("id")
		var tags []string
		_, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
			have, err := d.net.Tags(tx, sc, kind, id)
			if err != nil {
				return err
			}
			if tags, err = f(slices.Clone(have)); err != nil {
				return err
			}
			slices.Sort(tags)
			tags = slices.Compact(tags)
			if slices.Equal(tags, have) {
				return nil
			}
			return d.net.SetTags(tx, sc, kind, id, tags)
		})
		return tags, err
	}
	missing := func(tag string) error {
		return fault.Coded(fault.NotFound, "TagNotFound", "Tag %s could not be found.", tag)
	}
	show := func(c *api.Context, tags []string) error {
		if tags == nil {
			tags = []string{}
		}
		return c.JSON(http.StatusOK, map[string]any{"tags": tags})
	}
	return []api.Route{
		{Method: http.MethodGet, Pattern: all, Access: api.Reader, Handle: func(c *api.Context) error {
			tags, err := d.net.Tags(c.Snapshot(), scope(c), kind, c.Param("id"))
			if err != nil {
				return err
			}
			return show(c, tags)
		}},
		{Method: http.MethodPut, Pattern: all, Access: api.Member, Handle: func(c *api.Context) error {
			var body struct {
				Tags *[]string `json:"tags"`
			}
			if err := c.Decode(&body); err != nil {
				return err
			}
			if body.Tags == nil {
				return badRequest("Invalid tags body")
			}
			tags, err := change(c, func([]string) ([]string, error) { return slices.Clone(*body.Tags), nil })
			if err != nil {
				return err
			}
			return show(c, tags)
		}},
		{Method: http.MethodDelete, Pattern: all, Access: api.Member, Handle: func(c *api.Context) error {
			if _, err := change(c, func([]string) ([]string, error) { return nil, nil }); err != nil {
				return err
			}
			return c.Empty(http.StatusNoContent)
		}},
		{Method: http.MethodGet, Pattern: one, Access: api.Reader, Handle: func(c *api.Context) error {
			tags, err := d.net.Tags(c.Snapshot(), scope(c), kind, c.Param("id"))
			if err != nil {
				return err
			}
			if !slices.Contains(tags, c.Param("tag")) {
				return missing(c.Param("tag"))
			}
			return c.Empty(http.StatusNoContent)
		}},
		{Method: http.MethodPut, Pattern: one, Access: api.Member, Handle: func(c *api.Context) error {
			if _, err := change(c, func(have []string) ([]string, error) { return append(have, c.Param("tag")), nil }); err != nil {
				return err
			}
			return c.Empty(http.StatusCreated)
		}},
		{Method: http.MethodDelete, Pattern: one, Access: api.Member, Handle: func(c *api.Context) error {
			tag := c.Param("tag")
			if _, err := change(c, func(have []string) ([]string, error) {
				i := slices.Index(have, tag)
				if i < 0 {
					return nil, missing(tag)
				}
				return slices.Delete(have, i, i+1), nil
			}); err != nil {
				return err
			}
			return c.Empty(http.StatusNoContent)
		}},
	}
}
