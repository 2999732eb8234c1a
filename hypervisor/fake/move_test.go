package fake_test

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"yakumo/hypervisor"
	"yakumo/hypervisor/fake"
	"yakumo/hypervisor/hypertest"
)

// movingHost is a fake host whose guests have files.
type movingHost struct {
	*host
	dir string // outlives the parts of a test
}

func newMovingHost(t *testing.T) movingHost {
	h := &host{}
	h.Host = fake.NewHost(fake.HostConfig{Guests: fake.Behaviour{Greeting: hypertest.Greeting, MoveFor: 20 * time.Millisecond}})
	return movingHost{h, t.TempDir()}
}

func (h movingHost) withDisk(t *testing.T, g hypervisor.Guest, data []byte) hypervisor.Guest {
	t.Helper()
	path := filepath.Join(h.dir, g.ID)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	g.Disks = []hypervisor.Disk{{Path: path, Format: "raw", BootOrder: 1, Serial: g.ID[:20]}}
	return g
}

func (h movingHost) Guest(t *testing.T) hypervisor.Guest {
	data := make([]byte, 1000)
	rand.Read(data)
	return h.withDisk(t, guest(hypertest.NewID()), data)
}

func (h movingHost) Twin(t *testing.T, g hypervisor.Guest) hypervisor.Guest {
	return h.withDisk(t, g, make([]byte, 1000))
}

func TestMoves(t *testing.T) { hypertest.RunMoves(t, newMovingHost(t), newMovingHost(t)) }
