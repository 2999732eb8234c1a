// Package hypervisor is the seam between the agent and whatever runs guests on its host.
//
// It owns the words of the seam (Guest, State, Capacity, Driver), the check of a Guest, and
// the fan-out of state changes that drivers share. It reads and writes nothing itself. It
// must not import any part of the project but fault: drivers and the agent import it.
//
// A driver obeys and decides nothing. The agent keeps what is wanted; a driver keeps only
// what the hypervisor itself keeps, so that a restarted agent or hypervisor daemon finds
// every guest as it was.
package hypervisor

import (
	"context"
	"io"
	"time"

	"yakumo/fault"
)

// Guest is everything that a driver must know to run one virtual machine. Two guests that
// are equal in every field are the same definition.
type Guest struct {
	ID   string // UUID of the server, in lower case; also the guest's SMBIOS UUID
	Name string // name in the hypervisor, unique on the host: "yk-" and ID

	// Title, Project and User are shown to an operator beside the guest; nothing depends on them.
	Title, Project, User string

	VCPUs     int // 1 to 1024
	MemoryMiB int // at least 1

	Disks []Disk
	NICs  []NIC

	// ConsoleLog is the absolute path of the host's file that keeps what the guest writes to
	// its first serial port; empty for none. Its folder must exist. The file outlives a stop
	// and grows across starts; the agent removes it with the guest's disks.
	ConsoleLog string
	// ConsoleLogBytes bounds what is kept of the console's output: only the last that many
	// bytes are. 0 stands for DefaultConsoleLogBytes.
	ConsoleLogBytes int64

	Serial string // SMBIOS system serial number; empty for the ID

	// NVRAM is the absolute path of the file that keeps the variables of a UEFI firmware (see Tuning), which the driver makes where it is not
	// there; empty where the guest has a BIOS. It outlives the guest like its disks do.
	NVRAM string

	Emulator string // absolute path of the program that runs it on this host; empty for the hypervisor's own choice

	CPUs HostCPUs // of the host, that it runs on

	// Display gives the guest a screen, a keyboard and a tablet that Displayer serves.
	Display bool
	// Specs are the flavor's extra specs and the image's properties that the hypervisor can honour
	// (hw:cpu_policy, hw:watchdog_action, hw:mem_page_size, hw_disk_bus …); what a driver does not know it leaves alone.
	Specs map[string]string
}

// DefaultConsoleLogBytes is the bound of a console log that names none.
const DefaultConsoleLogBytes int64 = 1 << 20

// ConsoleLogBound gives the bound of g's console log in bytes.
func (g Guest) ConsoleLogBound() int64 {
	if g.ConsoleLogBytes == 0 {
		return DefaultConsoleLogBytes
	}
	return g.ConsoleLogBytes
}

// Disk is a file of the host that the guest sees as a disk or as a CD-ROM.
type Disk struct {
	Path   string // absolute; empty where Network is set
	Format string // "qcow2" or "raw"
	// Network, where not nil, is a disk that is not a file of this host. Its Format is raw.
	Network *NetworkDisk
	Shared  bool // several guests write to it
	// Everywhere: other hosts reach it too, so that this one keeps nothing of it in its own memory. What Network names is so always.
	Everywhere bool
	Tag        string // the user's name for it
	Device     string // "disk", "cdrom"; empty for "disk"
	ReadOnly   bool   // a CD-ROM is always read-only
	Serial     string // shown in the guest's /dev/disk/by-id; virtio shows the first 20 bytes
	// BootOrder is the place in the firmware's order among disks and NICs, from 1; 0 is never
	// booted from.
	BootOrder int
	Bus       string // "virtio", "scsi" or "sata"; empty for virtio, or for sata with a CD-ROM
	// Limits, where any is set, stand in the place of those that the guest's Specs give all its disks.
	Limits DiskLimits
}

// DiskLimits bound what a guest does with a disk: bytes and requests a second, and while a burst lasts; 0: no bound. A request counts as several where it has
// more than RequestBytes. A total cannot stand beside a bound on reads or on writes.
type DiskLimits struct {
	TotalBytes, ReadBytes, WriteBytes, TotalIOPS, ReadIOPS, WriteIOPS                   int64
	TotalBytesMax, ReadBytesMax, WriteBytesMax, TotalIOPSMax, ReadIOPSMax, WriteIOPSMax int64
	RequestBytes                                                                        int64
}

// NetworkDisk is where a disk is that is no file.
type NetworkDisk struct {
	Protocol  string   // "nbd" or "rbd"
	Socket    string   // nbd: absolute path of a unix socket of this host
	Name      string   // nbd: export; rbd: pool/image
	Hosts     []string // rbd: monitors, host:port
	User      string   // rbd
	Secret    string   // rbd: the user's key, base64; never logged
	Reconnect int      // seconds for which a guest waits for a lost server before it sees an error; 0: none
}

// NIC is a virtio network card on a tap device that exists on the host before the guest
// starts. The driver neither makes, configures nor removes the tap.
type NIC struct {
	ID        string // the port's ID; shown to an operator
	MAC       string // unicast, colon-separated
	Tap       string // name of the tap device, at most 15 bytes
	MTU       int    // told to the guest by the card, 68 to 65535; 0 for none
	Tag       string // the user's name for it
	BootOrder int    // as for Disk
}

// Power is the state of a guest as the hypervisor sees it.
type Power uint8

// The powers. A guest that has never been started is Off.
const (
	Absent    Power = iota // not defined on this host
	Off                    // defined, not running: never started, shut down or stopped
	Running                // its processors execute, or are about to
	Paused                 // its processors are held: by an operator, a migration or a disk error
	Crashed                // it ended without being asked: its process died or the guest panicked
	Suspended              // off, with its memory kept in a file; Start goes on from there
)

var powerNames = [...]string{"absent", "off", "running", "paused", "crashed", "suspended"}

// String gives the power's name in lower case.
func (p Power) String() string {
	if int(p) < len(powerNames) {
		return powerNames[p]
	}
	return "unknown"
}

// State is what the hypervisor says of one guest.
type State struct {
	ID    string
	Power Power
	// Reason is a few words for an operator on why the guest has this power, such as
	// "shut down" or "disk error"; empty where the hypervisor does not say.
	Reason string
	// Since is when the driver saw the guest reach this power; for a guest that had it before
	// the driver was opened, when the driver first looked.
	Since time.Time
	// Moving: it is Paused for a move alone. At the sending host it stands still until the other end runs it; at the
	// receiving one its memory is still to come. A guest that was held when it left is Paused there, and not Moving, once it has come.
	Moving bool
}

// Capacity is what a host has, before over-commitment and reservations, and what runs on it.
type Capacity struct {
	Hostname string // as the hypervisor knows the host

	VCPUs     int // online hardware threads
	MemoryMiB int
	DiskGiB   int // size of the file system that holds guests' disks, GiB = 2^30 bytes; 0 if not known

	Arch        string // "x86_64"
	CPUModel    string
	CPUVendor   string
	CPUFeatures []string // sorted
	// Cells, Sockets, Cores and Threads are the topology: NUMA cells of the host, sockets a
	// cell, cores a socket and threads a core.
	Cells, Sockets, Cores, Threads int

	CPUs      []CPU       // in the order of their numbers; nil: not known
	HugePages []HugePages // that are not the ordinary ones, in the order of their sizes and nodes

	UEFI       bool     // guests can have a UEFI firmware
	TPM        []string // versions of trusted platform modules that guests can have, sorted: "1.2", "2.0"
	SecureBoot bool     // that firmware can be one that starts what is signed only

	HypervisorType    string // "QEMU", "LXC"; as Nova names it
	HypervisorVersion int    // major*1000000 + minor*1000 + release
	Accelerator       string // "kvm", or "tcg" for software emulation; empty where guests are no virtual machines
}

// Driver runs guests on this host.
//
// Every method may be called at any time and concurrently, also for one guest, and gives up
// when its context ends. A guest that the hypervisor runs for somebody else is invisible: it
// is never listed, changed or removed. Errors carry a kind of package fault: Invalid for a
// guest that no driver could run, NotFound for an ID that is not defined here, Unavailable
// while the hypervisor does not answer (the same call works once it is back; a driver needs
// no new connection from its caller), Conflict where the state forbids the call. Where the
// hypervisor refuses, its own words are in the error.
type Driver interface {
	// Capacity says what the host has.
	Capacity(ctx context.Context) (Capacity, error)

	// Ensure makes a guest defined and equal to g. It does not start it. Changing a guest that
	// is running is allowed: it runs on as it is and has the new definition from its next
	// Start on.
	Ensure(ctx context.Context, g Guest) error

	// Remove stops the guest at once and forgets it; the host's files and taps stay. A guest
	// that is not there is a success.
	Remove(ctx context.Context, id string) error

	// Start makes the guest run. A running guest is a success; a paused one is resumed.
	Start(ctx context.Context, id string) error

	// Stop presses the guest's power button, waits for at most grace until it has shut down,
	// and cuts its power if it has not. A grace of 0 cuts it at once. A guest that is off is a
	// success. If ctx ends while waiting, the guest may run on.
	Stop(ctx context.Context, id string, grace time.Duration) error

	// Reset resets a running guest as its reset button does; one that does not run is a
	// Conflict.
	Reset(ctx context.Context, id string) error

	// List gives the state of every guest that is defined, in the order of the IDs.
	List(ctx context.Context) ([]State, error)

	// Watch gives each guest's changes of power from now on, the removal (Absent) included, and
	// ends with a closed channel when ctx ends or the hypervisor is lost. A reader that is slow
	// gets the latest state of a guest and may miss what was in between. Whoever calls Watch and
	// then List misses nothing.
	Watch(ctx context.Context) (<-chan State, error)
}

// Consoler is a Driver that gives access to guests' first serial port.
type Consoler interface {
	// ConsoleLog gives the last maxBytes bytes that the guest wrote, of the starts before too,
	// and no more than its bound (see Guest). It is empty for a guest that wrote nothing yet.
	// A maxBytes of 0 or less asks for all that is kept.
	ConsoleLog(ctx context.Context, id string, maxBytes int64) ([]byte, error)

	// Console opens the port for reading and writing; the guest must be running. There is one
	// reader at a time: a second is a Conflict. The console ends with io.EOF when the guest stops.
	// It lives until Close, whatever becomes of ctx.
	Console(ctx context.Context, id string) (io.ReadWriteCloser, error)
}

// The interfaces below are what a driver may offer besides. Each method has the errors of Driver's.

// Pauser is a Driver that can hold a guest's processors. Start ends a pause.
type Pauser interface {
	// Pause makes a running guest Paused; a paused one is a success.
	Pause(ctx context.Context, id string) error
}

// Interrupter is a Driver that can interrupt a guest so that it cannot look away.
type Interrupter interface {
	// Interrupt gives a guest that is on a non-maskable interrupt. What it makes of that is its own: one that is set up so
	// dumps its memory and starts anew. A paused guest has it when it goes on.
	Interrupt(ctx context.Context, id string) error
}

// Suspender is a Driver that can put a guest's memory into a file and turn it off.
type Suspender interface {
	// Suspend makes a running or paused guest Suspended; a suspended one is a success. The host may be
	// turned off meanwhile. Stop throws the memory away.
	Suspend(ctx context.Context, id string) error
}

// Plugger is a Driver that can change a running guest's cards, and its disks where it is a Grower too.
type Plugger interface {
	// Plug makes the running guest have exactly the disks and cards of g, and its definition too. It returns once
	// what was taken away is let go of by the guest, which has to play along: fault.Conflict where it did not by the
	// end of ctx. Nothing else of g is compared.
	Plug(ctx context.Context, g Guest) error
}

// Grower is a Plugger whose guests' disks can be changed while they run, and grow.
type Grower interface {
	Plugger
	// Grow tells a running guest that the disk with the serial number has the size in bytes now, and
	// makes it so where it is a file.
	Grow(ctx context.Context, id, serial string, size int64) error
}

// Reopener is a Driver that can let what serves a running guest's disk be exchanged for a larger one under it.
type Reopener interface {
	// Reopen makes a guest that is on see that a disk which is no file has at least the size in bytes, and does nothing where it does so already. The
	// guest is held while change is called, which must leave something at the disk's place that may be connected to anew; then it connects and goes on.
	// Where change fails, the guest stays held (Paused), as it has no disk to go on with: Reopen called again goes on, and Start lets it run.
	// fault.Unavailable where what is served is still smaller: the guest runs on with the size that it had.
	Reopen(ctx context.Context, id, serial string, size int64, change func(context.Context) error) error
}

// Copier is a Driver that can copy a disk of a running guest at one moment.
type Copier interface {
	// CopyDisk writes what the disk with the serial number holds now to the new file path, as qcow2 without a
	// backing file. The guest runs on; it is quiesced, where at all, only for the moment that the copy is of.
	CopyDisk(ctx context.Context, id, serial, path string, quiesce Quiesce) error
}

// Diagnoser is a Driver that can say what a guest uses.
type Diagnoser interface {
	Diagnostics(ctx context.Context, id string) (Diagnostics, error)
}

// Diagnostics are counters of a running guest since its start.
type Diagnostics struct {
	Uptime    time.Duration
	CPUTime   []time.Duration // of each virtual processor
	MemoryMiB int             // at most
	UsedMiB   int             // resident on the host
	Disks     []DiskCounters
	NICs      []NICCounters
}

// DiskCounters are of one disk.
type DiskCounters struct {
	Serial                                             string
	ReadBytes, ReadRequests, WriteBytes, WriteRequests int64
	Errors                                             int64
}

// NICCounters are of one card, as the guest sees directions.
type NICCounters struct {
	MAC                                                                              string
	InBytes, InPackets, InErrors, InDrops, OutBytes, OutPackets, OutErrors, OutDrops int64
}

// Locator is a Driver that can say where a guest's devices are.
type Locator interface {
	// Devices gives the places of a defined guest's disks and cards, as it has them now or will at its next start.
	Devices(ctx context.Context, id string) ([]Place, error)
}

// Place is where a guest finds a device.
type Place struct {
	Serial string // of a disk; else empty
	MAC    string // of a card, in lower case; else empty
	// Bus and Address are as the guest names them: "pci" and "0000:02:00.0", "scsi" and "0:0:0:1"; empty where
	// the device has no such.
	Bus, Address string
	Path         string // of a disk, as Linux most likely names it: "/dev/vda"
}

// Displayer is a Driver that gives access to guests' screens.
type Displayer interface {
	// Display opens a connection that speaks RFB (VNC, RFC 6143), without a password. The guest must be running and have
	// been defined with Display. It lives until Close, whatever becomes of ctx.
	Display(ctx context.Context, id string) (io.ReadWriteCloser, error)
}

// Migrator is a Driver that can move a running guest to another host's driver of the same kind.
type Migrator interface {
	// Receive makes this host ready for a guest that is about to come: g is its definition here, with
	// the paths of this host; its local disks' files exist, with their sizes, over the same backing files.
	// The connections that Reception.Dial and Reception.Ports name are what the sender's Passage must lead to.
	Receive(ctx context.Context, g Guest) (Reception, error)

	// Send moves the guest. It returns nil when it runs at the other end and has left this host, an error of
	// kind Conflict when it was aborted, any other when it has failed; the guest runs on here then. One that is Paused
	// moves too, and is Paused at the other end.
	Send(ctx context.Context, id string, to Passage) error

	// Abort ends Send from elsewhere; none is a success. Hurry makes it end soon: by post-copy, or by a pause.
	Abort(ctx context.Context, id string) error
	Hurry(ctx context.Context, id string) error

	// Progress says how far Send has come; NotFound where none runs.
	Progress(ctx context.Context, id string) (MoveProgress, error)
}

// Reception is a host that awaits a guest.
type Reception interface {
	// Dial opens a connection of the named kind to this host's hypervisor, for the sender: "control" (the
	// hypervisor's own protocol), "memory", "disks".
	Dial(ctx context.Context, kind string) (io.ReadWriteCloser, error)
	// Close ends the wait. A guest that runs here by then is not touched.
	Close() error
}

// Passage is the way to a Reception.
type Passage struct {
	// Guest is the definition at the other end: Reception's.
	Guest Guest
	// Dial is Reception.Dial of the other end, over an encrypted connection.
	Dial func(ctx context.Context, kind string) (io.ReadWriteCloser, error)
	// CopyDisks are the serial numbers of the disks whose contents must be copied; others are reached by both hosts.
	CopyDisks []string
	// BandwidthMiB bounds the copying, MiB a second; 0: none.
	BandwidthMiB int
	AutoConverge bool // slow the guest down where it changes memory faster than it can be copied
	PostCopy     bool // allow Hurry to run the guest at the other end before all memory is there
}

// MoveProgress is how far Send has come, in bytes.
type MoveProgress struct {
	MemoryTotal, MemoryProcessed, MemoryRemaining int64
	DiskTotal, DiskProcessed, DiskRemaining       int64
	Downtime                                      time.Duration // once known
}

// NotFound is the error of every driver for a guest that is not defined on the host.
func NotFound(id string) error {
	return fault.New(fault.NotFound, "Guest %s is not defined on this host.", id)
}
