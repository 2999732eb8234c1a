package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"yakumo/fault"
)

// IDBase gives the number that user and group 0 of a container are on the host: most containers of a host have another,
// and it is beyond all that distributions give out (2^30 and more).
func IDBase(id string) int {
	const ranges = 8192
	h := fnv.New32a()
	h.Write([]byte(id))
	return 1<<30 + int(h.Sum32()%ranges)*idCount
}

func syncFS(f *os.File) error { return unix.Syncfs(int(f.Fd())) }

// mountDisk gives the mounted file system of a disk. It stands nowhere: it is gone, and its loop device free, when
// nobody has it open or attached any more. A disk that is mounted still is waited for, as two mounts would destroy what is on it.
func mountDisk(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := waitUnused(ctx, f); err != nil {
		return nil, err
	}
	loop, err := loopOf(f)
	if err != nil {
		return nil, err
	}
	defer loop.Close()
	fsfd, err := unix.Fsopen("ext4", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open the kernel's ext4: %w", err)
	}
	defer unix.Close(fsfd)
	if err := unix.FsconfigSetString(fsfd, "source", loop.Name()); err != nil {
		return nil, err
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return nil, fmt.Errorf("read the file system: %w", err)
	}
	fd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// unusedWait is how long a container that has ended may take to let go of its disk.
const unusedWait = 30 * time.Second

// waitUnused waits until no loop device stands on f.
func waitUnused(ctx context.Context, f *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, unusedWait)
	defer cancel()
	for {
		by, err := loopsOn(f)
		if err != nil || by == "" {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fault.Wrap(fault.Unavailable, ctx.Err(), "The disk %s is still in use, by %s.", f.Name(), by)
		}
	}
}

// loopsOn gives a loop device that stands on f; empty: none does.
func loopsOn(f *os.File) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", err
	}
	used, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return "", err
	}
	for _, u := range used {
		name := "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(u)))
		loop, err := os.Open(name)
		if err != nil {
			return "", err
		}
		info, err := unix.IoctlLoopGetStatus64(int(loop.Fd()))
		loop.Close()
		if err == nil && info.Inode == st.Ino && info.Device == st.Dev { // an error: it is free now
			return name, nil
		}
	}
	return "", nil
}

// loopOf gives a loop device on f (loop(4)) that goes when its last user has.
func loopOf(f *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range 64 { // somebody else may take the one that was free
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a loop device: %w", err)
		}
		loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		c := unix.LoopConfig{Fd: uint32(f.Fd())}
		c.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
		if err = unix.IoctlLoopConfigure(int(loop.Fd()), &c); err == nil {
			return loop, nil
		}
		loop.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("set up a loop device: %w", err)
		}
	}
	return nil, errors.New("no loop device stays free")
}

// clone gives a mount of the file or folder path that stands nowhere.
func clone(path string) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// setAttr changes what a mount that stands nowhere allows.
func setAttr(m *os.File, attr *unix.MountAttr) error {
	if err := unix.MountSetattr(int(m.Fd()), "", unix.AT_EMPTY_PATH, attr); err != nil {
		return fmt.Errorf("change the mount of %s: %w", m.Name(), err)
	}
	return nil
}

// userNamespace gives a user namespace in which 0 to 65535 are the numbers from base on.
func userNamespace(base int) (*os.File, error) {
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: base, Size: idCount}}
	cmd := exec.Command("cat") // it waits for the end of its input
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("make a user namespace: %w", err)
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	return ns, errors.Join(err, in.Close(), cmd.Wait())
}

// attach puts a mount at path, which exists.
func attach(m *os.File, path string) error {
	if err := unix.MoveMount(int(m.Fd()), "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount %s at %s: %w", m.Name(), path, err)
	}
	return nil
}

// detach takes away every mount at path; none is a success.
func detach(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
}

// mountsWord is the second argument of this program where it is the helper of inMounts. Threads cannot do its work: one that
// has entered another's mounts never comes home, and with a thread that ends the kernel may kill what it has started (prctl(2),
// PR_SET_PDEATHSIG).
const mountsWord = "mounts"

// inMounts takes away what is mounted at the paths, as process pid sees them, and puts the mounts there, one at each path, or none.
func inMounts(pid int, paths []string, mounts ...*os.File) error {
	cmd := exec.Command("/proc/self/exe", append([]string{Word, mountsWord, strconv.Itoa(pid), strconv.Itoa(len(mounts))}, paths...)...)
	cmd.ExtraFiles = mounts
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mount for process %d: %w: %s", pid, err, bytes.TrimSpace(out))
	}
	return nil
}

// mountHelper is what inMounts runs. Its files from 3 on are as many mounts as count says.
func mountHelper(pid, count string, paths []string) error {
	mounts, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	ns, err := os.Open("/proc/" + pid + "/ns/mnt")
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	// A thread that shares its root and working folder with others may not go (setns(2)).
	if err := errors.Join(unix.Unshare(unix.CLONE_FS), unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS)); err != nil {
		return fmt.Errorf("enter the mounts of process %s: %w", pid, err)
	}
	for i, path := range paths {
		if err := detach(path); err != nil {
			return err
		}
		if i < mounts {
			if err := attach(os.NewFile(uintptr(3+i), path), path); err != nil {
				return err
			}
		}
	}
	return nil
}

// PeerOf gives the process that listens at the other end of a connected unix socket.
func PeerOf(c syscall.Conn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var sockErr error
	if err := raw.Control(func(fd uintptr) { cred, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if sockErr != nil {
		return 0, sockErr
	}
	if cred.Pid <= 0 {
		return 0, errors.New("the process at the other end is of no process namespace below this one")
	}
	return int(cred.Pid), nil
}

// ethtool carries one value to the driver of a network device (ethtool_value of linux/ethtool.h).
func ethtool(name string, command, value uint32) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	data := [2]uint32{command, value}
	req := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&data)}
	copy(req.name[:unix.IFNAMSIZ-1], name)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return errno
	}
	return nil
}
