package ec2_test

import (
	"fmt"
	"strings"
	"testing"
)

type shownVolume struct {
	ID          string `xml:"volumeId"`
	Size        int    `xml:"size"`
	Status      string `xml:"status"`
	Snapshot    string `xml:"snapshotId"`
	Type        string `xml:"volumeType"`
	Attachments []struct {
		Instance string `xml:"instanceId"`
		Device   string `xml:"device"`
		Status   string `xml:"status"`
	} `xml:"attachmentSet>item"`
	Tags []struct {
		Key   string `xml:"key"`
		Value string `xml:"value"`
	} `xml:"tagSet>item"`
}

// describe gives volumes as the caller sees them.
func (c *cloud) describe(caller string, params ...string) []shownVolume {
	c.t.Helper()
	var out struct {
		Volumes []shownVolume `xml:"volumeSet>item"`
	}
	c.must(&out, caller, "DescribeVolumes", params...)
	return out.Volumes
}

// until waits for a volume's status, and attachments in the state; "": none.
func (c *cloud) until(id, status, attachment string) shownVolume {
	c.t.Helper()
	var v shownVolume
	c.eventually(fmt.Sprintf("volume %s is %s, %q", id, status, attachment), func() bool {
		v = c.describe("red", "VolumeId.1", id)[0]
		if attachment == "" {
			return v.Status == status && len(v.Attachments) == 0
		}
		return v.Status == status && len(v.Attachments) == 1 && v.Attachments[0].Status == attachment
	})
	return v
}

func TestVolumes(t *testing.T) {
	c := running(t)
	var v shownVolume
	create := []string{"Size", "2", "AvailabilityZone", "nova", "ClientToken", "t1", "TagSpecification.1.ResourceType", "volume", "TagSpecification.1.Tag.1.Key", "Name", "TagSpecification.1.Tag.1.Value", "data",
		"TagSpecification.1.Tag.2.Key", "team", "TagSpecification.1.Tag.2.Value", "x"}
	c.must(&v, "red", "CreateVolume", create...)
	if !strings.HasPrefix(v.ID, "vol-") || v.Size != 2 || v.Type != "__DEFAULT__" {
		t.Errorf("%+v", v)
	}
	first := v.ID
	if c.must(&v, "red", "CreateVolume", create...); v.ID != first {
		t.Errorf("the same request made another volume: %s, %s", first, v.ID)
	}
	c.refused(400, "IdempotentParameterMismatch", "red", "CreateVolume", "Size", "3", "ClientToken", "t1")
	v = c.until(first, "available", "")
	if len(v.Tags) != 2 || v.Tags[0].Key != "Name" || v.Tags[0].Value != "data" || v.Tags[1].Value != "x" {
		t.Errorf("%+v", v.Tags)
	}
	for filter, n := range map[string]int{"status=available": 1, "status=in-use": 0, "tag:Name=da*": 1, "tag:Name=x": 0, "tag-key=team": 1, "size=2": 1, "availability-zone=nova": 1, "attachment.device=x": 0} {
		name, value, _ := strings.Cut(filter, "=")
		if got := c.describe("red", "Filter.1.Name", name, "Filter.1.Value.1", value); len(got) != n {
			t.Errorf("%s: %+v", filter, got)
		}
	}

	// A guest has it, and lets go of it.
	i := c.guest(red)
	var a struct{ Status, Instance, Device string }
	c.refused(400, "InvalidParameterValue", "red", "AttachVolume", "VolumeId", first, "InstanceId", i, "Device", "disk one")
	c.refused(412, "DryRunOperation", "red", "AttachVolume", "VolumeId", first, "InstanceId", i, "Device", "/dev/sdf", "DryRun", "true")
	c.must(&a, "red", "AttachVolume", "VolumeId", first, "InstanceId", i, "Device", "/dev/sdf")
	v = c.until(first, "in-use", "attached")
	if v.Attachments[0].Instance != i || v.Attachments[0].Device != "/dev/sdf" {
		t.Errorf("%+v", v)
	}
	if got := c.describe("red", "Filter.1.Name", "attachment.instance-id", "Filter.1.Value.1", i); len(got) != 1 {
		t.Errorf("%+v", got)
	}
	c.refused(400, "VolumeInUse", "red", "AttachVolume", "VolumeId", first, "InstanceId", i, "Device", "/dev/sdg")
	c.refused(400, "VolumeInUse", "red", "DeleteVolume", "VolumeId", first)
	var second shownVolume
	c.must(&second, "red", "CreateVolume", "Size", "1")
	c.until(second.ID, "available", "")
	c.refused(400, "InvalidParameterValue", "red", "AttachVolume", "VolumeId", second.ID, "InstanceId", i, "Device", "/dev/sdf")
	c.refused(400, "IncorrectState", "red", "DetachVolume", "VolumeId", second.ID)

	// Larger, while the guest has it.
	var m struct {
		State string `xml:"volumeModification>modificationState"`
		From  int    `xml:"volumeModification>originalSize"`
		To    int    `xml:"volumeModification>targetSize"`
	}
	c.must(&m, "red", "ModifyVolume", "VolumeId", first, "Size", "4")
	if m.State != "modifying" || m.From != 2 || m.To != 4 {
		t.Errorf("%+v", m)
	}
	c.eventually("the volume is larger", func() bool {
		var list struct {
			State string `xml:"volumeModificationSet>item>modificationState"`
		}
		c.must(&list, "red", "DescribeVolumesModifications", "VolumeId.1", first)
		return list.State == "completed"
	})
	c.refused(400, "InvalidParameterValue", "red", "ModifyVolume", "VolumeId", first, "Size", "3")
	c.refused(400, "UnknownVolumeType", "red", "ModifyVolume", "VolumeId", first, "VolumeType", "gold")

	// A snapshot of it meanwhile, and a volume of that.
	var s struct {
		ID     string `xml:"snapshotId"`
		Status string `xml:"status"`
		Owner  string `xml:"ownerId"`
	}
	c.must(&s, "red", "CreateSnapshot", "VolumeId", first, "Description", "before")
	if s.Status != "pending" || s.Owner != red {
		t.Errorf("%+v", s)
	}
	snapshots := func(caller string, params ...string) string {
		var list struct {
			Of []string `xml:"snapshotSet>item>status"`
		}
		c.must(&list, caller, "DescribeSnapshots", params...)
		return strings.Join(list.Of, " ")
	}
	c.eventually("the snapshot is there", func() bool { return snapshots("red", "SnapshotId.1", s.ID, "Owner.1", "self") == "completed" })
	if got := snapshots("red", "Owner.1", "amazon") + snapshots("blue"); got != "" {
		t.Errorf("%s", got)
	}
	c.refused(400, "InvalidParameterValue", "red", "CreateVolume", "SnapshotId", s.ID, "Size", "1")
	var copied shownVolume
	c.must(&copied, "red", "CreateVolume", "SnapshotId", s.ID)
	if copied = c.until(copied.ID, "available", ""); copied.Snapshot != s.ID || copied.Size != 4 {
		t.Errorf("%+v", copied)
	}

	c.must(nil, "red", "DetachVolume", "VolumeId", first)
	c.until(first, "available", "")
	c.refused(400, "DependencyViolation", "red", "DeleteVolume", "VolumeId", first)
	c.must(nil, "red", "DeleteSnapshot", "SnapshotId", s.ID)
	c.refused(400, "InvalidSnapshot.NotFound", "red", "DescribeSnapshots", "SnapshotId.1", s.ID)
	c.eventually("the volume goes", func() bool {
		c.call("red", "DeleteVolume", "VolumeId", first)
		code, body := c.call("red", "DescribeVolumes", "VolumeId.1", first)
		return code == 400 && strings.Contains(body, "InvalidVolume.NotFound")
	})

	// Pages.
	var page struct {
		IDs  []string `xml:"volumeSet>item>volumeId"`
		Next string   `xml:"nextToken"`
	}
	c.must(&page, "red", "DescribeVolumes", "MaxResults", "1")
	if len(page.IDs) != 1 || page.Next == "" {
		t.Fatalf("%+v", page)
	}
	seen := page.IDs[0]
	token := page.Next
	page.IDs, page.Next = nil, ""
	c.must(&page, "red", "DescribeVolumes", "MaxResults", "1", "NextToken", token)
	if len(page.IDs) != 1 || page.Next != "" || page.IDs[0] == seen {
		t.Errorf("%+v", page)
	}
	c.refused(400, "InvalidNextToken", "red", "DescribeVolumes", "NextToken", "x")
	if _, body := c.call("red", "DescribeVolumeStatus"); strings.Count(body, "<status>ok</status>") != 2 {
		t.Error(body)
	}
	if _, body := c.call("red", "DescribeVolumeAttribute", "VolumeId", second.ID, "Attribute", "autoEnableIO"); !strings.Contains(body, "<autoEnableIO><value>false</value>") {
		t.Error(body)
	}
}

func TestRightsOfVolumes(t *testing.T) {
	c := running(t)
	var v shownVolume
	var s struct {
		ID string `xml:"snapshotId"`
	}
	c.must(&v, "red", "CreateVolume", "Size", "1")
	c.until(v.ID, "available", "")
	c.must(&s, "red", "CreateSnapshot", "VolumeId", v.ID)
	i, theirs := c.guest(red), c.guest(blue)
	const size, gone = "2", "InvalidVolume.NotFound"
	for op, params := range map[string][]string{
		"DescribeVolumes": {"VolumeId.1", v.ID}, "DeleteVolume": {"VolumeId", v.ID}, "ModifyVolume": {"VolumeId", v.ID, "Size", size},
		"AttachVolume": {"VolumeId", v.ID, "InstanceId", theirs, "Device", "/dev/sdf"}, "DetachVolume": {"VolumeId", v.ID}, "CreateSnapshot": {"VolumeId", v.ID},
		"DescribeVolumesModifications": {"VolumeId.1", v.ID}, "DescribeVolumeStatus": {"VolumeId.1", v.ID}, "DescribeVolumeAttribute": {"VolumeId", v.ID, "Attribute", "autoEnableIO"},
	} {
		c.refused(400, gone, "blue", op, params...)
		if !strings.HasPrefix(op, "Describe") {
			c.refused(403, "UnauthorizedOperation", "red-reader", op, params...)
		}
	}
	c.refused(400, "InvalidInstanceID.NotFound", "red", "AttachVolume", "VolumeId", v.ID, "InstanceId", theirs, "Device", "/dev/sdf")
	c.refused(403, "UnauthorizedOperation", "red-reader", "CreateVolume", "Size", "1")
	c.refused(403, "UnauthorizedOperation", "red-reader", "DeleteSnapshot", "SnapshotId", s.ID)
	c.refused(400, "InvalidSnapshot.NotFound", "blue", "DeleteSnapshot", "SnapshotId", s.ID)
	c.refused(400, "InvalidSnapshot.NotFound", "blue", "DescribeSnapshots", "SnapshotId.1", s.ID)
	c.refused(400, "InvalidSnapshot.NotFound", "blue", "CreateVolume", "SnapshotId", s.ID)
	if len(c.describe("red-reader")) != 1 || len(c.describe("blue")) != 0 || len(c.describe("admin")) != 0 {
		t.Error("volumes are seen by others than their project")
	}

	// What is wrong changes nothing.
	for _, bad := range [][]string{
		{"InvalidParameterValue", "CreateVolume", "Size", "0"},
		{"InvalidParameterValue", "CreateVolume", "Size", "x"},
		{"MissingParameter", "CreateVolume"},
		{"InvalidZone.NotFound", "CreateVolume", "Size", "1", "AvailabilityZone", "moon"},
		{"UnknownVolumeType", "CreateVolume", "Size", "1", "VolumeType", "gold"},
		{"UnsupportedOperation", "CreateVolume", "Size", "1", "Encrypted", "true"},
		{"UnknownParameter", "CreateVolume", "Size", "1", "Iops", "100"},
		{"InvalidParameterValue", "CreateVolume", "Size", "1", "TagSpecification.1.ResourceType", "instance"},
		{"InvalidParameterValue", "CreateVolume", "Size", "1", "TagSpecification.1.ResourceType", "volume", "TagSpecification.1.Tag.1.Key", "aws:x"},
		{"VolumeLimitExceeded", "CreateVolume", "Size", "5000"},
		{"InvalidSnapshot.Malformed", "CreateVolume", "SnapshotId", "snap-1"},
		{"InvalidVolume.Malformed", "DeleteVolume", "VolumeId", "vol-xyz"},
		{"MissingParameter", "DeleteVolume"},
		{"MissingParameter", "AttachVolume", "VolumeId", v.ID, "InstanceId", i},
		{"UnsupportedOperation", "DetachVolume", "VolumeId", v.ID, "Force", "true"},
		{"InvalidParameterValue", "DescribeVolumeAttribute", "VolumeId", v.ID, "Attribute", "colour"},
		{"InvalidParameterValue", "DescribeVolumes", "MaxResults", "0"},
	} {
		c.refused(400, bad[0], "red", bad[1], bad[2:]...)
	}
	if got := c.describe("red"); len(got) != 1 || got[0].Size != 1 || got[0].Status != "available" {
		t.Errorf("%+v", got)
	}
}
