package model

import (
	"strings"
	"time"
)

// Image states, as in the Image API v2.
const (
	ImageQueued      = "queued"
	ImageSaving      = "saving"
	ImageImporting   = "importing"
	ImageActive      = "active"
	ImageDeactivated = "deactivated"
	ImageKilled      = "killed"
)

// Image visibilities.
const (
	VisibilityPublic    = "public"
	VisibilityPrivate   = "private"
	VisibilityShared    = "shared"
	VisibilityCommunity = "community"
)

// Image is an entry of the catalogue; its bytes are in Blobs under BlobID.
type Image struct {
	Meta
	Status          string            `json:"status"`
	Visibility      string            `json:"visibility"`
	DiskFormat      string            `json:"disk_format,omitempty"`      // raw, qcow2 …
	ContainerFormat string            `json:"container_format,omitempty"` // bare …
	MinDiskGiB      int               `json:"min_disk"`
	MinRAMMiB       int               `json:"min_ram"`
	Protected       bool              `json:"protected"`
	Hidden          bool              `json:"os_hidden"`
	Size            int64             `json:"size"`                   // bytes stored
	VirtualSize     int64             `json:"virtual_size"`           // bytes as a disk
	Checksum        string            `json:"checksum,omitempty"`     // MD5, as the API wants it
	HashAlgo        string            `json:"os_hash_algo,omitempty"` // sha512
	HashValue       string            `json:"os_hash_value,omitempty"`
	BlobID          ID                `json:"blob_id,omitempty"` // one upload; a new upload has a new id
	Properties      map[string]string `json:"properties,omitempty"`
	// Members are the projects that a shared image is offered to, by project id.
	Members map[ID]ImageMember `json:"members,omitempty"`
}

// Answers of a project that an image is offered to.
const (
	MemberPending  = "pending"
	MemberAccepted = "accepted"
	MemberRejected = "rejected"
)

// ImageMember is a project's place among the members of a shared image.
type ImageMember struct {
	Status    string    `json:"status"` // MemberPending, MemberAccepted or MemberRejected
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// ImageUpload is an upload under way. Its row goes with the lease of the server that
// receives the bytes: an image in ImageSaving without this row has lost its uploader.
type ImageUpload struct {
	ImageID   ID        `json:"image_id"`
	BlobID    ID        `json:"blob_id"`
	StartedAt time.Time `json:"started_at"`
}

// ImageTask is an entry of the Image API's (deprecated) list of tasks.
type ImageTask struct {
	Meta
	Type      string         `json:"type"`   // import
	Status    string         `json:"status"` // failure: no kind of task is carried out here
	Input     map[string]any `json:"input,omitempty"`
	Message   string         `json:"message,omitempty"`
	ExpiresAt time.Time      `json:"expires_at"`
}

// ImageCopy says what a host needs to fetch and to trust an image.
type ImageCopy struct {
	ImageID     ID     `json:"image_id"`
	BlobID      ID     `json:"blob_id"`
	Format      string `json:"format"` // raw or qcow2
	Size        int64  `json:"size"`   // bytes
	VirtualSize int64  `json:"virtual_size"`
	HashAlgo    string `json:"hash_algo"` // sha512
	HashValue   string `json:"hash_value"`
	// Hardware are the image's properties that say what machine it wants and what is in it: those whose names begin
	// with "hw_", and os_type, os_admin_user, os_require_quiesce and os_secure_boot.
	Hardware map[string]string `json:"hardware,omitempty"`
}

// NewestFirst gives a key under which images sort by creation, the newest first, then by
// id from the highest down: the order in which the Image API lists by default.
func (i *Image) NewestFirst() string { return newestFirst(i.CreatedAt, i.ID) }

// Copy says what a host needs to fetch and to trust the image.
func (i *Image) Copy() ImageCopy {
	return ImageCopy{
		ImageID: i.ID, BlobID: i.BlobID, Format: i.DiskFormat, Size: i.Size, VirtualSize: i.VirtualSize,
		HashAlgo: i.HashAlgo, HashValue: i.HashValue, Hardware: Hardware(i.Properties),
	}
}

// Hardware gives the properties that say what machine an image wants, nil for none; see ImageCopy.
func Hardware(properties map[string]string) (out map[string]string) {
	for k, v := range properties {
		if strings.HasPrefix(k, "hw_") || k == "os_type" || k == "os_secure_boot" || k == "os_admin_user" || k == "os_require_quiesce" {
			if out == nil {
				out = map[string]string{}
			}
			out[k] = v
		}
	}
	return out
}
