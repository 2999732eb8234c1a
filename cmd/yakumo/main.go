// Command yakumo is the whole cloud in one program: server, agent, lab, and the operator's
// commands. roles.go is the wiring diagram: the only place, with package lab, that names
// concrete drivers.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"yakumo/cli"
	"yakumo/fault"
	"yakumo/hypervisor/container"
)

// version is set at link time by make.
var version = "dev"

type root struct {
	LogLevel  string `help:"What to log: debug, info, warn or error." default:"info" enum:"debug,info,warn,error" env:"YAKUMO_LOG_LEVEL"`
	LogFormat string `help:"How to log: text or json." default:"text" enum:"text,json" env:"YAKUMO_LOG_FORMAT"`

	Server      serverCmd       `cmd:"" help:"Run a server: the API, the controllers, and etcd unless it is elsewhere."`
	Agent       agentCmd        `cmd:"" help:"Run a host's agent: guests and their network."`
	Lab         labCmd          `cmd:"" help:"A whole cloud on this machine: several hosts in namespaces."`
	Host        cli.Host        `cmd:"" help:"Hosts of the cloud: make a join token, list, drain, fence, remove."`
	Switch      cli.Switch      `cmd:"" help:"Switches without an agent, driven over the network: add, list, show, remove."`
	Environment cli.Environment `cmd:"" help:"Move all that a project has to an availability zone, running, and back."`
	Trace       cli.Trace       `cmd:"" help:"Explain what becomes of a packet: each stage, the row that decided, where it ends."`
	Console     cli.Console     `cmd:"" help:"A server's serial console in this terminal; Ctrl-] leaves."`
	Check       cli.Check       `cmd:"" help:"Look for what must never be: rows, guests, disks and taps that contradict each other."`
	Capture     cli.Capture     `cmd:"" help:"Capture what passes a port, as a pcap stream."`
	Version     versionCmd      `cmd:"" help:"Show the version."`

	LabInit    labInitCmd    `cmd:"" name:"lab-init" hidden:""`
	LabOutside labOutsideCmd `cmd:"" name:"lab-outside" hidden:""`
	LabProbe   labProbeCmd   `cmd:"" name:"lab-probe" hidden:""`

	LeaseKeeper leaseKeeperCmd `cmd:"" name:"lease-keeper" hidden:""`
}

type versionCmd struct {
	Output string `short:"o" help:"text or json." default:"text" enum:"text,json"`
}

// Run prints what this binary is.
func (c *versionCmd) Run() error {
	v := map[string]string{"version": version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v["revision"] = s.Value
			}
		}
	}
	if c.Output == "json" {
		return cli.JSON(os.Stdout, v)
	}
	fmt.Printf("yakumo %s (%s, %s)\n", v["version"], v["go"], v["platform"])
	return nil
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == container.Word {
		os.Exit(container.Main(os.Args))
	}
	var r root
	k := kong.Must(&r, kong.Name("yakumo"), kong.UsageOnError(), kong.Vars{"version": version, "hostname": hostname()},
		kong.Description("A whole cloud in one program: OpenStack-compatible APIs, libvirt guests, an OpenFlow overlay."))
	kctx, err := k.Parse(os.Args[1:])
	k.FatalIfErrorf(err)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	kctx.BindTo(ctx, (*context.Context)(nil))
	kctx.Bind(logger(os.Stderr, r.LogLevel, r.LogFormat))
	if err := kctx.Run(); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "yakumo: "+text(err))
		os.Exit(1)
	}
}

// text is an error for a person: its own sentence where it has one, and the causes.
func text(err error) string {
	if s, ok := fault.Text(err); ok {
		return s
	}
	return strings.TrimSpace(err.Error())
}

func logger(w io.Writer, level, format string) *slog.Logger {
	var l slog.Level
	l.UnmarshalText([]byte(level)) // kong has checked it
	o := &slog.HandlerOptions{Level: l}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}
