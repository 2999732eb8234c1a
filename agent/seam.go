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
