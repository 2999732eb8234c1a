package ec2

import (
	"slices"
	"strconv"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
	"yakumo/volume"
)

func (d *dialect) snapshotOperations(add adder) {
	add("CreateSnapshot", api.Member, d.createSnapshot, "VolumeId", "Description", "TagSpecification")
	add("DescribeSnapshots", api.Reader, d.describeSnapshots, "SnapshotId", "Owner", "RestorableBy", "Filter", "MaxResults", "NextToken")
	add("DeleteSnapshot", api.Member, d.deleteSnapshot, "SnapshotId")
}

type snapshotShown struct {
	ID          string   `xml:"snapshotId"`
	Volume      string   `xml:"volumeId"`
	Status      string   `xml:"status"`
	Message     string   `xml:"statusMessage,omitempty"`
	Started     string   `xml:"startTime"`
	Progress    string   `xml:"progress"`
	Owner       string   `xml:"ownerId"`
	Size        int      `xml:"volumeSize"`
	Description string   `xml:"description"`
	Encrypted   bool     `xml:"encrypted"`
	Tags        set[tag] `xml:"tagSet"`
}

// snapshotState gives EC2's word for a snapshot's state.
func snapshotState(s *model.VolumeSnapshot) string {
	switch s.State {
	case volume.Creating:
		return "pending"
	case volume.Errored, volume.ErrorDeleting:
		return "error"
	}
	return "completed"
}

func showSnapshot(s *model.VolumeSnapshot) snapshotShown {
	out := snapshotShown{ID: snapshotID.id(s.ID), Volume: volumeID.id(s.VolumeID), Status: snapshotState(s), Started: stamp(s.CreatedAt), Progress: "100%", Owner: s.ProjectID,
		Size: s.SizeGiB, Description: s.Description, Tags: tagSet(tagged(&s.Meta, s.Metadata))}
	if out.Status == "pending" {
		out.Progress = "0%"
	}
	if s.Fault != nil {
		out.Message = s.Fault.Message
	}
	return out
}

// snapshotOf gives the caller's snapshot. One that is on its way out is there no more, as in EC2.
func (q *request) snapshotOf(r store.Reader, id string) (*model.VolumeSnapshot, error) {
	return find(r, store.VolumeSnapshots, snapshotID, id, func(s *model.VolumeSnapshot) bool { return q.mine(s.ProjectID) && !s.Deleted })
}

func (d *dialect) createSnapshot(q *request) (any, error) {
	id, err := q.must("VolumeId")
	if err != nil {
		return nil, err
	}
	description := q.str("Description")
	if len(description) > 255 {
		return nil, badValue("The description has at most 255 bytes.")
	}
	tags, err := q.tagSpec("snapshot")
	if err != nil {
		return nil, err
	}
	name, metadata := named(tags)
	var out snapshotShown
	err = q.update(func(tx *store.Tx) error {
		v, err := q.volumeOf(tx, id)
		if err != nil {
			return err
		}
		s, err := d.vols.CreateSnapshot(tx, q.volumeScope(), volume.NewSnapshot{VolumeID: v.ID, Name: name, Description: description, Metadata: metadata, Force: true})
		if err != nil {
			return recoding{fault.Invalid: "IncorrectState", fault.OverQuota: "SnapshotLimitExceeded"}.of(err)
		}
		out = showSnapshot(s)
		return nil
	})
	return out, err
}

func (d *dialect) describeSnapshots(q *request) (any, error) {
	filters, err := q.filters("snapshot-id", "volume-id", "status", "volume-size", "description", "owner-id", "start-time", "progress", "encrypted", "tag-key", "tag:")
	if err != nil {
		return nil, err
	}
	ids := q.strs("SnapshotId")
	var rows []*model.VolumeSnapshot
	for _, id := range ids {
		s, err := q.snapshotOf(q.Snapshot(), id)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(rows, s) {
			rows = append(rows, s)
		}
	}
	if len(ids) == 0 {
		for s := range store.VolumeSnapshots.List(q.Snapshot(), "project", q.Caller.ProjectID) {
			if !s.Deleted {
				rows = append(rows, s)
			}
		}
	}
	// Snapshots are shown to their project alone: of others' there are none.
	owners := append(q.strs("Owner"), q.strs("RestorableBy")...)
	if len(owners) > 0 && !slices.ContainsFunc(owners, func(o string) bool { return o == "self" || o == q.Caller.ProjectID }) {
		rows = nil
	}
	var all []snapshotShown
	for _, s := range rows {
		x := showSnapshot(s)
		if passes(filters, func(name string) []string {
			one := map[string]string{"snapshot-id": x.ID, "volume-id": x.Volume, "status": x.Status, "volume-size": strconv.Itoa(x.Size), "description": x.Description,
				"owner-id": x.Owner, "start-time": x.Started, "progress": x.Progress, "encrypted": "false"}
			if v, ok := one[name]; ok {
				return []string{v}
			}
			return tagValues(name, tagged(&s.Meta, s.Metadata))
		}) {
			all = append(all, x)
		}
	}
	var body struct {
		Snapshots set[snapshotShown] `xml:"snapshotSet"`
		Next      string             `xml:"nextToken,omitempty"`
	}
	body.Snapshots.Items, body.Next, err = paged(q, all, func(s snapshotShown) string { return s.ID })
	return body, err
}

func (d *dialect) deleteSnapshot(q *request) (any, error) {
	id, err := q.must("SnapshotId")
	if err != nil {
		return nil, err
	}
	return done{true}, q.update(func(tx *store.Tx) error {
		s, err := q.snapshotOf(tx, id)
		if err != nil {
			return err
		}
		return recoding{fault.Invalid: "IncorrectState", fault.Conflict: "InvalidSnapshot.InUse"}.of(d.vols.DeleteSnapshot(tx, q.volumeScope(), s.ID, false))
	})
}
