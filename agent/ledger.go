package agent

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"yakumo/fault"
	"yakumo/link"
	"yakumo/model"
)

// ledger keeps the desired rows and each guest's progress on disk, and a copy in memory. A
// change is on disk when the method that makes it returns.
type ledger struct {
	db   *bbolt.DB
	keep func() error // Config.Keep

	mu         sync.RWMutex
	generation int64
	told       string                                     // the host's boot id when it was last told everything
	rows       map[model.RowKind]map[string]model.HostRow // by kind and key
	digests    map[model.ID]digest                        // of rows of servers; see words
	leased     map[model.ID]bool                          // servers whose row is leased, or whose progress says that a lease has ended
	byDevice   map[model.ID]map[model.ID]bool             // ports of a server
	byParent   map[model.ID]map[model.ID]bool             // subports of a trunk's port
	byFloat    map[model.ID]map[model.ID]bool             // floating addresses of a port
	progress   map[model.ID]*progress                     // never changed in place
	versions   int64                                      // of progress, given out so far
	shifts     map[model.ID]*shift                        // by server; never changed in place
	shifted    map[model.ID]*shift                        // the same by port
	volumes    map[model.ID]*volumeProgress               // never changed in place
	since      map[string]int64                           // by row, of what the host keeps data of: the generation that it came in
	departures map[string]departure                       // by row
	capacity   *model.HostCapacity
}

// progress is how far a server has come on this host, and what was served of what was asked.
//
// Several write it: whoever reconciles the server, and beside that one the guest's own words (a password, its first sign of
// life), uploads, a move under way and the end of a lease. So a copy has the version that it was read as, and is saved only over that.
type progress struct {
	version int64 // 0: of none

	Phase       model.Phase `json:"phase"`
	Power       model.Power `json:"power"`           // as last seen
	Blob        model.ID    `json:"blob,omitempty"`  // its disk is an overlay of this image
	Disk        bool        `json:"disk,omitempty"`  // its disk and config drive are made
	Generation  int64       `json:"generation"`      // of the row that was served last
	Words       string      `json:"words,omitempty"` // digest of what that row says beside power; see words
	Reboots     int64       `json:"reboots"`         // served
	Hard        int64       `json:"hard_reboots"`
	StoppedSoft int64       `json:"stopped_soft,omitempty"` // the reboot that the guest was stopped for already
	StoppedHard int64       `json:"stopped_hard,omitempty"`
	// Started tells that the wish to run has been served: a guest that is off all the same
	// has gone off by itself and is left so.
	Started bool `json:"started,omitempty"`
	// Cut tells that the guest was, or may have been, turned off because its lease ended, and has not run since under one that stands.
	// leases alone changes it.
	Cut    bool        `json:"cut,omitempty"`
	Wanted model.Power `json:"wanted,omitempty"` // the power that was wanted of Generation
	// Rebuilds is the count of rebuilds that its disk is of; Rescue, where not nil, the rescue whose disk is there.
	Rebuilds int64         `json:"rebuilds,omitempty"`
	Rescue   *model.Rescue `json:"rescue,omitempty"`
	// Ephemeral is the size in GiB of the ephemeral disk that was made.
	Ephemeral int `json:"ephemeral,omitempty"`
	// NICs and Disks are the ports and volumes that the guest has; Plugging those that may be on their way into it.
	NICs     []model.ID `json:"nics,omitempty"`
	Disks    []model.ID `json:"disks,omitempty"`
	Plugging []model.ID `json:"plugging,omitempty"`
	// Sizes are those in GiB of volumes that the guest is known to see; Reopening tells that it may be held while one is exchanged for a larger one.
	Sizes     map[model.ID]int `json:"sizes,omitempty"`
	Reopening bool             `json:"reopening,omitempty"`
	// Elsewhere is what became of volumes that are to go elsewhere under the guest. The map is replaced, never changed.
	Elsewhere map[model.ID]away    `json:"elsewhere,omitempty"`
	Saved     []model.UploadReport `json:"saved,omitempty"` // images of its disk, made or begun
	// Frozen tells that its file systems may stand still for a copy.
	Frozen  bool           `json:"frozen,omitempty"`
	BootID  string         `json:"boot_id,omitempty"` // the host's, when it was started
	Fault   *model.Fault   `json:"fault,omitempty"`   // why Generation could not be served
	Steps   []model.StepAt `json:"steps,omitempty"`
	Unwired bool           `json:"unwired,omitempty"` // deleted, and its guest is gone: its ports must go
	Gone    bool           `json:"gone,omitempty"`    // nothing is left

	// Move is what is said of the host's part of the move that the server is in.
	Move *model.MoveReport `json:"move,omitempty"`
	// Sending tells that the guest may be on its way to the other host, and Held that it may run there already and is paused
	// here until that is known. Arrived tells that it has come to run here, whatever its ports' rows say yet.
	Sending bool `json:"sending,omitempty"`
	Held    bool `json:"held,omitempty"`
	Arrived bool `json:"arrived,omitempty"`

	// CPUs are those of the host that the guest has for itself, chosen before it is started; nil: none. cpus alone changes it.
	CPUs *ownCPUs `json:"cpus,omitempty"`
	// TPM tells that the hypervisor may keep a trusted platform module of the guest.
	TPM bool `json:"tpm,omitempty"`
	// Memory are the huge pages that the guest has, in the same way.
	Memory *ownPages `json:"memory,omitempty"`

	// Sealed is the password that the guest handed in, SealedClears the row's when it did: once that has grown it counts no more.
	Sealed       string `json:"sealed,omitempty"`
	SealedClears int64  `json:"sealed_clears,omitempty"`
}

var (
	bucketMeta     = []byte("meta")
	bucketRows     = []byte("rows")
	bucketProgress = []byte("progress")
	bucketVolumes  = []byte("volumes")
	keyGeneration  = []byte("generation")
	keyCapacity    = []byte("capacity")
	keyTold        = []byte("told")
)

func openLedger(path string) (*ledger, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, fmt.Errorf("open ledger %s (is another agent running?): %w", path, err)
	}
	l := &ledger{
		db: db, rows: map[model.RowKind]map[string]model.HostRow{}, digests: map[model.ID]digest{}, leased: map[model.ID]bool{},
		byDevice: map[model.ID]map[model.ID]bool{}, byParent: map[model.ID]map[model.ID]bool{},
		byFloat: map[model.ID]map[model.ID]bool{}, progress: map[model.ID]*progress{}, shifts: map[model.ID]*shift{}, shifted: map[model.ID]*shift{},
		volumes: map[model.ID]*volumeProgress{}, since: map[string]int64{}, departures: map[string]departure{},
	}
	if err := db.Update(l.load); err != nil {
		return nil, errors.Join(fmt.Errorf("read ledger %s: %w", path, err), db.Close())
	}
	return l, nil
}

func (l *ledger) load(tx *bbolt.Tx) error {
	for _, b := range [][]byte{bucketMeta, bucketRows, bucketProgress, bucketVolumes} {
		if _, err := tx.CreateBucketIfNotExists(b); err != nil {
			return err
		}
	}
	if v := tx.Bucket(bucketMeta).Get(keyGeneration); len(v) == 8 {
		l.generation = int64(binary.BigEndian.Uint64(v))
	}
	l.told = string(tx.Bucket(bucketMeta).Get(keyTold))
	if v := tx.Bucket(bucketMeta).Get(keyCapacity); v != nil {
		l.capacity = new(model.HostCapacity)
		if err := json.Unmarshal(v, l.capacity); err != nil {
			return fmt.Errorf("capacity: %w", err)
		}
	}
	err := tx.Bucket(bucketRows).ForEach(func(k, v []byte) error {
		kind, _, _ := strings.Cut(string(k), "/")
		row, err := link.DecodeRow(model.RowKind(kind), v)
		if err != nil {
			return err
		}
		l.put(row)
		return nil
	})
	if err != nil {
		return err
	}
	if err := l.loadShifts(tx); err != nil {
		return err
	}
	if err := l.loadVolumes(tx); err != nil {
		return err
	}
	if err := l.loadDepartures(tx); err != nil {
		return err
	}
	return tx.Bucket(bucketProgress).ForEach(func(k, v []byte) error {
		p := new(progress)
		if err := json.Unmarshal(v, p); err != nil {
			return fmt.Errorf("progress of %s: %w", k, err)
		}
		l.enlist(string(k), p)
		return nil
	})
}

// enlist has p be a server's progress in memory, under a version of its own.
func (l *ledger) enlist(id model.ID, p *progress) {
	l.versions++
	p.version = l.versions
	l.progress[id] = p
	l.lease(id)
}

// update changes what is on disk.
func (l *ledger) update(f func(*bbolt.Tx) error) error {
	if l.keep != nil {
		if err := l.keep(); err != nil {
			return err
		}
	}
	return l.db.Update(f)
}

func (l *ledger) close() error { return l.db.Close() }

// put and drop change the copy in memory.
func (l *ledger) put(row model.HostRow) {
	id := row.RowID()
	l.drop(id)
	if l.rows[id.Kind] == nil {
		l.rows[id.Kind] = map[string]model.HostRow{}
	}
	l.rows[id.Kind][id.Key] = row
	switch r := row.(type) {
	case *model.HostServer:
		l.lease(r.ID)
	case *model.HostPort:
		enter(l.byDevice, r.DeviceID, r.ID)
		enter(l.byParent, r.Parent, r.ID)
	case *model.HostFloating:
		enter(l.byFloat, r.PortID, r.ID)
	}
}

func (l *ledger) drop(id model.RowID) {
	r := l.rows[id.Kind][id.Key]
	delete(l.rows[id.Kind], id.Key)
	switch r := r.(type) {
	case *model.HostServer:
		delete(l.digests, r.ID)
		l.lease(r.ID)
	case *model.HostPort:
		leave(l.byDevice, r.DeviceID, r.ID)
		leave(l.byParent, r.Parent, r.ID)
	case *model.HostFloating:
		leave(l.byFloat, r.PortID, r.ID)
	}
}

// enter and leave keep an index of ports; "" is none.
func enter(index map[model.ID]map[model.ID]bool, of, port model.ID) {
	if of == "" {
		return
	}
	if index[of] == nil {
		index[of] = map[model.ID]bool{}
	}
	index[of][port] = true
}

func leave(index map[model.ID]map[model.ID]bool, of, port model.ID) {
	delete(index[of], port)
	if len(index[of]) == 0 {
		delete(index, of)
	}
}

// bodyOf gives the JSON of a row of a batch: as it came, where it came from elsewhere.
func bodyOf(b *model.HostBatch, i int) ([]byte, error) {
	if len(b.Bodies) == len(b.Upserts) {
		return b.Bodies[i], nil
	}
	_, body, err := link.EncodeRow(b.Upserts[i])
	return body, err
}

// apply takes a batch and tells which rows it changes: a batch of everything costs the rest
// of the agent no more than what is new in it. A generation older than the
// ledger's is a fault.Conflict: whoever sent it has been overtaken. boot is the host's boot id.
func (l *ledger) apply(b model.HostBatch, boot string) (touched []model.RowID, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b.Generation < l.generation {
		return nil, fault.New(fault.Conflict, "Generation %d is older than the host's %d.", b.Generation, l.generation)
	}
	removes := b.Removes
	if b.Full {
		keep := make(map[model.RowID]bool, len(b.Upserts))
		for _, r := range b.Upserts {
			keep[r.RowID()] = true
		}
		removes = nil
		for kind, rows := range l.rows {
			for key := range rows {
				if id := (model.RowID{Kind: kind, Key: key}); !keep[id] {
					removes = append(removes, id)
				}
			}
		}
	}
	turn, err := l.weigh(&b, removes)
	if err != nil {
		return nil, err
	}
	var changed []model.HostRow
	err = l.update(func(tx *bbolt.Tx) error {
		if err := turn.write(tx); err != nil {
			return err
		}
		rows := tx.Bucket(bucketRows)
		for _, id := range removes {
			if err := rows.Delete([]byte(id.String())); err != nil {
				return err
			}
		}
		for i, r := range b.Upserts {
			body, err := bodyOf(&b, i)
			if err != nil {
				return err
			}
			key := []byte(r.RowID().String())
			if bytes.Equal(rows.Get(key), body) {
				continue
			}
			changed = append(changed, r)
			if err := rows.Put(key, body); err != nil {
				return err
			}
		}
		if b.Full && l.told != boot {
			if err := tx.Bucket(bucketMeta).Put(keyTold, []byte(boot)); err != nil {
				return err
			}
		}
		return tx.Bucket(bucketMeta).Put(keyGeneration, binary.BigEndian.AppendUint64(nil, uint64(b.Generation)))
	})
	if err != nil {
		return nil, fmt.Errorf("write ledger: %w", err)
	}
	l.generation = b.Generation
	if b.Full {
		l.told = boot
	}
	turn.keep(l)
	for _, id := range removes {
		l.drop(id)
		touched = append(touched, id)
	}
	for _, r := range changed {
		l.put(r)
		touched = append(touched, r.RowID())
	}
	return touched, nil
}

// Generation is that of the newest batch.
func (l *ledger) Generation() int64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.generation
}

// toldSince tells whether the host was told everything since the start of its kernel with this boot id.
func (l *ledger) toldSince(boot string) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.told == boot
}

// row gives one row, nil where there is none. Rows are never changed.
func (l *ledger) row(id model.RowID) model.HostRow {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.rows[id.Kind][id.Key]
}

func (l *ledger) all() []model.HostRow {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var out []model.HostRow
	for _, rows := range l.rows {
		out = slices.Grow(out, len(rows))
		for _, r := range rows {
			out = append(out, r)
		}
	}
	return out
}

func (l *ledger) count() map[model.RowKind]int {
	l.mu.RLock()
	defer l.mu.RUnlock()
	n := map[model.RowKind]int{}
	for kind, rows := range l.rows {
		if len(rows) > 0 {
			n[kind] = len(rows)
		}
	}
	return n
}

func (l *ledger) server(id model.ID) *model.HostServer {
	s, _ := l.row(model.RowID{Kind: model.RowServer, Key: id}).(*model.HostServer)
	return s
}

func (l *ledger) port(id model.ID) *model.HostPort {
	p, _ := l.row(model.RowID{Kind: model.RowPort, Key: id}).(*model.HostPort)
	return p
}

func (l *ledger) network(id model.ID) *model.HostNetwork {
	n, _ := l.row(model.RowID{Kind: model.RowNetwork, Key: id}).(*model.HostNetwork)
	return n
}

// portsOf gives the ports whose device is the server.
func (l *ledger) portsOf(server model.ID) []model.ID {
	l.mu.RLock()
	defer l.mu.RUnlock()
	ids := make([]model.ID, 0, len(l.byDevice[server]))
	for id := range l.byDevice[server] {
		ids = append(ids, id)
	}
	return ids
}

// subportsOf gives the ports whose frames the port's device carries.
func (l *ledger) subportsOf(port model.ID) []model.ID {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return slices.Collect(maps.Keys(l.byParent[port]))
}

// digest is the words of a row.
type digest struct {
	row   *model.HostServer
	words string
}

// words is the digest of a row; of one that is in the ledger it is made once.
func (l *ledger) words(row *model.HostServer) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d := l.digests[row.ID]; d.row == row {
		return d.words
	}
	d := digest{row, words(row)}
	if l.rows[model.RowServer][row.ID] == model.HostRow(row) {
		l.digests[row.ID] = d
	}
	return d.words
}

// leases gives the servers that leases are of interest for, nil none: no others need to be looked at twice a second.
func (l *ledger) leases() map[model.ID]bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if len(l.leased) == 0 {
		return nil
	}
	return maps.Clone(l.leased)
}

// lease keeps leased, after a change of the server's row or progress. The caller holds mu.
func (l *ledger) lease(id model.ID) {
	row, _ := l.rows[model.RowServer][id].(*model.HostServer)
	if p := l.progress[id]; row != nil && row.LeaseSeconds > 0 || p != nil && p.Cut {
		l.leased[id] = true
	} else {
		delete(l.leased, id)
	}
}

// ports gives the rows of ports.
func (l *ledger) ports() []*model.HostPort {
	l.mu.RLock()
	defer l.mu.RUnlock()
	out := make([]*model.HostPort, 0, len(l.rows[model.RowPort]))
	for _, r := range l.rows[model.RowPort] {
		out = append(out, r.(*model.HostPort))
	}
	return out
}

// activeGateways counts the routers whose gateway this host serves.
func (l *ledger) activeGateways() (n int) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, row := range l.rows[model.RowRouter] {
		if r, ok := row.(*model.HostRouter); ok && r.Gateway != nil && r.Gateway.Active {
			n++
		}
	}
	return n
}

// publicOf gives the floating address of IPv4 that leads to a port and is told here; invalid: none.
func (l *ledger) publicOf(port model.ID) netip.Addr {
	for _, id := range l.floatingOf(port) {
		if r, ok := l.row(model.RowID{Kind: model.RowFloating, Key: id}).(*model.HostFloating); ok && r.Fixed.IsValid() && r.Address.Is4() {
			return r.Address
		}
	}
	return netip.Addr{}
}

// servers gives the servers that have a row or progress, or have left something here.
func (l *ledger) servers() map[model.ID]bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	ids := make(map[model.ID]bool, len(l.rows[model.RowServer]))
	for id := range l.rows[model.RowServer] {
		ids[id] = true
	}
	for id := range l.progress {
		ids[id] = true
	}
	l.departed(model.RowServer, ids)
	return ids
}

// progressOf gives a server's progress as a copy, and false where it has none yet.
func (l *ledger) progressOf(id model.ID) (progress, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if p, ok := l.progress[id]; ok {
		return *p, true
	}
	return progress{}, false
}

// allProgress gives every server's progress; it is shared, so read only.
func (l *ledger) allProgress() map[model.ID]*progress {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return maps.Clone(l.progress)
}

// errOvertaken says that a server's progress has changed since it was read: what was made of it is begun anew, as if the agent had
// ended and started just there.
var errOvertaken = errors.New("its progress has changed meanwhile")

// newest tells whether p is as it stands in the ledger, or was before who has it changed it.
func (l *ledger) newest(id model.ID, p *progress) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.version(id) == p.version
}

// version needs the lock.
func (l *ledger) version(id model.ID) int64 {
	if p := l.progress[id]; p != nil {
		return p.version
	}
	return 0
}

// save keeps a server's progress, which p then is the newest of. errOvertaken, and nothing is kept, where another was
// kept since p was read.
func (l *ledger) save(id model.ID, p *progress) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.version(id) != p.version {
		return errOvertaken
	}
	return l.write(id, p)
}

// write needs the lock.
func (l *ledger) write(id model.ID, p *progress) error {
	body, err := json.Marshal(p)
	if err != nil {
		return err
	}
	err = l.update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketProgress).Put([]byte(id), body) })
	if err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	n := *p
	l.enlist(id, &n)
	p.version = n.version
	return nil
}

// forget drops a server's progress and departure.
func (l *ledger) forget(id model.ID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := model.RowID{Kind: model.RowServer, Key: id}.String()
	if _, left := l.departures[key]; !left && l.progress[id] == nil {
		return nil
	}
	err := l.update(func(tx *bbolt.Tx) error {
		return errors.Join(tx.Bucket(bucketProgress).Delete([]byte(id)), tx.Bucket(bucketDepartures).Delete([]byte(key)))
	})
	if err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	delete(l.progress, id)
	delete(l.departures, key)
	l.lease(id)
	return nil
}

// setCapacity keeps what the hypervisor said, for the time when it does not answer.
func (l *ledger) setCapacity(c model.HostCapacity) error {
	body, err := json.Marshal(c)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyCapacity, body) }); err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	l.capacity = &c
	return nil
}

func (l *ledger) lastCapacity() (model.HostCapacity, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.capacity == nil {
		return model.HostCapacity{}, false
	}
	return *l.capacity, true
}

// note changes a server's progress as it is now; a server without progress has none to change.
func (l *ledger) note(id model.ID, change func(*progress)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.progress[id]
	if old == nil {
		return nil
	}
	p := *old
	change(&p)
	return l.write(id, &p)
}
