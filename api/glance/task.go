package glance

import (
	"net/http"

	"yakumo/api"
	"yakumo/model"
)

func taskView(t *model.ImageTask) map[string]any {
	return map[string]any{
		"id": t.ID, "type": t.Type, "status": t.Status, "owner": t.ProjectID, "input": t.Input, "result": nil,
		"message": t.Message, "created_at": stamp(t.CreatedAt), "updated_at": stamp(t.UpdatedAt), "expires_at": stamp(t.ExpiresAt),
		"self": "/v2/tasks/" + t.ID, "schema": "/v2/schemas/task",
	}
}

func (s *service) tasks(c *api.Context) error {
	q := c.Query()
	limit, err := parseLimit(q)
	if err != nil {
		return err
	}
	rows := s.images.Tasks(c.Snapshot(), q.Get("type"), q.Get("status"))
	page, more, err := api.Cut(rows, api.Page{Limit: limit, Marker: q.Get("marker")}, func(t *model.ImageTask) string { return t.ID })
	if err != nil {
		return err
	}
	out := make([]map[string]any, 0, len(page))
	for _, t := range page {
		v := taskView(t)
		for _, detail := range []string{"input", "result", "message"} {
			delete(v, detail)
		}
		out = append(out, v)
	}
	body := map[string]any{"tasks": out, "first": link("/v2/tasks", q, ""), "schema": "/v2/schemas/tasks"}
	if more && len(page) > 0 {
		body["next"] = link("/v2/tasks", q, page[len(page)-1].ID)
	}
	return c.JSON(http.StatusOK, body)
}

func (s *service) addTask(c *api.Context) error {
	var body struct {
		Type  string         `json:"type"`
		Input map[string]any `json:"input"`
	}
	if err := c.Decode(&body); err != nil {
		return err
	}
	t, err := s.images.AddTask(c.R.Context(), caller(c), body.Type, body.Input)
	if err != nil {
		return err
	}
	c.W.Header().Set("Location", c.URL("/v2/tasks/"+t.ID))
	return c.JSON(http.StatusCreated, taskView(t))
}

func (s *service) task(c *api.Context) error {
	t, err := s.images.Task(c.Snapshot(), c.Param("id"))
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, taskView(t))
}
