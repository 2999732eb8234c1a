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
  probe hear [-w PATIENCE] [-c COUNT] DEVICE GROUP:PORT      join a multicast group and print COUNT (1) datagrams
  probe tell DEVICE GROUP:PORT TEXT                     send a datagram to a group
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
	count := flags.Int("c", 1, "")
	if err := flags.Parse(args[1:]); err != nil || flags.NArg() == 0 {
		return errors.Join(err, errors.New(Usage))
	}
	if (args[0] == "hear" && flags.NArg() == 2) || (args[0] == "tell" && flags.NArg() == 3) {
		group, err := netip.ParseAddrPort(flags.Arg(1))
		switch {
		case err != nil:
			return err
		case !group.Addr().IsMulticast():
			return fmt.Errorf("%s is no multicast group", group.Addr())
		case args[0] == "tell":
			return Tell(flags.Arg(0), group, flags.Arg(2))
		}
		return Hear(ctx, out, flags.Arg(0), group, *count, *patience)
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
