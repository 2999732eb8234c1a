// Package libvirt is the hypervisor driver for QEMU guests under libvirt, and, as Containers, for libvirt's LXC. It speaks libvirt's
// remote protocol over the daemon's unix socket by itself, without C and without virsh.
//
// It owns the protocol client (xdr, frames, calls, events, streams), the domain XML that a
// Guest becomes, the probe for hardware virtualisation, and the bound on console logs. It
// keeps nothing on disk: what it must know of a guest again stands in the domain's metadata,
// under the XML namespace urn:yakumo:guest:1, which is also what marks a domain as ours. It
// reads and writes the console log files that guests name, and no other file. It must not
// import anything of the project but hypervisor, hypervisor/container and fault, and knows nothing of a lab:
// several daemons on one machine are several sockets.
//
// Facts of the protocol are from libvirt's src/rpc/virnetprotocol.x and
// src/remote/remote_protocol.x, error and event numbers from its virterror.h and
// libvirt-domain.h; the driver is tested with libvirt 9.0 and QEMU 7.2.
package libvirt
