package agent

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"yakumo/block"
	"yakumo/channel"
	"yakumo/fault"
	"yakumo/model"
)

// serviceVolume is the channel's service by which a host opens a local volume of another: after the call come the bytes of NBD.
const serviceVolume = "volume"

// volumeCall is what a host says that opens one.
type volumeCall struct {
	VolumeID model.ID `json:"volume_id"`
}

// volumeUse is another host's connection to a volume here.
type volumeUse struct {
	volume, peer model.ID
	cut          context.CancelFunc
}

// serve answers another host's call for a volume: where the row of it says that its guests may have it.
func (v *volumeKeeper) serve(ctx context.Context, peer model.ID, args json.RawMessage, conn net.Conn) error {
	var c volumeCall
	if err := json.Unmarshal(args, &c); err != nil {
		return fault.Wrap(fault.Invalid, err, "The call is malformed.")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	mine := &volumeUse{c.VolumeID, peer, cancel}
	// Known before the row is looked at, so that whoever takes the right away finds it.
	v.mu.Lock()
	v.calls[mine] = struct{}{}
	v.mu.Unlock()
	defer func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.calls, mine)
	}()
	row := v.a.ledger.volume(c.VolumeID)
	if row == nil {
		return fault.New(fault.NotFound, "Volume %s could not be found.", c.VolumeID)
	}
	p, _ := v.a.ledger.volumeOf(c.VolumeID)
	place := row.Place
	switch {
	case row.Mine && !row.Deleted && row.Engine == model.EngineLocal && slices.Contains(row.Guests, peer):
		if !p.Made || p.Filling || p.Engine != row.Engine {
			return fault.New(fault.Unavailable, "Volume %s is not ready.", c.VolumeID)
		}
	case place != nil && !place.Clear && place.Engine == model.EngineLocal && slices.Contains(place.Guests, peer):
		if p.Placed != place.Number {
			return fault.New(fault.Unavailable, "Volume %s is not ready.", c.VolumeID)
		}
	default:
		return fault.New(fault.NotFound, "Volume %s could not be found.", c.VolumeID)
	}
	e, err := v.engine(model.EngineLocal, c.VolumeID)
	if err != nil {
		return err
	}
	at, err := e.Open(ctx, c.VolumeID)
	if err != nil {
		return err
	}
	nbd, err := new(net.Dialer).DialContext(ctx, "unix", at.Socket)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "Volume %s cannot be opened now.", c.VolumeID)
	}
	return channel.Join(ctx, conn, nbd)
}

// cut ends the connections to a volume of hosts that may not have it.
func (v *volumeKeeper) cut(volume model.ID, may []model.ID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for c := range v.calls {
		if c.volume == volume && !slices.Contains(may, c.peer) {
			c.cut()
		}
	}
}

// remote is a socket here at which guests find a volume of another host.
type remote struct {
	path string
	ln   net.Listener
	stop context.CancelFunc
	wg   sync.WaitGroup
}

// seated names one opening of a volume of another host: a guest may have two while its volume goes from one host to another.
func seated(id model.ID, seat int64) string {
	if seat == 0 {
		return id
	}
	return fmt.Sprintf("%s-%d", id, seat)
}

// reach makes sure that guests here find a volume of another host at a socket, and gives that. Whether the other host
// answers is seen when a guest connects.
func (v *volumeKeeper) reach(id model.ID, seat int64) (string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	name := seated(id, seat)
	if r := v.remotes[name]; r != nil {
		return r.path, nil
	}
	if !isFileName(id) {
		return "", fault.New(fault.Invalid, "%q is no id.", id)
	}
	sum := sha256.Sum256([]byte(name)) // a socket's path has little room
	path := filepath.Join(v.a.cfg.Run, base64.RawURLEncoding.EncodeToString(sum[:12])+".r")
	if err := forget(path); err != nil { // of an agent before this one
		return "", err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return "", fmt.Errorf("socket of volume %s: %w", id, err)
	}
	// It stays when the agent ends: a guest that looks for it meanwhile is refused and tries again.
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ctx, cancel := context.WithCancel(context.Background())
	r := &remote{path: path, ln: ln, stop: cancel}
	v.remotes[name] = r
	r.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					v.a.log.Error("guests here cannot reach a volume any more", "volume", id, "err", err)
				}
				return
			}
			r.wg.Go(func() { v.carry(ctx, id, seat, c) })
		}
	})
	return path, nil
}

// carry takes one guest's connection to the volume's host. A guest whose connection ends tries again.
func (v *volumeKeeper) carry(ctx context.Context, id model.ID, seat int64, guest net.Conn) {
	defer guest.Close()
	at, ok := v.a.ledger.ownerOf(id, seat)
	if !ok {
		return
	}
	owner, err := v.a.dialer.Dial(ctx, at, serviceVolume, volumeCall{id})
	if err != nil {
		if ctx.Err() == nil {
			v.a.log.Warn("a volume's host does not let a guest here have it", "volume", id, "host", at.Name, "err", err)
		}
		return
	}
	if err := channel.Join(ctx, guest, owner); err != nil && ctx.Err() == nil {
		v.a.log.Info("the way to a volume broke; the guest connects anew", "volume", id, "host", at.Name, "err", err)
	}
}

// relay opens a volume of another host for guests here.
func (v *volumeKeeper) relay(ctx context.Context, id model.ID, seat int64) (block.Access, error) {
	if v.a.cfg.Relay == nil {
		return block.Access{}, fault.New(fault.NotImplemented, "This host cannot open volume %s of another host.", id)
	}
	socket, err := v.reach(id, seat)
	if err != nil {
		return block.Access{}, err
	}
	return v.a.cfg.Relay.Open(ctx, seated(id, seat), id, socket, int(reconnect/time.Second))
}

// unreach ends what reach and relay began, where the volume is no guest's here any more.
func (v *volumeKeeper) unreach(ctx context.Context, id model.ID, seat int64) error {
	if len(v.a.ledger.users(id)) > 0 {
		return v.unlisten(id, seat)
	}
	return v.unseat(ctx, id, seat)
}

// unseat ends what reach and relay began; no guest here has the volume open there.
func (v *volumeKeeper) unseat(ctx context.Context, id model.ID, seat int64) error {
	if v.a.cfg.Relay != nil && block.Check(id) == nil {
		if err := v.a.cfg.Relay.Close(ctx, seated(id, seat)); err != nil {
			return err
		}
	}
	return v.unlisten(id, seat)
}

func (v *volumeKeeper) unlisten(id model.ID, seat int64) error {
	v.mu.Lock()
	r := v.remotes[seated(id, seat)]
	delete(v.remotes, seated(id, seat))
	v.mu.Unlock()
	if r == nil {
		return nil
	}
	r.close()
	return forget(r.path)
}

func (r *remote) close() {
	r.stop()
	r.ln.Close()
	r.wg.Wait()
}

// closeRemotes ends all connections at the end of the agent; guests connect to the next one.
func (v *volumeKeeper) closeRemotes() {
	v.mu.Lock()
	rs := v.remotes
	v.remotes = map[string]*remote{}
	v.mu.Unlock()
	for _, r := range rs {
		r.close()
	}
}
