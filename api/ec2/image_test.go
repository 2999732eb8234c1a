package ec2_test

import (
	"strings"
	"testing"
	"time"

	"yakumo/api/apitest"
	"yakumo/model"
	"yakumo/store"
)

// image puts an image that is there into the store and gives EC2's id of it.
func (c *cloud) image(project model.ID, name, visibility string) (string, *model.Image) {
	c.t.Helper()
	img := &model.Image{Meta: model.NewMeta(project, name, time.Now()), Status: model.ImageActive, Visibility: visibility, DiskFormat: "qcow2", ContainerFormat: "bare",
		Size: 1000, VirtualSize: 64 << 20, BlobID: model.NewID(), HashAlgo: "sha512", HashValue: "00", Properties: map[string]string{"hw_disk_bus": "virtio", "team": "x"}}
	c.update(func(tx *store.Tx) error { return store.Images.Put(tx, img) })
	return ec2ID("ami", img.ID), img
}

type listedImage struct {
	ID     string   `xml:"imageId"`
	Name   string   `xml:"name"`
	State  string   `xml:"imageState"`
	Owner  string   `xml:"imageOwnerId"`
	Public bool     `xml:"isPublic"`
	Says   string   `xml:"description"`
	Tags   []string `xml:"tagSet>item>key"`
}

func (c *cloud) images(caller string, params ...string) (out []listedImage) {
	c.t.Helper()
	var body struct {
		Of []listedImage `xml:"imagesSet>item"`
	}
	c.must(&body, caller, "DescribeImages", params...)
	return body.Of
}

func TestImages(t *testing.T) {
	c := running(t)
	c.image(apitest.Staff, "public", model.VisibilityPublic)
	hidden, _ := c.image(blue, "blue's", model.VisibilityPrivate)
	mine, _ := c.image(red, "mine", model.VisibilityPrivate)
	if got := c.images("red-reader"); len(got) != 2 {
		t.Errorf("%+v", got)
	}
	if got := c.images("red", "Owner.1", "self"); len(got) != 1 || got[0].ID != mine || got[0].State != "available" || got[0].Public || strings.Join(got[0].Tags, " ") != "team" {
		t.Errorf("%+v", got)
	}
	for filter, n := range map[string]int{"name=m*": 1, "is-public=true": 1, "owner-id=" + red: 1, "state=pending": 0, "tag:team=x": 2, "architecture=x86_64": 2, "root-device-type=ebs": 0} {
		name, value, _ := strings.Cut(filter, "=")
		if got := c.images("red", "Filter.1.Name", name, "Filter.1.Value.1", value); len(got) != n {
			t.Errorf("%s: %+v", filter, got)
		}
	}

	// Who may use it.
	permissions := func() string {
		_, body := c.call("red", "DescribeImageAttribute", "ImageId", mine, "Attribute", "launchPermission")
		_, body, _ = strings.Cut(body, "<launchPermission>")
		body, _, _ = strings.Cut(body, "</launchPermission>")
		return body
	}
	c.refused(400, "InvalidAMIID.NotFound", "blue", "DescribeImages", "ImageId.1", mine)
	c.must(nil, "red", "ModifyImageAttribute", "ImageId", mine, "LaunchPermission.Add.1.UserId", blue)
	if got := c.images("blue", "ExecutableBy.1", "self"); len(got) != 1 || got[0].ID != mine || permissions() != "<item><userId>"+blue+"</userId></item>" {
		t.Errorf("%+v %s", got, permissions())
	}
	c.refused(403, "AuthFailure", "blue", "DeregisterImage", "ImageId", mine)
	c.refused(403, "AuthFailure", "blue", "CreateTags", "ResourceId.1", mine, "Tag.1.Key", "a", "Tag.1.Value", "b")
	c.must(nil, "red", "ModifyImageAttribute", "ImageId", mine, "Attribute", "launchPermission", "OperationType", "remove", "UserId.1", blue)
	c.must(nil, "red", "ModifyImageAttribute", "ImageId", mine, "Attribute", "launchPermission", "OperationType", "add", "UserGroup.1", "all")
	if got := c.images("green", "Owner.1", red); len(got) != 1 || !got[0].Public || permissions() != "<item><group>all</group></item>" {
		t.Errorf("%+v %s", got, permissions())
	}
	c.must(nil, "red", "ResetImageAttribute", "ImageId", mine, "Attribute", "launchPermission")
	c.must(nil, "red", "ModifyImageAttribute", "ImageId", mine, "Description.Value", "well")
	if got := c.images("red", "ImageId.1", mine); got[0].Public || got[0].Says != "well" || permissions() != "" {
		t.Errorf("%+v %s", got, permissions())
	}
	c.refused(400, "InvalidAMIAttributeItemValue", "red", "ModifyImageAttribute", "ImageId", mine, "LaunchPermission.Add.1.Group", "some")
	c.refused(400, "UnsupportedOperation", "red", "ModifyImageAttribute", "ImageId", mine)

	// Tags are properties; what says what an image is, is none.
	c.must(nil, "red", "CreateTags", "ResourceId.1", mine, "Tag.1.Key", "Name", "Tag.1.Value", "my image")
	c.must(nil, "red", "DeleteTags", "ResourceId.1", mine, "Tag.1.Key", "team")
	if got := c.images("red", "Filter.1.Name", "tag:Name", "Filter.1.Value.1", "my*"); len(got) != 1 || strings.Join(got[0].Tags, " ") != "Name" || got[0].Name != "mine" {
		t.Errorf("%+v", got)
	}
	c.refused(400, "InvalidParameterValue", "red", "CreateTags", "ResourceId.1", mine, "Tag.1.Key", "hw_disk_bus", "Tag.1.Value", "ide")
	for img := range store.Images.List(c.store.Snapshot(), "project", red) {
		if img.Properties["hw_disk_bus"] != "virtio" {
			t.Errorf("%+v", img.Properties)
		}
	}

	// One of an instance.
	i := c.guest(red)
	var made struct {
		ID string `xml:"imageId"`
	}
	c.refused(400, "InvalidAMIName.Duplicate", "red", "CreateImage", "InstanceId", i, "Name", "mine")
	c.refused(400, "InvalidAMIName.Malformed", "red", "CreateImage", "InstanceId", i, "Name", "x")
	c.refused(400, "UnsupportedOperation", "red", "CreateImage", "InstanceId", i, "Name", "backup", "NoReboot", "false")
	c.must(&made, "red", "CreateImage", "InstanceId", i, "Name", "backup", "NoReboot", "true", "Description", "before", "TagSpecification.1.ResourceType", "image",
		"TagSpecification.1.Tag.1.Key", "of", "TagSpecification.1.Tag.1.Value", "guest")
	c.eventually("the image is there", func() bool { return c.images("red", "ImageId.1", made.ID)[0].State == "available" })
	if got := c.images("red", "Filter.1.Name", "tag:of", "Filter.1.Value.1", "guest"); len(got) != 1 || got[0].Says != "before" || got[0].Name != "backup" {
		t.Errorf("%+v", got)
	}
	c.must(nil, "red", "DeregisterImage", "ImageId", made.ID)
	c.refused(400, "InvalidAMIID.NotFound", "red", "DescribeImages", "ImageId.1", made.ID)
	c.refused(400, "InvalidAMIID.Malformed", "red", "DescribeImages", "ImageId.1", "ami-1")
	c.refused(400, "InvalidAMIID.NotFound", "red", "DeregisterImage", "ImageId", hidden)
	if text := c.refused(400, "UnsupportedOperation", "red", "RegisterImage", "Name", "x"); !strings.Contains(text, "openstack image create") {
		t.Error(text)
	}
}

func TestInstanceTypes(t *testing.T) {
	c := running(t)
	c.update(func(tx *store.Tx) error {
		for _, f := range []*model.Flavor{{ID: "1", Name: "m1.tiny", VCPUs: 1, MemoryMiB: 512, DiskGiB: 1, Public: true}, {ID: "2", Name: "m1.large", VCPUs: 4, MemoryMiB: 8192, Public: true},
			{ID: "3", Name: "private", VCPUs: 4, MemoryMiB: 8192, Access: []string{blue}}} {
			if err := store.Flavors.Put(tx, f); err != nil {
				return err
			}
		}
		return nil
	})
	types := func(caller string, params ...string) string {
		var body struct {
			Names []string `xml:"instanceTypeSet>item>instanceType"`
		}
		c.must(&body, caller, "DescribeInstanceTypes", params...)
		return strings.Join(body.Names, " ")
	}
	if got := types("red") + ", " + types("blue") + ", " + types("red", "Filter.1.Name", "vcpu-info.default-vcpus", "Filter.1.Value.1", "4"); got != "m1.large m1.tiny, m1.large m1.tiny private, m1.large" {
		t.Error(got)
	}
	if _, body := c.call("red", "DescribeInstanceTypes", "InstanceType.1", "m1.tiny"); !strings.Contains(body, "<supportedArchitectures><item>x86_64</item></supportedArchitectures>") ||
		!strings.Contains(body, "<sizeInMiB>512</sizeInMiB>") {
		t.Error(body)
	}
	c.refused(400, "InvalidInstanceType", "red", "DescribeInstanceTypes", "InstanceType.1", "private")
	if _, body := c.call("red", "DescribeInstanceTypeOfferings", "LocationType", "availability-zone", "Filter.1.Name", "instance-type", "Filter.1.Value.1", "m1.tiny"); strings.Count(body, "<location>nova</location>") != 1 {
		t.Error(body)
	}
	if _, body := c.call("red", "DescribeAccountAttributes", "AttributeName.1", "max-instances"); !strings.Contains(body, "<attributeValue>10</attributeValue>") {
		t.Error(body)
	}
	c.refused(400, "InvalidParameterValue", "red", "DescribeAccountAttributes", "AttributeName.1", "colour")
}
