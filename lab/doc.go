// Package lab runs a whole cloud on one Linux machine: a server and any number of hosts, each
// a machine of its own as far as its daemons can tell, with its own network, mount, UTS and
// PID namespaces, its own Open vSwitch, its own libvirtd and the real agent.
//
// A machine is one process, its init (Init): it holds the namespaces, starts the daemons,
// starts again what ends, and is process 1 to them. Killing it is pulling the plug; nothing
// of the machine outlives it but its folder. So a lab leaves nothing behind when its inits
// are gone and its folder is removed.
//
// The machines' interfaces stand on one bridge in the server's namespaces, the underlay. A second
// cable of every host leads to one more machine, the outside (OutsideMachine): the physical network
// that external networks are on, with two segments, a router, and services to reach. The
// API listens on the loopback of whoever started the lab: the listening socket is made there
// and handed to the server (socket activation, sd_listen_fds(3)).
//
// The lab is the end-to-end fixture and the first minute of a new user. It names the concrete
// drivers' daemons; nothing else of the project knows that labs exist. Only cmd imports it.
package lab
