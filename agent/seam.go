package agent

import (
	"context"

	"yakumo/hypervisor"
	"yakumo/model"
)

// volumes gives guests the volumes that they use; *volumeKeeper is one.
type volumes interface {
	// disk gives the disk that a guest sees of a volume, without boot order; its Serial is the volume's id.
	// errWaiting until it is there: whoever makes it so wakes the server.
	disk(ctx context.Context, server model.ID, d model.HostDisk) (hypervisor.Disk, error)
}
