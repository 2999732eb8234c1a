package ec2

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"time"
	"unicode/utf8"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// permission lets somebody make instances of an image: everybody (group "all"), or a project. The first is what Glance calls a community image
// (a public one is the operator's, and is so to everybody too), the other a shared one with its members.
type permission struct {
	Group string `xml:"group,omitempty"`
	User  string `xml:"userId,omitempty"`
}

// everybody is EC2's only group of users.
const everybody = "all"

type imageValues struct {
	ID          string           `xml:"imageId"`
	Permissions *set[permission] `xml:"launchPermission"`
	Description *valueOf[string] `xml:"description"`
	Disks       *set[block]      `xml:"blockDeviceMapping"`
	Codes       *struct{}        `xml:"productCodes"`
	Kernel      *struct{}        `xml:"kernel"`
	Ramdisk     *struct{}        `xml:"ramdisk"`
	SRIOV       *struct{}        `xml:"sriovNetSupport"`
	BootMode    *valueOf[string] `xml:"bootMode"`
}

func permissionsOf(img *model.Image) (out set[permission]) {
	if forAll(img) {
		out.Items = append(out.Items, permission{Group: everybody})
	}
	if img.Visibility == model.VisibilityShared {
		for _, p := range slices.Sorted(maps.Keys(img.Members)) {
			out.Items = append(out.Items, permission{User: p})
		}
	}
	return out
}

func (d *dialect) describeImageAttribute(q *request) (any, error) {
	id, err := q.must("ImageId")
	if err != nil {
		return nil, err
	}
	name, err := q.must("Attribute")
	if err != nil {
		return nil, err
	}
	img, err := q.ownImage(q.Snapshot(), id)
	if err != nil {
		return nil, err
	}
	x := showImage(img)
	out := imageValues{ID: x.ID}
	switch name {
	case "launchPermission":
		p := permissionsOf(img)
		out.Permissions = &p
	case "description":
		out.Description = &valueOf[string]{x.Description}
	case "blockDeviceMapping":
		out.Disks = &x.Disks
	case "productCodes":
		out.Codes = &struct{}{}
	case "kernel":
		out.Kernel = &struct{}{}
	case "ramdisk":
		out.Ramdisk = &struct{}{}
	case "sriovNetSupport":
		out.SRIOV = &struct{}{}
	case "bootMode":
		mode := "legacy-bios"
		if img.Properties["hw_firmware_type"] == "uefi" {
			mode = "uefi"
		}
		out.BootMode = &valueOf[string]{mode}
	default:
		return nil, badValue("Value (%s) for parameter attribute is invalid. Unknown attribute.", api.Clip(name))
	}
	return out, nil
}

var projectRE = regexp.MustCompile(`^[0-9A-Za-z-]{1,64}$`)

// permissions reads who is to be given an image, and from whom it is to be taken, in EC2's older form and in the newer.
func (q *request) permissions() (add, remove []permission, err error) {
	older := func() (out []permission) {
		for _, u := range q.strs("UserId") {
			out = append(out, permission{User: u})
		}
		for _, g := range q.strs("UserGroup") {
			out = append(out, permission{Group: g})
		}
		return out
	}
	newer := func(name string) (out []permission) {
		for _, p := range q.params.Part("LaunchPermission").list(name) {
			out = append(out, permission{p.str("Group"), p.str("UserId")})
		}
		return out
	}
	add, remove = newer("Add"), newer("Remove")
	switch op := q.str("OperationType"); op {
	case "add":
		add = append(add, older()...)
	case "remove":
		remove = append(remove, older()...)
	case "":
		if len(older()) > 0 {
			return nil, nil, missing("OperationType")
		}
	default:
		return nil, nil, badValue("Value (%s) for parameter operationType is invalid. It is add or remove.", api.Clip(op))
	}
	for _, p := range slices.Concat(add, remove) {
		if (p.Group != everybody || p.User != "") && (p.Group != "" || !projectRE.MatchString(p.User)) {
			return nil, nil, fault.Coded(fault.Invalid, "InvalidAMIAttributeItemValue", "Invalid attribute item value \"%s\" for launchPermission", api.Clip(cmp.Or(p.Group, p.User)))
		}
	}
	return add, remove, nil
}

// permit gives an image to, or takes it from, those named.
func permit(img *model.Image, add, remove []permission) {
	all := forAll(img)
	if img.Members == nil {
		img.Members = map[model.ID]model.ImageMember{}
	}
	now := time.Now().UTC()
	for _, p := range add {
		if p.Group == everybody {
			all = true
		} else if _, there := img.Members[p.User]; !there {
			img.Members[p.User] = model.ImageMember{Status: model.MemberPending, CreatedAt: now, UpdatedAt: now}
		}
	}
	for _, p := range remove {
		if p.Group == everybody {
			all = false
		} else {
			delete(img.Members, p.User)
		}
	}
	switch {
	case all && img.Visibility == model.VisibilityPublic:
	case all:
		img.Visibility = model.VisibilityCommunity
	case len(img.Members) > 0:
		img.Visibility = model.VisibilityShared
	default:
		img.Visibility = model.VisibilityPrivate
	}
}

func (d *dialect) modifyImageAttribute(q *request) (any, error) {
	id, err := q.must("ImageId")
	if err != nil {
		return nil, err
	}
	add, remove, err := q.permissions()
	if err != nil {
		return nil, err
	}
	description := q.params.Part("Description").Part("Value")
	says := q.params.Part("Description").has("Value")
	if q.str("Attribute") == "description" {
		description, says = q.params.Part("Value"), true
	}
	switch {
	case !says && len(add)+len(remove) == 0:
		return nil, unsupported("Of an image, the description and who may use it are changed.")
	case utf8.RuneCountInString(description.value) > maxTagValue-1:
		return nil, badValue("The description has at most %d characters.", maxTagValue-1)
	}
	return d.changeImage(q, id, func(img *model.Image) {
		if says {
			img.Properties[propertyDescription] = description.value
		}
		if len(add)+len(remove) > 0 {
			permit(img, add, remove)
		}
	})
}

// resetImageAttribute makes an image its owner's alone.
func (d *dialect) resetImageAttribute(q *request) (any, error) {
	id, err := q.must("ImageId")
	if err != nil {
		return nil, err
	}
	if a := q.str("Attribute"); a != "launchPermission" {
		return nil, badValue("Value (%s) for parameter attribute is invalid. Only launchPermission is reset.", api.Clip(a))
	}
	return d.changeImage(q, id, func(img *model.Image) { img.Visibility, img.Members = model.VisibilityPrivate, nil })
}

func (d *dialect) changeImage(q *request, id string, f func(*model.Image)) (any, error) {
	return done{true}, q.update(func(tx *store.Tx) error {
		img, err := q.ownImage(tx, id)
		if err != nil {
			return err
		}
		_, err = d.img.Change(tx, q.imageCaller(), img.ID, func(img *model.Image) error {
			f(img)
			return nil
		})
		return imageErrors.of(err)
	})
}
