package volume

import (
	"errors"
	"maps"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// GetQoS gives QoS specs; only administrators see them.
func GetQoS(r store.Reader, id model.ID) (*model.VolumeQoS, error) {
	q, ok := store.VolumeQoS.Get(r, id)
	if !ok {
		return nil, fault.New(fault.NotFound, "No such qos_specs: QoS specs %s could not be found.", clip(id))
	}
	return q, nil
}

// CreateQoS makes QoS specs; the consumer is front-end, back-end or both.
func (v *Volumes) CreateQoS(tx *store.Tx, name, consumer string, specs map[string]string) (*model.VolumeQoS, error) {
	now := v.now()
	q := &model.VolumeQoS{ID: model.NewID(), Name: name, CreatedAt: now, Specs: cloneMap(specs)}
	return q, v.putQoS(tx, q, consumer)
}

func (v *Volumes) putQoS(tx *store.Tx, q *model.VolumeQoS, consumer string) error {
	switch consumer {
	case "":
	case "front-end", "back-end", "both":
		q.Consumer = consumer
	default:
		return fault.New(fault.Invalid, "Invalid qos specs: Valid consumer of QoS specs are: ['front-end', 'back-end', 'both']")
	}
	if q.Consumer == "" {
		q.Consumer = "back-end"
	}
	if len(q.Specs) > MaxMetadata {
		return fault.New(fault.Invalid, "Invalid qos specs: there are more than %d.", MaxMetadata)
	}
	if err := checkLimits(q); err != nil {
		return err
	}
	q.UpdatedAt = v.now()
	err := store.VolumeQoS.Put(tx, q)
	var taken *store.TakenError
	if errors.As(err, &taken) {
		return fault.New(fault.Conflict, "Qos Specs %s already exists.", clip(q.Name))
	}
	return err
}

// SetQoS lets f make the new specs from the old, which it may change; consumer "": as it is.
func (v *Volumes) SetQoS(tx *store.Tx, id model.ID, consumer string, f func(map[string]string) (map[string]string, error)) (*model.VolumeQoS, error) {
	old, err := GetQoS(tx, id)
	if err != nil {
		return nil, err
	}
	q := *old
	if q.Specs, err = remade(maps.Clone(old.Specs), f); err != nil {
		return nil, err
	}
	return &q, v.putQoS(tx, &q, consumer)
}

// DeleteQoS removes QoS specs; force takes them from the types that have them.
func (v *Volumes) DeleteQoS(tx *store.Tx, id model.ID, force bool) error {
	if _, err := GetQoS(tx, id); err != nil {
		return err
	}
	tx.Guard("volume-qos," + id)
	for t := range store.VolumeTypes.List(tx, "qos", id) {
		if !force {
			return fault.New(fault.Invalid, "Qos Specs %s is still associated with entities.", id)
		}
		if err := v.Associate(tx, id, t.ID, false); err != nil {
			return err
		}
	}
	tx.Unmark("volume-qos," + id)
	return store.VolumeQoS.Delete(tx, id)
}

// Associate gives a type the QoS specs, or takes them.
func (v *Volumes) Associate(tx *store.Tx, id, typeID model.ID, with bool) error {
	if _, err := GetQoS(tx, id); err != nil {
		return err
	}
	_, err := v.changeType(tx, typeID, func(t *model.VolumeType) error {
		switch {
		case with && t.QoSID != "" && t.QoSID != id:
			return fault.New(fault.Invalid, "Invalid volume type: Type %s is already associated with another qos specs: %s", t.ID, t.QoSID)
		case with:
			tx.Mark("volume-qos," + id)
			t.QoSID = id
		case t.QoSID == id:
			t.QoSID = ""
		}
		return nil
	})
	return err
}

// DisassociateAll takes the QoS specs from all types.
func (v *Volumes) DisassociateAll(tx *store.Tx, id model.ID) error {
	if _, err := GetQoS(tx, id); err != nil {
		return err
	}
	for t := range store.VolumeTypes.List(tx, "qos", id) {
		if err := v.Associate(tx, id, t.ID, false); err != nil {
			return err
		}
	}
	return nil
}
