package libvirt_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/hypervisor/hypertest"
	"yakumo/hypervisor/libvirt/libvirttest"
)

// queryTPM asks a guest's QEMU for the models of its trusted platform modules.
func queryTPM(t *testing.T, ctx context.Context, d *libvirttest.Daemon, name string) (models []string) {
	t.Helper()
	out, err := exec.CommandContext(ctx, "virsh", "-c", "qemu+unix:///system?socket="+d.Socket(), "qemu-monitor-command", name, `{"execute":"query-tpm"}`).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var said struct {
		Return []struct{ Model string }
	}
	if err := json.Unmarshal(out, &said); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, m := range said.Return {
		models = append(models, m.Model)
	}
	return models
}

// TestTPM: a guest has a trusted platform module, which goes along in a live move and outlives a stop; nothing of it is left when the guest is removed.
func TestTPM(t *testing.T) {
	t.Parallel() // its daemons are its own
	a, b := movingHost{host{libvirttest.Start(t)}}, movingHost{host{libvirttest.Start(t)}}
	from, to := a.driver(t), b.driver(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*hypertest.Deadline)
	defer cancel()
	if c, err := from.Capacity(ctx); err != nil || !slices.Equal(c.TPM, []string{"1.2", "2.0"}) {
		t.Fatalf("the host can emulate %q (%v)", c.TPM, err)
	}
	g := a.Guest(t)
	g.Specs = map[string]string{"hw:tpm_version": "2.0", "hw_tpm_model": "tpm-crb"}
	bad := g
	bad.Specs = map[string]string{"hw:tpm_version": "1.2", "hw_tpm_model": "tpm-crb"}
	if err := from.Ensure(ctx, bad); !fault.Is(err, fault.Invalid) {
		t.Errorf("a CRB of version 1.2: %v", err)
	}
	state := func(d *libvirttest.Daemon) []byte {
		b, err := os.ReadFile(filepath.Join(d.Dir(), "lib", "swtpm", g.ID, "tpm2", "tpm2-00.permall"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
		return b
	}
	if err := errors.Join(from.Ensure(ctx, g), from.Start(ctx, g.ID)); err != nil {
		t.Fatal(err)
	}
	if models := queryTPM(t, ctx, a.Daemon, g.Name); !slices.Equal(models, []string{"tpm-crb"}) {
		t.Errorf("QEMU has %q", models)
	}
	if len(state(a.Daemon)) == 0 {
		t.Error("nothing is kept of the module")
	}
	twin := b.Twin(t, g)
	r, err := to.Receive(ctx, twin)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	pass := hypervisor.Passage{Guest: twin, CopyDisks: []string{twin.Disks[0].Serial}, Dial: func(ctx context.Context, kind string) (io.ReadWriteCloser, error) {
		return r.Dial(ctx, kind)
	}}
	if err := from.Send(ctx, g.ID, pass); err != nil {
		t.Fatal(err)
	}
	if models := queryTPM(t, ctx, b.Daemon, g.Name); !slices.Equal(models, []string{"tpm-crb"}) {
		t.Errorf("after the move QEMU has %q", models)
	}
	if err := from.Remove(ctx, g.ID); err != nil {
		t.Error(err)
	}
	if state(a.Daemon) != nil {
		t.Error("the module is still at the host that the guest has left")
	}
	kept := state(b.Daemon)
	if err := errors.Join(to.Stop(ctx, g.ID, 0), to.Start(ctx, g.ID)); err != nil || len(kept) == 0 {
		t.Errorf("%d bytes are kept where it is now: %v", len(kept), err)
	}
	if err := to.Remove(ctx, g.ID); err != nil {
		t.Error(err)
	}
	if list, err := os.ReadDir(filepath.Join(b.Dir(), "lib", "swtpm")); err == nil && len(list) > 0 {
		t.Errorf("%s is left of it", list[0].Name())
	}
}
