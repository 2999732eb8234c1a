// Command yakumo-guest is the part of the guest image yakumo-mini that is more than a shell script should do: it
// reads the data source (config drive or metadata service) and applies it once per instance, sets fixed addresses
// from a config drive, and grows the root file system to the disk.
//
// It owns /var/lib/yakumo in the guest (what was done for which instance) and the keys, host name and files that the
// data source asks for. It runs in the guest only and imports nothing else of this module.
package main

import (
	"context"
	"fmt"
	"os"
)

const usage = `usage:
  yakumo-guest datasource DRIVE FIFO   apply the config drive copied to DRIVE, or else the metadata service
  yakumo-guest network DRIVE           set the fixed addresses of a config drive
  yakumo-guest grow                    grow the root partition and its file system to the disk
  yakumo-guest ready                   print the line that says the guest is up
`

func main() {
	args := os.Args[1:]
	var err error
	switch {
	case len(args) == 3 && args[0] == "datasource":
		err = runDataSource(context.Background(), args[1], args[2])
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

// say writes one line for the serial console, where the start scripts send this program's output.
func say(format string, args ...any) {
	fmt.Printf("yakumo-mini: "+format+"\n", args...)
}
