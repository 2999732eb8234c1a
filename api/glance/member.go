package glance

import (
	"maps"
	"net/http"
	"slices"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
)

func memberView(image, project model.ID, m model.ImageMember) map[string]any {
	return map[string]any{
		"image_id": image, "member_id": project, "status": m.Status,
		"created_at": stamp(m.CreatedAt), "updated_at": stamp(m.UpdatedAt), "schema": "/v2/schemas/member",
	}
}

func (s *service) members(c *api.Context) error {
	id := c.Param("id")
	members, err := s.images.Members(c.Snapshot(), caller(c), id)
	if err != nil {
		return err
	}
	out := make([]map[string]any, 0, len(members))
	for _, p := range slices.Sorted(maps.Keys(members)) {
		out = append(out, memberView(id, p, members[p]))
	}
	return c.JSON(http.StatusOK, map[string]any{"members": out, "schema": "/v2/schemas/members"})
}

func (s *service) member(c *api.Context) error {
	id, project := c.Param("id"), c.Param("member")
	m, err := s.images.Member(c.Snapshot(), caller(c), id, project)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, memberView(id, project, m))
}

func (s *service) addMember(c *api.Context) error {
	var body struct {
		Member *string `json:"member"`
	}
	if err := c.Decode(&body); err != nil {
		return err
	}
	if body.Member == nil {
		return fault.New(fault.Invalid, "Member to be added not specified")
	}
	m, err := s.images.AddMember(c.R.Context(), caller(c), c.Param("id"), *body.Member)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, memberView(c.Param("id"), *body.Member, m))
}

func (s *service) setMember(c *api.Context) error {
	var body struct {
		Status *string `json:"status"`
	}
	if err := c.Decode(&body); err != nil {
		return err
	}
	if body.Status == nil {
		return fault.New(fault.Invalid, "Status not specified")
	}
	id, project := c.Param("id"), c.Param("member")
	m, err := s.images.SetMember(c.R.Context(), caller(c), id, project, *body.Status)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, memberView(id, project, m))
}

func (s *service) removeMember(c *api.Context) error {
	if err := s.images.RemoveMember(c.R.Context(), caller(c), c.Param("id"), c.Param("member")); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}
