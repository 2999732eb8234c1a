package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/model"
)

// file is one that a guest has on its host.
type file struct {
	Name     string `json:"name"` // in the guest's folder
	Disk     bool   `json:"disk,omitempty"`
	Root     bool   `json:"root,omitempty"` // an overlay of the server's image
	ReadOnly bool   `json:"read_only,omitempty"`
	Format   string `json:"format,omitempty"`
	Size     int64  `json:"size"`              // of the file, bytes
	Virtual  int64  `json:"virtual,omitempty"` // of the disk, bytes
}

// listing is what serviceFiles answers.
type listing struct {
	Files *[]file `json:"files"`
}

// ownFile tells whether a disk is a file of the guest's folder, which moves with it. Volumes are reached from both hosts.
func (a *Agent) ownFile(server model.ID, d hypervisor.Disk) bool {
	return d.Network == nil && filepath.Dir(d.Path) == a.dir(server)
}

// filesOf lists what moves with a guest.
func (m *mover) filesOf(ctx context.Context, row *model.HostServer) ([]file, error) {
	g, err := m.a.guest(ctx, row)
	if errors.Is(err, errWaiting) {
		err = fault.Wrap(fault.Unavailable, err, "The guest's volumes are not there yet.")
	}
	if err != nil {
		return nil, err
	}
	var files []file
	for _, d := range g.Disks {
		if !m.a.ownFile(row.ID, d) {
			continue
		}
		f := file{Name: filepath.Base(d.Path), Disk: true, Format: d.Format, ReadOnly: d.ReadOnly}
		f.Root = f.Name == m.a.diskFile()
		info, err := os.Stat(d.Path)
		if err != nil {
			return nil, err
		}
		f.Size = info.Size()
		if f.Virtual, err = m.a.cfg.Disks.Size(ctx, d.Path, d.Format); err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	if info, err := os.Stat(filepath.Join(m.a.dir(row.ID), nvramFile)); err == nil {
		files = append(files, file{Name: nvramFile, Disk: true, Format: "raw", Size: info.Size(), Virtual: info.Size()})
	}
	if info, err := os.Stat(filepath.Join(m.a.dir(row.ID), consoleFile)); err == nil {
		files = append(files, file{Name: consoleFile, Size: info.Size()})
	}
	return files, nil
}

// theirFiles asks the source.
func (m *mover) theirFiles(ctx context.Context, row *model.HostServer) ([]file, error) {
	var files []file
	if err := m.question(ctx, row, serviceFiles, &listing{Files: &files}); err != nil {
		return nil, err
	}
	for _, f := range files {
		if !isFileName(f.Name) || f.Format != "" && f.Format != "qcow2" && f.Format != "raw" {
			return nil, fault.New(fault.Invalid, "The other host names a file %q of the format %q.", f.Name, f.Format)
		}
	}
	return files, nil
}

// listFiles answers a target.
func (m *mover) listFiles(ctx context.Context, peer model.ID, args json.RawMessage, conn net.Conn) error {
	row, _, err := m.asked(peer, args, model.RoleSource)
	if err != nil {
		return err
	}
	files, err := m.filesOf(ctx, row)
	if err != nil {
		return err
	}
	return json.NewEncoder(conn).Encode(listing{&files})
}

// giveFile sends a file from an offset on, and behind its length and bytes (from 0 on) their SHA-256. A disk is given only while
// the guest is off: half of what changes meanwhile is nothing.
func (m *mover) giveFile(ctx context.Context, peer model.ID, args json.RawMessage, conn net.Conn) error {
	row, c, err := m.asked(peer, args, model.RoleSource)
	if err != nil {
		return err
	}
	files, err := m.filesOf(ctx, row)
	if err != nil {
		return err
	}
	for _, f := range files {
		if f.Name != c.Name {
			continue
		}
		if p, _ := m.a.ledger.progressOf(row.ID); f.Disk && !f.ReadOnly && (row.Move.Kind == model.MoveLive || said(row, &p) != model.MoveReady) {
			return fault.New(fault.Conflict, "The guest's disk is in use.")
		}
		return sendFile(conn, filepath.Join(m.a.dir(row.ID), f.Name), c.Offset)
	}
	return fault.New(fault.NotFound, "The guest has no file %q.", c.Name)
}

// tail is what follows a file's bytes, and says what precedes them.
type tail struct {
	Size int64  `json:"size"`
	Sum  string `json:"sum"` // SHA-256 of all of the file, hex
}

// sendFile writes the size of a file as JSON, its bytes from offset on, and its sum as JSON.
func sendFile(w io.Writer, path string, offset int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := info.Size() // a log may grow meanwhile
	if offset < 0 || offset > size {
		return fault.New(fault.Invalid, "The file has no byte %d.", offset)
	}
	if err := json.NewEncoder(w).Encode(tail{Size: size}); err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.CopyN(sum, f, offset); err != nil {
		return err
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, io.TeeReader(io.LimitReader(f, size-offset), sum), make([]byte, 256<<10)); err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(tail{Size: size, Sum: hex.EncodeToString(sum.Sum(nil))})
}

// fetchFile copies a file of the other host to path. What came before a connection broke, or this process was killed, is not
// sent again.
func (m *mover) fetchFile(ctx context.Context, row *model.HostServer, f file, path string) error {
	part := path + ".part"
	out, err := os.OpenFile(part, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	info, err := out.Stat()
	if err != nil {
		return err
	}
	have := info.Size()
	conn, err := m.open(ctx, row, serviceFile, call{Name: f.Name, Offset: have})
	if err != nil {
		if fault.Is(err, fault.Invalid) { // it has become shorter
			return errors.Join(fault.Wrap(fault.Unavailable, err, "The other host's file has changed."), os.Remove(part))
		}
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	err = takePart(&patient{Conn: conn}, out)
	if errors.Is(err, errWrongSum) {
		return errors.Join(fault.Wrap(fault.Unavailable, err, "The file was not copied well."), os.Remove(part))
	}
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "The file was not copied whole.")
	}
	if err := errors.Join(out.Sync(), out.Close()); err != nil {
		return err
	}
	return os.Rename(part, path)
}

// patient is a connection that breaks after a while without a byte.
type patient struct{ net.Conn }

func (p *patient) Read(b []byte) (int, error) {
	p.SetReadDeadline(time.Now().Add(time.Minute))
	return p.Conn.Read(b)
}

var errWrongSum = errors.New("the sums differ")

// takePart reads what sendFile writes; as many bytes of the file as it was asked to leave out are in out already.
func takePart(r io.Reader, out *os.File) error {
	sum := sha256.New()
	have, err := io.Copy(sum, out)
	if err != nil {
		return err
	}
	first := json.NewDecoder(r)
	var t tail
	if err := first.Decode(&t); err != nil {
		return err
	}
	// The decoder has read further than its document, whose line ends it.
	rest := io.MultiReader(first.Buffered(), r)
	if _, err := io.CopyN(io.Discard, rest, 1); err != nil {
		return err
	}
	w := &holed{f: out, at: have}
	if _, err := io.CopyBuffer(w, io.TeeReader(io.LimitReader(rest, t.Size-have), sum), make([]byte, 256<<10)); err != nil {
		return errors.Join(err, w.end())
	}
	if err := w.end(); err != nil {
		return err
	}
	if w.at != t.Size {
		return io.ErrUnexpectedEOF
	}
	size := t.Size
	if err := json.NewDecoder(rest).Decode(&t); err != nil {
		return err
	}
	if t.Size != size || t.Sum != hex.EncodeToString(sum.Sum(nil)) {
		return errWrongSum
	}
	return nil
}

// holed writes a file and leaves holes for zeros.
type holed struct {
	f  *os.File
	at int64
}

func (s *holed) Write(b []byte) (int, error) {
	zero := true
	for _, c := range b {
		if c != 0 {
			zero = false
			break
		}
	}
	if !zero {
		if n, err := s.f.WriteAt(b, s.at); err != nil {
			s.at += int64(n)
			return n, err
		}
	}
	s.at += int64(len(b))
	return len(b), nil
}

// end gives the file its length, of which the last part may be a hole.
func (s *holed) end() error { return s.f.Truncate(s.at) }

// giveAway is the source's part of a cold move: the guest is off, and its files are there for the target.
func (m *mover) giveAway(ctx context.Context, row *model.HostServer, p *progress, power hypervisor.Power) error {
	if row.Move.Stage != model.MoveRunning && row.Move.Stage != model.MoveVerify {
		return nil
	}
	if power != hypervisor.Off && power != hypervisor.Absent && power != hypervisor.Crashed {
		var err error
		if power, err = m.a.stop(ctx, row.ID, m.a.cfg.Grace); err != nil {
			return err
		}
	}
	p.Started = false // what runs next is a wish of its own
	say(row, p, model.MoveReady, nil)
	return m.a.observe(row.ID, p, power)
}

// letGo is the target's part of a cold move that is taken back: the guest is off here for good.
func (m *mover) letGo(ctx context.Context, row *model.HostServer, p *progress, power hypervisor.Power) error {
	if power != hypervisor.Off && power != hypervisor.Absent && power != hypervisor.Crashed {
		var err error
		if power, err = m.a.stop(ctx, row.ID, m.a.cfg.Grace); err != nil {
			return err
		}
	}
	p.Started = false
	say(row, p, model.MoveDone, nil)
	return m.a.observe(row.ID, p, power)
}

// takeOver is the target's part of a cold move. Once the files are here, the server is as any.
func (m *mover) takeOver(ctx context.Context, row *model.HostServer, p *progress) (alone bool, err error) {
	if p.Disk || p.Phase == model.PhaseError && p.Generation == row.Generation {
		return false, nil
	}
	image, release := "", func() {}
	if ownRoot(row) {
		if image, release, err = m.a.images.hold(ctx, row.Image); err != nil {
			return true, err
		}
	}
	defer release()
	if row.Move.Stage != model.MoveRunning { // the guest may still run there
		return true, m.a.keep(row.ID, p)
	}
	if err := m.copyFiles(ctx, row, image); err != nil {
		return true, err
	}
	p.Disk, p.Phase, p.Rebuilds = true, model.PhaseStarting, row.Rebuilds
	beginStep(p, model.StepStart, m.a.now())
	return false, m.a.keep(row.ID, p)
}

// copyFiles brings a guest's files here and makes its root disk fit the flavor.
func (m *mover) copyFiles(ctx context.Context, row *model.HostServer, image string) error {
	files, err := m.theirFiles(ctx, row)
	if err != nil {
		return err
	}
	dir := m.a.dir(row.ID)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("make the guest's folder: %w", err)
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name)
		if _, err := os.Stat(path); err == nil {
			continue // it came before this process was killed
		}
		// The root disk has its name when it is as it should be: a ledger that was lost goes by that.
		to := path
		if f.Root {
			to += ".moved"
		}
		if _, err := os.Stat(to); err != nil {
			if err := m.fetchFile(ctx, row, f, to); err != nil {
				return fmt.Errorf("file %s: %w", f.Name, err)
			}
		}
		if !f.Root {
			continue
		}
		// Both may be done again.
		if err := m.a.cfg.Disks.Rebase(ctx, to, image, row.Image.Format); err != nil {
			return err
		}
		if size := int64(row.DiskGiB) << 30; size > f.Virtual {
			if err := m.a.cfg.Disks.Resize(ctx, to, f.Format, size); err != nil {
				return err
			}
		}
		if err := os.Rename(to, path); err != nil {
			return err
		}
	}
	return syncDir(dir)
}
