package ec2

import (
	"cmp"
	"encoding/json"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/images"
	"yakumo/launch"
	"yakumo/model"
	"yakumo/store"
)

func (d *dialect) imageOperations(add adder) {
	add("DescribeImages", api.Reader, d.describeImages, "ImageId", "Owner", "ExecutableBy", "Filter", "IncludeDeprecated", "MaxResults", "NextToken")
	add("CreateImage", api.Member, d.createImage, "InstanceId", "Name", "Description", "NoReboot", "TagSpecification")
	add("DeregisterImage", api.Member, d.deregisterImage, "ImageId")
	add("RegisterImage", api.Member, d.registerImage, "Name", "Description", "ImageLocation", "Architecture", "BlockDeviceMapping", "RootDeviceName", "VirtualizationType", "KernelId",
		"RamdiskId", "EnaSupport", "SriovNetSupport", "BillingProduct", "BootMode", "TpmSupport", "UefiData", "ImdsSupport")
	add("DescribeImageAttribute", api.Reader, d.describeImageAttribute, "ImageId", "Attribute")
	add("ModifyImageAttribute", api.Member, d.modifyImageAttribute, "ImageId", "Attribute", "Value", "OperationType", "UserId", "UserGroup", "LaunchPermission", "Description")
	add("ResetImageAttribute", api.Member, d.resetImageAttribute, "ImageId", "Attribute")
}

// imageErrors are EC2's codes for what package images answers.
var imageErrors = recoding{fault.Invalid: "InvalidParameterValue", fault.NotFound: "InvalidAMIID.NotFound", fault.Forbidden: "AuthFailure", fault.Conflict: "IncorrectState",
	fault.TooLarge: "TagLimitExceeded", fault.OverQuota: "TagLimitExceeded"}

// propertyDescription is the property that Glance's clients write a description to.
const propertyDescription = "description"

// ownProperties are those of an image that are no tags: they say what it is, or whose; with a line behind, all that begin so.
var ownProperties = []string{propertyDescription, "architecture", "base_image_ref", "user_id", "boot_roles", "cache_in_nova", "signature_verified", "kernel_id", "ramdisk_id",
	images.PropertyBackup, images.PropertyMapping, images.PropertyMappingNew, images.PropertyRoot, "hw_", "os_", "img_", "image_", "instance_"}

func isOwnProperty(name string) bool {
	return slices.ContainsFunc(ownProperties, func(p string) bool { return name == p || strings.HasSuffix(p, "_") && strings.HasPrefix(name, p) })
}

// imageTags gives the tags of an image: its properties that are no more than that. The tag Name is one of them: the image's name is another thing there.
func imageTags(img *model.Image) map[string]string {
	out := map[string]string{}
	for k, v := range img.Properties {
		if !isOwnProperty(k) && utf8.RuneCountInString(k) <= maxTagKey && utf8.RuneCountInString(v) <= maxTagValue {
			out[k] = v
		}
	}
	return out
}

// taggable refuses tags that would say what an image is.
func taggable(tags map[string]string) error {
	for k := range tags {
		if isOwnProperty(k) {
			return badValue("The tag key '%s' is what the image service calls a property of its own.", k)
		}
	}
	return nil
}

// imageOf gives an image that the caller sees.
func (q *request) imageOf(r store.Reader, id string) (*model.Image, error) {
	return find(r, store.Images, imageID, id, q.imageCaller().Sees)
}

// ownImage gives the caller's image.
func (q *request) ownImage(r store.Reader, id string) (*model.Image, error) {
	img, err := q.imageOf(r, id)
	if err == nil && !q.mine(img.ProjectID) {
		err = fault.Coded(fault.Forbidden, "AuthFailure", "Not authorized for image:%s", id)
	}
	return img, err
}

// block is a volume that an image says an instance of it has.
type block struct {
	Device string `xml:"deviceName"`
	EBS    struct {
		Snapshot string `xml:"snapshotId,omitempty"`
		Size     int64  `xml:"volumeSize,omitempty"`
		Remove   bool   `xml:"deleteOnTermination"`
	} `xml:"ebs"`
}

type shownImage struct {
	ID           string     `xml:"imageId"`
	Location     string     `xml:"imageLocation"`
	State        string     `xml:"imageState"`
	Owner        string     `xml:"imageOwnerId"`
	Created      string     `xml:"creationDate"`
	Public       bool       `xml:"isPublic"`
	Architecture string     `xml:"architecture"`
	Type         string     `xml:"imageType"`
	Platform     string     `xml:"platform,omitempty"`
	Name         string     `xml:"name"`
	Description  string     `xml:"description"`
	RootType     string     `xml:"rootDeviceType"`
	Root         string     `xml:"rootDeviceName"`
	Disks        set[block] `xml:"blockDeviceMapping"`
	Virtual      string     `xml:"virtualizationType"`
	Hypervisor   string     `xml:"hypervisor"`
	Tags         set[tag]   `xml:"tagSet"`
}

var imageStates = map[string]string{model.ImageActive: "available", model.ImageKilled: "failed", model.ImageDeactivated: "invalid"}

// forAll tells whether everybody may use an image.
func forAll(img *model.Image) bool {
	return img.Visibility == model.VisibilityPublic || img.Visibility == model.VisibilityCommunity
}

func showImage(img *model.Image) shownImage {
	x := shownImage{ID: imageID.id(img.ID), Location: img.ProjectID + "/" + img.Name, State: cmp.Or(imageStates[img.Status], "pending"), Owner: img.ProjectID, Created: stamp(img.CreatedAt),
		Public: forAll(img), Architecture: cmp.Or(img.Properties["hw_architecture"], img.Properties["architecture"], "x86_64"), Type: "machine", Name: img.Name,
		Description: img.Properties[propertyDescription], RootType: "instance-store", Root: rootDevice, Virtual: "hvm", Hypervisor: "xen", Tags: tagSet(imageTags(img))}
	if img.Properties["os_type"] == "windows" {
		x.Platform = "windows"
	}
	if m := images.Mapping(img); m != "" {
		x.RootType, x.Root = "ebs", cmp.Or(img.Properties[images.PropertyRoot], rootDevice)
		x.Disks = blocksOf(m)
	}
	return x
}

// blocksOf reads what an image's mapping says of snapshots; what cannot be read is not shown.
func blocksOf(mapping string) (out set[block]) {
	var list []struct {
		Device   string `json:"device_name"`
		Snapshot string `json:"snapshot_id"`
		Size     int64  `json:"volume_size"`
		Remove   bool   `json:"delete_on_termination"`
	}
	if json.Unmarshal([]byte(mapping), &list) != nil {
		return out
	}
	for _, m := range list {
		b := block{Device: m.Device}
		b.EBS.Size, b.EBS.Remove = m.Size, m.Remove
		if m.Snapshot != "" {
			b.EBS.Snapshot = snapshotID.id(m.Snapshot)
		}
		out.Items = append(out.Items, b)
	}
	return out
}

// images gives the images that the request asks for: by their ids; else those that the caller may use, where an image for all that is not the
// operator's is listed to who names its owner, or asks for what is for all.
func (d *dialect) images(q *request, r store.Reader) ([]*model.Image, error) {
	if ids := q.strs("ImageId"); len(ids) > 0 {
		var out []*model.Image
		for _, id := range ids {
			img, err := q.imageOf(r, id)
			if err != nil {
				return nil, err
			}
			if !slices.Contains(out, img) {
				out = append(out, img)
			}
		}
		return out, nil
	}
	out, _, err := d.img.List(r, q.imageCaller(), images.Query{MemberStatus: "all"})
	if err != nil || len(q.strs("Owner"))+len(q.strs("ExecutableBy")) == 0 {
		return out, imageErrors.of(err)
	}
	more, _, err := d.img.List(r, q.imageCaller(), images.Query{Visibility: model.VisibilityCommunity})
	for _, img := range more {
		if !q.mine(img.ProjectID) {
			out = append(out, img)
		}
	}
	return out, imageErrors.of(err)
}

// meant tells whether an image is of one of the owners, and for one of those that are to use it; none: any.
func (q *request) meant(img *model.Image) bool {
	owner, user := q.strs("Owner"), q.strs("ExecutableBy")
	return (len(owner) == 0 || slices.ContainsFunc(owner, func(o string) bool { return o == img.ProjectID || o == "self" && q.mine(img.ProjectID) })) &&
		(len(user) == 0 || slices.ContainsFunc(user, func(u string) bool {
			if u == "all" {
				return forAll(img)
			}
			if u == "self" {
				u = q.Caller.ProjectID
			}
			_, member := img.Members[u]
			return member && (q.mine(img.ProjectID) || u == q.Caller.ProjectID)
		}))
}

func (d *dialect) describeImages(q *request) (any, error) {
	filters, err := q.filters("image-id", "name", "description", "state", "owner-id", "is-public", "architecture", "image-type", "root-device-type", "root-device-name", "platform",
		"virtualization-type", "hypervisor", "manifest-location", "creation-date", "block-device-mapping.snapshot-id", "tag-key", "tag:")
	if err != nil {
		return nil, err
	}
	rows, err := d.images(q, q.Snapshot())
	if err != nil {
		return nil, err
	}
	var all []shownImage
	for _, img := range rows {
		x := showImage(img)
		if q.meant(img) && passes(filters, func(name string) []string {
			if v, ok := map[string]string{"image-id": x.ID, "name": x.Name, "description": x.Description, "state": x.State, "owner-id": x.Owner, "is-public": strconv.FormatBool(x.Public),
				"architecture": x.Architecture, "image-type": x.Type, "root-device-type": x.RootType, "root-device-name": x.Root, "platform": x.Platform,
				"virtualization-type": x.Virtual, "hypervisor": x.Hypervisor, "manifest-location": x.Location, "creation-date": x.Created}[name]; ok {
				return []string{v}
			}
			if name == "block-device-mapping.snapshot-id" {
				var out []string
				for _, b := range x.Disks.Items {
					out = append(out, b.EBS.Snapshot)
				}
				return out
			}
			return tagValues(name, imageTags(img))
		}) {
			all = append(all, x)
		}
	}
	var body struct {
		Images set[shownImage] `xml:"imagesSet"`
		Next   string          `xml:"nextToken,omitempty"`
	}
	body.Images.Items, body.Next, err = paged(q, all, func(x shownImage) string { return x.ID })
	return body, err
}

// Limits of an image's name, EC2's.
const (
	minImageName = 3
	maxImageName = 128
)

func (d *dialect) createImage(q *request) (any, error) {
	id, err := q.must("InstanceId")
	if err != nil {
		return nil, err
	}
	name, err := q.must("Name")
	if err != nil {
		return nil, err
	}
	tags, err := q.tagSpec("image")
	if err != nil {
		return nil, err
	}
	still, said, err := q.params.truth("NoReboot")
	switch n := utf8.RuneCountInString(name); {
	case err != nil:
		return nil, err
	case said && !still:
		return nil, unsupported("An instance is not restarted for its image: stop it before, where what it writes must be on its disk.")
	case n < minImageName || n > maxImageName:
		return nil, fault.Coded(fault.Invalid, "InvalidAMIName.Malformed", "AMI names must be between %d and %d characters long.", minImageName, maxImageName)
	}
	if err := taggable(tags); err != nil {
		return nil, err
	}
	properties := maps.Clone(tags)
	if v := q.str("Description"); v != "" {
		if utf8.RuneCountInString(v) > maxTagValue-1 {
			return nil, badValue("The description has at most %d characters.", maxTagValue-1)
		}
		if properties == nil {
			properties = map[string]string{}
		}
		properties[propertyDescription] = v
	}
	var body struct {
		ID string `xml:"imageId"`
	}
	image := model.NewID()
	body.ID = imageID.id(image)
	return body, q.update(func(tx *store.Tx) error {
		s, err := q.serverOf(tx, id)
		if err != nil {
			return err
		}
		if err := idle(s, "made an image of"); err != nil {
			return err
		}
		for img := range store.Images.List(tx, "project", q.Caller.ProjectID) {
			if img.Name == name {
				return fault.Coded(fault.Conflict, "InvalidAMIName.Duplicate", "AMI name %s is already in use by AMI %s", name, imageID.id(img.ID))
			}
		}
		return recoding{fault.Conflict: "IncorrectInstanceState", fault.OverQuota: "ResourceLimitExceeded", fault.TooLarge: "TagLimitExceeded"}.of(
			d.launch.Save(tx, q.scope(), s.ID, launch.NewImage{ID: image, Name: name, Metadata: properties, Roles: q.Caller.RoleNames}))
	})
}

func (d *dialect) deregisterImage(q *request) (any, error) {
	id, err := q.must("ImageId")
	if err != nil {
		return nil, err
	}
	return done{true}, q.update(func(tx *store.Tx) error {
		img, err := q.ownImage(tx, id)
		switch {
		case err != nil:
			return err
		case img.Protected:
			return fault.Coded(fault.Conflict, "OperationNotPermitted", "Image %s is protected and cannot be deregistered.", id)
		}
		return imageErrors.of(d.img.Remove(tx, q.imageCaller(), img.ID))
	})
}

func (d *dialect) registerImage(*request) (any, error) {
	return nil, unsupported("An image's bytes come by the image service: use openstack image create --file, and the image is an AMI. One of an instance is made by CreateImage.")
}

// imageLabels adds how the tags of images are kept: as their properties.
func (d *dialect) imageLabels(out map[kind]labels) {
	out[imageID] = labels{resource: "image",
		all: func(q *request, r store.Reader) iter.Seq2[string, map[string]string] {
			return func(yield func(string, map[string]string) bool) {
				for img := range store.Images.List(r, "project", q.Caller.ProjectID) {
					if !yield(imageID.id(img.ID), imageTags(img)) {
						return
					}
				}
			}
		},
		change: func(q *request, tx *store.Tx, id string, f func(map[string]string) error) error {
			img, err := q.ownImage(tx, id)
			if err != nil {
				return err
			}
			was := imageTags(img)
			tags := maps.Clone(was)
			if err := relabel(tags, f); err != nil {
				return err
			}
			if err := taggable(tags); err != nil {
				return err
			}
			_, err = d.img.Change(tx, q.imageCaller(), img.ID, func(img *model.Image) error {
				for k := range was {
					delete(img.Properties, k)
				}
				maps.Copy(img.Properties, tags)
				return nil
			})
			return imageErrors.of(err)
		}}
}
