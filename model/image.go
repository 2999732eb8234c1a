package model

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
	Members         map[ID]string     `json:"members,omitempty"` // project id → pending, accepted, rejected
	MemberTimes     map[ID]string     `json:"member_times,omitempty"`
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
}
