// Command yakumo-guest is the part of the guest image yakumo-mini that is more than a shell script should do: it
// reads the data source (config drive or metadata service) and applies it once per instance, sets fixed addresses
// from a config drive, and grows the root file system to the disk.
//
// It owns /var/lib/yakumo in the guest (what was done for which instance) and the keys, host name and files that the
// data source asks for, and of /run/nic what IPv6 needs. It runs in the guest only; of this module it imports package
// probe, which it is when it is called so.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"yakumo/images/mini/probe"
)

const usage = `usage:
  yakumo-guest attend DRIVE FIFO       apply the config drive copied to DRIVE, or else the metadata service; and
                                       attend to IPv6 (name servers, DHCPv6) and to the host's wishes (guest agent)
                                       for as long as the guest runs
  yakumo-guest network DRIVE           set the fixed addresses of a config drive
  yakumo-guest grow                    grow the root partition and its file system to the disk
  yakumo-guest ready                   print the line that says the guest is up
`

func main() {
	args := os.Args[1:]
	var err error
	switch {
	case filepath.Base(os.Args[0]) == "probe":
		if err := probe.Command(context.Background(), os.Stdout, args); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	case len(args) == 3 && args[0] == "attend":
		err = attend(args[1], args[2])
	case len(args) == 2 && args[0] == "network":
		err = configureNetwork(args[1])
	case len(args) == 1 && args[0] == "grow":
		err = growRoot()
	case len(args) == 1 && args[0] == "ready":
		err = printReady()
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err != nil {
		say("%s: %v", args[0], err)
		os.Exit(1)
	}
}

// attend is one process for what would be two, since starting one takes an emulated processor a while.
func attend(drive, fifo string) error {
	ctx := context.Background()
	go func() {
		if err := runDataSource(ctx, drive, fifo); err != nil {
			say("data source: %v", err)
		}
	}()
	go func() {
		if err := attendAgent(); err != nil {
			say("guest agent: %v", err)
		}
	}()
	return fmt.Errorf("IPv6: %w", attendIPv6(ctx))
}

// say writes one line for the serial console, where the start scripts send this program's output.
func say(format string, args ...any) {
	fmt.Printf("yakumo-mini: "+format+"\n", args...)
}
