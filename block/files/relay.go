package files

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"yakumo/block"
)

// Relay implements block.Relay by a storage daemon for each volume, which connects anew by itself.
type Relay struct{ e *Engine }

var _ block.Relay = Relay{}

// OpenRelay gives a Relay whose sockets are in the folder run, absolute and of at most 88 bytes.
func OpenRelay(run string) (Relay, error) {
	if !filepath.IsAbs(run) || len(run) > 88 {
		return Relay{}, fmt.Errorf("relay of volumes: the folder %q is not absolute, or too long for sockets in it", run)
	}
	if err := os.MkdirAll(run, 0o711); err != nil {
		return Relay{}, fmt.Errorf("relay of volumes: %w", err)
	}
	return Relay{&Engine{cfg: Config{Run: run}}}, nil
}

// Open implements block.Relay.
func (r Relay) Open(ctx context.Context, id, export, socket string, wait int) (block.Access, error) {
	if err := block.Check(id); err != nil {
		return block.Access{}, err
	}
	leave, err := r.e.turns.Enter(ctx, id)
	if err != nil {
		return block.Access{}, err
	}
	defer leave()
	d, err := r.e.daemon(ctx, id)
	if err == nil && d == nil {
		var far []byte
		far, err = json.Marshal(map[string]any{"driver": "nbd", "node-name": node, "export": export, "reconnect-delay": wait,
			"server": map[string]any{"type": "unix", "path": socket}})
		if err == nil {
			d, err = daemonOf(ctx, r.e.cfg.Run, id, string(far))
		}
	}
	if err != nil {
		return block.Access{}, err
	}
	d.close()
	return block.Access{Socket: r.e.socket(id, nbdSocket), Export: id}, nil
}

// Renew implements block.Relay.
func (r Relay) Renew(ctx context.Context, id, export, socket string, wait int) (block.Access, error) {
	if err := r.Close(ctx, id); err != nil {
		return block.Access{}, err
	}
	return r.Open(ctx, id, export, socket, wait)
}

// Close implements block.Relay.
func (r Relay) Close(ctx context.Context, id string) error {
	if err := block.Check(id); err != nil {
		return err
	}
	leave, err := r.e.turns.Enter(ctx, id)
	if err != nil {
		return err
	}
	defer leave()
	d, err := r.e.daemon(ctx, id)
	if err != nil || d == nil {
		return err
	}
	defer d.close()
	// Asked to end, it would wait for the other host, which may be gone; it holds nothing that was not answered.
	if err := d.kill(ctx); err != nil {
		return fmt.Errorf("end the relay of volume %s: %w", id, err)
	}
	return errors.Join(remove(r.e.socket(id, nbdSocket)), remove(r.e.socket(id, qmpSocket)))
}
