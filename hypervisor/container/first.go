package container

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Word is the first argument of this program where it is process 1 of a container. Its main function calls Main then, before
// all else.
const Word = "container-init"

// controlFolder is where the control folder is in a container, until the image's init takes over.
const controlFolder = "/.yakumo"

// Files of the control folder.
const (
	stateFile  = "state"
	socketFile = "socket"
)

// States that are written down.
const (
	Waiting = "waiting"   // for its network cards
	Running = "running"   // the image's init does
	Off     = "shut down" // by itself, or by its power button
	Failed  = "failed"    // its init ended in another way
	Stopped = "stopped"   // from outside, which is noted before
)

// Commands of one byte on the control socket, and the answers to them.
const (
	goCommand      = 'g'
	resetCommand   = 'r'
	pressCommand   = 'p'
	consoleCommand = 'c'
	yes, no        = 'y', 'n'
)

// Main is what this program does where its first argument is Word; it gives the status to exit with. Mostly it is process 1 of a container:
// it runs the image's init in a process namespace of its own, restarts it when it reboots, keeps what it writes to its console, and
// writes down how it ended.
func Main(args []string) int {
	switch {
	case len(args) == 4 && args[2] == innerWord:
		fmt.Fprintf(os.Stderr, "container: %v\r\n", inner(args[3]))
		return innerFailed
	case len(args) > 5 && args[2] == mountsWord:
		if err := mountHelper(args[3], args[4], args[5:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	f := &first{begin: make(chan struct{})}
	if err := f.run(); err != nil {
		fmt.Fprintf(os.Stderr, "container: %v\n", err)
		return 1
	}
	return 0
}

// first is process 1.
type first struct {
	master, slave *os.File
	tty           string // the slave's path
	log           *os.File

	once  sync.Once
	begin chan struct{} // closed when the init may start

	mu     sync.Mutex
	init   *os.Process // nil while it does not run
	reset  bool        // it is being killed to be started anew
	reader chan []byte // who reads the console; nil: nobody
}

func (f *first) run() error {
	if os.Getpid() != 1 {
		return errors.New("this is process 1 of a container, and started by its host only")
	}
	if err := writeState(controlFolder, Waiting); err != nil {
		return err
	}
	var err error
	if f.log, err = os.OpenFile(controlFolder+"/log", os.O_WRONLY|os.O_APPEND, 0); err != nil {
		return err
	}
	// Nobody reads libvirt's console: what is written to it stops its writer some time.
	if err := errors.Join(unix.Dup3(int(f.log.Fd()), 1, 0), unix.Dup3(int(f.log.Fd()), 2, 0)); err != nil {
		return err
	}
	if err := f.openConsole(); err != nil {
		return fmt.Errorf("make the console: %w", err)
	}
	l, err := net.Listen("unix", filepath.Join(controlFolder, socketFile))
	if err != nil {
		return err
	}
	go f.accept(l)
	go f.readConsole()
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGTERM, unix.SIGINT, unix.SIGPWR)
	go func() {
		for range asked {
			f.press()
		}
	}()
	<-f.begin
	for {
		if err := writeState(controlFolder, Running); err != nil {
			return err
		}
		again, end, err := f.runInit()
		if err != nil {
			end = Failed + ": " + err.Error()
		}
		if !again {
			return writeState(controlFolder, end)
		}
		if err := resetCards(); err != nil {
			fmt.Fprintf(os.Stderr, "container: %v\r\n", err)
		}
	}
}

// runInit runs the image's init once; again tells that it is to be run anew.
func (f *first) runInit() (again bool, end string, err error) {
	cmd := exec.Command("/proc/self/exe", Word, innerWord, f.tty)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = f.slave, f.slave, f.slave
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=linux", "container=lxc"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Setsid: true, Setctty: true}
	f.mu.Lock()
	if err = cmd.Start(); err == nil {
		f.init, f.reset = cmd.Process, false
	}
	f.mu.Unlock()
	if err != nil {
		return false, "", fmt.Errorf("start the init: %w", err)
	}
	err = cmd.Wait()
	f.mu.Lock()
	f.init, again = nil, f.reset
	f.mu.Unlock()
	if again {
		return true, "", nil
	}
	ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok {
		return false, "", err
	}
	// What reboot(2) does in a process namespace: its process 1 is killed, by SIGHUP for a restart and by SIGINT for an end.
	switch {
	case ws.Signaled() && ws.Signal() == unix.SIGHUP:
		return true, "", nil
	case ws.Signaled() && ws.Signal() == unix.SIGINT, ws.Exited() && ws.ExitStatus() == 0:
		return false, Off, nil
	case ws.Signaled():
		return false, Failed + ": its init was killed by " + ws.Signal().String(), nil
	}
	return false, Failed + ": its init ended with status " + strconv.Itoa(ws.ExitStatus()), nil
}

// resetCards takes the addresses off the network cards, as a restart of a machine does.
func resetCards() error {
	all, err := netlink.LinkList()
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range all {
		if l.Attrs().Flags&net.FlagLoopback != 0 {
			continue
		}
		errs = append(errs, netlink.LinkSetDown(l))
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		errs = append(errs, err)
		for _, a := range addrs {
			errs = append(errs, netlink.AddrDel(l, &a))
		}
	}
	return errors.Join(errs...)
}

// openConsole makes the pseudo-terminal (pty(7)) that is the init's console. This process holds both ends, so that it lasts.
func (f *first) openConsole() error {
	// By the descriptor: the runtime would poll it, and a read has to wait.
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f.master = os.NewFile(uintptr(fd), "console")
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		return err
	}
	f.tty = "/dev/pts/" + strconv.Itoa(n)
	f.slave, err = os.OpenFile(f.tty, os.O_RDWR|unix.O_NOCTTY, 0)
	return err
}

// readConsole keeps what the console says, and passes it on to who reads it; one that is slow misses some.
func (f *first) readConsole() {
	buf := make([]byte, 16<<10)
	for {
		n, err := f.master.Read(buf)
		if err != nil {
			fmt.Fprintf(os.Stderr, "container: the console is lost: %v\r\n", err)
			return
		}
		f.log.Write(buf[:n]) // a full disk of the host must not stop the container
		f.mu.Lock()
		if f.reader != nil {
			select {
			case f.reader <- append([]byte(nil), buf[:n]...):
			default:
			}
		}
		f.mu.Unlock()
	}
}

func (f *first) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			fmt.Fprintf(os.Stderr, "container: its host is not answered any more: %v\r\n", err)
			return
		}
		go f.serve(c)
	}
}

func (f *first) serve(c net.Conn) {
	defer c.Close()
	var command [1]byte
	for {
		if _, err := io.ReadFull(c, command[:]); err != nil {
			return
		}
		answer := byte(yes)
		switch command[0] {
		case goCommand:
			f.once.Do(func() { close(f.begin) })
		case resetCommand:
			if !f.restart() {
				answer = no
			}
		case pressCommand:
			f.press()
			continue
		case consoleCommand:
			f.console(c)
			return
		default:
			return
		}
		if _, err := c.Write([]byte{answer}); err != nil {
			return
		}
	}
}

// console serves who is at the console until they or the container leave.
func (f *first) console(c net.Conn) {
	f.mu.Lock()
	if f.reader != nil {
		f.mu.Unlock()
		c.Write([]byte{no}) // who does not hear it hears the end
		return
	}
	out := make(chan []byte, 64)
	f.reader = out
	f.mu.Unlock()
	done := make(chan struct{})
	defer func() {
		f.mu.Lock()
		f.reader = nil
		f.mu.Unlock()
		close(done)
	}()
	if _, err := c.Write([]byte{yes}); err != nil {
		return
	}
	go func() {
		for {
			select {
			case b := <-out:
				if _, err := c.Write(b); err != nil {
					c.Close()
					return
				}
			case <-done:
				return
			}
		}
	}()
	io.Copy(f.master, c) // until either end is gone
}

// restart kills the init and all below it, to be started anew.
func (f *first) restart() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.init == nil {
		return false
	}
	f.reset = true
	return f.init.Kill() == nil
}

// press is the power button.
func (f *first) press() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.init == nil {
		return
	}
	if err := f.init.Signal(powerSignal()); err != nil {
		fmt.Fprintf(os.Stderr, "container: its init cannot be told to shut down: %v\r\n", err)
	}
}

// powerSignal is the signal by which the image's init is told to shut down: systemd(1) and busybox have their own, SIGPWR is
// what other containers' hosts send.
func powerSignal() os.Signal {
	path, err := filepath.EvalSymlinks(initOf())
	switch {
	case err == nil && strings.HasSuffix(path, "systemd"):
		return syscall.Signal(34 + 4) // SIGRTMIN+4, as C libraries count: glibc and musl keep the first two or three for themselves
	case err == nil && strings.HasPrefix(filepath.Base(path), "busybox"):
		return unix.SIGUSR2
	}
	return unix.SIGPWR
}

// writeState writes a state down so that it is there as a whole or not at all.
func writeState(dir, state string) error {
	path := filepath.Join(dir, stateFile)
	if err := os.WriteFile(path+".new", []byte(state+"\n"), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
