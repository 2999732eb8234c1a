package native

import (
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Switch is how the dialect shows a switch that has no agent.
type Switch struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Up       bool   `json:"up"` // a server is connected to it
	TunnelIP string `json:"tunnel_ip"`
	OVSDB    string `json:"ovsdb"`
	OpenFlow string `json:"openflow"`
	Bridge   string `json:"bridge"`
	Datapath string `json:"datapath"`
	Ports    int    `json:"ports"`
}

func showSwitch(snap store.Reader, h *model.Host) Switch {
	v := show(snap, h)
	return Switch{ID: h.ID, Name: h.Name, Up: v.Up, TunnelIP: v.TunnelIP, OVSDB: h.Switch.OVSDB, OpenFlow: h.Switch.OpenFlow, Bridge: h.Switch.Bridge, Datapath: h.Switch.Datapath, Ports: v.Ports}
}

var (
	switchName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,253}[A-Za-z0-9])?$`)
	bridgeName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,15}$`)
)

// remoteAddress checks tcp:HOST:PORT or ssl:HOST:PORT.
func remoteAddress(name, addr string) error {
	scheme, rest, _ := strings.Cut(addr, ":")
	host, port, err := net.SplitHostPort(rest)
	if err == nil && host != "" && (scheme == "tcp" || scheme == "ssl") {
		if _, err = netip.ParseAddrPort("192.0.2.1:" + port); err == nil && port != "0" {
			return nil
		}
	}
	return fault.New(fault.Invalid, "%s must be tcp:HOST:PORT or ssl:HOST:PORT.", name)
}

func (d *dialect) createSwitch(c *api.Context) error {
	var body struct {
		Name     string `json:"name"`
		OVSDB    string `json:"ovsdb"`
		OpenFlow string `json:"openflow"`
		TunnelIP string `json:"tunnel_ip"`
		Bridge   string `json:"bridge"`
		Datapath string `json:"datapath"`
	}
	if err := c.Decode(&body); err != nil {
		return err
	}
	if body.Bridge == "" {
		body.Bridge = "br-int"
	}
	if body.Datapath == "" {
		body.Datapath = "system"
	}
	ip, err := netip.ParseAddr(body.TunnelIP)
	switch {
	case !switchName.MatchString(body.Name):
		return fault.New(fault.Invalid, "name must be a host's name.")
	case err != nil || !ip.Is4() || ip.IsUnspecified() || ip.IsMulticast():
		return fault.New(fault.Invalid, "tunnel_ip must be the switch's IPv4 address on the underlay.")
	case !bridgeName.MatchString(body.Bridge):
		return fault.New(fault.Invalid, "bridge must be a name of at most 15 characters.")
	case body.Datapath != "system" && body.Datapath != "netdev":
		return fault.New(fault.Invalid, "datapath must be system or netdev.")
	}
	if err := remoteAddress("ovsdb", body.OVSDB); err != nil {
		return err
	}
	if err := remoteAddress("openflow", body.OpenFlow); err != nil {
		return err
	}
	h := &model.Host{Meta: model.NewMeta("", body.Name, c.Now), Zone: "nova", TunnelIP: ip, Version: "switch",
		Switch: &model.HostSwitch{OVSDB: body.OVSDB, OpenFlow: body.OpenFlow, Bridge: body.Bridge, Datapath: body.Datapath}}
	var out Switch
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		if _, taken := store.Hosts.Holder(tx, body.Name); taken {
			return fault.New(fault.Conflict, "There is a host named %s already.", body.Name)
		}
		for o := range store.Hosts.All(tx) {
			switch { // two drivers of one switch would undo each other's work
			case o.TunnelIP == ip:
				return fault.New(fault.Conflict, "Host %s has the tunnel address %s already.", o.Name, ip)
			case o.Switch != nil && (o.Switch.OVSDB == body.OVSDB || o.Switch.OpenFlow == body.OpenFlow):
				return fault.New(fault.Conflict, "Switch %s has one of those addresses already.", o.Name)
			}
		}
		if err := store.Hosts.Put(tx, h); err != nil {
			return err
		}
		out = showSwitch(tx, h)
		return nil
	}); err != nil {
		return err
	}
	return c.JSON(http.StatusCreated, map[string]any{"switch": out})
}

func (d *dialect) listSwitches(c *api.Context) error {
	snap, list := c.Snapshot(), []Switch{}
	for h := range store.Hosts.All(snap) {
		if h.Switch != nil {
			list = append(list, showSwitch(snap, h))
		}
	}
	slices.SortFunc(list, func(a, b Switch) int { return strings.Compare(a.Name, b.Name) })
	return c.JSON(http.StatusOK, map[string]any{"switches": list})
}

func findSwitch(r store.Reader, key string) (*model.Host, error) {
	h, err := find(r, key)
	if err != nil || h.Switch == nil {
		return nil, fault.New(fault.NotFound, "There is no switch %s.", key)
	}
	return h, nil
}

func (d *dialect) showSwitch(c *api.Context) error {
	snap := c.Snapshot()
	h, err := findSwitch(snap, c.Param("host"))
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, map[string]any{"switch": showSwitch(snap, h)})
}

// deleteSwitch forgets a switch that has no ports. What is in it stays: nobody may reach it any more.
func (d *dialect) deleteSwitch(c *api.Context) error {
	if _, err := findSwitch(c.Snapshot(), c.Param("host")); err != nil {
		return err
	}
	return d.deleteHost(c)
}
