package images

import (
	"context"
	"fmt"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Members gives the members of a shared image by project id: all of them to its owner, to
// a member only itself.
//
// Errors: fault.NotFound where the caller does not see the image; fault.Forbidden where it
// is not a shared one.
func (m *Images) Members(r store.Reader, by Caller, id model.ID) (map[model.ID]model.ImageMember, error) {
	img, err := m.Get(r, by, id)
	if err != nil {
		return nil, err
	}
	if img.Visibility != model.VisibilityShared {
		return nil, fault.New(fault.Forbidden, "Only shared images have members.")
	}
	if by.owns(img) {
		return img.Members, nil
	}
	return map[model.ID]model.ImageMember{by.ProjectID: img.Members[by.ProjectID]}, nil
}

// AddMember offers a shared image to a project, which may then see it, and accept it.
//
// Errors: fault.NotFound; fault.Forbidden; fault.Conflict where the project is a member
// already; fault.TooLarge.
func (m *Images) AddMember(ctx context.Context, by Caller, id, project model.ID) (model.ImageMember, error) {
	var out model.ImageMember
	err := m.changeMembers(ctx, func(tx *store.Tx) (*model.Image, error) {
		img, err := m.owned(tx, by, id, "add_member")
		switch {
		case err != nil:
			return nil, err
		case img.Visibility != model.VisibilityShared:
			return nil, fault.New(fault.Forbidden, "Only shared images have members.")
		case project == "" || tooLong(project):
			return nil, fault.New(fault.Invalid, "Member can't be empty")
		}
		if _, twice := img.Members[project]; twice {
			return nil, fault.New(fault.Conflict, "Image member %s already associated with image %s", project, id)
		}
		if len(img.Members) >= maxMembers {
			return nil, fault.New(fault.TooLarge, "The limit has been exceeded on the number of allowed image members for this image. Attempted: %d, Maximum: %d", len(img.Members)+1, maxMembers)
		}
		now := m.cfg.Now().UTC()
		out = model.ImageMember{Status: model.MemberPending, CreatedAt: now, UpdatedAt: now}
		return withMember(img, project, &out), nil
	})
	if err != nil {
		return out, fmt.Errorf("add image member: %w", err)
	}
	return out, nil
}

// SetMember records a member's answer, which only that project (or an administrator) may
// give: the owner of an image must not fill the lists of others.
//
// Errors: fault.Invalid for an unknown status; fault.NotFound; fault.Forbidden.
func (m *Images) SetMember(ctx context.Context, by Caller, id, project model.ID, status string) (model.ImageMember, error) {
	var out model.ImageMember
	switch status {
	case model.MemberPending, model.MemberAccepted, model.MemberRejected:
	default:
		return out, fault.New(fault.Invalid, "Incorrect member status '%s': it is one of pending, accepted, rejected.", status)
	}
	err := m.changeMembers(ctx, func(tx *store.Tx) (*model.Image, error) {
		img, old, err := m.member(tx, by, id, project)
		if err != nil {
			return nil, err
		}
		if !by.Admin && by.ProjectID != project {
			return nil, fault.New(fault.Forbidden, "You are not permitted to modify 'status' on this image member.")
		}
		out = model.ImageMember{Status: status, CreatedAt: old.CreatedAt, UpdatedAt: m.cfg.Now().UTC().Truncate(time.Microsecond)}
		return withMember(img, project, &out), nil
	})
	if err != nil {
		return out, fmt.Errorf("set image member: %w", err)
	}
	return out, nil
}

// RemoveMember takes an offer back; only the owner of the image may.
func (m *Images) RemoveMember(ctx context.Context, by Caller, id, project model.ID) error {
	err := m.changeMembers(ctx, func(tx *store.Tx) (*model.Image, error) {
		img, _, err := m.member(tx, by, id, project)
		if err != nil {
			return nil, err
		}
		if !by.owns(img) {
			return nil, fault.New(fault.Forbidden, "You are not authorized to complete delete_member action.")
		}
		return withMember(img, project, nil), nil
	})
	if err != nil {
		return fmt.Errorf("remove image member: %w", err)
	}
	return nil
}

// Member gives one member; to a project that is not the owner, only itself.
func (m *Images) Member(r store.Reader, by Caller, id, project model.ID) (model.ImageMember, error) {
	_, mem, err := m.member(r, by, id, project)
	return mem, err
}

func (m *Images) member(r store.Reader, by Caller, id, project model.ID) (*model.Image, model.ImageMember, error) {
	members, err := m.Members(r, by, id)
	if err != nil {
		return nil, model.ImageMember{}, err
	}
	mem, ok := members[project]
	if !ok {
		return nil, mem, fault.New(fault.NotFound, "%s not found in the member list of the image %s.", project, id)
	}
	img, _ := store.Images.Get(r, id)
	return img, mem, nil
}

func (m *Images) changeMembers(ctx context.Context, f func(*store.Tx) (*model.Image, error)) error {
	_, err := m.st.Update(ctx, func(tx *store.Tx) error {
		img, err := f(tx)
		if err != nil {
			return err
		}
		return store.Images.Put(tx, img)
	})
	return err
}

// withMember gives a copy of the image with the member set, or removed where mem is nil.
func withMember(old *model.Image, project model.ID, mem *model.ImageMember) *model.Image {
	img := clone(old)
	if img.Members == nil {
		img.Members = map[model.ID]model.ImageMember{}
	}
	if mem == nil {
		delete(img.Members, project)
	} else {
		img.Members[project] = *mem
	}
	return img
}
