// Package block is the seam between the agent and what keeps volumes: files of this host, a folder that
// hosts share, a Ceph cluster.
//
// It owns the words of the seam (Engine, Source, Access, and what an engine may offer besides). It reads and
// writes nothing itself. It must not import any part of the project but fault: engines and the agent import it.
//
// An engine obeys and decides nothing. Every call may be cut off at any point, by kill -9 too, and repeated: it
// goes on to the same end. What is half made is never found by another call as whole.
package block

import (
	"context"

	"yakumo/fault"
)

// Engine keeps volumes and their snapshots. Volumes and snapshots have ids that are file names of at most 64 bytes of
// letters, digits and "-".
//
// Methods may be called concurrently. Errors carry a kind of package fault: NotFound for a volume or snapshot that is not there
// and has to be, Conflict where an opener forbids the call, Invalid for what can never be, Unavailable where what keeps the
// bytes does not answer now.
type Engine interface {
	// Make makes a volume of size bytes that holds what from gives, and zeroes after it. One that is there is a
	// success and is left as it is. Invalid where what from gives is larger than size.
	Make(ctx context.Context, id string, size int64, from Source) error
	// Grow makes a volume at least size bytes large. It may be open, but for engines that say Conflict then (QEMU has the file, and has to
	// grow it). Who has it open at a socket (Access) loses the connection, also where Grow fails, and finds the new size when it connects anew.
	Grow(ctx context.Context, id string, size int64) error
	// Remove removes a volume with its snapshots; absent is success. Conflict where it is open.
	Remove(ctx context.Context, id string) error

	// Snapshot keeps what the volume holds now; one that is there is a success and is left as it is. It costs no copy. The
	// volume may be open, but for engines that say Conflict then; see Adopter.
	Snapshot(ctx context.Context, id, snapshot string) error
	// RemoveSnapshot removes one, whatever other snapshots there are and whatever was made of it; absent is success.
	RemoveSnapshot(ctx context.Context, id, snapshot string) error

	// Open makes sure that guests of this host can open the volume, and says how. It may be called for one that is open.
	Open(ctx context.Context, id string) (Access, error)
	// Export writes what a volume, or a snapshot of it, holds to the new file path, as "qcow2" without a backing file, or "raw". Of
	// a volume that is open, as it is at one moment during the call.
	Export(ctx context.Context, id, snapshot, format, path string) error

	// List gives every volume that is there, and what is left of one that is not whole, in the order of ids.
	List(ctx context.Context) ([]Entry, error)
}

// Source is what a new volume is filled from; the zero value is nothing. What it names must not change meanwhile, but for a
// Volume: that is taken as it is at one moment.
type Source struct {
	File, Format string // a file of this host, "qcow2" without a backing file or "raw"; or an NBD address ("nbd+unix:"), raw
	Volume       string // of the same engine
	Snapshot     string // of Volume
}

// Access is how QEMU opens a volume: one of File, Socket and Pool is set.
type Access struct {
	File, Format string // a file that QEMU opens itself

	Socket, Export string // an NBD server at a unix socket

	Pool, Image string   // a Ceph image
	Monitors    []string // host:port
	User, Key   string   // the key in base64; never logged

	// Everywhere: every host with the engine may open it, also at the same time for a guest that moves.
	Everywhere bool
}

// Entry is a volume in an engine's list.
type Entry struct {
	ID string
	// Whole tells that Make has succeeded; else it is what was left, and Remove takes it away.
	Whole bool
}

// The interfaces below are what an engine may offer besides. Each method has the errors of Engine's.

// Closer is an Engine that keeps something running for a volume that is open.
type Closer interface {
	// Close ends what Open began; nobody has the volume open any more. Not open is a success.
	Close(ctx context.Context, id string) error
}

// Filler is an Engine that can give a volume other content in place. Where a call is cut off, the content is undefined
// until it is repeated. Conflict where the volume is open.
type Filler interface {
	// Revert gives the volume the content and size of a snapshot, which stays, as later ones do.
	Revert(ctx context.Context, id, snapshot string) error
	// Fill writes a file's content over the volume's beginning; snapshots stay.
	Fill(ctx context.Context, id, file, format string) error
}

// Adopter is an Engine that takes a copy as a snapshot, where it cannot make one of an open volume.
type Adopter interface {
	// Adopt takes the qcow2 file path, which is moved away, as a snapshot of the volume; one that is there is a success.
	Adopt(ctx context.Context, id, snapshot, path string) error
}

// Sider is an Engine whose volumes may be laid aside, where they are no volumes any more.
type Sider interface {
	// Aside is the folder for them, which need not exist.
	Aside() string
	// LayAside moves a volume with its snapshots, as the files that it is, to the new folder path in Aside; absent is success. Conflict
	// where it is open.
	LayAside(ctx context.Context, id, path string) error
}

// Meter is an Engine that knows its room.
type Meter interface {
	// Room gives bytes in all and free.
	Room(ctx context.Context) (total, free int64, err error)
}

// Relay opens volumes of other hosts for guests of this one, by processes that outlive whoever starts them. The way to the other
// host may break and come back: a guest sees nothing of it.
type Relay interface {
	// Open makes sure that the export of the NBD server at a unix socket is found at Access, and gives that. The name, of the form of an id, tells it from
	// others that are open. For wait seconds requests are held while nobody answers at the socket. It may be called for one that is open.
	Open(ctx context.Context, name, export, socket string, wait int) (Access, error)
	// Renew is Open with the size that the volume has now; a guest that has it open loses its connection, and has to connect anew.
	Renew(ctx context.Context, name, export, socket string, wait int) (Access, error)
	// Close ends what Open began; not open is a success.
	Close(ctx context.Context, name string) error
}

// NoVolume is the error of every engine for a volume that is not there.
func NoVolume(id string) error { return fault.New(fault.NotFound, "Volume %s could not be found.", id) }

// NoSnapshot is the error of every engine for a snapshot that is not there.
func NoSnapshot(id string) error {
	return fault.New(fault.NotFound, "Snapshot %s could not be found.", id)
}

// InUse is the error of every engine for a call that an opener forbids.
func InUse(id string) error { return fault.New(fault.Conflict, "Volume %s is in use.", id) }

// Check refuses ids that are no file names of the kind that Engine asks for.
func Check(ids ...string) error {
	for _, id := range ids {
		ok := id != "" && len(id) <= 64 && id[0] != '-'
		for _, c := range []byte(id) {
			ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-')
		}
		if !ok {
			return fault.New(fault.Invalid, "%q is no id of a volume or snapshot.", id)
		}
	}
	return nil
}
