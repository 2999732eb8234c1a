package hypervisor

import "context"

// Mirrorer is a Driver that can take a disk of a guest that is on elsewhere, under the guest that uses it.
//
// Whoever calls it keeps what it is about to do before each step, as any call may be the last: Mirrored tells then what became of it. The guest is
// held from Turn on until Start, and both disks hold the same as long as it is held.
type Mirrorer interface {
	// Mirror begins to copy what the disk with the serial number holds over the disk to, which exists, is at least as large and is nobody else's, with
	// what the guest writes meanwhile. A copy of the disk that is under way is ended before. It goes on without its caller; it breaks off where the guest stops, or a disk fails, and the guest's
	// disk is what it was.
	Mirror(ctx context.Context, id, serial string, to Disk) error
	// Mirrored says how far that is.
	Mirrored(ctx context.Context, id, serial string, to Disk) (MirrorProgress, error)
	// Turn holds the guest, waits until the two are equal, and has the disk be the other from then on. The guest is Paused afterwards, whatever came of it. Ensure should have
	// defined the guest with the other disk before, and has to define it as before where that did not succeed. Conflict where nothing is being copied, or the two do not get equal soon.
	Turn(ctx context.Context, id, serial string, to Disk) error
	// EndMirror ends the copying and leaves the guest's disk what it is; none is a success.
	EndMirror(ctx context.Context, id, serial string) error
}

// MirrorProgress is how far a Mirror has come.
type MirrorProgress struct {
	Going       bool  // it copies; where neither Going nor Turned, it has ended or never begun
	Near        bool  // what is not copied yet would be in a moment: Turn would hold the guest for a short time
	Turned      bool  // the guest's disk is the other one
	Done, Total int64 // bytes, while Going; Total grows as the guest writes
}

// Same tells whether two disks are one place.
func (d Disk) Same(o Disk) bool {
	if d.Network == nil || o.Network == nil {
		return d.Network == nil && o.Network == nil && d.Path == o.Path
	}
	return d.Network.Protocol == o.Network.Protocol && d.Network.Socket == o.Network.Socket && d.Network.Name == o.Network.Name
}
