package ovs

import (
	"net"
	"strings"

	"yakumo/ovsdb"
)

// passive gives what a switch must listen on to be reached at an OpenFlow address, such as ptcp:6653
// for tcp:192.0.2.1:6653; "" where the address is none of those two.
func passive(addr string) string {
	scheme, rest, _ := strings.Cut(addr, ":")
	host, port, err := net.SplitHostPort(rest)
	if err != nil || host == "" || port == "" || scheme != "tcp" && scheme != "ssl" {
		return ""
	}
	return "p" + scheme + ":" + port
}

// controllers is what the bridge must listen for; nil leaves it as it is.
func (d *Driver) controllers() []ovsdb.Controller {
	if !d.cfg.Remote {
		return nil
	}
	return []ovsdb.Controller{{Target: passive(d.cfg.OpenFlow)}}
}
