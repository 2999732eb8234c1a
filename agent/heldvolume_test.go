package agent

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"yakumo/block"
	"yakumo/block/blocktest"
	"yakumo/block/files"
	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/model"
)

// TestSnapshotOfAVolumeThatIsHeldElsewhere: the host that works on a volume of a shared folder gets its content of the host whose guest has it open,
// also where that host's agent is away when it is asked first. Nobody else gets it.
func TestSnapshotOfAVolumeThatIsHeldElsewhere(t *testing.T) {
	owner, user := twoHosts(t)
	a, b := owner.begin(nil), user.begin(nil)
	defer a.stop(t)
	row := volume(1)
	row.Engine, row.Guests, row.Holders = model.EngineNFS, []model.ID{user.id}, []model.HostAt{user.at()}
	owner.tell(row)
	owner.ready(row)
	at := owner.disk(a, row.ID)
	io1(t, at, "write -P 3 0 1M", "flush")
	c := newCloud(user.side)
	s, p := c.server()
	s.Volumes = []model.HostDisk{{VolumeID: row.ID}}
	user.tell(append(c.base(), s, p, theirs(row, owner))...)
	waitFor(t, "the guest to run", func() bool { return user.power(t, s.ID) == hypervisor.Running })
	blocktest.Hold(t, at) // as its QEMU does

	args, err := json.Marshal(volumeCall{row.ID})
	if err != nil {
		t.Fatal(err)
	}
	for peer, k := range map[model.ID]*volumeKeeper{"another": b.keeper, user.id: a.keeper} {
		if err := k.serveCopy(t.Context(), peer, args, nil); !fault.Is(err, fault.NotFound) {
			t.Errorf("host %s, which does not work on the volume, is answered %v", peer, err)
		}
	}

	b.stop(t)
	snap := model.NewID()
	row = bump(row, func(n *model.HostVolume) { n.Snapshots = []model.HostSnapshot{{ID: snap}} })
	owner.tell(row)
	b = user.begin(nil)
	defer b.stop(t)
	owner.ready(row)
	folder, err := files.Open(owner.shared)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "snapshot")
	if err := folder.Export(t.Context(), row.ID, snap, "raw", file); err != nil {
		t.Fatal(err)
	}
	io1(t, block.Access{File: file, Format: "raw"}, "read -P 3 0 1M", "read -P 0 1M 1M")
	for _, h := range []*volumeHost{owner, user} {
		if left, err := filepath.Glob(filepath.Join(h.dir, "volumes", "*")); err != nil || len(left) > 0 {
			t.Errorf("left are %v, %v", left, err)
		}
	}
}
