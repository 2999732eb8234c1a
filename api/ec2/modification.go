package ec2

import (
	"cmp"
	"strconv"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
	"yakumo/volume"
)

// modification is a change of a volume's size or type. None is kept: what is shown is the one in progress, or that what was asked last is done.
type modification struct {
	Volume       string `xml:"volumeId"`
	State        string `xml:"modificationState"` // modifying, completed, failed
	Message      string `xml:"statusMessage,omitempty"`
	TargetSize   int    `xml:"targetSize"`
	TargetType   string `xml:"targetVolumeType"`
	OriginalSize int    `xml:"originalSize"`
	OriginalType string `xml:"originalVolumeType"`
	Progress     int    `xml:"progress"` // percent
	Started      string `xml:"startTime"`
	Ended        string `xml:"endTime,omitempty"`
}

func showModification(r store.Reader, v *model.Volume) modification {
	t := volume.TypeName(r, v.TypeID)
	m := modification{Volume: volumeID.id(v.ID), State: "completed", TargetSize: v.SizeGiB, OriginalSize: v.SizeGiB, TargetType: t, OriginalType: t, Progress: 100, Started: stamp(v.UpdatedAt)}
	switch v.Status.State {
	case volume.Extending:
		m.State, m.OriginalSize = "modifying", cmp.Or(v.Status.SizeGiB, v.SizeGiB)
	case volume.Retyping:
		m.State = "modifying"
		if v.Change != nil && v.Change.TypeID != "" {
			m.TargetType = volume.TypeName(r, v.Change.TypeID)
		}
	case volume.ErrorExtending:
		m.State, m.OriginalSize = "failed", cmp.Or(v.Status.SizeGiB, v.SizeGiB)
	default:
		if v.Status.Migration == volume.MigrationFailed {
			m.State = "failed"
		}
	}
	switch m.State {
	case "completed":
		m.Ended = m.Started
	default:
		m.Progress = 0
		if v.Status.Fault != nil {
			m.Message = v.Status.Fault.Message
		}
	}
	return m
}

func (d *dialect) modifyVolume(q *request) (any, error) {
	id, err := q.must("VolumeId")
	if err != nil {
		return nil, err
	}
	size, err := q.params.number("Size", 1, volume.MaxSizeGiB, 0)
	if err != nil {
		return nil, err
	}
	var body struct {
		Modification modification `xml:"volumeModification"`
	}
	err = q.update(func(tx *store.Tx) error {
		v, err := q.volumeOf(tx, id)
		if err != nil {
			return err
		}
		before := showModification(tx, v)
		if v.Status.State != volume.Available && v.Status.State != volume.InUse {
			code := "IncorrectState"
			if before.State == "modifying" {
				code = "IncorrectModificationState"
			}
			return fault.Coded(fault.Conflict, code, "Volume %s is in the state '%s' and cannot be modified.", id, v.Status.State)
		}
		retype := false
		var t *model.VolumeType
		if name := q.str("VolumeType"); name != "" {
			if t, err = q.volumeTypeOf(tx, name); err != nil {
				return err
			}
			retype = t.ID != v.TypeID
		}
		grow := size != 0 && size != v.SizeGiB
		switch {
		case grow && size < v.SizeGiB:
			return badValue("New size cannot be smaller than existing size")
		case grow && retype:
			return fault.Coded(fault.Invalid, "InvalidParameterCombination", "The size and the type of a volume are changed one after the other here, not at once.")
		case grow:
			v, err = d.vols.Extend(tx, q.volumeScope(), v.ID, size, true)
		case retype:
			v, err = d.vols.Retype(tx, q.volumeScope(), v.ID, t.ID, true)
		default:
			return fault.Coded(fault.Invalid, "InvalidParameterValue", "The volume %s has this size and type already.", id)
		}
		if err != nil {
			return recoding{fault.Invalid: "IncorrectState", fault.OverQuota: "VolumeLimitExceeded"}.of(err)
		}
		body.Modification = showModification(tx, v)
		body.Modification.OriginalSize, body.Modification.OriginalType = before.TargetSize, before.TargetType
		return nil
	})
	return body, err
}

func (d *dialect) describeModifications(q *request) (any, error) {
	filters, err := q.filters("volume-id", "modification-state", "target-size", "original-size", "target-volume-type", "original-volume-type", "start-time")
	if err != nil {
		return nil, err
	}
	r, ids := q.Snapshot(), q.strs("VolumeId")
	rows, err := chosen(q, r, store.Volumes, volumeID, ids, volumeProject)
	if err != nil {
		return nil, err
	}
	var all []modification
	for _, v := range rows {
		m := showModification(r, v)
		if len(ids) == 0 && m.State == "completed" {
			continue
		}
		if passes(filters, func(name string) []string {
			return []string{map[string]string{"volume-id": m.Volume, "modification-state": m.State, "target-size": strconv.Itoa(m.TargetSize), "original-size": strconv.Itoa(m.OriginalSize),
				"target-volume-type": m.TargetType, "original-volume-type": m.OriginalType, "start-time": m.Started}[name]}
		}) {
			all = append(all, m)
		}
	}
	var body struct {
		Modifications set[modification] `xml:"volumeModificationSet"`
		Next          string            `xml:"nextToken,omitempty"`
	}
	body.Modifications.Items, body.Next, err = paged(q, all, func(m modification) string { return m.Volume })
	return body, err
}

// health is what is told of a volume's state by DescribeVolumeStatus.
type health struct {
	Volume  string        `xml:"volumeId"`
	Zone    string        `xml:"availabilityZone"`
	Status  string        `xml:"volumeStatus>status"` // ok, impaired, insufficient-data
	Details []healthPoint `xml:"volumeStatus>details>item"`
	Events  struct{}      `xml:"eventsSet"`
	Actions struct{}      `xml:"actionsSet"`
}

type healthPoint struct {
	Name   string `xml:"name"`
	Status string `xml:"status"`
}

func (d *dialect) describeVolumeStatus(q *request) (any, error) {
	filters, err := q.filters("availability-zone", "volume-status.status", "volume-status.details-name", "volume-status.details-status")
	if err != nil {
		return nil, err
	}
	r := q.Snapshot()
	rows, err := chosen(q, r, store.Volumes, volumeID, q.strs("VolumeId"), volumeProject)
	if err != nil {
		return nil, err
	}
	var all []health
	for _, v := range rows {
		h := health{Volume: volumeID.id(v.ID), Zone: v.Zone, Status: "ok"}
		detail := "passed"
		switch volumeStatus(v) {
		case "creating":
			h.Status, detail = "insufficient-data", "not-applicable"
		case "error":
			h.Status, detail = "impaired", "failed"
		}
		h.Details = []healthPoint{{"io-enabled", detail}}
		if passes(filters, func(name string) []string {
			return []string{map[string]string{"availability-zone": h.Zone, "volume-status.status": h.Status, "volume-status.details-name": "io-enabled", "volume-status.details-status": detail}[name]}
		}) {
			all = append(all, h)
		}
	}
	var body struct {
		Volumes set[health] `xml:"volumeStatusSet"`
		Next    string      `xml:"nextToken,omitempty"`
	}
	body.Volumes.Items, body.Next, err = paged(q, all, func(h health) string { return h.Volume })
	return body, err
}

func (d *dialect) describeVolumeAttribute(q *request) (any, error) {
	id, err := q.must("VolumeId")
	if err != nil {
		return nil, err
	}
	if _, err := q.volumeOf(q.Snapshot(), id); err != nil {
		return nil, err
	}
	type value struct {
		Value bool `xml:"value"`
	}
	var body struct {
		Volume   string    `xml:"volumeId"`
		AutoIO   *value    `xml:"autoEnableIO"`
		Products *struct{} `xml:"productCodes"`
	}
	body.Volume = id
	switch q.str("Attribute") {
	case "autoEnableIO":
		body.AutoIO = &value{}
	case "productCodes":
		body.Products = &struct{}{}
	case "":
		return nil, missing("Attribute")
	default:
		return nil, badValue("Value (%s) for parameter attribute is invalid. Unknown attribute.", q.str("Attribute"))
	}
	return body, nil
}
