package libvirt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// probeDone is what the probe's guest tells QEMU's debug-exit device; QEMU then exits with
// 2*probeDone+1.
const probeDone = 0x2a

// probeSector is a boot sector that tells the debug-exit device at port 0xf4 that it ran:
// mov al, probeDone; out 0xf4, al; then hlt for ever.
var probeSector = []byte{0xb0, probeDone, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd}

// ProbeKVM tells why guests cannot use hardware virtualisation here, nil if they can. It
// really starts a guest and waits until the guest has run: on some hosts, those that are
// guests themselves above all, /dev/kvm is there, opens, and then hangs. The probe takes a
// second where KVM works, and until ctx ends (give it some 10 s) where it hangs.
func ProbeKVM(ctx context.Context, emulator string) error {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("no hardware virtualisation: %w", err)
	}
	f.Close()
	return probe(ctx, emulator, "kvm")
}

// probe boots the probe's guest by the firmware that real guests use.
func probe(ctx context.Context, emulator, accelerator string) error {
	dir, err := os.MkdirTemp("", "yakumo-probe-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	sector := make([]byte, 1<<20) // SeaBIOS does not boot from a disk of one sector
	copy(sector, probeSector)
	sector[510], sector[511] = 0x55, 0xaa
	disk := filepath.Join(dir, "disk")
	if err := os.WriteFile(disk, sector, 0o600); err != nil {
		return err
	}
	said := &firstBytes{}
	cmd := exec.Command(emulator, "-accel", accelerator, "-machine", "q35", "-m", "32", "-display", "none",
		"-nodefaults", "-no-user-config", "-no-reboot",
		"-device", "isa-debug-exit,iobase=0xf4,iosize=1",
		"-drive", "file="+disk+",format=raw,if=virtio,readonly=on")
	cmd.Stderr = said
	// A QEMU that hangs in the kernel outlives its kill for a while; nothing may wait for it.
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", emulator, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == 2*probeDone+1 {
			return nil
		}
		return fmt.Errorf("a guest under %s did not run: %v: %s", accelerator, err, said.text)
	case <-ctx.Done():
		cmd.Process.Kill()
		return fmt.Errorf("a guest under %s did not run in time: %w", accelerator, ctx.Err())
	}
}

// firstBytes keeps the first bytes of what a program complains about.
type firstBytes struct{ text []byte }

func (t *firstBytes) Write(p []byte) (int, error) {
	t.text = append(t.text, p[:min(len(p), 1024-len(t.text))]...)
	return len(p), nil
}
