package volume

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// DefaultType is the name of the type that a cloud begins with.
const DefaultType = "__DEFAULT__"

// Bootstrap makes the type that a new cloud begins with: every volume has one. It is made once.
func (v *Volumes) Bootstrap(ctx context.Context) error {
	const made = "volume-types-made"
	_, err := v.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		if _, done := store.Settings.Get(tx, made); done {
			return nil
		}
		now := v.now()
		if err := store.VolumeTypes.Put(tx, &model.VolumeType{ID: model.NewID(), Name: DefaultType, Description: "Default Volume Type", Public: true, Default: true, CreatedAt: now, UpdatedAt: now}); err != nil {
			return err
		}
		return store.Settings.Put(tx, &model.Setting{Name: made, Value: []byte("1")})
	})
	return err
}

// MultiAttach tells whether volumes of the type may be used by several servers at once.
func MultiAttach(t *model.VolumeType) bool {
	f := strings.Fields(t.ExtraSpecs["multiattach"])
	return len(f) == 2 && f[0] == "<is>" && strings.EqualFold(f[1], "true")
}

// EngineOf gives the engine that the type names by volume_backend_name; "": none.
func EngineOf(t *model.VolumeType) string { return t.ExtraSpecs["volume_backend_name"] }

// TypeName gives the name of a type; "" where there is none.
func TypeName(r store.Reader, id model.ID) string {
	if t, ok := store.VolumeTypes.Get(r, id); ok && id != "" {
		return t.Name
	}
	return ""
}

// sees tells whether the scope may use the type.
func sees(sc Scope, t *model.VolumeType) bool {
	return t.Public || sc.Admin || slices.Contains(t.Access, sc.ProjectID)
}

// GetType gives a type that the scope may use.
func GetType(r store.Reader, sc Scope, id model.ID) (*model.VolumeType, error) {
	t, ok := store.VolumeTypes.Get(r, id)
	if !ok || !sees(sc, t) {
		return nil, fault.New(fault.NotFound, "Volume type %s could not be found.", clip(id))
	}
	return t, nil
}

// FindType gives a type by id or name.
func FindType(r store.Reader, sc Scope, name string) (*model.VolumeType, error) {
	if t, err := GetType(r, sc, name); err == nil {
		return t, nil
	}
	for t := range store.VolumeTypes.List(r, "name", name) {
		if sees(sc, t) {
			return t, nil
		}
	}
	return nil, fault.New(fault.NotFound, "Volume type with name %s could not be found.", clip(name))
}

// Default gives the type of volumes that ask for none; nil: there is none.
func Default(r store.Reader) *model.VolumeType {
	for t := range store.VolumeTypes.All(r) {
		if t.Default {
			return t
		}
	}
	return nil
}

// typeOf gives the type that a request names; "": the default, nil where there is none.
func (v *Volumes) typeOf(r store.Reader, sc Scope, name string) (*model.VolumeType, error) {
	if name == "" {
		return Default(r), nil
	}
	return FindType(r, sc, name)
}

// typeMark is what a new volume of a type marks, and removing the type guards.
func typeMark(id model.ID) string { return "volume-type," + id }

// TypeSpec is what a request says of a type; nil: it does not say.
type TypeSpec struct {
	Name, Description *string
	Public            *bool
	ExtraSpecs        map[string]string // of a new type
}

// CreateType makes a type.
//
// Errors: fault.Conflict where the name is taken, fault.Invalid.
func (v *Volumes) CreateType(tx *store.Tx, s TypeSpec) (*model.VolumeType, error) {
	now := v.now()
	t := &model.VolumeType{ID: model.NewID(), Public: true, ExtraSpecs: cloneMap(s.ExtraSpecs), CreatedAt: now, UpdatedAt: now}
	return t, v.putType(tx, t, s)
}

func (v *Volumes) putType(tx *store.Tx, t *model.VolumeType, s TypeSpec) error {
	if s.Name != nil {
		t.Name = strings.TrimSpace(*s.Name)
	}
	if s.Description != nil {
		t.Description = *s.Description
	}
	if s.Public != nil {
		t.Public = *s.Public
	}
	if t.Name == "" {
		return fault.New(fault.Invalid, "Volume type name can not be empty.")
	}
	if err := checkSpecs(t.ExtraSpecs); err != nil {
		return err
	}
	t.UpdatedAt = v.now()
	return typeTaken(store.VolumeTypes.Put(tx, t), t.Name)
}

// checkSpecs refuses more extra specs than a row holds. A volume_backend_name that no host has is allowed, as in Cinder: volumes of
// such a type find no host.
func checkSpecs(specs map[string]string) error {
	if len(specs) > MaxMetadata {
		return fault.New(fault.Invalid, "Invalid input received: a volume type has at most %d extra specs.", MaxMetadata)
	}
	return nil
}

func typeTaken(err error, name string) error {
	var taken *store.TakenError
	if errors.As(err, &taken) {
		return fault.New(fault.Conflict, "Volume Type %s already exists.", clip(name))
	}
	return err
}

// changeType lets f change a type.
func (v *Volumes) changeType(tx *store.Tx, id model.ID, f func(*model.VolumeType) error) (*model.VolumeType, error) {
	old, err := GetType(tx, Scope{Admin: true}, id)
	if err != nil {
		return nil, err
	}
	t := *old
	t.Access, t.ExtraSpecs = slices.Clone(old.Access), maps.Clone(old.ExtraSpecs)
	if err := f(&t); err != nil {
		return nil, err
	}
	return &t, v.putType(tx, &t, TypeSpec{})
}

// UpdateType changes a type.
func (v *Volumes) UpdateType(tx *store.Tx, id model.ID, s TypeSpec) (*model.VolumeType, error) {
	return v.changeType(tx, id, func(t *model.VolumeType) error {
		if s.Name != nil && strings.TrimSpace(*s.Name) == "" {
			return fault.New(fault.Invalid, "Volume type name can not be empty.")
		}
		if t.Default && s.Public != nil && !*s.Public {
			return fault.New(fault.Invalid, "The default volume type is open to all.")
		}
		return v.putType(tx, t, s)
	})
}

// SetSpecs lets f make the new extra specs of a type from the old, which it may change.
func (v *Volumes) SetSpecs(tx *store.Tx, id model.ID, f func(map[string]string) (map[string]string, error)) (*model.VolumeType, error) {
	return v.changeType(tx, id, func(t *model.VolumeType) (err error) {
		before := *t
		before.ExtraSpecs = maps.Clone(t.ExtraSpecs)
		if t.ExtraSpecs, err = remade(t.ExtraSpecs, f); err != nil {
			return err
		}
		// Volumes have an engine, and are shared or not, for their life.
		if EngineOf(&before) != EngineOf(t) || MultiAttach(&before) != MultiAttach(t) {
			return v.unused(tx, t.ID, fault.New(fault.Invalid, "Volume Type is currently in use."))
		}
		return nil
	})
}

// unused gives the refusal where volumes of the type exist.
func (v *Volumes) unused(tx *store.Tx, id model.ID, refusal error) error {
	tx.Guard(typeMark(id))
	for range store.Volumes.List(tx, "type", id) {
		return refusal
	}
	return nil
}

// DeleteType removes a type that no volume is of.
func (v *Volumes) DeleteType(tx *store.Tx, id model.ID) error {
	t, err := GetType(tx, Scope{Admin: true}, id)
	if err != nil {
		return err
	}
	if t.Default {
		return fault.New(fault.Invalid, "The volume type %s is the only default volume type and cannot be deleted.", t.ID)
	}
	if err := v.unused(tx, id, fault.New(fault.Invalid, "Target volume type is still in use.")); err != nil {
		return err
	}
	tx.Unmark(typeMark(id))
	return store.VolumeTypes.Delete(tx, id)
}

// AddAccess lets a project use a type that is not public; RemoveAccess undoes it.
//
// Errors: fault.Conflict where it may or may not already, as Cinder answers; for a public one.
func (v *Volumes) AddAccess(tx *store.Tx, id, project model.ID) error {
	_, err := v.changeType(tx, id, func(t *model.VolumeType) error {
		switch {
		case t.Public:
			return fault.New(fault.Conflict, "Invalid volume type: Type access modification is not applicable to public volume type.")
		case slices.Contains(t.Access, project):
			return fault.New(fault.Conflict, "Volume type access for %s / %s combination already exists.", id, clip(project))
		}
		t.Access = append(t.Access, project)
		return nil
	})
	return err
}

// RemoveAccess undoes AddAccess.
func (v *Volumes) RemoveAccess(tx *store.Tx, id, project model.ID) error {
	_, err := v.changeType(tx, id, func(t *model.VolumeType) error {
		at := slices.Index(t.Access, project)
		switch {
		case t.Public:
			return fault.New(fault.Conflict, "Invalid volume type: Type access modification is not applicable to public volume type.")
		case at < 0:
			return fault.New(fault.NotFound, "Volume type access not found for %s / %s combination.", id, clip(project))
		}
		t.Access = slices.Delete(t.Access, at, at+1)
		return nil
	})
	return err
}
