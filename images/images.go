package images

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Config makes an Images.
type Config struct {
	Store *store.Store
	Blobs Blobs
	Log   *slog.Logger
	// MaxSize is the largest image in bytes; default 1 TiB.
	MaxSize int64
	// MaxVirtualSize is the largest disk that an image may unfold to, in bytes; default 16 TiB.
	MaxVirtualSize int64
	// UploadTTL is how long after its server's death an upload counts as broken; whole
	// seconds, default 15 s.
	UploadTTL time.Duration
	// Sweep is how often every blob is compared with what refers to it; default 10 minutes.
	Sweep time.Duration
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Images is the catalogue of images. Its methods may be called at once from anywhere.
type Images struct {
	cfg Config
	st  *store.Store
	log *slog.Logger
}

// New makes an Images. Run must run beside it on at least one server.
func New(cfg Config) *Images {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.MaxSize = cmp.Or(cfg.MaxSize, 1<<40)
	cfg.MaxVirtualSize = cmp.Or(cfg.MaxVirtualSize, 16<<40)
	cfg.UploadTTL = cmp.Or(cfg.UploadTTL, 15*time.Second)
	cfg.Sweep = cmp.Or(cfg.Sweep, 10*time.Minute)
	return &Images{cfg: cfg, st: cfg.Store, log: cfg.Log}
}

// MaxSize is the largest image that is taken, in bytes.
func (m *Images) MaxSize() int64 { return m.cfg.MaxSize }

// Limits of one entry; they are Glance's defaults where it has one. A row of the store is
// to stay well below etcd's 1.5 MiB.
const (
	maxProperties     = 128
	maxPropertyBytes  = 256 << 10 // of all names and values together
	maxTags           = 128
	maxMembers        = 128
	maxNameLen        = 255 // characters, of names, tags and properties' names
	maxNumber         = 1<<31 - 1
	bootableContainer = "bare"
)

var (
	diskFormats      = []string{"ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop"}
	containerFormats = []string{"ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"}
	visibilities     = []string{model.VisibilityCommunity, model.VisibilityPublic, model.VisibilityPrivate, model.VisibilityShared}
)

// DiskFormats gives the names that disk_format may have.
func DiskFormats() []string { return slices.Clone(diskFormats) }

// ContainerFormats gives the names that container_format may have.
func ContainerFormats() []string { return slices.Clone(containerFormats) }

// Visibilities gives the names that visibility may have.
func Visibilities() []string { return slices.Clone(visibilities) }

// Create adds an image without bytes. Of want, the descriptive fields are taken: ID (a new
// one where it is empty), ProjectID (the caller's where it is empty), Name, Tags,
// Visibility (default shared), the formats, minima, Protected, Hidden and Properties.
//
// Errors: fault.Invalid, Forbidden, Conflict (the id is taken), OverQuota.
func (m *Images) Create(ctx context.Context, by Caller, want model.Image) (*model.Image, error) {
	want.ID = cmp.Or(want.ID, model.NewID())
	var out *model.Image
	if _, err := m.st.Update(ctx, func(tx *store.Tx) (err error) {
		out, err = m.Add(tx, by, want)
		return err
	}); err != nil {
		return nil, fmt.Errorf("create image: %w", err)
	}
	return out, nil
}

// Add is Create within a transaction.
func (m *Images) Add(tx *store.Tx, by Caller, want model.Image) (*model.Image, error) {
	now := m.cfg.Now().UTC().Truncate(time.Microsecond)
	meta := model.NewMeta(cmp.Or(want.ProjectID, by.ProjectID), want.Name, now)
	if want.ID != "" {
		meta.ID = want.ID
	}
	meta.Tags = normalTags(want.Tags)
	img := &model.Image{
		Meta: meta, Status: model.ImageQueued, Visibility: cmp.Or(want.Visibility, model.VisibilityShared),
		DiskFormat: want.DiskFormat, ContainerFormat: want.ContainerFormat,
		MinDiskGiB: want.MinDiskGiB, MinRAMMiB: want.MinRAMMiB, Protected: want.Protected, Hidden: want.Hidden,
		Properties: maps.Clone(want.Properties),
	}
	if img.ProjectID == "" {
		return nil, fault.New(fault.Forbidden, "An image needs an owner: use a token that is scoped to a project.")
	}
	if !by.Admin && img.ProjectID != by.ProjectID {
		return nil, fault.New(fault.Forbidden, "You are not permitted to create images owned by '%s'.", img.ProjectID)
	}
	if err := publicise(by, "", img); err != nil {
		return nil, err
	}
	if err := check(img); err != nil {
		return nil, err
	}
	if _, taken := store.Images.Get(tx, img.ID); taken {
		return nil, fault.New(fault.Conflict, "Image ID %s already exists!", img.ID)
	}
	return img, store.Images.Put(tx, img)
}

// Get gives an image that the caller may see.
func (m *Images) Get(r store.Reader, by Caller, id model.ID) (*model.Image, error) {
	img, ok := store.Images.Get(r, id)
	if !ok || !by.Sees(img) {
		return nil, fault.New(fault.NotFound, "No image found with ID %s", id)
	}
	return img, nil
}

// owned gives an image that the caller may change.
func (m *Images) owned(tx *store.Tx, by Caller, id model.ID, action string) (*model.Image, error) {
	img, err := m.Get(tx, by, id)
	if err != nil {
		return nil, err
	}
	if !by.owns(img) {
		return nil, fault.New(fault.Forbidden, "You are not authorized to complete %s action.", action)
	}
	return img, nil
}

// Update changes the descriptive fields of an image. change gets a copy of its own and may
// run more than once; what it does to other fields is refused as a defect.
//
// Errors: what change returned; fault.NotFound, Forbidden, Invalid, OverQuota.
func (m *Images) Update(ctx context.Context, by Caller, id model.ID, change func(*model.Image) error) (out *model.Image, err error) {
	if _, err = m.st.Update(ctx, func(tx *store.Tx) error {
		out, err = m.Change(tx, by, id, change)
		return err
	}); err != nil {
		return nil, fmt.Errorf("modify_image: %w", err)
	}
	return out, nil
}

// Change is Update within a transaction. It may change the members of a shared image too.
func (m *Images) Change(tx *store.Tx, by Caller, id model.ID, change func(*model.Image) error) (*model.Image, error) {
	return m.changeIn(tx, by, id, "modify_image", func(old, img *model.Image) error {
		if err := change(img); err != nil {
			return err
		}
		img.Tags = normalTags(img.Tags)
		switch {
		case img.ID != old.ID || img.Status != old.Status || img.BlobID != old.BlobID || img.HashValue != old.HashValue:
			return fmt.Errorf("image %s: a change of what is not the user's", id)
		case img.ProjectID != old.ProjectID && !by.Admin:
			return fault.New(fault.Forbidden, "You are not authorized to change the owner of an image.")
		case img.ProjectID == "":
			return fault.New(fault.Invalid, "An image needs an owner.")
		case old.Status != model.ImageQueued && img.DiskFormat != old.DiskFormat:
			return fault.New(fault.Forbidden, "Attribute 'disk_format' can be only replaced for a queued image.")
		case old.Status != model.ImageQueued && img.ContainerFormat != old.ContainerFormat:
			return fault.New(fault.Forbidden, "Attribute 'container_format' can be only replaced for a queued image.")
		case len(img.Members) > maxMembers && len(img.Members) > len(old.Members):
			return fault.New(fault.TooLarge, "The limit has been exceeded on the number of allowed image members for this image. Attempted: %d, Maximum: %d", len(img.Members), maxMembers)
		}
		return publicise(by, old.Visibility, img)
	})
}

// change runs a checked transaction on an image that the caller owns.
func (m *Images) change(ctx context.Context, by Caller, id model.ID, action string, f func(old, img *model.Image) error) (out *model.Image, err error) {
	if _, err = m.st.Update(ctx, func(tx *store.Tx) error {
		out, err = m.changeIn(tx, by, id, action, f)
		return err
	}); err != nil {
		return nil, fmt.Errorf("%s: %w", action, err)
	}
	return out, nil
}

func (m *Images) changeIn(tx *store.Tx, by Caller, id model.ID, action string, f func(old, img *model.Image) error) (*model.Image, error) {
	old, err := m.owned(tx, by, id, action)
	if err != nil {
		return nil, err
	}
	img := clone(old)
	if err := f(old, img); err != nil {
		return nil, err
	}
	if err := check(img); err != nil {
		return nil, err
	}
	img.Touch(m.cfg.Now())
	return img, store.Images.Put(tx, img)
}

// Delete removes an image; its members and properties go with it. Servers that were made
// from it live on, and its bytes stay as long as one of them is there. An upload under
// way ends with an error.
//
// Errors: fault.NotFound; fault.Forbidden for a protected or foreign image.
func (m *Images) Delete(ctx context.Context, by Caller, id model.ID) error {
	if _, err := m.st.Update(ctx, func(tx *store.Tx) error { return m.Remove(tx, by, id) }); err != nil {
		return fmt.Errorf("delete image: %w", err)
	}
	return nil
}

// Remove is Delete within a transaction.
func (m *Images) Remove(tx *store.Tx, by Caller, id model.ID) error {
	img, err := m.owned(tx, by, id, "delete_image")
	if err != nil {
		return err
	}
	if img.Protected {
		return fault.New(fault.Forbidden, "Image %s is protected and cannot be deleted.", id)
	}
	if err := store.ImageUploads.Delete(tx, id); err != nil {
		return err
	}
	return store.Images.Delete(tx, id)
}

// Deactivate makes the bytes of an active image unavailable, for downloads and for new
// servers, without deleting them. Deactivated already is success.
func (m *Images) Deactivate(ctx context.Context, by Caller, id model.ID) error {
	return m.setStatus(ctx, by, id, "deactivate", model.ImageActive, model.ImageDeactivated)
}

// Reactivate undoes Deactivate. Active already is success.
func (m *Images) Reactivate(ctx context.Context, by Caller, id model.ID) error {
	return m.setStatus(ctx, by, id, "reactivate", model.ImageDeactivated, model.ImageActive)
}

func (m *Images) setStatus(ctx context.Context, by Caller, id model.ID, action, from, to string) error {
	_, err := m.change(ctx, by, id, action, func(_, img *model.Image) error {
		if img.Status != from && img.Status != to {
			return fault.New(fault.Forbidden, "Not allowed to %s image in status '%s'", action, img.Status)
		}
		img.Status = to
		return nil
	})
	return err
}

// AddTag adds a tag; there already is success.
func (m *Images) AddTag(ctx context.Context, by Caller, id model.ID, tag string) error {
	_, err := m.Update(ctx, by, id, func(img *model.Image) error {
		img.Tags = append(img.Tags, tag)
		return nil
	})
	return err
}

// RemoveTag removes a tag. It reports fault.NotFound where the image does not have it.
func (m *Images) RemoveTag(ctx context.Context, by Caller, id model.ID, tag string) error {
	_, err := m.Update(ctx, by, id, func(img *model.Image) error {
		i := slices.Index(img.Tags, tag)
		if i < 0 {
			return fault.New(fault.NotFound, "The tag '%s' is not on the image.", tag)
		}
		img.Tags = slices.Delete(img.Tags, i, i+1)
		return nil
	})
	return err
}

// clone copies whatever a change may touch: rows of the store are shared.
func clone(img *model.Image) *model.Image {
	c := *img
	c.Tags = slices.Clone(img.Tags)
	c.Properties = maps.Clone(img.Properties)
	if c.Properties == nil {
		c.Properties = map[string]string{}
	}
	c.Members = maps.Clone(img.Members)
	return &c
}

// normalTags sorts tags and drops repetitions: tags are a set.
func normalTags(tags []string) []string {
	out := slices.Clone(tags)
	slices.Sort(out)
	return slices.Compact(out)
}

// check refuses an entry that breaks a rule that does not depend on who asks.
func check(img *model.Image) error {
	size := 0
	for k, v := range img.Properties {
		if k == "" || tooLong(k) {
			return fault.New(fault.Invalid, "The name of a property has between 1 and %d characters.", maxNameLen)
		}
		size += len(k) + len(v)
	}
	for _, t := range img.Tags {
		if t == "" || tooLong(t) {
			return fault.New(fault.Invalid, "A tag has between 1 and %d characters.", maxNameLen)
		}
	}
	switch {
	case !isUUID(img.ID):
		return fault.New(fault.Invalid, "'%s' is not a UUID in lower case.", img.ID)
	case tooLong(img.Name):
		return fault.New(fault.Invalid, "The name of an image has at most %d characters.", maxNameLen)
	case !slices.Contains(visibilities, img.Visibility):
		return fault.New(fault.Invalid, "'%s' is not one of %v.", img.Visibility, visibilities)
	case img.DiskFormat != "" && !slices.Contains(diskFormats, img.DiskFormat):
		return fault.New(fault.Invalid, "Invalid disk format '%s' for image.", img.DiskFormat)
	case img.ContainerFormat != "" && !slices.Contains(containerFormats, img.ContainerFormat):
		return fault.New(fault.Invalid, "Invalid container format '%s' for image.", img.ContainerFormat)
	case img.MinDiskGiB < 0 || img.MinDiskGiB > maxNumber || img.MinRAMMiB < 0 || img.MinRAMMiB > maxNumber:
		return fault.New(fault.Invalid, "min_disk and min_ram are between 0 and %d.", maxNumber)
	case len(img.Properties) > maxProperties:
		return fault.New(fault.TooLarge, "The limit has been exceeded on the number of allowed image properties. Attempted: %d, Maximum: %d", len(img.Properties), maxProperties)
	case size > maxPropertyBytes:
		return fault.New(fault.TooLarge, "The properties of the image have %d bytes; the limit is %d.", size, maxPropertyBytes)
	case len(img.Tags) > maxTags:
		return fault.New(fault.TooLarge, "The limit has been exceeded on the number of allowed image tags. Attempted: %d, Maximum: %d", len(img.Tags), maxTags)
	}
	return nil
}

// tooLong counts characters, as the API does.
func tooLong(s string) bool { return len(s) > maxNameLen && len([]rune(s)) > maxNameLen }

func isUUID(id string) bool {
	if len(id) != 36 {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (c == '-') {
			return false
		} else if !dash && !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return false
		}
	}
	return true
}
