// Package netspace does something in another network namespace (network_namespaces(7)) of this machine.
//
// It owns the rule by which a thread visits a namespace and is never lent to anybody else when it could not come back. It reads
// the file that names the namespace. It imports nothing of the project.
package netspace

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/vishvananda/netns"
)

// Do runs f in the network namespace that the file at path names, and returns its error; with an empty path it runs f where the caller
// is. f runs on a goroutine and a thread of its own, and must not start goroutines that rely on the namespace, nor processes
// that end with the thread that started them (prctl(2), PR_SET_PDEATHSIG).
func Do(path string, f func() error) error {
	if path == "" {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := visit(path, f)
		if home {
			runtime.UnlockOSThread() // else the thread ends with the goroutine: nobody else must run on it
		}
		done <- err
	}()
	return <-done
}

// visit runs f in the namespace on this thread, and tells whether the thread is back.
func visit(path string, f func() error) (home bool, err error) {
	own, err := netns.Get()
	if err != nil {
		return true, err
	}
	defer own.Close()
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return true, fmt.Errorf("network namespace %s: %w", path, err)
	}
	defer ns.Close()
	if err := netns.Set(ns); err != nil {
		return true, fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	err = f()
	back := netns.Set(own)
	return back == nil, errors.Join(err, back)
}
