package model

import (
	"strings"
	"time"
)

// ServerGroup says which servers stand together and which apart.
type ServerGroup struct {
	ID        ID             `json:"id"`
	ProjectID ID             `json:"project_id"`
	UserID    ID             `json:"user_id"`
	Name      string         `json:"name"`
	Policy    string         `json:"policy"` // affinity, anti-affinity, soft-affinity, soft-anti-affinity
	Rules     map[string]int `json:"rules,omitempty"`
	CreatedAt time.Time      `json:"created_at"`
}

// Aggregate is an administrator's set of hosts.
type Aggregate struct {
	ID        ID                `json:"id"`     // uuid
	Number    int64             `json:"number"` // Nova's id, unique
	Name      string            `json:"name"`   // unique
	Zone      string            `json:"zone,omitempty"`
	Metadata  map[string]string `json:"metadata,omitempty"`
	Hosts     []ID              `json:"hosts,omitempty"` // sorted
	CreatedAt time.Time         `json:"created_at"`
	UpdatedAt time.Time         `json:"updated_at"`
}

// Rescue is a guest that starts from another disk, its own beside it.
type Rescue struct {
	ImageID  ID        `json:"image_id"`
	Image    ImageCopy `json:"image"`
	Revision int64     `json:"revision"` // counts rescues: each begins with a fresh disk
}

// Shelving is how far a server's being put away has come.
type Shelving string

// The stages of shelving.
const (
	NotShelved Shelving = ""
	Shelved    Shelving = "shelved"           // off; its disk is an image and still on the host
	Offloaded  Shelving = "shelved_offloaded" // no host; ShelvedImage holds the disk
)

// ConsoleToken opens one console for a while. The key is the token's SHA-256: the store does not know the token.
type ConsoleToken struct {
	Hash      string    `json:"hash"`
	ServerID  ID        `json:"server_id"`
	ProjectID ID        `json:"project_id"`
	Kind      string    `json:"kind"` // vnc or serial
	ExpiresAt time.Time `json:"expires_at"`
}

// Inventory is what a host really has, by its own look: the answer to the question "inventory".
type Inventory struct {
	Guests  []GuestAt `json:"guests"`            // of this cloud
	Folders []ID      `json:"folders"`           // of guests' files: servers' ids
	Taps    []string  `json:"taps"`              // names of devices made for ports
	Volumes []ID      `json:"volumes,omitempty"` // of local engines
	// Quarantined is what no row named and nobody ordered to go.
	Quarantined []Quarantined `json:"quarantined,omitempty"`
}

// Quarantined is a guest's folder, or a local volume, that a host has laid aside.
type Quarantined struct {
	Kind   RowKind   `json:"kind"` // RowServer or RowVolume
	ID     ID        `json:"id"`
	At     time.Time `json:"at"`
	Until  time.Time `json:"until"`  // then it is erased
	Folder string    `json:"folder"` // on the host
}

// GuestAt is a guest as its hypervisor sees it.
type GuestAt struct {
	ID    ID    `json:"id"`
	Power Power `json:"power"`
	CPUs  []int `json:"cpus,omitempty"` // of the host, that it has for itself, sorted
}

// TapName gives the name of a port's device on its host: 15 characters, as many as Linux allows.
func TapName(port ID) string {
	const digits = 13
	hex := strings.ReplaceAll(port, "-", "")
	return "yk" + hex[:min(digits, len(hex))]
}
