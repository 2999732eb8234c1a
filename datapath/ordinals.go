package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"yakumo/datapath/pipeline"
)

// MemoryOrdinals is an Ordinals without a file, for fakes and as the core of FileOrdinals.
type MemoryOrdinals struct {
	mu      sync.Mutex
	spaces  map[pipeline.OrdinalKind]*space
	journal []string // changes since the last Sync; nil: nobody keeps them
}

// space is the numbers of one kind.
type space struct {
	byKey map[string]uint32
	byNum map[uint32]string
	last  uint32 // the number given out last: the search for a free one starts behind it
}

// NewMemoryOrdinals makes an empty store.
func NewMemoryOrdinals() *MemoryOrdinals {
	return &MemoryOrdinals{spaces: map[pipeline.OrdinalKind]*space{}}
}

func (o *MemoryOrdinals) space(kind pipeline.OrdinalKind) *space {
	s := o.spaces[kind]
	if s == nil {
		s = &space{byKey: map[string]uint32{}, byNum: map[uint32]string{}}
		o.spaces[kind] = s
	}
	return s
}

// Get implements Ordinals.
func (o *MemoryOrdinals) Get(kind pipeline.OrdinalKind, key string, limit uint32) (uint32, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.space(kind)
	if n, ok := s.byKey[key]; ok {
		return n, nil
	}
	if uint32(len(s.byKey)) >= limit {
		return 0, fmt.Errorf("all %d %s ordinals are taken", limit, kind)
	}
	n := s.last
	for {
		if n++; n > limit {
			n = 1
		}
		if _, taken := s.byNum[n]; !taken {
			break
		}
	}
	s.byKey[key], s.byNum[n], s.last = n, key, n
	if o.journal != nil {
		o.journal = append(o.journal, journalLine(kind, n, key))
	}
	return n, nil
}

// Find implements Ordinals.
func (o *MemoryOrdinals) Find(kind pipeline.OrdinalKind, n uint32) (string, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	key, ok := o.space(kind).byNum[n]
	return key, ok
}

// Keys implements Ordinals.
func (o *MemoryOrdinals) Keys(kind pipeline.OrdinalKind) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.space(kind)
	keys := make([]string, 0, len(s.byKey))
	for k := range s.byKey {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Release implements Ordinals.
func (o *MemoryOrdinals) Release(kind pipeline.OrdinalKind, key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.space(kind)
	if n, ok := s.byKey[key]; ok {
		delete(s.byKey, key)
		delete(s.byNum, n)
		if o.journal != nil {
			o.journal = append(o.journal, journalLine(kind, 0, key))
		}
	}
}

// Sync implements Ordinals; there is nothing to do.
func (o *MemoryOrdinals) Sync() error { return nil }

// FileOrdinals is an Ordinals kept in a file: a journal of one line a change, rewritten
// when it is opened. It survives the death of the process at any moment. It is not forced to
// the disk: a machine that lost power has lost its connections and flows too, and starts
// with numbers as good as any.
type FileOrdinals struct {
	*MemoryOrdinals
	path string
	io   sync.Mutex // one Sync at a time
	file *os.File
}

// OpenOrdinals reads the file at path and rewrites it; an absent one is an empty store. A file
// that makes no sense, which only a power cut explains, is kept as path.bad and the store is empty.
func OpenOrdinals(path string) (*FileOrdinals, error) {
	o := &FileOrdinals{MemoryOrdinals: NewMemoryOrdinals(), path: path}
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read ordinals: %w", err)
	}
	if err := o.replay(string(b)); err != nil {
		o.MemoryOrdinals = NewMemoryOrdinals()
		if err := os.Rename(path, path+".bad"); err != nil {
			return nil, fmt.Errorf("keep bad ordinals: %w", err)
		}
	}
	if o.file, err = o.rewrite(); err != nil {
		return nil, fmt.Errorf("write ordinals: %w", err)
	}
	o.journal = make([]string, 0, 16)
	return o, nil
}

// replay takes the journal's lines in; a last line without its end was never synced.
func (o *FileOrdinals) replay(journal string) error {
	for n := 1; ; n++ {
		line, rest, whole := strings.Cut(journal, "\n")
		if !whole {
			return nil
		}
		journal = rest
		var kind pipeline.OrdinalKind
		var key string
		var num uint32
		if _, err := fmt.Sscanf(line, "%s %d %q", &kind, &num, &key); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		s := o.space(kind)
		if num == 0 {
			delete(s.byNum, s.byKey[key])
			delete(s.byKey, key)
			continue
		}
		if other, taken := s.byNum[num]; taken && other != key {
			return fmt.Errorf("line %d: %s %d of %q and %q", n, kind, num, key, other)
		}
		s.byKey[key], s.byNum[num], s.last = num, key, num
	}
}

// rewrite replaces the file by one line for each key and opens it for more. A reader, or the
// next process, finds the old file or the new, never a part.
func (o *FileOrdinals) rewrite() (*os.File, error) {
	var b strings.Builder
	for kind, s := range o.spaces {
		for n, key := range s.byNum {
			if n != s.last {
				b.WriteString(journalLine(kind, n, key))
			}
		}
		if key, ok := s.byNum[s.last]; ok { // last, so that the search goes on behind it
			b.WriteString(journalLine(kind, s.last, key))
		}
	}
	f, err := os.CreateTemp(filepath.Dir(o.path), filepath.Base(o.path)+".*")
	if err != nil {
		return nil, err
	}
	_, err = f.WriteString(b.String())
	if err == nil {
		err = os.Rename(f.Name(), o.path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return f, nil
}

func journalLine(kind pipeline.OrdinalKind, n uint32, key string) string {
	return fmt.Sprintf("%s %d %q\n", kind, n, key)
}

// Sync writes what changed.
func (o *FileOrdinals) Sync() error {
	o.io.Lock()
	defer o.io.Unlock()
	o.mu.Lock()
	lines := o.journal
	o.journal = make([]string, 0, 16)
	o.mu.Unlock()
	if len(lines) == 0 {
		return nil
	}
	if _, err := o.file.WriteString(strings.Join(lines, "")); err != nil {
		// What was written is not known: write the whole state with the next Sync.
		o.mu.Lock()
		defer o.mu.Unlock()
		f, again := o.rewrite()
		if again != nil {
			o.journal = append(lines, o.journal...)
			return fmt.Errorf("write ordinals: %w", errors.Join(err, again))
		}
		o.journal = o.journal[:0]
		old := o.file
		o.file = f
		return old.Close()
	}
	return nil
}

// Close closes the file; the store must not be used any more.
func (o *FileOrdinals) Close() error { return o.file.Close() }
