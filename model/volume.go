package model

import (
	"slices"
	"time"
)

// The engines that keep volumes.
const (
	// EngineLocal keeps a volume on one host alone: others open it through that one.
	EngineLocal = "local"
	// EngineNFS and EngineRBD keep volumes where every host that has the engine reaches them; each is worked on by the host that its row names.
	EngineNFS = "nfs"
	EngineRBD = "rbd"
)

// Volume is a block device that outlives servers.
type Volume struct {
	Meta
	UserID        ID                `json:"user_id"`
	SizeGiB       int               `json:"size"`
	TypeID        ID                `json:"type_id,omitempty"`
	Zone          string            `json:"zone"`
	Engine        string            `json:"engine"`         // EngineLocal …
	Host          ID                `json:"host,omitempty"` // whose agent works on it; of a local one, where its bytes are
	Source        VolumeSource      `json:"source"`
	Bootable      bool              `json:"bootable"`
	MultiAttach   bool              `json:"multiattach,omitempty"`
	ReadOnly      bool              `json:"read_only,omitempty"`
	Metadata      map[string]string `json:"metadata,omitempty"`
	ImageMetadata map[string]string `json:"image_metadata,omitempty"`
	AdminMetadata map[string]string `json:"admin_metadata,omitempty"`
	Attachments   []Attachment      `json:"attachments,omitempty"`
	Deleted       bool              `json:"deleted,omitempty"`
	RequestID     string            `json:"request_id,omitempty"`
	Token         string            `json:"token,omitempty"` // the client's own name for the request that made it
	Status        VolumeStatus      `json:"status"`
	// Fills counts requests to fill an existing volume anew from Refill: a backup, or a snapshot of itself to
	// return to. The host acts on each once, as with a server's rebuilds.
	Fills  int64         `json:"fills,omitempty"`
	Refill *VolumeSource `json:"refill,omitempty"`
	// Move, where not nil: another host is to have it, and copies it.
	Move *VolumeMove `json:"move,omitempty"`
	// Change, where not nil: it goes from one engine to another, on its host, which stays the same meanwhile.
	Change *EngineChange `json:"change,omitempty"`
	// Relocation, where not nil: it goes elsewhere under the guest that has it. Relocations counts them; Seat is the one that brought the volume to where it is, 0: none.
	Relocation  *Relocation `json:"relocation,omitempty"`
	Relocations int64       `json:"relocations,omitempty"`
	Seat        int64       `json:"seat,omitempty"`
	// Uploads are images that its host is to make of it.
	Uploads []HostBlob `json:"uploads,omitempty"`
}

// EngineChange is a volume's way to another engine. Its host copies it and compares the copy; then the volume is of the other engine from one
// moment on. What is left, of the volume in the old engine or of a copy that failed, is cleared after that.
type EngineChange struct {
	Engine string `json:"engine"`            // to which it is copied; where Clear, in which nothing is to stay
	TypeID ID     `json:"type_id,omitempty"` // that the volume has with the copy
	Clear  bool   `json:"clear,omitempty"`
}

// RelocationStage is how far a Relocation has come.
type RelocationStage string

// The stages. Until RelocateTurning the volume is where it was; what became of it then, the guest's host alone knows, and says.
const (
	RelocateMaking   RelocationStage = "making"   // the place's host makes an empty volume
	RelocateCopying  RelocationStage = "copying"  // the guest's host has it copied, with what the guest writes
	RelocateTurning  RelocationStage = "turning"  // and, now that all but a little is there, has the guest use the copy
	RelocateClearing RelocationStage = "clearing" // it has ended; Host is to have nothing of it in Engine
)

// Relocation is a volume's way to another host or engine under the guest that has it.
type Relocation struct {
	Number   int64           `json:"number"` // of Volume.Relocations
	Stage    RelocationStage `json:"stage"`
	ServerID ID              `json:"server_id"`         // whose guest has it
	Host     ID              `json:"host"`              // whose agent works on it in the place to which it goes
	Engine   string          `json:"engine"`            // of that place
	TypeID   ID              `json:"type_id,omitempty"` // that the volume has there
}

// Relocating tells whether the volume is on its way elsewhere under its guest.
func (v *Volume) Relocating() bool {
	return v.Relocation != nil && v.Relocation.Stage != RelocateClearing
}

// In tells whether the engine has bytes of the volume, or may have.
func (v *Volume) In(engine string) bool {
	return v.Engine == engine || v.Change != nil && v.Change.Engine == engine || v.Relocation != nil && v.Relocation.Engine == engine
}

// InAt tells whether the engine has bytes of the volume at the host, or may have.
func (v *Volume) InAt(engine string, host ID) bool {
	if r := v.Relocation; r != nil {
		return v.Host == host && v.Engine == engine || r.Host == host && r.Engine == engine
	}
	return v.In(engine) && slices.Contains(v.Hosts(), host)
}

// Filling gives what the volume's content is made of: Refill where there is one, else Source.
func (v *Volume) Filling() VolumeSource {
	if v.Refill != nil {
		return *v.Refill
	}
	return v.Source
}

// VolumeMove is where a volume goes.
type VolumeMove struct {
	Host ID `json:"host"`
}

// Hosts gives the host that has the volume, and the one to which it goes; none where it has no host yet.
func (v *Volume) Hosts() (out []ID) {
	if v.Host != "" {
		out = append(out, v.Host)
	}
	if v.Move != nil && v.Move.Host != v.Host {
		out = append(out, v.Move.Host)
	}
	if r := v.Relocation; r != nil && r.Host != v.Host {
		out = append(out, r.Host)
	}
	return out
}

// VolumeSource is what a new volume is filled from: at most one is set.
type VolumeSource struct {
	ImageID    ID        `json:"image_id,omitempty"`
	Image      ImageCopy `json:"image"`
	SnapshotID ID        `json:"snapshot_id,omitempty"`
	VolumeID   ID        `json:"volume_id,omitempty"`
	BackupID   ID        `json:"backup_id,omitempty"`
}

// VolumeStatus is what the cloud made of a volume.
type VolumeStatus struct {
	State      string `json:"state"` // Cinder's: creating, available, attaching, in-use, detaching, extending, deleting, error …
	Generation int64  `json:"generation,omitempty"`
	SizeGiB    int    `json:"size,omitempty"`      // as it is now
	Fills      int64  `json:"fills,omitempty"`     // of Volume.Fills, those that are done
	Migration  string `json:"migration,omitempty"` // of its last move: migrating, success, error
	Fault      *Fault `json:"fault,omitempty"`
}

// Attachment is one use of a volume: by a server, or by another system.
type Attachment struct {
	ID         ID        `json:"id"`
	ServerID   ID        `json:"server_id,omitempty"`
	HostName   string    `json:"host_name,omitempty"`
	MountPoint string    `json:"mount_point,omitempty"` // device
	Mode       string    `json:"mode,omitempty"`        // rw or ro
	State      string    `json:"state"`                 // reserved, attaching, attached, detaching
	AttachedAt time.Time `json:"attached_at"`
	// Connector is what another system than this cloud's own servers said of itself.
	Connector map[string]string `json:"connector,omitempty"`
}

// VolumeSnapshot is a state of a volume at one time.
type VolumeSnapshot struct {
	Meta
	VolumeID  ID                `json:"volume_id"`
	SizeGiB   int               `json:"size"`
	Metadata  map[string]string `json:"metadata,omitempty"`
	Deleted   bool              `json:"deleted,omitempty"`
	State     string            `json:"state"` // creating, available, deleting, error, error_deleting
	Fault     *Fault            `json:"fault,omitempty"`
	RequestID string            `json:"request_id,omitempty"`
	UserID    ID                `json:"user_id,omitempty"`
	// Since is the volume's generation that tells its host of the snapshot, or of its end.
	Since int64 `json:"since,omitempty"`
}

// VolumeBackup is a copy of a volume in the image store.
type VolumeBackup struct {
	Meta
	VolumeID   ID     `json:"volume_id"`
	SnapshotID ID     `json:"snapshot_id,omitempty"`
	SizeGiB    int    `json:"size"`
	Container  string `json:"container,omitempty"`
	BlobID     ID     `json:"blob_id,omitempty"` // where the bytes are
	Bytes      int64  `json:"bytes,omitempty"`
	Deleted    bool   `json:"deleted,omitempty"`
	State      string `json:"state"` // creating, available, restoring, deleting, error
	Fault      *Fault `json:"fault,omitempty"`

	UserID   ID                `json:"user_id,omitempty"`
	Zone     string            `json:"zone,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	DataAt   time.Time         `json:"data_at"` // when the bytes were as they are in it
	// ParentID is the backup that it builds on, keeping what differs; "": it is whole.
	ParentID ID `json:"parent_id,omitempty"`
	// Format is BackupChunks; "" is qcow2, of clouds of before: whole, and nothing builds on it.
	Format string `json:"format,omitempty"`
}

// BackupChunks is the form of backups: pieces by their digests (package block/chunk).
const BackupChunks = "chunks"

// VolumeType is a kind of volume that an administrator offers.
type VolumeType struct {
	ID          ID                `json:"id"`
	Name        string            `json:"name"` // unique
	Description string            `json:"description,omitempty"`
	Public      bool              `json:"is_public"`
	Default     bool              `json:"default,omitempty"`
	ExtraSpecs  map[string]string `json:"extra_specs,omitempty"` // volume_backend_name, multiattach "<is> True" …
	Access      []ID              `json:"access,omitempty"`      // projects, when not public
	QoSID       ID                `json:"qos_id,omitempty"`
	CreatedAt   time.Time         `json:"created_at"`
	UpdatedAt   time.Time         `json:"updated_at"`
}

// VolumeQoS are limits that volumes of the types that name it have (Cinder's QoS specs).
type VolumeQoS struct {
	ID        ID                `json:"id"`
	Name      string            `json:"name"`     // unique
	Consumer  string            `json:"consumer"` // front-end, back-end, both
	Specs     map[string]string `json:"specs,omitempty"`
	CreatedAt time.Time         `json:"created_at"`
	UpdatedAt time.Time         `json:"updated_at"`
}

// VolumeTransfer offers a volume to whoever has its key.
type VolumeTransfer struct {
	ID        ID        `json:"id"`
	Name      string    `json:"name"`
	ProjectID ID        `json:"project_id"` // who gives
	VolumeID  ID        `json:"volume_id"`
	Salt      []byte    `json:"salt"`
	Hash      []byte    `json:"hash"`      // of salt and key
	Snapshots bool      `json:"snapshots"` // those of the volume go with it
	CreatedAt time.Time `json:"created_at"`
}

// DiskLimits bound what a guest does with a disk: bytes and requests a second, and while a burst lasts; 0: no bound. A request counts as several where it has
// more than RequestBytes. JSON names are those of Cinder's QoS specs, and of libvirt.
type DiskLimits struct {
	TotalBytes    int64 `json:"total_bytes_sec,omitempty"`
	ReadBytes     int64 `json:"read_bytes_sec,omitempty"`
	WriteBytes    int64 `json:"write_bytes_sec,omitempty"`
	TotalIOPS     int64 `json:"total_iops_sec,omitempty"`
	ReadIOPS      int64 `json:"read_iops_sec,omitempty"`
	WriteIOPS     int64 `json:"write_iops_sec,omitempty"`
	TotalBytesMax int64 `json:"total_bytes_sec_max,omitempty"`
	ReadBytesMax  int64 `json:"read_bytes_sec_max,omitempty"`
	WriteBytesMax int64 `json:"write_bytes_sec_max,omitempty"`
	TotalIOPSMax  int64 `json:"total_iops_sec_max,omitempty"`
	ReadIOPSMax   int64 `json:"read_iops_sec_max,omitempty"`
	WriteIOPSMax  int64 `json:"write_iops_sec_max,omitempty"`
	RequestBytes  int64 `json:"size_iops_sec,omitempty"`
}

// VolumeUse is a volume that a server has or is to have.
type VolumeUse struct {
	VolumeID         ID     `json:"volume_id"`
	AttachmentID     ID     `json:"attachment_id"`
	Device           string `json:"device"` // as shown: /dev/vdb
	Tag              string `json:"tag,omitempty"`
	Boot             bool   `json:"boot,omitempty"` // the root disk
	DeleteWithServer bool   `json:"delete_with_server,omitempty"`
	ReadOnly         bool   `json:"read_only,omitempty"`
	// Limits are those of the volume's type when the use began.
	Limits *DiskLimits `json:"limits,omitempty"`
	// Fill, where the volume's Status.Fills is lower: the guest is to be off, and to have the volume when it has been filled anew.
	Fill int64 `json:"fill,omitempty"`
	// Detaching: the guest is to let go of it, and is not to get it. Its host still knows the volume, and may open it,
	// until it reports Disks without it; only then the use ends.
	Detaching bool `json:"detaching,omitempty"`
	// RequestID is of the request that attaches or detaches it, until the host has said that it is so.
	RequestID string `json:"request_id,omitempty"`
}

// HostVolume is a volume that the host's agent makes, changes or removes, or that a server here
// uses (Use): then only what is needed to open it counts.
type HostVolume struct {
	ID         ID             `json:"id"`
	ProjectID  ID             `json:"project_id"`
	Engine     string         `json:"engine"`
	Generation int64          `json:"generation"`
	SizeGiB    int            `json:"size"`
	Image      *ImageCopy     `json:"image,omitempty"`    // filled from
	Snapshot   ID             `json:"snapshot,omitempty"` // filled from this snapshot of Origin
	Origin     ID             `json:"origin,omitempty"`   // a volume on the same host; without Snapshot: cloned from it
	Backup     *HostBlob      `json:"backup,omitempty"`   // filled from
	Snapshots  []HostSnapshot `json:"snapshots,omitempty"`
	Uploads    []HostBlob     `json:"uploads,omitempty"` // backups and images to be made of it
	Deleted    bool           `json:"deleted,omitempty"`
	// Fills counts fillings: where it is higher than what the host has done, the volume is filled anew, from Backup or, where
	// Origin is the volume itself, by returning to Snapshot.
	Fills int64 `json:"fills,omitempty"`
	// Copy is another engine in which the volume is to be too, and Clear one in which nothing of it is to be.
	Copy  string `json:"copy,omitempty"`
	Clear string `json:"clear,omitempty"`
	// Owner is the host that has the bytes of a local volume; zero where this host has them, or where all reach them. Of one that is Mine: it comes from there,
	// and is made here as a copy.
	Owner HostAt `json:"owner"`
	// Mine: this host's agent works on the volume; otherwise it only opens it for its guests.
	Mine bool `json:"mine"`
	// Guests are the hosts that may open a local volume of this host.
	Guests []ID `json:"guests,omitempty"`
	// Holders are those of Guests, but for this host, that are asked for a copy of a volume that a guest there has open: of an engine
	// whose files all hosts reach, and which cannot copy an open one.
	Holders []HostAt `json:"holders,omitempty"`
	// Seat tells one opening of a local volume of another host from the one before: it is Volume.Seat.
	Seat int64 `json:"seat,omitempty"`
	// Place, where not nil, is beside the volume: an empty one of this host's, to which a guest copies it, or what is left of it where it was. The row may be of that alone.
	Place *HostPlace `json:"place,omitempty"`
}

// HostPlace is a place of a volume that is not where the volume is.
type HostPlace struct {
	Number int64  `json:"number"` // of the relocation
	Engine string `json:"engine"`
	// Clear: nothing is to be there; else an empty volume is.
	Clear bool `json:"clear,omitempty"`
	// Guests are the hosts that may open it, where it is local.
	Guests []ID `json:"guests,omitempty"`
}

// RowID is volume/<id>.
func (r *HostVolume) RowID() RowID { return RowID{RowVolume, r.ID} }

// HostSnapshot is a snapshot that a volume has, or is to lose.
type HostSnapshot struct {
	ID      ID   `json:"id"`
	Deleted bool `json:"deleted,omitempty"`
}

// HostBlob is something in the image store that a host reads or writes.
type HostBlob struct {
	ID         ID     `json:"id"`                    // of the backup or image that it belongs to
	BlobID     ID     `json:"blob_id,omitempty"`     // chosen by whoever asks for it
	SnapshotID ID     `json:"snapshot_id,omitempty"` // upload: of this snapshot; "": of the volume
	Format     string `json:"format,omitempty"`      // qcow2, raw, or of a backup BackupChunks
	Backup     bool   `json:"backup,omitempty"`      // it is of a backup, not of an image
	// Below are the backups that it builds on, the oldest first; of one that is to be made, the newest of them alone.
	Below []HostBlob `json:"below,omitempty"`
}

// VolumeReport is what a host says of a volume.
type VolumeReport struct {
	VolumeID   ID             `json:"volume_id"`
	Generation int64          `json:"generation"` // of the HostVolume acted on
	Ready      bool           `json:"ready"`      // it is there and as wanted
	SizeGiB    int            `json:"size"`
	Gone       bool           `json:"gone,omitempty"`
	Snapshots  []ID           `json:"snapshots,omitempty"` // that are there
	Uploads    []UploadReport `json:"uploads,omitempty"`
	Copied     string         `json:"copied,omitempty"`  // HostVolume.Copy, once it is there and compared
	Cleared    string         `json:"cleared,omitempty"` // HostVolume.Clear, once nothing is there
	Fault      *Fault         `json:"fault,omitempty"`
	// Placed is HostPlace.Number once the empty volume is there, Vacated once nothing is there; Refused where there cannot be one, for PlaceFault.
	Placed     int64  `json:"placed,omitempty"`
	Vacated    int64  `json:"vacated,omitempty"`
	Refused    int64  `json:"refused,omitempty"`
	PlaceFault *Fault `json:"place_fault,omitempty"`
}

// UploadReport is what came of an upload: of a volume's backup, or of an image made of a server.
type UploadReport struct {
	ID    ID     `json:"id"` // HostBlob.ID, or the image's
	Done  bool   `json:"done"`
	Bytes int64  `json:"bytes,omitempty"`
	Fault *Fault `json:"fault,omitempty"`
}
