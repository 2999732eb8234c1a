package ovs

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"yakumo/datapath"
	"yakumo/datapath/pipeline"
	"yakumo/datapath/responder"
	"yakumo/model"
	"yakumo/netspace"
	"yakumo/openflow"
	"yakumo/ovsdb"
)

const (
	setupTimeout = 30 * time.Second
	minPause     = 50 * time.Millisecond
	maxPause     = 2 * time.Second

	// roundKey, in the bridge's external ids, has the round of the last connection.
	roundKey = "yakumo-round"
	// ifaceKey, in an interface's external ids, names its port, as hypervisors do it.
	ifaceKey = "iface-id"

	// OpenFlow ports of the driver's own devices, above those of all ordinals.
	tunnelOFPort  = pipeline.MaxPort + 1
	serviceOFPort = pipeline.MaxPort + 2
	greOFPort     = pipeline.MaxPort + 3
	geneveOFPort  = pipeline.MaxPort + 4
	// From here on, one for each physical network. 0xff00 and above are reserved (OpenFlow 1.5, 7.2.1).
	providerOFPort = pipeline.MaxPort + 10
)

// run keeps a session with the switch until Close.
func (d *Driver) run() {
	defer d.wg.Done()
	pause := minPause
	for d.ctx.Err() == nil {
		start := time.Now()
		err := d.session()
		if d.ctx.Err() != nil {
			break
		}
		if time.Since(start) > maxPause {
			pause = minPause
		}
		d.cfg.Log.Warn("switch connection ended", "bridge", d.cfg.Bridge, "error", err, "retry_in", pause)
		select {
		case <-d.ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.db != nil {
		d.db.Close()
	}
}

// session makes bridge and ports, connects, writes everything, and serves the connection
// until it ends.
func (d *Driver) session() error {
	if err := d.openDB(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(d.ctx, setupTimeout)
	defer cancel()
	round, err := d.setup(ctx)
	if err != nil {
		return err
	}
	conn, err := openflow.Dial(ctx, d.mgmt(), openflow.Config{Logger: d.cfg.Log, TLS: d.cfg.TLS})
	if err != nil {
		return err
	}
	d.count.connects.Add(1)
	start := time.Now()
	d.mu.Lock()
	clear(d.devices) // a switch that was restarted has undone what was done to devices
	err = d.readPorts()
	if err == nil {
		err = d.resync(ctx, conn, round)
	}
	if err != nil {
		d.conn = nil
		d.mu.Unlock()
		return errors.Join(fmt.Errorf("write everything to switch %s: %w", d.cfg.Bridge, err), conn.Close())
	}
	d.synced = true
	d.changed()
	d.rewire()
	d.cfg.Log.Info("switch is up to date", "bridge", d.cfg.Bridge, "round", round, "entries", d.prog.Len(), "took", time.Since(start))
	d.mu.Unlock()

	d.serve(conn)

	d.mu.Lock()
	d.conn, d.synced = nil, false
	d.changed()
	d.rewire()
	d.mu.Unlock()
	return errors.Join(conn.Err(), conn.Close())
}

// openDB connects to the database once; the client comes back by itself after that.
func (d *Driver) openDB() error {
	d.mu.Lock()
	db := d.db
	d.mu.Unlock()
	if db != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(d.ctx, setupTimeout)
	defer cancel()
	db, err := ovsdb.OpenSwitch(ctx, ovsdb.Config{Addresses: []string{d.cfg.OVSDB}, TLS: d.cfg.TLS, Log: d.cfg.Log, MaxBackoff: time.Second})
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.db = db
	d.changed()
	d.mu.Unlock()
	d.wg.Add(1)
	go d.watchPorts(db)
	return nil
}

// setup makes the bridge and the driver's own ports, and takes the next round.
func (d *Driver) setup(ctx context.Context) (round uint16, err error) {
	b, ok, err := d.db.Bridge(d.cfg.Bridge)
	if err != nil {
		return 0, err
	}
	if ok {
		// A missing or odd number starts anew: the sweep deletes other rounds whatever they are.
		n, err := strconv.ParseUint(b.ExternalIDs[roundKey], 10, 16)
		if err == nil && n < math.MaxUint16 {
			round = uint16(n)
		}
	}
	round++
	if _, err := d.db.EnsureBridge(ctx, ovsdb.BridgeConfig{
		Name: d.cfg.Bridge, DatapathType: d.cfg.Datapath, FailMode: "secure", Protocols: []string{"OpenFlow15"}, Controllers: d.controllers(),
		ExternalIDs: map[string]string{roundKey: strconv.Itoa(int(round))},
		OtherConfig: map[string]string{"disable-in-band": "true", "mac-table-size": "10", "mcast-snooping-disable-flood-unregistered": "true"},
	}); err != nil {
		return 0, err
	}
	own := []ovsdb.PortConfig{d.tunnel(pipeline.PortTunnel)}
	if !d.cfg.Remote {
		own = append(own, ovsdb.PortConfig{Name: d.cfg.MetadataDevice, Type: "internal", OFPortRequest: serviceOFPort})
	}
	if _, err := d.db.EnsurePorts(ctx, d.cfg.Bridge, own...); err != nil {
		return 0, err
	}
	if !d.cfg.Remote {
		if err := d.addressMetadata(); err != nil {
			return 0, fmt.Errorf("set up %s: %w", d.cfg.MetadataDevice, err)
		}
	}
	d.joinProviders(ctx, d.db)
	return round, nil
}

// handle opens netlink where the switch's devices are.
func (d *Driver) handle() (*netlink.Handle, error) {
	ns := netns.None()
	if d.cfg.Netns != "" {
		var err error
		if ns, err = netns.GetFromPath(d.cfg.Netns); err != nil {
			return nil, err
		}
		defer ns.Close()
	}
	return netlink.NewHandleAt(ns)
}

// shield keeps the devices' frames from the host, where the datapath does not do so itself.
func (d *Driver) shield(devices ...string) error {
	if d.cfg.Datapath != DatapathNetdev || d.cfg.Remote || len(devices) == 0 {
		return nil
	}
	h, err := d.handle()
	if err != nil {
		return err
	}
	defer h.Close()
	for _, name := range devices {
		if err := shield(h, name); err != nil {
			return err
		}
	}
	return nil
}

// addressMetadata gives the metadata device its MAC and address. The switch makes the
// device anew at each of its starts.
func (d *Driver) addressMetadata() error {
	h, err := d.handle()
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(d.cfg.MetadataDevice)
	if err != nil {
		return err
	}
	mac := net.HardwareAddr(pipeline.DeviceMAC[:])
	if link.Attrs().HardwareAddr.String() != mac.String() {
		if err := h.LinkSetHardwareAddr(link, mac); err != nil {
			return fmt.Errorf("set MAC: %w", err)
		}
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: d.cfg.Env.MetadataListener.Addr().AsSlice(), Mask: net.CIDRMask(d.cfg.Env.MetadataPrefix.Bits(), 32)}}
	if err := h.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("set address: %w", err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	if err := d.addressMetadata6(h, link); err != nil { // a host without IPv6 serves guests by IPv4 alone
		d.cfg.Log.Warn("guests find no metadata service by IPv6", "device", d.cfg.MetadataDevice, "error", err)
	}
	return nil
}

// addressMetadata6 gives the metadata device its IPv6 address. Nobody else is on its link: there is nothing to
// detect or to hear.
func (d *Driver) addressMetadata6(h *netlink.Handle, link netlink.Link) error {
	dir := "/proc/sys/net/ipv6/conf/" + d.cfg.MetadataDevice + "/"
	for _, s := range [...][2]string{{"accept_ra", "0"}, {"disable_ipv6", "0"}} {
		if err := d.inNetns(func() error { return os.WriteFile(dir+s[0], []byte(s[1]), 0) }); err != nil {
			return err
		}
	}
	return h.AddrReplace(link, &netlink.Addr{Flags: unix.IFA_F_NODAD, IPNet: &net.IPNet{IP: d.cfg.Env.MetadataListener6().Addr().AsSlice(),
		Mask: net.CIDRMask(pipeline.ServicePrefix6.Bits(), 128)}})
}

// inNetns runs f where the switch's devices are.
func (d *Driver) inNetns(f func() error) error {
	return netspace.Do(d.cfg.Netns, f)
}

// watchPorts follows the switch's ports until Close.
func (d *Driver) watchPorts(db *ovsdb.Switch) {
	defer d.wg.Done()
	w, _ := db.Client().Watch("Bridge", "Port", "Interface")
	defer w.Close()
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-w.Ready():
		}
		w.Take()
		d.mu.Lock()
		if err := d.refreshPorts(); err != nil {
			d.cfg.Log.Error("follow switch ports", "bridge", d.cfg.Bridge, "error", err)
		}
		d.mu.Unlock()
		d.joinProviders(d.ctx, db)
	}
}

// refreshPorts reads the ports and writes what depends on them. d.mu is held.
func (d *Driver) refreshPorts() error {
	if err := d.readPorts(); err != nil {
		return err
	}
	if !d.synced {
		return nil
	}
	return d.commit(d.ctx)
}

// readPorts takes over which device carries which port. d.mu is held.
func (d *Driver) readPorts() error {
	list, err := d.db.Ports(d.cfg.Bridge)
	if err != nil {
		return err
	}
	devices := map[model.ID]device{}
	special := map[uint64]uint32{}
	for _, p := range list {
		switch name := p.Port.Name; name {
		case d.cfg.TunnelDevice, greDevice, geneveDevice, d.cfg.MetadataDevice:
			place := pipeline.PortTunnel
			switch name {
			case d.cfg.MetadataDevice:
				place = pipeline.PortService
			case greDevice:
				place = pipeline.PortTunnelGRE
			case geneveDevice:
				place = pipeline.PortTunnelGeneve
			}
			if p.OFPort != 0 {
				special[place] = uint32(p.OFPort)
			}
		default:
			if physical := p.Interface.ExternalIDs[providerKey]; physical != "" {
				if place, ok := d.providerPlace(physical); ok && p.OFPort != 0 {
					special[place] = uint32(p.OFPort)
				}
				continue
			}
			if id := p.Interface.ExternalIDs[ifaceKey]; id != "" {
				dev := device{name: name, ofport: uint32(p.OFPort)}
				if p.Interface.IfIndex != nil {
					dev.index = *p.Interface.IfIndex
				}
				devices[id] = dev
			}
		}
	}
	for place, n := range special {
		if d.special[place] != n {
			d.flows.moved(place)
		}
	}
	for place := range d.special {
		if special[place] == 0 {
			d.flows.moved(place)
		}
	}
	for id, dev := range d.devices {
		if devices[id].ofport != dev.ofport {
			d.portMoved(id)
		}
	}
	var fresh []string
	for id, dev := range devices {
		old, known := d.devices[id]
		if !known {
			d.portMoved(id)
		}
		if dev.ofport != 0 && (old.name != dev.name || old.index != dev.index) {
			fresh = append(fresh, dev.name)
		}
	}
	d.devices, d.special = devices, special
	if err := d.shield(fresh...); err != nil {
		// A device may go at any moment; a port that is wired is shielded by Attach too.
		d.cfg.Log.Warn("device of a port is not shielded", "error", err)
	}
	return nil
}

func (d *Driver) portMoved(id model.ID) {
	k := pipeline.OrdinalKey{Kind: pipeline.OrdinalPort, Key: id}
	if !d.prog.InUse(k) {
		return
	}
	n, err := d.cfg.Ordinals.Get(k.Kind, k.Key, pipeline.MaxPort)
	if err != nil { // it has one
		d.cfg.Log.Error("ordinal of port", "port", id, "error", err)
		return
	}
	d.flows.moved(uint64(n))
}

// database waits for the first connection to the database.
func (d *Driver) database(ctx context.Context) (*ovsdb.Switch, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.await(ctx, "the database", func() bool { return d.db != nil }); err != nil {
		return nil, err
	}
	return d.db, nil
}

// Attach implements datapath.Driver.
func (d *Driver) Attach(ctx context.Context, port model.ID, name string) error {
	db, err := d.database(ctx)
	if err != nil {
		return fmt.Errorf("attach port %s: %w", port, err)
	}
	d.mu.Lock()
	// The bridge must stand before ports are put on it.
	err = d.await(ctx, "the OpenFlow connection", func() bool { return d.synced })
	old := d.devices[port]
	d.mu.Unlock()
	if err != nil {
		return fmt.Errorf("attach port %s: %w", port, err)
	}
	if slices.Contains([]string{d.cfg.Bridge, d.cfg.TunnelDevice, d.cfg.MetadataDevice, greDevice, geneveDevice}, name) {
		return fmt.Errorf("attach port %s: %s is the switch's own", port, name)
	}
	n, err := d.cfg.Ordinals.Get(pipeline.OrdinalPort, port, pipeline.MaxPort)
	if err != nil {
		return fmt.Errorf("attach port %s: %w", port, err)
	}
	if old.name != "" && old.name != name {
		if err := db.RemovePort(ctx, d.cfg.Bridge, old.name); err != nil {
			return fmt.Errorf("attach port %s: %w", port, err)
		}
	}
	// The same OpenFlow port after a restart of the switch: entries stay right.
	_, err = db.EnsurePort(ctx, d.cfg.Bridge, ovsdb.PortConfig{Name: name, OFPortRequest: int64(n), ExternalIDs: map[string]string{ifaceKey: port}})
	if err != nil {
		// It stays configured: the next device for the port must find it to replace it.
		d.mu.Lock()
		err = errors.Join(err, d.refreshPorts())
		d.mu.Unlock()
		return fmt.Errorf("attach port %s: %w", port, err)
	}
	if err := d.shield(name); err != nil {
		return fmt.Errorf("attach port %s: %w", port, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.refreshPorts()
}

// Detach implements datapath.Driver.
func (d *Driver) Detach(ctx context.Context, port model.ID) error {
	if _, err := d.database(ctx); err != nil {
		return fmt.Errorf("detach port %s: %w", port, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	dev, ok := d.devices[port]
	if !ok {
		return nil
	}
	if err := d.unplug(ctx, dev.name); err != nil {
		return fmt.Errorf("detach port %s: %w", port, err)
	}
	return nil
}

// unplug removes switch ports. d.mu is held.
func (d *Driver) unplug(ctx context.Context, names ...string) error {
	if err := d.db.RemovePorts(ctx, d.cfg.Bridge, names...); err != nil {
		return err
	}
	return d.refreshPorts()
}

// serve takes what the switch sends until the connection ends.
func (d *Driver) serve(conn *openflow.Conn) {
	packets, events := conn.PacketIns(), conn.Events()
	for packets != nil || events != nil {
		select {
		case p, ok := <-packets:
			if !ok {
				packets = nil
				continue
			}
			d.count.packetIns.Add(1)
			if err := d.answer(conn, p); err != nil {
				d.count.ignored.Add(1)
				d.cfg.Log.Debug("packet from a guest is not answered", "error", err)
			}
		case m, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			if e, is := m.(*openflow.Error); is {
				d.cfg.Log.Warn("error from the switch", "error", e)
			}
		}
	}
}

// answer makes a responder's replies to a packet and hands them to the switch.
func (d *Driver) answer(conn *openflow.Conn, p *openflow.PacketIn) error {
	to, ok := parseUserData(p.UserData)
	if !ok {
		return fmt.Errorf("packet-in for no responder here: %x", p.UserData)
	}
	d.mu.Lock()
	ask, err := responder.Resolve(d.prog, d.cfg.Ordinals, to, p.Data)
	claim, claims := responder.Held(ask, d.prog.Holder)
	if claims {
		d.events = append(d.events, datapath.Event{Port: ask.Port.ID, Kind: datapath.Claimed, Claim: claim})
		d.wakeTell()
	}
	d.mu.Unlock()
	if err != nil {
		return err
	}
	if ask.Responder == pipeline.ResponderHeld {
		return nil
	}
	if ask.Responder == pipeline.ResponderMulticast {
		select {
		case d.heard <- ask: // not here: writing to the switch must not wait for what it sends
		default:
			return errors.New("too many reports of multicast listeners")
		}
		return nil
	}
	if seeks(ask.Responder) {
		return d.hand(ask)
	}
	replies, err := responder.Answer(ask)
	if err != nil {
		return err
	}
	if err := d.inject(conn, replies...); err != nil {
		return fmt.Errorf("send reply: %w", err)
	}
	if ask.Responder == pipeline.ResponderDHCP {
		d.count.replies.Add(1)
	}
	if ask.Asks() {
		d.mu.Lock()
		d.events = append(d.events, datapath.Event{Port: ask.Port.ID, Kind: datapath.Asked})
		d.wakeTell()
		d.mu.Unlock()
	}
	return nil
}

// inject hands frames to the switch, each at its stage.
func (d *Driver) inject(conn *openflow.Conn, replies ...responder.Reply) error {
	for _, r := range replies {
		list := make([]pipeline.Action, 0, len(r.Fields)+1)
		for _, f := range r.Fields {
			list = append(list, f)
		}
		as, _ := actions(append(list, pipeline.Goto{Stage: r.Stage}), nil) // none of these names a place
		if _, err := conn.Send(d.ctx, &openflow.PacketOut{Actions: as, Data: r.Frame}); err != nil {
			return err
		}
	}
	return nil
}
