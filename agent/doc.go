// Package agent is the host process: it makes one host agree with the rows that it is told.
//
// It owns its state directory (the ledger of desired rows and of each guest's progress, the
// cache of images, the folders of guests), the tap devices whose names are "yk" and 13
// hex digits, and the metadata service that guests ask. It reads the rows that arrive by the link,
// the states that the hypervisor tells, and the ports that the data path has wired. It
// writes reports. It decides nothing: what should run, where and with which addresses is in
// the rows; and it keeps to the newest rows it knows when no server can be reached.
//
// Everything it does to the world is idempotent and is looked at again by timer, so that an
// agent that was killed at any point goes on where it was, and what others broke heals.
// Guests and traffic never depend on this process: a stop leaves both running.
//
// May import: fault, model, link (rows and the Handler), channel, the seams hypervisor, datapath and block.
// Must not import a driver of theirs, the store, a part or an API; cmd and lab name drivers.
package agent
