package probe

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"
)

// Usage is what Command knows.
const Usage = `usage:
  probe ask [-w PATIENCE] SERVICE[,SERVICE…] ADDRESS…   ask each service at each address, all at once
  probe answer [-n NAME] SERVICE[,SERVICE…]             answer until killed
A SERVICE is icmp, tcp:PORT or udp:PORT. Each question's result is a line: "yes …" or "no …".
`

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// Command is the command line: args without the program's name.
func Command(ctx context.Context, out io.Writer, args []string) error {
	if len(args) == 0 {
		return errors.New(Usage)
	}
	flags := flag.NewFlagSet("probe", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	patience := flags.Duration("w", time.Second, "")
	name := flags.String("n", "", "")
	if err := flags.Parse(args[1:]); err != nil || flags.NArg() == 0 {
		return errors.Join(err, errors.New(Usage))
	}
	var services []Service
	for _, s := range strings.Split(flags.Arg(0), ",") {
		v, err := ParseService(s)
		if err != nil {
			return err
		}
		services = append(services, v)
	}
	switch args[0] {
	case "ask":
		var targets []Target
		for _, a := range flags.Args()[1:] {
			addr, err := netip.ParseAddr(a)
			if err != nil {
				return err
			}
			for _, s := range services {
				targets = append(targets, Target{s, addr})
			}
		}
		for _, r := range Ask(ctx, targets, *patience) {
			if _, err := fmt.Fprintln(out, r); err != nil {
				return err
			}
		}
		return nil
	case "answer":
		if *name == "" {
			host, err := os.Hostname()
			if err != nil {
				return err
			}
			*name = host
		}
		return Answer(ctx, *name, services)
	}
	return errors.New(Usage)
}
