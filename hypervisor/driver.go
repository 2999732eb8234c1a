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
	Path     string // absolute
	Format   string // "qcow2" or "raw"
	Device   string // "disk", "cdrom"; empty for "disk"
	ReadOnly bool   // a CD-ROM is always read-only
	Serial   string // shown in the guest's /dev/disk/by-id; virtio shows the first 20 bytes
	// BootOrder is the place in the firmware's order among disks and NICs, from 1; 0 is never
	// booted from.
	BootOrder int
	Bus       string // "virtio", "scsi" or "sata"; empty for virtio, or for sata with a CD-ROM
}

// NIC is a virtio network card on a tap device that exists on the host before the guest
// starts. The driver neither makes, configures nor removes the tap.
type NIC struct {
	ID        string // the port's ID; shown to an operator
	MAC       string // unicast, colon-separated
	Tap       string // name of the tap device, at most 15 bytes
	MTU       int    // told to the guest by the card, 68 to 65535; 0 for none
	BootOrder int    // as for Disk
}

// Power is the state of a guest as the hypervisor sees it.
type Power uint8

// The powers. A guest that has never been started is Off.
const (
	Absent  Power = iota // not defined on this host
	Off                  // defined, not running: never started, shut down or stopped
	Running              // its processors execute, or are about to
	Paused               // its processors are held: by an operator, a migration or a disk error
	Crashed              // it ended without being asked: its process died or the guest panicked
)

var powerNames = [...]string{"absent", "off", "running", "paused", "crashed"}

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

	HypervisorType    string // "QEMU"; as Nova names it
	HypervisorVersion int    // major*1000000 + minor*1000 + release
	Accelerator       string // "kvm", or "tcg" for software emulation
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

// NotFound is the error of every driver for a guest that is not defined on the host.
func NotFound(id string) error {
	return fault.New(fault.NotFound, "Guest %s is not defined on this host.", id)
}
