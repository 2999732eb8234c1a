package container

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"yakumo/fault"
)

// Folder is where a container's process 1 and its driver meet, below libvirt's run folder.
type Folder struct {
	ID   string
	Path string // as this process sees it
	// Inside is the same as libvirtd sees it, whose mounts may be others.
	Inside string
}

// FolderOf gives the folder of a container whose libvirtd listens at socket, which is in its run folder.
func FolderOf(socket, id string) Folder {
	return Folder{ID: id, Path: filepath.Join(filepath.Dir(socket), "yakumo", id), Inside: "/run/libvirt/yakumo/" + id}
}

// Places within a Folder that Stage fills, and what the container has them as.
const (
	rootPlace    = "root"    // mount of the disk: /
	controlPlace = "control" // folder: /.yakumo
	initPlace    = "init"    // mount of this program: /.yakumo/init
	logPlace     = "log"     // mount of the console log: /.yakumo/log
)

// cardsFile is the file of a Folder that has the container's cards, as JSON.
const cardsFile = "cards"

// Mount is a part of a container's tree: where it is for libvirtd, and where for the container.
type Mount struct {
	Source, Target string
	ReadOnly       bool
}

// Mounts gives the tree of a container that has been staged, in the order of mounting.
func (f Folder) Mounts() []Mount {
	at := func(place string) string { return f.Inside + "/" + place }
	return []Mount{
		{at(rootPlace), "/", false}, {at(controlPlace), controlFolder, false},
		{at(initPlace), controlFolder + "/init", true}, {at(logPlace), controlFolder + "/log", false},
	}
}

// Init gives what process 1 of a container is started as.
func Init() []string { return []string{controlFolder + "/init", Word} }

// Stage puts a container's tree where libvirtd, the process of this number, starts it from: the disk, this program, and the console
// log, which is made where it is missing. What stood there before is gone. The container has mounts of its own once it is started; then
// Unstage takes these away. No other container may be started meanwhile: libvirt's process that holds it would have this one's mounts too,
// for as long as it lives.
func (f Folder) Stage(ctx context.Context, libvirtd int, disk, log string) error {
	base := IDBase(f.ID)
	for _, d := range []string{f.Path, f.place(rootPlace), f.place(controlPlace)} {
		// Its user 0 goes through, and sees no list.
		if err := os.MkdirAll(d, 0o711); err != nil {
			return err
		}
	}
	for _, file := range []string{filepath.Join(f.place(controlPlace), stateFile), filepath.Join(f.place(controlPlace), socketFile), f.place(cardsFile)} {
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	for _, file := range []string{f.place(initPlace), f.place(logPlace), filepath.Join(f.place(controlPlace), "init"), filepath.Join(f.place(controlPlace), "log")} {
		if err := touch(file); err != nil {
			return err
		}
	}
	if err := errors.Join(touch(log), os.Chown(log, base, base), os.Chown(f.place(controlPlace), base, base)); err != nil {
		return err
	}
	ids, err := userNamespace(base)
	if err != nil {
		return err
	}
	defer ids.Close()
	root, err := mountDisk(ctx, disk)
	if err != nil {
		return fmt.Errorf("mount disk %s: %w", disk, err)
	}
	defer root.Close()
	shift := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ids.Fd())}
	if err := setAttr(root, shift); err != nil {
		return err
	}
	self, err := program()
	if err != nil {
		return err
	}
	program, err := clone(self)
	if err != nil {
		return err
	}
	defer program.Close()
	if err := setAttr(program, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return err
	}
	logged, err := clone(log)
	if err != nil {
		return err
	}
	defer logged.Close()
	return inMounts(libvirtd, f.mountPoints(), root, program, logged)
}

// program gives the path of this program, which is process 1 of a container and finds no libraries there.
var program = sync.OnceValues(func() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", err
	}
	f, err := elf.Open(path)
	if err != nil {
		return "", fmt.Errorf("read this program: %w", err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return "", fault.New(fault.Invalid, "Containers cannot be started by a program that needs libraries: build it with CGO_ENABLED=0.")
		}
	}
	return path, nil
})

// mountPoints are what Stage mounts at, as libvirtd sees it: the disk, this program, the log.
func (f Folder) mountPoints() []string {
	return []string{f.Inside + "/" + rootPlace, f.Inside + "/" + initPlace, f.Inside + "/" + logPlace}
}

func (f Folder) place(name string) string { return filepath.Join(f.Path, name) }

func touch(path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return file.Close()
}

// Unstage takes away the mounts that Stage has made for libvirtd; none is a success.
func (f Folder) Unstage(libvirtd int) error {
	if _, err := os.Stat(f.Path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return inMounts(libvirtd, f.mountPoints())
}

// UnstageAll takes away the mounts that Stage has made for the libvirtd that listens at socket, of whatever container.
func UnstageAll(libvirtd int, socket string) error {
	all, err := os.ReadDir(filepath.Dir(FolderOf(socket, "x").Path))
	if errors.Is(err, os.ErrNotExist) || err == nil && len(all) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	var paths []string
	for _, one := range all {
		paths = append(paths, FolderOf(socket, one.Name()).mountPoints()...)
	}
	return inMounts(libvirtd, paths)
}

// Remove deletes the folder of a container that does not run and is not staged.
func (f Folder) Remove() error { return os.RemoveAll(f.Path) }

// State gives what process 1 or Note has written down last, and why: one of the words of states; empty: nothing.
func (f Folder) State() (state, why string) {
	file, err := os.OpenFile(filepath.Join(f.place(controlPlace), stateFile), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", ""
	}
	defer file.Close()
	var text [256]byte // a container that broke out of its own may have written anything
	n, _ := io.ReadFull(file, text[:])
	state, why, _ = strings.Cut(strings.TrimSpace(string(text[:n])), ": ")
	return state, strings.ToValidUTF8(why, "")
}

// Note writes down a state in the place of process 1.
func (f Folder) Note(state string) error {
	err := writeState(f.place(controlPlace), state)
	if errors.Is(err, os.ErrNotExist) {
		return nil // it has never run here
	}
	return err
}

// Conn is a connection to a container's process 1.
type Conn struct {
	*net.UnixConn
	PID int // process 1, as this process sees it
}

// Dial connects with process 1.
func (f Folder) Dial(ctx context.Context) (*Conn, error) {
	dir, err := os.Open(f.place(controlPlace))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var nd net.Dialer
	// By the open folder: a socket's path has to be short (108 bytes, unix(7)).
	c, err := nd.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), socketFile))
	if err != nil {
		return nil, err
	}
	u := c.(*net.UnixConn)
	pid, err := PeerOf(u)
	if err != nil {
		return nil, errors.Join(err, u.Close())
	}
	return &Conn{u, pid}, nil
}

// ask sends a command and waits for its answer: whether process 1 does it.
func (c *Conn) ask(ctx context.Context, command byte) (bool, error) {
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := c.Write([]byte{command}); err != nil {
		return false, errors.Join(err, ctx.Err())
	}
	var answer [1]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		return false, errors.Join(err, ctx.Err())
	}
	return answer[0] == yes, nil
}

// Go has process 1 start the image's init, where it waits for that.
func (c *Conn) Go(ctx context.Context) error { _, err := c.ask(ctx, goCommand); return err }

// Reset ends everything in the container at once and starts it anew; false: it has not begun yet.
func (c *Conn) Reset(ctx context.Context) (bool, error) { return c.ask(ctx, resetCommand) }

// Press asks the image's init to shut down. It waits for no answer.
func (c *Conn) Press() error { _, err := c.Write([]byte{pressCommand}); return err }

// Console makes the connection one with the console; false: somebody else has it.
func (c *Conn) Console(ctx context.Context) (bool, error) { return c.ask(ctx, consoleCommand) }
