// Package compute holds the life of a server: what may be asked of it in which state, how
// it is given a host, and what becomes of what its host reports. The phases of a server
// (model.Phase) are the only record of how far it has come; every step is one transaction
// and may be repeated, so that a process may die between any two.
//
// It owns, reads and writes: servers, server groups, actions, usages, consoles' tokens, flavors, key pairs, the service "compute" of
// quotas; it reads images; of hosts what an administrator says of them. It reads hosts and heartbeats, and
// of networks, QoS policies and ports what a host must have for them; it changes ports only
// through the Ports of its Config, and images through its Images. May import: fault, model, store,
// reconcile, placement. Must not import: another part, api, agent, hypervisor, datapath.
package compute

import (
	"log/slog"
	"maps"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/placement"
	"yakumo/store"
)

// Ports is what compute needs of the ports of its servers; *network.Network is one.
type Ports interface {
	// BindPort puts a port on a host; "" takes it off.
	BindPort(tx *store.Tx, port, host model.ID) (*model.Port, error)
	// PreparePort makes a second host ready for a port whose server is on its way there; "" undoes it.
	PreparePort(tx *store.Tx, port, next model.ID) error
	// ReleasePort takes a port from a server that is gone; absent is success.
	ReleasePort(tx *store.Tx, port model.ID) error
	// ReportPort records what a host made of a port; false: it was out of date or said nothing new.
	ReportPort(tx *store.Tx, port, host model.ID, st model.PortStatus) (bool, error)
	// HoldAddresses records which addresses of its allowed address pairs a port's guest says to hold.
	HoldAddresses(tx *store.Tx, port, host model.ID, claims []model.Claim) error
}

// Images is what compute needs of the catalogue of images; *images.Images is one.
type Images interface {
	// Discard removes an image that a server made; absent is success.
	Discard(tx *store.Tx, id model.ID) error
	// Rotate keeps, of the backups of the same server and type as the image, the newest keep.
	Rotate(tx *store.Tx, id model.ID, keep int) error
}

// Config makes a Compute.
type Config struct {
	Store   *store.Store
	Ports   Ports
	Volumes Volumes // nil: servers have none
	Images  Images  // nil: what servers make of themselves stays
	// Seal encrypts a secret that is to stand in the store at the place; nil: guests are told no passwords.
	Seal func(place string, secret []byte) []byte
	// KeepShelved leaves a shelved server on its host until it is asked to go.
	KeepShelved bool
	// Ratios of over-commit.
	Ratios placement.Ratios
	// Retries is how many other hosts are tried where a host fails to start a server;
	// 0: 2, negative: none.
	Retries int
	// Defaults are the quotas of a project that has none of its own; nil: DefaultQuotas.
	Defaults map[string]int
	// KeepActions is how long the actions of a deleted server are kept; default 24 h.
	KeepActions time.Duration
	// KeepUsage is how long a server that is gone counts as used; default 62 days, which holds two whole months.
	KeepUsage time.Duration
	// MaxActions is how many actions of one server are kept; default 200.
	MaxActions int
	// ConsoleTTL is how long a console's token may be used; default 10 minutes.
	ConsoleTTL time.Duration
	// Sweep is how often actions are looked through; default 10 minutes.
	Sweep time.Duration
	// MoveWait is how long the hosts of a move may take to make ready, default 10 minutes; MoveHurry how long a live
	// move copies before it is asked to end soon at the price of a pause, default 15 minutes.
	MoveWait, MoveHurry time.Duration
	// DrainAtOnce is how many servers of a host are moved away at a time, default 2; DrainPause how long one waits after
	// a move that has failed, default 10 s.
	DrainAtOnce int
	DrainPause  time.Duration
	// LeaseMargin is how much longer than its lease a guest of a dead host is waited for, default 10 s: for its host to notice
	// and to turn it off, and for clocks that do not run alike.
	LeaseMargin time.Duration
	// DeadAfter is how long a host may not be heard of, after it counts as down, before moves are given up for it; default 20 s.
	DeadAfter time.Duration
	Metrics   prometheus.Registerer // nil: none
	Log       *slog.Logger
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Compute applies the rules. It is safe for concurrent use.
type Compute struct {
	cfg     Config
	log     *slog.Logger
	now     func() time.Time
	metrics *metrics
}

// New makes a Compute.
func New(cfg Config) *Compute {
	cfg.Ratios = cfg.Ratios.WithDefaults()
	if cfg.Retries == 0 {
		cfg.Retries = 2
	}
	if cfg.Defaults == nil {
		cfg.Defaults = DefaultQuotas()
	}
	if cfg.ConsoleTTL == 0 {
		cfg.ConsoleTTL = 10 * time.Minute
	}
	if cfg.KeepActions == 0 {
		cfg.KeepActions = 24 * time.Hour
	}
	if cfg.KeepUsage == 0 {
		cfg.KeepUsage = 62 * 24 * time.Hour
	}
	if cfg.MaxActions == 0 {
		cfg.MaxActions = 200
	}
	if cfg.Sweep == 0 {
		cfg.Sweep = 10 * time.Minute
	}
	if cfg.Images == nil {
		cfg.Images = kept{}
	}
	if cfg.MoveWait == 0 {
		cfg.MoveWait = 10 * time.Minute
	}
	if cfg.MoveHurry == 0 {
		cfg.MoveHurry = 15 * time.Minute
	}
	if cfg.DrainAtOnce == 0 {
		cfg.DrainAtOnce = 2
	}
	if cfg.DrainPause == 0 {
		cfg.DrainPause = 10 * time.Second
	}
	if cfg.LeaseMargin == 0 {
		cfg.LeaseMargin = 10 * time.Second
	}
	if cfg.DeadAfter == 0 {
		cfg.DeadAfter = 20 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Compute{cfg: cfg, log: cfg.Log, now: func() time.Time { return cfg.Now().UTC() }, metrics: newMetrics(cfg.Metrics)}
}

// kept is a catalogue that nothing is removed from.
type kept struct{}

func (kept) Discard(*store.Tx, model.ID) error     { return nil }
func (kept) Rotate(*store.Tx, model.ID, int) error { return nil }

// Ratios gives the ratios of over-commit in force.
func (c *Compute) Ratios() placement.Ratios { return c.cfg.Ratios }

// Scope says on whose behalf a call is made, and in which request.
type Scope struct {
	ProjectID, UserID model.ID
	Admin             bool
	RequestID         string
}

// Owns tells whether the scope may see and change what belongs to the project.
func (sc Scope) Owns(project model.ID) bool {
	return sc.Admin || sc.ProjectID != "" && sc.ProjectID == project
}

// Get gives a server that the scope may see.
func Get(r store.Reader, sc Scope, id model.ID) (*model.Server, error) {
	s, ok := store.Servers.Get(r, id)
	if !ok || !sc.Owns(s.ProjectID) {
		return nil, fault.New(fault.NotFound, "Instance %s could not be found.", id)
	}
	return s, nil
}

// Used gives what the servers on a host take of it, and how many they are: every server that has the host,
// whatever its state, as its disk and maybe its guest are still there.
func Used(r store.Reader, host model.ID) (placement.Size, int) {
	sum := store.Servers.Sum(r, "host", host)
	a := sum.Amounts
	return placement.Size{VCPUs: a[0], MemoryMiB: a[1], DiskGiB: a[2], PCPUs: a[3], PagesMiB: [2]int{a[4], a[5]}}, sum.Rows
}

// copyOf gives a copy of a server that may be changed. Maps and slices are replaced, never
// changed in place.
func copyOf(s *model.Server) *model.Server {
	n := *s
	return &n
}

// SetHost changes what an administrator says of a host.
func (c *Compute) SetHost(tx *store.Tx, id model.ID, change func(*model.Host)) (*model.Host, error) {
	old, ok := store.Hosts.Get(tx, id)
	if !ok {
		return nil, fault.New(fault.NotFound, "Compute service %s could not be found.", id)
	}
	h := *old
	change(&h)
	h.Touch(c.now())
	return &h, store.Hosts.Put(tx, &h)
}

func cloneMap(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	return maps.Clone(m)
}
