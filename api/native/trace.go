package native

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/trace"
)

// Tracer explains packets and captures them; *trace.Tracer is one.
type Tracer interface {
	Trace(ctx context.Context, sc trace.Scope, req trace.Request) (*trace.Result, error)
	Follow(ctx context.Context, sc trace.Scope, req trace.Request) (*trace.Result, error)
	Frames(ctx context.Context, sc trace.Scope, c trace.Capture, f func([]model.CapturedFrame) error) error
}

func scope(c *api.Context) trace.Scope {
	return trace.Scope{ProjectID: c.Caller.ProjectID, Admin: c.Caller.CloudAdmin}
}

// trace tells what becomes of a packet, of a real one too where that is asked for.
func (d *dialect) trace(c *api.Context) error {
	var body struct {
		Trace *trace.Request `json:"trace"`
	}
	if err := c.Decode(&body); err != nil {
		return err
	}
	if body.Trace == nil || body.Trace.Port == "" {
		return fault.New(fault.Invalid, `The body must be {"trace": {"port": …}}: the port that the packet is sent from.`)
	}
	do := d.cfg.Tracer.Trace
	if body.Trace.Inject {
		do = d.cfg.Tracer.Follow
	}
	r, err := do(c.R.Context(), scope(c), *body.Trace)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, map[string]any{"trace": r})
}

// Bounds of a capture's parameters.
const (
	maxCaptureSeconds = 3600
	maxCaptureFrames  = 1_000_000
	maxSnapLen        = 65535
)

// capture streams what passes a port as a pcap file (draft-ietf-opsawg-pcap), until it ends or
// the client goes.
func (d *dialect) capture(c *api.Context) error {
	limits := map[string]int{"seconds": maxCaptureSeconds, "count": maxCaptureFrames, "snap_len": maxSnapLen}
	given := map[string]int{}
	for name, values := range c.Query() {
		most, ok := limits[name]
		n, err := strconv.Atoi(values[0])
		if !ok || err != nil || n < 1 || n > most {
			return fault.New(fault.Invalid, "Parameters are seconds (1 to %d), count (1 to %d) and snap_len (1 to %d); %.40q is none.", maxCaptureSeconds, maxCaptureFrames, maxSnapLen, name+"="+values[0])
		}
		given[name] = n
	}
	flow := http.NewResponseController(c.W)
	w := pcapgo.NewWriterNanos(c.W)
	began := false
	begin := func() error {
		if began {
			return nil
		}
		began = true
		c.W.Header().Set("Content-Type", "application/vnd.tcpdump.pcap")
		c.W.WriteHeader(http.StatusOK)
		return w.WriteFileHeader(maxSnapLen, layers.LinkTypeEthernet)
	}
	err := d.cfg.Tracer.Frames(c.R.Context(), scope(c),
		trace.Capture{Port: c.Param("id"), SnapLen: given["snap_len"], Count: given["count"], For: time.Duration(given["seconds"]) * time.Second},
		func(frames []model.CapturedFrame) error {
			if err := begin(); err != nil {
				return err
			}
			for _, f := range frames {
				if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: f.At, CaptureLength: len(f.Data), Length: f.Size}, f.Data); err != nil {
					return err
				}
			}
			return flow.Flush()
		})
	if !began {
		return err
	}
	if err != nil { // the answer has begun: all that can be done is to cut it off
		c.Log.Warn("a capture was cut off", "port", c.Param("id"), "err", err)
		panic(http.ErrAbortHandler)
	}
	return nil
}
