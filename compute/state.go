package compute

import "yakumo/model"

// States of a server in Nova's words, which the rules' texts and the dialect share.
const (
	Building         = "building"
	Active           = "active"
	Stopped          = "stopped"
	Paused           = "paused"
	Suspended        = "suspended"
	Rescued          = "rescued"
	Resized          = "resized"
	Shelved          = "shelved"
	ShelvedOffloaded = "shelved_offloaded"
	Errored          = "error"
	Gone             = "deleted"
)

// State gives the state of a server in Nova's words (vm_state).
func State(s *model.Server) string {
	switch {
	case s.Status.Phase == model.PhaseGone:
		return Gone
	case s.Status.Phase == model.PhaseError || s.Status.Phase == model.PhaseDeleting && s.Status.Fault != nil:
		return Errored
	case s.Status.LaunchedAt.IsZero():
		return Building
	case s.Shelving == model.Shelved:
		return Shelved
	case s.Shelving == model.Offloaded:
		return ShelvedOffloaded
	case s.Move != nil && (s.Move.Stage == model.MoveVerify || s.Move.Stage == model.MoveReverting):
		return Resized
	case s.Status.Rescue != 0:
		return Rescued
	}
	switch s.Status.Power {
	case model.PowerOff, model.PowerCrashed:
		return Stopped
	case model.PowerPaused:
		return Paused
	case model.PowerSuspended:
		return Suspended
	case model.PowerUnknown:
		switch s.Power {
		case model.PowerOff:
			return Stopped
		case model.PowerSuspended:
			return Suspended
		}
	}
	return Active
}

// Tasks of a server in Nova's words (task_state).
const (
	TaskScheduling = "scheduling"
	TaskSpawning   = "spawning"
	TaskStop       = "powering-off"
	TaskStart      = "powering-on"
	TaskReboot     = "rebooting"
	TaskHardReboot = "rebooting_hard"
	TaskDelete     = "deleting"
	TaskPause      = "pausing"
	TaskUnpause    = "unpausing"
	TaskSuspend    = "suspending"
	TaskResume     = "resuming"
	TaskRebuild    = "rebuilding"
	TaskRescue     = "rescuing"
	TaskUnrescue   = "unrescuing"
	TaskShelve     = "shelving"
	TaskShelving   = "shelving_image_uploading" // shelving, once the host works on it
	TaskOffload    = "shelving_offloading"
	TaskUnshelve   = "unshelving"
	TaskSnapshot   = "image_snapshot_pending"
	TaskUploading  = "image_uploading" // a snapshot, once the host works on it
	TaskBackup     = "image_backup"
	TaskPassword   = "updating_password"

	TaskMigrating       = "migrating"
	TaskResizePrep      = "resize_prep"      // a target is looked for
	TaskResizeMigrating = "resize_migrating" // the source turns the guest off
	TaskResizeMigrated  = "resize_migrated"  // the target copies its disks
	TaskResizeFinish    = "resize_finish"    // the target starts it
	TaskReverting       = "resize_reverting"
	TaskEvacuate        = "rebuild_spawning" // another host makes it anew
)
