package agent

import (
	"context"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/model"
)

// volumes gives guests the volumes that they use.
type volumes interface {
	// disk gives the disk that a guest sees of a volume, without boot order; its Serial is the volume's id.
	// errWaiting until it is there: whoever makes it so wakes the server.
	disk(ctx context.Context, server model.ID, d model.HostDisk) (hypervisor.Disk, error)
}

// noVolumes is a host without an engine for volumes.
type noVolumes struct{}

func (noVolumes) disk(_ context.Context, _ model.ID, d model.HostDisk) (hypervisor.Disk, error) {
	return hypervisor.Disk{}, fault.New(fault.NotImplemented, "This host cannot open volume %s: it has no engine for volumes.", d.VolumeID)
}

// moves does a host's part of a server's move.
type moves interface {
	// step does what there is to do for row.Move now. It tells whether the guest is the move's alone: nothing else is
	// done with it then. p is the server's progress, to be kept by step where it changes it.
	step(ctx context.Context, row *model.HostServer, p *progress, power hypervisor.Power) (alone bool, err error)
}

// noMoves is a host that moves nothing.
type noMoves struct{}

func (noMoves) step(_ context.Context, row *model.HostServer, _ *progress, _ hypervisor.Power) (bool, error) {
	return true, fault.New(fault.NotImplemented, "This host cannot move server %s.", row.ID)
}
