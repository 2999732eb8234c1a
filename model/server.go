package model

import (
	"slices"
	"time"
)

// Flavor is a size of server.
type Flavor struct {
	ID          ID                `json:"id"` // any string the operator chose
	Name        string            `json:"name"`
	Description string            `json:"description,omitempty"`
	VCPUs       int               `json:"vcpus"`
	MemoryMiB   int               `json:"ram"`
	DiskGiB     int               `json:"disk"` // 0: the image's own size
	Ephemeral   int               `json:"ephemeral"`
	SwapMiB     int               `json:"swap"`
	RxTxFactor  float64           `json:"rxtx_factor"`
	Public      bool              `json:"is_public"`
	Disabled    bool              `json:"disabled"`
	ExtraSpecs  map[string]string `json:"extra_specs,omitempty"`
	Access      []ID              `json:"access,omitempty"` // projects, when not public
	CreatedAt   time.Time         `json:"created_at"`
}

// KeyPair is a public key of a user; its name is unique per user.
type KeyPair struct {
	ID          int64     `json:"id"`
	UserID      ID        `json:"user_id"`
	Name        string    `json:"name"`
	Type        string    `json:"type"` // ssh
	PublicKey   string    `json:"public_key"`
	Fingerprint string    `json:"fingerprint"` // MD5 with colons, as Nova prints it
	CreatedAt   time.Time `json:"created_at"`
}

// Key is the row's key in the store.
func (k *KeyPair) Key() string { return k.UserID + "," + k.Name }

// Phase is how far the life of a server has come. A reconciler advances it.
type Phase string

// The phases. Placing needs the placement controller; the others the server's host.
const (
	PhasePlacing  Phase = "placing"  // accepted; no host yet
	PhaseFetching Phase = "fetching" // host and addresses chosen; the host fetches the image
	PhaseStarting Phase = "starting" // image there; ports are wired, guest is started
	PhaseReady    Phase = "ready"    // it has run once; Status.Power tells the rest
	PhaseError    Phase = "error"    // Fault tells why; delete works
	PhaseDeleting Phase = "deleting" // wanted gone; the row goes when the host says so
	PhaseShelved  Phase = "shelved"  // it has no host, and its disk is an image
	PhaseGone     Phase = "gone"     // nothing is left of it but what is told of it for a while
)

// Power is the state of a guest, wanted or seen.
type Power string

// Power states.
const (
	PowerUnknown   Power = ""
	PowerOff       Power = "off"
	PowerRunning   Power = "running"
	PowerPaused    Power = "paused"    // its processors stand still, its memory is kept
	PowerSuspended Power = "suspended" // off, with its memory in a file of its host
	PowerCrashed   Power = "crashed"
)

// Server is a virtual machine.
type Server struct {
	Meta
	UserID      ID                `json:"user_id"`
	Flavor      Flavor            `json:"flavor"` // as it was at creation
	ImageID     ID                `json:"image_id"`
	Image       ImageCopy         `json:"image"` // as it was at creation
	KeyName     string            `json:"key_name,omitempty"`
	PublicKey   string            `json:"public_key,omitempty"`
	UserData    string            `json:"user_data,omitempty"` // base64, ≤ 65535 bytes
	ConfigDrive bool              `json:"config_drive"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	Zone        string            `json:"zone,omitempty"`      // asked for; "" any
	WantHost    string            `json:"want_host,omitempty"` // an administrator's choice, by host name
	// AdminPass is the password that its guest is to be told by its config drive, sealed for PassPlace; nil once it was, and for one without.
	AdminPass []byte `json:"admin_pass,omitempty"`
	// Sealed is the password that the guest handed in, encrypted with its owner's key (base64), as the metadata service took it.
	Sealed string `json:"sealed,omitempty"`
	// SealedClears counts how often it was cleared: what was handed in before is not taken again.
	SealedClears int64 `json:"sealed_clears,omitempty"`
	// GroupID is its server group; Hints are the scheduler hints that it was made with.
	GroupID     ID                  `json:"group_id,omitempty"`
	Hints       map[string][]string `json:"hints,omitempty"`
	HostName    string              `json:"host_name"` // inside the guest
	Ports       []ID                `json:"ports"`     // in the order of the guest's interfaces
	Locked      bool                `json:"locked,omitempty"`
	LockReason  string              `json:"lock_reason,omitempty"`
	LockedBy    string              `json:"locked_by,omitempty"` // owner or admin
	AccessIPv4  string              `json:"access_ipv4,omitempty"`
	AccessIPv6  string              `json:"access_ipv6,omitempty"`
	DiskConfig  string              `json:"disk_config,omitempty"` // Nova's OS-DCF:diskConfig: MANUAL or AUTO
	Reservation string              `json:"reservation,omitempty"` // Nova's reservation id: of the request that made it
	LaunchIndex int                 `json:"launch_index,omitempty"`
	Arch        string              `json:"arch,omitempty"`       // asked for by the image; "" any
	Container   bool                `json:"container,omitempty"`  // made of an archive, by its image; else a virtual machine
	RequestID   string              `json:"request_id,omitempty"` // of the request that last changed what is wanted
	Token       string              `json:"token,omitempty"`      // the client's own name for the request that made it

	// Power is what the user wants; Reboots and HardReboots count requests, so that each is acted on once.
	Power       Power `json:"power"`
	Reboots     int64 `json:"reboots,omitempty"`
	HardReboots int64 `json:"hard_reboots,omitempty"`
	Deleted     bool  `json:"deleted,omitempty"`
	// Rebuilds counts requests for a fresh root disk of Image.
	Rebuilds int64 `json:"rebuilds,omitempty"`
	// Volumes are in the order of the guest's disks after its own; one may be its root disk, and it has none of its own then.
	Volumes []VolumeUse `json:"volumes,omitempty"`
	// Saving are images that its host is to make of its root disk.
	Saving       []ID          `json:"saving,omitempty"`
	Rescue       *Rescue       `json:"rescue,omitempty"`
	Shelving     Shelving      `json:"shelving,omitempty"`
	ShelvedImage ID            `json:"shelved_image,omitempty"`
	PortTags     map[ID]string `json:"port_tags,omitempty"` // device tags, by port
	Move         *Move         `json:"move,omitempty"`
	// Plugging are interfaces whose attachment or detachment the host has not confirmed. One that is being
	// detached is in Ports no more, and keeps its port until the guest is known to have lost it.
	Plugging []Plugging `json:"plugging,omitempty"`
	// Rotate, where not 0: how many backups of one type are kept once the image that is Saving is there.
	Rotate int `json:"rotate,omitempty"`

	// Host is chosen by placement.
	Host   ID           `json:"host,omitempty"`
	Status ServerStatus `json:"status"`
}

// ServerStatus is what the cloud made of a server.
type ServerStatus struct {
	Phase      Phase     `json:"phase"`
	Task       string    `json:"task,omitempty"` // Nova's task_state while an action runs: "powering-off", "rebooting" …
	Power      Power     `json:"power,omitempty"`
	Generation int64     `json:"generation,omitempty"` // the server's generation that the host acted on last
	Reboots    int64     `json:"reboots,omitempty"`    // requests served
	Hard       int64     `json:"hard_reboots,omitempty"`
	Rebuilds   int64     `json:"rebuilds,omitempty"`
	Lease      int       `json:"lease,omitempty"`  // seconds that the host holds the guest to; see HostServer.LeaseSeconds
	Rescue     int64     `json:"rescue,omitempty"` // Revision of the rescue that the guest runs in; 0: none
	Fault      *Fault    `json:"fault,omitempty"`
	LaunchedAt time.Time `json:"launched_at"`
	// TerminatedAt is when nothing was left of it; zero before.
	TerminatedAt time.Time `json:"terminated_at,omitzero"`
	Action       string    `json:"action,omitempty"` // request id of the action that runs, where one does
	Failed       []ID      `json:"failed,omitempty"` // hosts that could not start it, in order
}

// PassPlace names where AdminPass is kept, for whoever seals it and opens it.
func (s *Server) PassPlace() string { return "server," + s.ID + ",admin_pass" }

// NewestFirst gives a key under which servers sort by creation, the newest first, then by
// id from the highest down: the order in which the Compute API lists by default.
func (s *Server) NewestFirst() string { return newestFirst(s.CreatedAt, s.ID) }

// Plugging is an interface on its way to a guest, or from it.
type Plugging struct {
	PortID    ID     `json:"port_id"`
	RequestID string `json:"request_id"` // of its action
	Out       bool   `json:"out,omitempty"`
}

// RootGiB gives the disk that a server takes of its host, GiB, rounded up: the flavor's root disk, or where that is 0 the image's,
// with ephemeral and swap. One that boots from a volume has no root disk of its own.
func RootGiB(s *Server) int { return s.rootGiB(&s.Flavor) }

func (s *Server) rootGiB(f *Flavor) int {
	disk := f.DiskGiB
	if disk == 0 {
		disk = int((s.Image.VirtualSize + 1<<30 - 1) >> 30)
	}
	if s.BootsFromVolume() {
		disk = 0
	}
	return disk + f.Ephemeral + (f.SwapMiB+1023)/1024
}

// Load is what a server takes of a host.
type Load struct {
	VCPUs              int // processors that it shares with others
	PCPUs              int // CPUs of the host for it alone
	MemoryMiB, DiskGiB int
	PagesMiB           [2]int // of the memory, what is in pages of PageSizes
}

// Taken gives what a server takes of a host: of both hosts of a move, with the flavor that it has there.
func (s *Server) Taken(host ID) Load {
	f := &s.Flavor
	if s.Move != nil {
		f = s.Move.On(host, f)
	}
	return s.load(f)
}

// Load gives what a server with its own flavor takes of a host.
func (s *Server) Load() Load { return s.load(&s.Flavor) }

func (s *Server) load(f *Flavor) Load {
	l := Load{VCPUs: f.VCPUs, MemoryMiB: f.MemoryMiB, DiskGiB: s.rootGiB(f)}
	if len(f.ExtraSpecs)+len(s.Image.Hardware) == 0 {
		return l
	}
	// What no server can have is refused before there is one.
	p, _ := ProcessorsOf(f.VCPUs, f.ExtraSpecs, s.Image.Hardware)
	l.VCPUs, l.PCPUs = f.VCPUs-len(p.Dedicated), p.Own()
	if kib := PageKiB(f.ExtraSpecs, s.Image.Hardware); kib > 0 {
		page := kib >> 10
		l.PagesMiB[slices.Index(PageSizes[:], kib)] = (f.MemoryMiB + page - 1) / page * page
	}
	return l
}

// Spent gives what a server takes of its project's quota, vCPUs and MiB of memory; one that is being resized may end with either flavor.
func (s *Server) Spent() (vcpus, memoryMiB int) {
	vcpus, memoryMiB = s.Flavor.VCPUs, s.Flavor.MemoryMiB
	if m := s.Move; m != nil && m.NewFlavor != nil && m.OldFlavor != nil {
		vcpus, memoryMiB = max(m.OldFlavor.VCPUs, m.NewFlavor.VCPUs), max(m.OldFlavor.MemoryMiB, m.NewFlavor.MemoryMiB)
	}
	return vcpus, memoryMiB
}

// BootsFromVolume tells whether the root disk is a volume.
func (s *Server) BootsFromVolume() bool {
	for i := range s.Volumes {
		if s.Volumes[i].Boot {
			return true
		}
	}
	return false
}

// Fault is a failure as its owner may read it; Details is for administrators.
type Fault struct {
	Code    int       `json:"code"` // HTTP-like, as Nova shows it
	Message string    `json:"message"`
	Details string    `json:"details,omitempty"`
	At      time.Time `json:"at"`
}

// Step is one of the five steps of a boot.
type Step string

// The five steps: receive → place → fetch image → start → use.
const (
	StepReceive Step = "receive"
	StepPlace   Step = "place"
	StepFetch   Step = "fetch_image"
	StepStart   Step = "start"
	StepUse     Step = "use"
)

// Action is one request of a user on a server with the timed events that came of it
// (Nova's instance action).
type Action struct {
	ServerID  ID            `json:"server_id"`
	RequestID string        `json:"request_id"` // unique per action
	Action    string        `json:"action"`     // create, stop, start, reboot, delete …
	ProjectID ID            `json:"project_id"`
	UserID    ID            `json:"user_id"`
	StartedAt time.Time     `json:"started_at"`
	UpdatedAt time.Time     `json:"updated_at"`
	Message   string        `json:"message,omitempty"` // "Error" where it failed
	Events    []ActionEvent `json:"events,omitempty"`
}

// Key is the row's key in the store: actions of a server sort by time.
func (a *Action) Key() string {
	return a.ServerID + "," + a.StartedAt.UTC().Format("20060102T150405.000000000") + "," + a.RequestID
}

// ActionEvent is one step of an action.
type ActionEvent struct {
	Event      string    `json:"event"`
	StartedAt  time.Time `json:"started_at"`
	FinishedAt time.Time `json:"finished_at"`
	Result     string    `json:"result,omitempty"` // Success or Error
	Details    string    `json:"details,omitempty"`
	Host       ID        `json:"host,omitempty"`
}

// ConsoleQuery is the body, in JSON, of the question "console" that a server asks a host;
// the answer is the raw bytes of the guest's serial console log, the newest at the end.
type ConsoleQuery struct {
	ServerID ID    `json:"server_id"`
	MaxBytes int64 `json:"max_bytes"` // of the end of the log; 0: as much as the host keeps
}

// DiagnosticsQuery is the body, in JSON, of the question "diagnostics" that a server asks a host about
// a running guest; the answer is a Diagnostics in JSON.
type DiagnosticsQuery struct {
	ServerID ID `json:"server_id"`
}

// PasswordQuery is the body, in JSON, of the question "password" that a server asks a host: the agent in the guest is to set
// the password of one of the guest's users. The password is nowhere else, neither in the store nor in a ledger.
type PasswordQuery struct {
	ServerID ID     `json:"server_id"`
	User     string `json:"user"`
	Password string `json:"password"`
}

// InterruptQuery is the body, in JSON, of the question "interrupt" that a server asks a host: the guest is to have a
// non-maskable interrupt.
type InterruptQuery struct {
	ServerID ID `json:"server_id"`
}

// CacheQuery is the body, in JSON, of the question "cache" that a server asks a host: the host is to fetch images that guests may be made
// of later. The answer says that it will try, not that it has them.
type CacheQuery struct {
	Images []ImageCopy `json:"images"`
}

// HostUptime is the answer, in JSON, to the question "uptime", which has no body.
type HostUptime struct {
	UpSecs int64      `json:"up"`   // since the host's kernel started
	Load   [3]float64 `json:"load"` // of the last 1, 5 and 15 minutes, as the kernel says
}

// Diagnostics are counters of a running guest since its start.
type Diagnostics struct {
	Driver     string         `json:"driver"`     // libvirt …
	Hypervisor string         `json:"hypervisor"` // kvm, qemu …
	UptimeSecs int64          `json:"uptime"`
	CPUNanos   []int64        `json:"cpu_ns"` // of each virtual processor
	MemoryMiB  int            `json:"memory_mib"`
	UsedMiB    int            `json:"used_mib"` // resident on the host
	Disks      []DiskCounters `json:"disks,omitempty"`
	NICs       []NICCounters  `json:"nics,omitempty"`
}

// DiskCounters are of one disk of a guest.
type DiskCounters struct {
	ReadBytes     int64 `json:"read_bytes"`
	ReadRequests  int64 `json:"read_requests"`
	WriteBytes    int64 `json:"write_bytes"`
	WriteRequests int64 `json:"write_requests"`
	Errors        int64 `json:"errors"`
}

// NICCounters are of one interface; in is what the guest receives.
type NICCounters struct {
	MAC        string `json:"mac"`
	InBytes    int64  `json:"in_bytes"`
	InPackets  int64  `json:"in_packets"`
	InErrors   int64  `json:"in_errors"`
	InDrops    int64  `json:"in_drops"`
	OutBytes   int64  `json:"out_bytes"`
	OutPackets int64  `json:"out_packets"`
	OutErrors  int64  `json:"out_errors"`
	OutDrops   int64  `json:"out_drops"`
}
