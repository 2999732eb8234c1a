package images

import (
	"context"
	"fmt"
	"maps"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// taskLife is how long a task is kept.
const taskLife = 48 * time.Hour

// AddTask records a task of the Image API. Tasks are how the API once asked a cloud to
// fetch an image from a place that the user names; a cloud must not make requests on its
// users' behalf into its own network, so every task fails, and says why.
func (m *Images) AddTask(ctx context.Context, by Caller, kind string, input map[string]any) (*model.ImageTask, error) {
	if kind != "import" {
		return nil, fault.New(fault.Invalid, "Invalid type of task: '%s'. Supported are: import.", kind)
	}
	for _, key := range []string{"import_from", "import_from_format", "image_properties"} {
		if _, ok := input[key]; !ok {
			return nil, fault.New(fault.Invalid, "Input does not contain '%s' field", key)
		}
	}
	now := m.cfg.Now().UTC()
	t := &model.ImageTask{
		Meta: model.NewMeta(by.ProjectID, "", now), Type: kind, Status: "failure", Input: maps.Clone(input),
		Message:   "This cloud does not fetch images from elsewhere. Create an image and upload its data.",
		ExpiresAt: now.Add(taskLife),
	}
	if _, err := m.st.Update(ctx, func(tx *store.Tx) error { return store.ImageTasks.Put(tx, t) }); err != nil {
		return nil, fmt.Errorf("add image task: %w", err)
	}
	return t, nil
}

// expireTasks removes tasks whose time is over, a hundred at a time.
func (m *Images) expireTasks(ctx context.Context, snap store.Snapshot) error {
	var old []model.ID
	for t := range store.ImageTasks.All(snap) {
		if t.ExpiresAt.Before(m.cfg.Now()) && len(old) < 100 {
			old = append(old, t.ID)
		}
	}
	if len(old) == 0 {
		return nil
	}
	_, err := m.st.Update(ctx, func(tx *store.Tx) error {
		for _, id := range old {
			if err := store.ImageTasks.Delete(tx, id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove expired image tasks: %w", err)
	}
	return nil
}

// Tasks gives the tasks of a type and a status, sorted by id; empty: any.
func (m *Images) Tasks(r store.Reader, kind, status string) []*model.ImageTask {
	var out []*model.ImageTask
	for t := range store.ImageTasks.All(r) {
		if (kind == "" || t.Type == kind) && (status == "" || t.Status == status) {
			out = append(out, t)
		}
	}
	return out
}

// Task gives one task.
func (m *Images) Task(r store.Reader, id model.ID) (*model.ImageTask, error) {
	t, ok := store.ImageTasks.Get(r, id)
	if !ok {
		return nil, fault.New(fault.NotFound, "No task found with ID %s", id)
	}
	return t, nil
}
