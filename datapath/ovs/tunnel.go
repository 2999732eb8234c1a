package ovs

import (
	"context"
	"strconv"

	"yakumo/datapath/pipeline"
	"yakumo/ovsdb"
)

// Devices of tunnel types that few clouds use: they are made when the first row needs them.
const (
	greDevice    = "yk-gr0"
	geneveDevice = "yk-gn0"
)

// tunnel says what the device of a tunnel place shall be.
func (d *Driver) tunnel(place uint64) ovsdb.PortConfig {
	c := ovsdb.PortConfig{Name: d.cfg.TunnelDevice, Type: "vxlan", OFPortRequest: tunnelOFPort,
		Options: map[string]string{"remote_ip": "flow", "key": "flow", "local_ip": d.cfg.TunnelIP.String(), "csum": "false"}}
	switch place {
	case pipeline.PortTunnelGRE:
		c.Name, c.Type, c.OFPortRequest = greDevice, "gre", greOFPort
	case pipeline.PortTunnelGeneve: // 6081, RFC 8926
		c.Name, c.Type, c.OFPortRequest = geneveDevice, "geneve", geneveOFPort
	default:
		c.Options["dst_port"] = strconv.Itoa(int(d.cfg.TunnelUDPPort))
	}
	return c
}

// ensureTunnels makes the tunnel devices that entries name and that are not there. One that the
// switch cannot make leaves its entries waiting, and is tried again with the next change. d.mu is held.
func (d *Driver) ensureTunnels(ctx context.Context) {
	for _, place := range [...]uint64{pipeline.PortTunnelGRE, pipeline.PortTunnelGeneve} {
		if len(d.flows.byPlace[place]) == 0 || d.special[place] != 0 {
			continue
		}
		text := ""
		st, err := d.db.EnsurePort(ctx, d.cfg.Bridge, d.tunnel(place))
		if err == nil {
			d.special[place] = uint32(st.OFPort)
			d.flows.moved(place)
		} else {
			text = err.Error()
		}
		if text != d.tunnels[place] && text != "" {
			d.cfg.Log.Error("tunnel device", "device", d.tunnel(place).Name, "error", err)
		}
		d.tunnels[place] = text
	}
}
