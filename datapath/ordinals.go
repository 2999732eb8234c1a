package datapath

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"yakumo/datapath/pipeline"
)

// MemoryOrdinals is an Ordinals without a file, for fakes and as the core of FileOrdinals.
type MemoryOrdinals struct {
	mu     sync.Mutex
	spaces map[pipeline.OrdinalKind]*space
	dirty  bool
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
	o.dirty = true
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
		o.dirty = true
	}
}

// Sync implements Ordinals; there is nothing to do.
func (o *MemoryOrdinals) Sync() error { return nil }

// FileOrdinals is an Ordinals kept in one file, which is replaced as a whole: after a
// crash it holds the state of the last Sync.
type FileOrdinals struct {
	*MemoryOrdinals
	path string
	io   sync.Mutex // one Sync at a time
}

// ordinalsFile is the file's content.
type ordinalsFile struct {
	Version int                                        `json:"version"`
	Last    map[pipeline.OrdinalKind]uint32            `json:"last"`
	Numbers map[pipeline.OrdinalKind]map[string]uint32 `json:"numbers"`
}

// OpenOrdinals reads the file at path; an absent one is an empty store. A file that cannot
// be understood is an error: to start from nothing would cut connections.
func OpenOrdinals(path string) (*FileOrdinals, error) {
	o := &FileOrdinals{MemoryOrdinals: NewMemoryOrdinals(), path: path}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return o, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read ordinals: %w", err)
	}
	var f ordinalsFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("read ordinals %s: %w", path, err)
	}
	if f.Version != 1 {
		return nil, fmt.Errorf("read ordinals %s: version %d is not known", path, f.Version)
	}
	for kind, numbers := range f.Numbers {
		s := o.space(kind)
		s.last = f.Last[kind]
		for key, n := range numbers {
			if other, taken := s.byNum[n]; taken || n == 0 {
				return nil, fmt.Errorf("read ordinals %s: %s %d of %q and %q", path, kind, n, key, other)
			}
			s.byKey[key], s.byNum[n] = n, key
		}
	}
	return o, nil
}

// Sync writes the file where something changed.
func (o *FileOrdinals) Sync() error {
	o.io.Lock()
	defer o.io.Unlock()
	o.mu.Lock()
	if !o.dirty {
		o.mu.Unlock()
		return nil
	}
	f := ordinalsFile{Version: 1, Last: map[pipeline.OrdinalKind]uint32{}, Numbers: map[pipeline.OrdinalKind]map[string]uint32{}}
	for kind, s := range o.spaces {
		f.Last[kind], f.Numbers[kind] = s.last, s.byKey
	}
	b, err := json.Marshal(f)
	o.dirty = false
	o.mu.Unlock()
	if err == nil {
		err = replaceFile(o.path, b)
	}
	if err != nil {
		o.mu.Lock()
		o.dirty = true
		o.mu.Unlock()
		return fmt.Errorf("write ordinals: %w", err)
	}
	return nil
}

// replaceFile puts b at path so that a reader finds the old content or the new, never a part.
func replaceFile(path string, b []byte) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	_, err = tmp.Write(b)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err = os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil // renamed all the same; only the directory's own durability is unknown
	}
	defer dir.Close()
	return dir.Sync()
}
