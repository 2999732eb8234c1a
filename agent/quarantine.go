package agent

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"yakumo/block"
	"yakumo/model"
)

// quarantine keeps aside, for Config.Quarantine, guests' folders and local volumes that no row names and nobody ordered to go: the store
// may be a backup that is older than they are. Each is a folder <kind>-<id>, in a folder on the file system that it was on, with what it
// was (asideRecord) and its files (asideData). Whoever wants the files copies them; the folder may be removed by hand.
type quarantine struct{ a *Agent }

const (
	asideRecord = "quarantine.json"
	asideData   = "data"
	asideGone   = ".gone" // of a folder that is being erased
)

// laidAside is what asideRecord says.
type laidAside struct {
	Kind model.RowKind   `json:"kind"` // model.RowServer or RowVolume
	ID   model.ID        `json:"id"`
	At   time.Time       `json:"at"`
	Blob model.ID        `json:"blob,omitempty"` // the image, in the cache, that a server's disk is an overlay of
	Row  json.RawMessage `json:"row,omitempty"`  // the row as it was last, where the host was told one

	path string // of the folder
}

func newQuarantine(a *Agent) *quarantine { return &quarantine{a} }

func (a *Agent) asideDir() string { return filepath.Join(a.cfg.Dir, "quarantine") }

// dirs gives the folders that things are laid aside in.
func (q *quarantine) dirs() []string {
	dirs := []string{q.a.asideDir()}
	if e, ok := q.a.cfg.Engines[model.EngineLocal].(block.Sider); ok {
		dirs = append(dirs, e.Aside())
	}
	return dirs
}

// take lays something aside: move puts its files at the path that it is given. Cut off and called again, it goes on.
func (q *quarantine) take(dir string, x laidAside, move func(path string) error) error {
	x.At = q.a.now()
	for n := 1; ; n++ {
		name := fmt.Sprintf("%s-%s", x.Kind, x.ID)
		if n > 1 {
			name += fmt.Sprintf(".%d", n) // it has been here before
		}
		x.path = filepath.Join(dir, name)
		if _, err := os.Lstat(filepath.Join(x.path, asideData)); errors.Is(err, os.ErrNotExist) {
			break
		} else if err != nil {
			return fmt.Errorf("quarantine: %w", err)
		}
	}
	if err := os.MkdirAll(x.path, 0o700); err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	if err := x.write(); err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	if err := errors.Join(syncDir(dir), move(filepath.Join(x.path, asideData))); err != nil {
		return fmt.Errorf("lay %s %s aside: %w", x.Kind, x.ID, err)
	}
	q.a.log.Warn("nobody ordered this to go, and no row names it: it is laid aside; was an old backup of the store restored?",
		"kind", x.Kind, "id", x.ID, "folder", x.path, "erased", x.At.Add(q.a.cfg.Quarantine))
	return nil
}

func (x *laidAside) write() error {
	body, err := json.Marshal(x)
	if err != nil {
		return err
	}
	path := filepath.Join(x.path, asideRecord)
	f, err := os.OpenFile(path+partSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(body, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+partSuffix, path); err != nil {
		return err
	}
	return syncDir(x.path)
}

// list gives what is laid aside, in the order of paths.
func (q *quarantine) list() []laidAside {
	var out []laidAside
	for _, dir := range q.dirs() {
		folders, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			q.a.log.Error("the quarantine cannot be listed", "folder", dir, "err", err)
		}
		for _, f := range folders {
			if strings.HasSuffix(f.Name(), asideGone) {
				continue
			}
			x := laidAside{}
			path := filepath.Join(dir, f.Name())
			body, err := os.ReadFile(filepath.Join(path, asideRecord))
			if err == nil {
				err = json.Unmarshal(body, &x)
			}
			if errors.Is(err, os.ErrNotExist) {
				continue // not ours, or not there yet, or not any more
			}
			if err != nil {
				q.a.log.Error("the record of what was laid aside cannot be read; it stays", "folder", path, "err", err)
				continue
			}
			x.path = path
			out = append(out, x)
		}
	}
	slices.SortFunc(out, func(a, b laidAside) int { return strings.Compare(a.path, b.path) })
	return out
}

// sweep erases what has been aside for long enough.
func (q *quarantine) sweep() {
	for _, x := range q.list() {
		if q.a.now().Before(x.At.Add(q.a.cfg.Quarantine)) {
			continue
		}
		// Its name first: half of it is nothing that anybody could want.
		if err := os.Rename(x.path, x.path+asideGone); err != nil {
			q.a.log.Error("what was laid aside cannot be erased", "folder", x.path, "err", err)
			continue
		}
		q.a.log.Info("what was laid aside is erased", "kind", x.Kind, "id", x.ID, "folder", x.path)
	}
	for _, dir := range q.dirs() {
		gone, err := filepath.Glob(filepath.Join(dir, "*"+asideGone))
		if err != nil {
			q.a.log.Error("the quarantine cannot be listed", "folder", dir, "err", err)
		}
		for _, path := range gone {
			if err := os.RemoveAll(path); err != nil {
				q.a.log.Error("what was laid aside cannot be erased", "folder", path, "err", err)
			}
		}
	}
}

// backing gives the name of the file that a qcow2 is an overlay of, without its folder; empty: of none, or path is no qcow2 or is not there.
func backing(path string) (string, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	var head [20]byte // magic, version, backing_file_offset, backing_file_size
	if _, err := io.ReadFull(f, head[:]); err != nil || string(head[:4]) != "QFI\xfb" {
		return "", nil
	}
	at, size := binary.BigEndian.Uint64(head[8:]), binary.BigEndian.Uint32(head[16:])
	if at == 0 || at > 1<<20 || size == 0 || size > 1023 {
		return "", nil
	}
	name := make([]byte, size)
	if _, err := f.ReadAt(name, int64(at)); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return filepath.Base(string(name)), nil
}
