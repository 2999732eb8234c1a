package container

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// innerWord is the second argument of the program that becomes the image's init, in namespaces of its own; the
// third is the path of its console.
const innerWord = "inner"

// innerFailed is its status where it does not get so far.
const innerFailed = 125

// inits are where the init of an image is looked for, as Linux does (init/main.c of the kernel).
var inits = []string{"/sbin/init", "/etc/init", "/bin/init", "/bin/sh"}

func initOf() string {
	for _, path := range inits {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return inits[0]
}

// inner becomes the image's init. What process 1 has stays out of its sight: processes, control folder, and the other consoles.
func inner(tty string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("have mounts of its own: %w", err)
	}
	proc, err := newProc()
	if err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	memory, err := clone("/proc/meminfo") // libvirt's, which tells the container's bound
	if err != nil {
		return err
	}
	console, err := clone(tty)
	if err != nil {
		return err
	}
	init := initOf()
	if err := errors.Join(detach("/proc"), detach(controlFolder), detach("/dev/console"), detach("/dev/tty1")); err != nil {
		return err
	}
	if err := errors.Join(attach(proc, "/proc"), attach(memory, "/proc/meminfo"), attach(console, "/dev/console")); err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return fmt.Errorf("run %s: %w", init, unix.Exec(init, []string{init}, os.Environ()))
}

// newProc gives a /proc of the process namespace that this process is in. The kernel wants the old one to be seen still.
func newProc() (*os.File, error) {
	fs, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, err
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "proc"), nil
}
