package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/model"
)

// mover does this host's part of servers' moves; model.HostMove says what that is. What has been said of a move is in the
// server's progress, on disk before the world is changed; what is in memory only (a guest that is being sent, a
// hypervisor that awaits one) ends with the agent, and what then became of the guest is found out from both hypervisors.
type mover struct {
	a   *Agent
	ctx context.Context // of Run

	mu         sync.Mutex
	sending    map[model.ID]*sending
	receptions map[model.ID]*awaiting
	slots      chan struct{} // holds a value for each guest that is being sent
	wg         sync.WaitGroup
}

// awaiting is a guest that the hypervisor awaits for a move.
type awaiting struct {
	move      model.ID
	reception hypervisor.Reception
}

// outgoing is how many guests may be sent at once: each slows the others down, and all together end later.
const outgoing = 2

func newMover(a *Agent) *mover {
	m := &mover{a: a, sending: map[model.ID]*sending{}, receptions: map[model.ID]*awaiting{}, slots: make(chan struct{}, outgoing)}
	a.channel.Handle(servicePassage, m.passage)
	a.channel.Handle(serviceGuest, m.tellGuest)
	a.channel.Handle(serviceState, m.stateOf)
	a.channel.Handle(serviceFiles, m.listFiles)
	a.channel.Handle(serviceFile, m.giveFile)
	return m
}

// The services that agents offer each other for moves. Each is for the other host of a move that both were told.
const (
	servicePassage = "move/passage" // the hypervisor that awaits the guest
	serviceGuest   = "move/guest"   // the guest's definition here
	serviceState   = "move/state"   // whether the guest runs here
	serviceFiles   = "move/files"   // what files the guest has
	serviceFile    = "move/file"    // the bytes of one
)

// call is what the other host of a move asks with.
type call struct {
	Server model.ID `json:"server"`
	Move   model.ID `json:"move"`
	Kind   string   `json:"kind,omitempty"`   // of a passage
	Name   string   `json:"name,omitempty"`   // of a file
	Offset int64    `json:"offset,omitempty"` // in the file, bytes
}

// asked gives the server that a call of another host is about, where this host has the role in its move with that host.
func (m *mover) asked(peer model.ID, args json.RawMessage, role model.MoveRole) (*model.HostServer, call, error) {
	var c call
	if err := json.Unmarshal(args, &c); err != nil {
		return nil, c, fault.Wrap(fault.Invalid, err, "The call is malformed.")
	}
	row := m.a.ledger.server(c.Server)
	if row == nil || row.Move == nil || row.Move.ID != c.Move || row.Move.Role != role || row.Move.Peer.HostID != peer {
		return nil, c, fault.New(fault.NotFound, "This host knows of no such move of server %s.", c.Server)
	}
	return row, c, nil
}

// open calls the other host of a row's move.
func (m *mover) open(ctx context.Context, row *model.HostServer, service string, c call) (net.Conn, error) {
	c.Server, c.Move = row.ID, row.Move.ID
	return m.a.dialer.Dial(ctx, row.Move.Peer, service, c)
}

// question is open for a service that answers with one JSON document.
func (m *mover) question(ctx context.Context, row *model.HostServer, service string, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	conn, err := m.open(ctx, row, service, call{})
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(askTimeout))
	if err := json.NewDecoder(conn).Decode(answer); err != nil {
		return fault.Wrap(fault.Unavailable, err, "The other host's answer was cut off.")
	}
	return nil
}

const askTimeout = 15 * time.Second

// say puts what is said of a row's move into its progress.
func say(row *model.HostServer, p *progress, state model.MoveState, err error) {
	r := model.MoveReport{ID: row.Move.ID, Role: row.Move.Role, State: state}
	if p.Move != nil && p.Move.ID == r.ID {
		r.Progress = p.Move.Progress
	}
	if err == nil && p.Move != nil && p.Move.ID == r.ID && p.Move.State == state {
		r.Fault = p.Move.Fault // said again
	}
	if err != nil {
		text, ok := fault.Text(err)
		if !ok {
			text = "The server could not be moved."
		}
		r.Fault = &model.Fault{Code: 500, Message: text, Details: err.Error()}
	}
	p.Move, p.Generation = &r, row.Generation
}

// said gives what has been said of a row's move; "" before anything has.
func said(row *model.HostServer, p *progress) model.MoveState {
	if p.Move == nil || p.Move.ID != row.Move.ID || p.Move.Role != row.Move.Role {
		return model.MoveNotKnown
	}
	return p.Move.State
}

// step does what there is to do for row.Move now. It tells whether the guest is the move's alone: nothing else is done with
// it then. p is the server's progress; step keeps what it changes of it.
func (m *mover) step(ctx context.Context, row *model.HostServer, p *progress, power hypervisor.Power) (alone bool, err error) {
	live := row.Move.Kind == model.MoveLive
	if row.Move.Role == model.RoleTarget && row.Move.Stage != model.MoveReverting && said(row, p) == model.MoveNotKnown && power != hypervisor.Running {
		if err := m.afresh(ctx, row, p, power); err != nil {
			return true, err
		}
		power = hypervisor.Absent
	}
	switch {
	case row.Move.Role == model.RoleSource && live:
		return m.send(ctx, row, p, power)
	case row.Move.Role == model.RoleSource:
		return true, m.giveAway(ctx, row, p, power)
	case row.Move.Stage == model.MoveReverting:
		return true, m.letGo(ctx, row, p, power)
	case live:
		return true, m.receive(ctx, row, p)
	}
	return m.takeOver(ctx, row, p)
}

// afresh is for a target that hears of a move for the first time: what an earlier stay of the server has left here goes. A host that was
// away when the server left, and is told again only now that it comes back, has the guest's old disks still.
func (m *mover) afresh(ctx context.Context, row *model.HostServer, p *progress, power hypervisor.Power) error {
	m.mu.Lock()
	s, w := m.sending[row.ID], m.receptions[row.ID]
	delete(m.receptions, row.ID)
	m.mu.Unlock()
	if s != nil {
		s.cancel(errMoveOver)
		return errWaiting // its end wakes the server
	}
	if w != nil {
		if err := w.reception.Close(); err != nil {
			m.a.log.Warn("what awaited a guest cannot be closed", "server", row.ID, "err", err)
		}
	}
	if power != hypervisor.Absent {
		began := time.Now()
		if err := m.a.cfg.Hypervisor.Remove(ctx, row.ID); err != nil {
			return fmt.Errorf("remove what is left of the guest: %w", err)
		}
		m.a.guests.did(row.ID, hypervisor.Absent, began)
	}
	if err := os.RemoveAll(m.a.dir(row.ID)); err != nil {
		return fmt.Errorf("remove what is left of the guest's folder: %w", err)
	}
	*p = progress{version: p.version, Phase: model.PhaseFetching, Blob: row.Image.BlobID, Reboots: row.ObservedReboots, Hard: row.ObservedHard}
	say(row, p, model.MoveWorking, nil)
	return m.a.keep(row.ID, p)
}

// rest is for a server that is in no move, or not here any more: what a move has left in memory ends. errWaiting until it has.
func (m *mover) rest(ctx context.Context, id model.ID, row *model.HostServer, p *progress, power hypervisor.Power) error {
	m.mu.Lock()
	s, w := m.sending[id], m.receptions[id]
	delete(m.receptions, id)
	m.mu.Unlock()
	if w != nil {
		if err := w.reception.Close(); err != nil {
			m.a.log.Warn("what awaited a guest cannot be closed", "server", id, "err", err)
		}
	}
	if s != nil {
		s.cancel(errMoveOver)
		return errWaiting // its end wakes the server
	}
	if row == nil || p.Move == nil && !p.Held && !p.Sending && !p.Arrived {
		return nil
	}
	if p.Held && power == hypervisor.Paused && row.Power == model.PowerRunning { // it was held for the move only, and is to run here
		if err := m.a.cfg.Hypervisor.Start(ctx, id); err != nil {
			return fmt.Errorf("let the guest run on: %w", err)
		}
	}
	p.Move, p.Held, p.Sending, p.Arrived = nil, false, false, false
	return m.a.keep(id, p)
}

var (
	errMoveOver    = errors.New("the move is over")
	errMoveAborted = errors.New("the move was aborted by a user")
)

// close ends what is in memory; what is sent is given up.
func (m *mover) close() {
	m.wg.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, w := range m.receptions {
		if err := w.reception.Close(); err != nil {
			m.a.log.Warn("what awaited a guest cannot be closed", "server", id, "err", err)
		}
	}
	clear(m.receptions)
}

// settled notes that a cold move's target has the server as it should be.
func (m *mover) settled(row *model.HostServer, p *progress) {
	if row.Move != nil && row.Move.Role == model.RoleTarget && row.Move.Kind != model.MoveLive && row.Move.Stage == model.MoveRunning {
		say(row, p, model.MoveDone, nil)
	}
}

// stateOf answers the source of a live move: does the guest run here?
func (m *mover) stateOf(_ context.Context, peer model.ID, args json.RawMessage, conn net.Conn) error {
	var c call
	if err := json.Unmarshal(args, &c); err != nil {
		return fault.Wrap(fault.Invalid, err, "The call is malformed.")
	}
	row := m.a.ledger.server(c.Server)
	// The move may be over here already: then the server is this host's.
	if row != nil && row.Move != nil && (row.Move.ID != c.Move || row.Move.Peer.HostID != peer) {
		return fault.New(fault.NotFound, "This host knows of no such move of server %s.", c.Server)
	}
	power, moving, known := m.a.guests.look(c.Server)
	if !known || !m.a.guests.healthy() {
		return fault.New(fault.Unavailable, "The hypervisor of this host does not answer.")
	}
	return json.NewEncoder(conn).Encode(arrival{Power: power, Come: !moving, Here: row != nil})
}

// arrival is what a target says of a guest.
type arrival struct {
	Power hypervisor.Power `json:"power"`
	Come  bool             `json:"come"` // where it is paused: its user wants it so, and its memory is all there
	Here  bool             `json:"here"` // the server has a row on the host
}
