// Package datapath is the seam between the rows that a host is told and the switch that
// carries its traffic. A Driver owns everything that it put into one switch: entries,
// switch ports, its tunnel and metadata ports. It reads rows and device names, writes the
// switch and the ordinal store, and decides nothing: which port, address, group or tunnel
// exists is in the rows.
//
// Drivers stand in sub-packages: ovs drives an Open vSwitch by OpenFlow, fake interprets
// the same entries in memory. Both take their entries from package pipeline and pass the
// conformance suite in dptest. This package knows neither of them and imports nothing of
// the project but model and pipeline.
package datapath

import (
	"context"
	"iter"
	"net/netip"

	"yakumo/datapath/pipeline"
	"yakumo/model"
)

// Driver makes one switch agree with the rows it is given. All methods may be called at
// once from several goroutines; changes are made one after another.
//
// Rows of a kind that the data path does not use (HostServer) are ignored by Apply and
// Prune, so a caller may hand over all it has.
type Driver interface {
	// Apply adds or replaces the rows in upserts and forgets those in removes, as one change:
	// the switch goes from the old to the new entries in one step, and entries of other
	// rows are not touched. Removing an absent row succeeds. When Apply returns nil, the switch
	// has confirmed everything; packets of a flow whose verdict it has cached may meet the
	// older entries for some milliseconds more. A row that cannot be compiled, or an unreachable switch
	// (fault.Unavailable), is an error; the rows are remembered all the same, the rest is
	// installed, and what is missing follows as soon as the switch is back.
	Apply(ctx context.Context, upserts []model.HostRow, removes []model.RowID) error
	// Prune is Apply of the whole desired set: every row, switch port and stored ordinal
	// that no row of desired needs is removed.
	Prune(ctx context.Context, desired iter.Seq[model.HostRow]) error
	// Attach plugs the network device into the switch as the switch port of port. It may
	// come before or after the port's row. Attaching again is harmless; another device replaces
	// the first.
	Attach(ctx context.Context, port model.ID, device string) error
	// Detach unplugs the device of port; absent is success. The device itself stays.
	Detach(ctx context.Context, port model.ID) error
	// Installed tells whether the port is wired: its row, its network and all its groups are
	// known, its device is plugged in, and the switch has confirmed every entry of them.
	Installed(port model.ID) bool
	// MetadataOwner tells which port and fixed address stand behind an address that a
	// connection to the metadata listener comes from.
	MetadataOwner(addr netip.Addr) (Owner, bool)
	// Counters gives a snapshot of what the driver has counted since it started.
	Counters() Counters
	// Close stops driving. The switch keeps its entries and ports, so traffic flows on.
	Close() error
}

// Injector is a Driver that can send a frame for a port.
type Injector interface {
	// Inject sends a frame into the switch as if the guest behind the port had sent it. The error is
	// fault.NotFound where the port is not plugged in, fault.Unavailable where the switch is away.
	Inject(ctx context.Context, port model.ID, frame []byte) error
}

// Owner is who asks the metadata service.
type Owner struct {
	Port    model.ID
	Network model.ID
	Address netip.Addr // the guest's own fixed address
}

// Event is something that a driver tells its owner.
type Event struct {
	Port  model.ID
	Kind  EventKind
	Claim model.Claim // with Claimed
}

// EventKind says what happened to a port.
type EventKind uint8

// The events. After Wired, Installed(port) held; after Unwired it did not.
const (
	Wired   EventKind = iota + 1 // every entry is confirmed and the device is plugged in
	Unwired                      // it is no longer so: detached, row gone, switch lost
	Asked                        // its guest asked for an address and was answered: a sign of life
	Claimed                      // its guest says that it holds an address of its pairs, and the rows do not
)

// String gives the event's name.
func (k EventKind) String() string {
	switch k {
	case Wired:
		return "wired"
	case Unwired:
		return "unwired"
	case Asked:
		return "asked"
	case Claimed:
		return "claimed"
	}
	return "unknown"
}

// Counters counts what a driver did. All but the gauges only grow.
type Counters struct {
	Rows      int // gauge: rows held
	Entries   int // gauge: entries that the switch should hold
	Pending   int // gauge: entries that wait for a device or for the switch
	Conflicts int // gauge: entries of two rows with equal match and different actions; a defect
	Connected bool

	Added       uint64 // entries written
	Deleted     uint64 // entries deleted
	Bundles     uint64 // atomic changes that the switch confirmed
	Rejected    uint64 // entries that the switch refused
	Connects    uint64 // connections to the switch that came up
	Resyncs     uint64 // times the whole set was installed under a new round
	PacketIns   uint64 // packets that the switch handed over
	DHCPReplies uint64
	DHCPIgnored uint64 // requests that need or deserve no answer
}

// Ordinals is the store of small stable numbers that a driver needs; see pipeline.Ordinals.
type Ordinals = pipeline.Ordinals

// Ensure applies one row.
func Ensure(ctx context.Context, d Driver, row model.HostRow) error {
	return d.Apply(ctx, []model.HostRow{row}, nil)
}

// Remove forgets one row.
func Remove(ctx context.Context, d Driver, id model.RowID) error {
	return d.Apply(ctx, nil, []model.RowID{id})
}
