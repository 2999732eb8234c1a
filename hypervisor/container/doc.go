// Package container is what a guest that is a container has instead of a virtual machine's parts: its disk (a file with a file
// system that is made from an archive), its process 1, its folder of control, and its network cards (ends of veth pairs).
//
// It owns the files that Disks makes, the folder of a container below libvirt's run folder (see Folder), the mounts that Stage puts
// there, and the program that is process 1 of a container (Main). It reads images, which are archives of users and are believed in
// nothing. It must not import anything of the project but hypervisor, fault and netspace; hypervisor/libvirt drives it.
//
// A container is root in a user namespace of its own: its user 0 is a number of the host that nothing else has (IDBase).
// Its disk keeps plain numbers, and is mounted with them shifted (mount_setattr(2), MOUNT_ATTR_IDMAP, Linux 5.12 and later).
package container
