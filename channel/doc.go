// Package channel is how agents of two hosts talk to each other, without a server between them:
// byte streams over mutual TLS 1.3, with the certificates that the link gave the hosts. A moving
// guest's memory and disks, files of a guest that was turned off, and disks that are served to another
// host go through it.
//
// It owns the wire form: one head of JSON that names a service, one answer, then raw bytes both ways, each way
// closed by itself. It reads the host's certificate whenever a connection begins, so a renewed one counts at once. It writes
// nothing. Who may use a service is the handler's to judge: it is told the caller's host id.
//
// May import: fault, model. Must not import: store, link, a part, api, agent, hypervisor, datapath.
package channel
