package model

import (
	"net/netip"
	"strconv"
	"time"
)

// MoveKind is how a server changes its host, or its size. It is also Nova's migration_type.
type MoveKind string

// The kinds of moves.
const (
	MoveLive     MoveKind = "live-migration" // the guest runs on; memory, and disks that are not shared, are copied
	MoveCold     MoveKind = "migration"      // the guest is off meanwhile; confirmed or reverted by the user
	MoveResize   MoveKind = "resize"         // a cold move to another flavor
	MoveEvacuate MoveKind = "evacuation"     // the old host is dead
)

// MoveStage is how far a move has come. The compute part advances it on what both hosts report.
type MoveStage string

// The stages of a move.
const (
	MovePlacing   MoveStage = "placing"   // the target is not chosen yet
	MovePreparing MoveStage = "preparing" // the target makes ready: image, disks' places, ports wired in stand-by
	MoveRunning   MoveStage = "running"   // live: the source migrates; cold: the guest is off, the target copies
	MoveVerify    MoveStage = "verify"    // cold, resize: it runs on the target; the source keeps its disks until confirmed
	MoveReverting MoveStage = "reverting" // on its way back from verify: the target is to let go of it
	MoveLeaving   MoveStage = "leaving"   // live: it runs on the target; the source may still be giving it memory
)

// Move is the move that a server is in. Server.Host is the source's until the guest is known to
// be the target's; from MoveVerify on it is the target's.
type Move struct {
	ID     ID        `json:"id"` // of its Migration
	Kind   MoveKind  `json:"kind"`
	Stage  MoveStage `json:"stage"`
	Source ID        `json:"source"`
	Target ID        `json:"target,omitempty"`
	// Want is the target that an administrator asked for, a host's name; "" any.
	Want string `json:"want,omitempty"`
	// OldFlavor is what to return to; Flavor of the server is the new one from MoveRunning on.
	OldFlavor *Flavor `json:"old_flavor,omitempty"`
	NewFlavor *Flavor `json:"new_flavor,omitempty"`
	OldPower  Power   `json:"old_power,omitempty"` // what was wanted before a cold move
	Abort     bool    `json:"abort,omitempty"`     // live: the user wants it ended, the guest where it is
	Force     bool    `json:"force,omitempty"`     // live: end the copying, at the price of a pause
	// StageAt is when the stage began; Failed are targets that could not do their part, in order.
	StageAt time.Time `json:"stage_at"`
	Failed  []ID      `json:"failed,omitempty"`
	// Drain: nobody waits for it (a drain of the source, or an environment's move), so that it confirms itself.
	Drain bool `json:"drain,omitempty"`
	// Zone is the availability zone that an environment's move asks for; "": the server's own.
	Zone string `json:"zone,omitempty"`
}

// Part gives what a host is in a move and the stage that it is told, which may be behind the move's own: of a cold
// move, the target begins only when the source has turned the guest off. "" where the host needs to know of no move:
// then its row of the server is as without one.
func (m *Move) Part(host ID) (MoveRole, MoveStage) {
	cold := m.Kind == MoveCold || m.Kind == MoveResize
	switch {
	case m.Kind == MoveEvacuate || m.Stage == MovePlacing || host == "":
		return "", ""
	case host == m.Source:
		switch {
		case m.Stage == MoveLeaving, cold && m.Stage == MovePreparing:
			return RoleSource, MoveRunning
		case m.Stage == MoveReverting:
			return RoleSource, MoveVerify
		}
		return RoleSource, m.Stage
	case host == m.Target && m.Stage != MoveLeaving && m.Stage != MoveVerify:
		return RoleTarget, m.Stage
	}
	return "", ""
}

// On gives the flavor of the server that a host is charged for, and makes it of, while the server moves.
func (m *Move) On(host ID, now *Flavor) *Flavor {
	switch {
	case host == m.Source && m.OldFlavor != nil:
		return m.OldFlavor
	case host == m.Target && m.NewFlavor != nil:
		return m.NewFlavor
	}
	return now
}

// Migration is the record of a move, kept after its end. Its number is Nova's older id.
type Migration struct {
	ID        ID        `json:"id"`
	Number    int64     `json:"number"` // unique
	ServerID  ID        `json:"server_id"`
	ProjectID ID        `json:"project_id"`
	UserID    ID        `json:"user_id"`
	RequestID string    `json:"request_id"`
	Kind      MoveKind  `json:"kind"`
	Status    string    `json:"status"` // Nova's: accepted, preparing, running, post-migrating, completed, finished, confirmed, reverted, cancelled, error …
	Source    ID        `json:"source"`
	Target    ID        `json:"target,omitempty"`
	OldFlavor ID        `json:"old_flavor,omitempty"`
	NewFlavor ID        `json:"new_flavor,omitempty"`
	Progress  Progress  `json:"progress"`
	Message   string    `json:"message,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// MigrationClaim is what the number of a migration claims.
func MigrationClaim(number int64) string { return strconv.FormatInt(number, 10) }

// Progress is how much of a live move is copied, in bytes.
type Progress struct {
	MemoryTotal     int64 `json:"memory_total,omitempty"`
	MemoryProcessed int64 `json:"memory_processed,omitempty"`
	MemoryRemaining int64 `json:"memory_remaining,omitempty"`
	DiskTotal       int64 `json:"disk_total,omitempty"`
	DiskProcessed   int64 `json:"disk_processed,omitempty"`
	DiskRemaining   int64 `json:"disk_remaining,omitempty"`
	// DowntimeMS is how long the guest stood still, milliseconds; 0 until known.
	DowntimeMS int64 `json:"downtime_ms,omitempty"`
}

// MoveRole is what a host is in a move.
type MoveRole string

// The roles.
const (
	RoleSource MoveRole = "source"
	RoleTarget MoveRole = "target"
)

// HostMove tells a host of a move of one of its servers.
//
// Live: the target, told first (Stage preparing), fetches the image, makes room for the disks and
// wires the ports in stand-by, and reports MoveReady. The source, told Stage running, migrates
// and reports MoveDone or MoveFailed. A target whose hypervisor runs the guest reports that power
// and MoveDone. What is not the source's or target's any more is removed as any row that is gone.
//
// Cold: the source, told Stage running, turns the guest off, reports MoveReady and serves its files. The
// target, told Stage preparing meanwhile and running once the source is ready, copies the files, starts the guest if
// so wanted, and reports MoveDone. In MoveVerify the source has the row with Power off and keeps everything, and the
// target's row is as any server's. A target that is told MoveReverting stops the guest, and reports MoveDone of that
// generation when it is off for good; the source's row then is as any server's, and its disks are as it left them.
//
// See Move.Part for the stage that each host is told.
type HostMove struct {
	ID    ID        `json:"id"`
	Kind  MoveKind  `json:"kind"`
	Role  MoveRole  `json:"role"`
	Stage MoveStage `json:"stage"`
	Peer  HostAt    `json:"peer"` // the other host
	Abort bool      `json:"abort,omitempty"`
	Force bool      `json:"force,omitempty"`
}

// HostAt says where another host's channel listens.
type HostAt struct {
	HostID  ID             `json:"host_id"`
	Name    string         `json:"name"`
	Channel netip.AddrPort `json:"channel"` // mutual TLS, certificates of the cloud's authority
	// TunnelIP is where its tunnels end; told of the other host of a move alone.
	TunnelIP netip.Addr `json:"tunnel_ip,omitzero"`
}

// MoveState is what a host made of its part of a move.
type MoveState string

// The states.
const (
	MoveWorking  MoveState = "working"
	MoveReady    MoveState = "ready"  // the other host may go on
	MoveDone     MoveState = "done"   // source: the guest has left; target: it runs, or is off, here
	MoveFailed   MoveState = "failed" // the guest is where it was; Fault says why
	MoveAborted  MoveState = "aborted"
	MoveNotKnown MoveState = ""
)

// MoveReport is what a host says of its part of a move.
type MoveReport struct {
	ID       ID        `json:"id"` // HostMove.ID
	Role     MoveRole  `json:"role"`
	State    MoveState `json:"state"`
	Progress Progress  `json:"progress"`
	Fault    *Fault    `json:"fault,omitempty"`
}
