package images

import (
	"slices"

	"yakumo/model"
	"yakumo/store"
)

// Properties by which Nova's clients know what a server made of itself.
const (
	PropertyType   = "image_type"    // snapshot or backup
	PropertyServer = "instance_uuid" // of which server
	PropertyBackup = "backup_type"   // daily, weekly …: what is rotated together
)

// Properties of an image of a server that boots from a volume: it has no bytes, and says in Nova's words (block_device_mapping_v2, JSON) of which snapshots a
// server's volumes are made.
const (
	PropertyMapping    = "block_device_mapping"
	PropertyMappingNew = "bdm_v2" // "True": the mapping is of the newer form
	PropertyRoot       = "root_device_name"
)

// Mapping gives the block device mapping of an image without bytes; "": it is none such.
func Mapping(img *model.Image) string {
	if img.BlobID != "" || img.Status != model.ImageActive {
		return ""
	}
	return img.Properties[PropertyMapping]
}

// AddMapping is Add for an image without bytes that has a mapping: it is active at once.
func (m *Images) AddMapping(tx *store.Tx, by Caller, want model.Image) (*model.Image, error) {
	img, err := m.Add(tx, by, want)
	if err != nil {
		return nil, err
	}
	img.Status = model.ImageActive
	return img, store.Images.Put(tx, img)
}

// Discard removes an image that a server made and that is of no more use. One that its owner protects stays, as does
// one that is gone.
func (m *Images) Discard(tx *store.Tx, id model.ID) error {
	img, ok := store.Images.Get(tx, id)
	if !ok || img.Protected {
		return nil
	}
	if err := store.ImageUploads.Delete(tx, id); err != nil {
		return err
	}
	return store.Images.Delete(tx, id)
}

// Rotate keeps, of the backups of the same server and type as the image, the newest keep that have bytes.
func (m *Images) Rotate(tx *store.Tx, id model.ID, keep int) error {
	last, ok := store.Images.Get(tx, id)
	if !ok {
		return nil
	}
	var row []*model.Image
	for img := range store.Images.List(tx, "project", last.ProjectID) {
		p, q := img.Properties, last.Properties
		if p[PropertyType] == "backup" && p[PropertyServer] == q[PropertyServer] && p[PropertyBackup] == q[PropertyBackup] && img.Status == model.ImageActive {
			row = append(row, img)
		}
	}
	slices.SortFunc(row, func(a, b *model.Image) int { return b.CreatedAt.Compare(a.CreatedAt) })
	for i, img := range row {
		if i >= keep {
			if err := m.Discard(tx, img.ID); err != nil {
				return err
			}
		}
	}
	return nil
}
