// Package scale_test measures a large cloud on one machine: the server's half (embedded etcd,
// store, hostview, link, network, compute) in the test's process, and every host's real agent,
// with its ledger on disk and its stream over loopback TLS, in one child process. What is not
// real is below the agent's two seams: the switch only counts rows and tells when it was given
// which, and the hypervisor is the fake.
//
// Hosts' ledgers are in memory, as a thousand hosts have a thousand disks; so is etcd's state, unless -state
// names a folder on a disk. Without -full a tenth is measured (100 hosts, 10,000 ports, 1,000 networks); make scale
// measures all (1,000 hosts, 100,000 ports, 10,000 networks) and prints what
// docs/benchmarks.md shows.
// It may import anything that a server or an agent may.
package scale_test

import (
	"flag"
	"os"
	"runtime/debug"
	"testing"

	"yakumo/store"
)

var (
	full  = flag.Bool("full", false, "measure the whole size: 1,000 hosts")
	state = flag.String("state", "/dev/shm", "where etcd keeps its files; what a commit's flush costs is measured only on a disk")
)

// hostsVariable makes this binary the child process that runs the hosts.
const hostsVariable = "YAKUMO_SCALE_HOSTS"

func TestMain(m *testing.M) {
	if os.Getenv(hostsVariable) != "" {
		runHosts()
		return
	}
	flag.Parse()
	debug.SetGCPercent(store.GCPercent) // as yakumo server does
	os.Exit(m.Run())
}
