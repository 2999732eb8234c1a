package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"yakumo/fault"
)

// Trace is the command that explains a packet.
type Trace struct {
	Port     string `arg:"" help:"The port that the packet is sent from: id or name."`
	To       string `arg:"" help:"Where to: a port's id or name, or an address."`
	Protocol string `short:"p" help:"icmp, tcp, udp, sctp, arp, or a number." default:"icmp"`
	SrcPort  int    `help:"Source port." default:"40000"`
	DstPort  int    `short:"d" help:"Destination port, for tcp, udp and sctp."`
	Src      string `help:"Another source address than the port's own."`
	EthSrc   string `help:"Another source MAC."`
	EthDst   string `help:"Another destination MAC than the receiver's or the gateway's."`
	TTL      int    `help:"Time to live." default:"64"`
	Size     int    `help:"Bytes of payload."`
	Reply    bool   `short:"r" help:"Trace the receiver's answer too."`
	Inject   bool   `short:"i" help:"Send the packet for real besides, and look for it on every host of its way."`
	Output   string `short:"o" help:"text or json." default:"text" enum:"text,json"`
}

// Traced is a trace as the native API shows it.
type Traced struct {
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
	Port    string `json:"port,omitempty"`
	Packet  string `json:"packet"`
	Hops    []struct {
		Host  string `json:"host"`
		In    string `json:"in"`
		Steps []struct {
			Stage   string   `json:"stage"`
			Action  string   `json:"action"`
			Decided []string `json:"decided,omitempty"`
			Entry   string   `json:"entry,omitempty"`
		} `json:"steps"`
		Out []struct {
			To     string `json:"to"`
			Packet string `json:"packet"`
		} `json:"out"`
	} `json:"hops"`
	Reply *Traced `json:"reply,omitempty"`
	Real  *struct {
		Seen []struct {
			Host  string  `json:"host"`
			Where string  `json:"where"`
			After float64 `json:"after_ms"`
		} `json:"seen"`
		Agrees bool   `json:"agrees"`
		Note   string `json:"note,omitempty"`
	} `json:"real,omitempty"`
}

// Run traces.
func (c *Trace) Run(ctx context.Context) error {
	cl, err := connect(ctx)
	if err != nil {
		return err
	}
	req := map[string]any{"protocol": c.Protocol, "src_port": c.SrcPort, "dst_port": c.DstPort, "ttl": c.TTL, "size": c.Size, "reply": c.Reply, "inject": c.Inject}
	if req["port"], err = cl.port(ctx, c.Port); err != nil {
		return err
	}
	if strings.ContainsAny(c.To, ".:") {
		req["dst"] = c.To
	} else if req["to"], err = cl.port(ctx, c.To); err != nil {
		return err
	}
	for name, v := range map[string]string{"src": c.Src, "eth_src": c.EthSrc, "eth_dst": c.EthDst} {
		if v != "" {
			req[name] = v
		}
	}
	var out struct {
		Trace Traced `json:"trace"`
	}
	if err := cl.Do(ctx, "POST", "/yakumo/v1/traces", map[string]any{"trace": req}, &out); err != nil {
		return err
	}
	if c.Output == "json" {
		return JSON(os.Stdout, out.Trace)
	}
	out.Trace.print(os.Stdout, "")
	return nil
}

// port finds a port's id by id or name.
func (c *Client) port(ctx context.Context, key string) (string, error) {
	for _, by := range []string{"id", "name"} {
		var out struct {
			Ports []struct {
				ID string `json:"id"`
			} `json:"ports"`
		}
		if err := c.Do(ctx, "GET", "/network/v2.0/ports?fields=id&"+by+"="+url.QueryEscape(key), nil, &out); err != nil {
			return "", err
		}
		switch len(out.Ports) {
		case 0:
			continue
		case 1:
			return out.Ports[0].ID, nil
		}
		return "", fault.New(fault.Conflict, "%d ports are called %s; say the id.", len(out.Ports), key)
	}
	return "", fault.New(fault.NotFound, "There is no port %s.", key)
}

func (t *Traced) print(w io.Writer, indent string) {
	fmt.Fprintf(w, "%s%s: %s\n%s%s\n", indent, strings.ToUpper(t.Verdict), t.Reason, indent, t.Packet)
	for _, h := range t.Hops {
		fmt.Fprintf(w, "\n%son %s, in at %s\n", indent, h.Host, h.In)
		for _, s := range h.Steps {
			fmt.Fprintf(w, "%s  %-11s %s", indent, s.Stage, s.Action)
			if len(s.Decided) > 0 {
				fmt.Fprintf(w, "   [%s]", strings.Join(s.Decided, ", "))
			}
			fmt.Fprintln(w)
			if s.Entry != "" {
				fmt.Fprintf(w, "%s              %s\n", indent, s.Entry)
			}
		}
		for _, o := range h.Out {
			fmt.Fprintf(w, "%s  => %s: %s\n", indent, o.To, o.Packet)
		}
	}
	if t.Reply != nil {
		fmt.Fprintf(w, "\n%sthe answer:\n", indent)
		t.Reply.print(w, indent+"  ")
	}
	if r := t.Real; r != nil {
		fmt.Fprintf(w, "\n%sa real packet was seen:\n", indent)
		for _, s := range r.Seen {
			fmt.Fprintf(w, "%s  %8.3f ms  %-12s %s\n", indent, s.After, s.Host, s.Where)
		}
		verdict := "as the rows say"
		if !r.Agrees {
			verdict = "NOT as the rows say"
		}
		fmt.Fprintf(w, "%s  it ended %s. %s\n", indent, verdict, r.Note)
	}
}

// Capture is the command that captures at a port.
type Capture struct {
	Port    string        `arg:"" help:"The port: id or name."`
	Write   string        `short:"w" help:"The file to write to; - is standard output, for example into: tcpdump -nr -" default:"-"`
	Count   int           `short:"c" help:"End after so many frames; 0: no such end."`
	For     time.Duration `help:"End after this time, at most 1h; 0: until interrupted."`
	SnapLen int           `help:"Bytes kept of each frame; 0: all."`
}

// Run captures.
func (c *Capture) Run(ctx context.Context) error {
	cl, err := connect(ctx)
	if err != nil {
		return err
	}
	id, err := cl.port(ctx, c.Port)
	if err != nil {
		return err
	}
	q := url.Values{}
	for name, n := range map[string]int{"count": c.Count, "seconds": int((c.For + time.Second - 1) / time.Second), "snap_len": c.SnapLen} {
		if n > 0 {
			q.Set(name, strconv.Itoa(n))
		}
	}
	w := os.Stdout
	if c.Write != "-" {
		if w, err = os.Create(c.Write); err != nil {
			return err
		}
	}
	err = cl.Stream(ctx, "/yakumo/v1/ports/"+url.PathEscape(id)+"/capture?"+q.Encode(), w)
	if ctx.Err() != nil { // interrupted by its user, which is how it ends
		err = nil
	}
	if w != os.Stdout {
		err = errors.Join(err, w.Close())
	}
	return err
}
