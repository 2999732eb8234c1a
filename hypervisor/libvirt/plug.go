package libvirt

import (
	"context"
	"encoding/xml"
	"fmt"
	"strings"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
)

// liveXML is what the driver reads of a running domain's definition.
type liveXML struct {
	XMLName xml.Name   `xml:"domain"`
	Disks   []liveDisk `xml:"devices>disk"`
	NICs    []liveNIC  `xml:"devices>interface"`
}

type liveDisk struct {
	Type   string    `xml:"type,attr"`
	Device string    `xml:"device,attr"`
	Serial string    `xml:"serial"`
	Source sourceXML `xml:"source"`
	Target targetXML `xml:"target"`
	Inner  string    `xml:",innerxml"`
}

type liveNIC struct {
	Type   string    `xml:"type,attr"`
	MAC    addrXML   `xml:"mac"`
	Target targetXML `xml:"target"`
	Inner  string    `xml:",innerxml"`
}

// name tells disks of one guest apart.
func (d liveDisk) name() string { return diskName(d.Serial, d.Source.File) }

func diskName(serial, path string) string {
	if serial != "" {
		return serial
	}
	return path
}

// element gives the device as libvirt wrote it.
func (d liveDisk) element() string {
	return fmt.Sprintf("<disk type='%s' device='%s'>%s</disk>", d.Type, d.Device, d.Inner)
}

func (n liveNIC) element() string {
	return fmt.Sprintf("<interface type='%s'>%s</interface>", n.Type, n.Inner)
}

func parseLive(text string) (liveXML, error) {
	var l liveXML
	if err := xml.Unmarshal([]byte(text), &l); err != nil {
		return liveXML{}, fmt.Errorf("read the domain's definition: %w", err)
	}
	return l, nil
}

// live asks what a running guest has; one that is not on is a Conflict.
func (d *Driver) live(ctx context.Context, id, doing string) (domainRef, liveXML, error) {
	ref, _, err := d.known(ctx, id, doing)
	if err != nil {
		return ref, liveXML{}, err
	}
	power, _, err := d.power(ctx, ref)
	if err != nil {
		return ref, liveXML{}, refused(id, doing, err)
	}
	if power != hypervisor.Running && power != hypervisor.Paused {
		return ref, liveXML{}, fault.New(fault.Conflict, "Cannot %s guest %s as it is not running.", doing, id)
	}
	out, err := d.ask(ctx, quick, procDomainGetXMLDesc, new(encoder).dom(ref).u32(0))
	if err != nil {
		return ref, liveXML{}, refused(id, doing, err)
	}
	text := out.str()
	if out.err != nil {
		return ref, liveXML{}, out.err
	}
	l, err := parseLive(text)
	return ref, l, err
}

// disk finds a disk of a running guest by its serial number.
func (l liveXML) disk(id, serial string) (liveDisk, error) {
	for _, x := range l.Disks {
		if x.Serial == serial {
			return x, nil
		}
	}
	return liveDisk{}, fault.New(fault.NotFound, "Guest %s has no disk %s.", id, serial)
}

// changes compares what a running guest has with what it should have: the elements to be attached, and those to be
// detached, by name.
func (l liveXML) changes(want devicesXML) (attach []string, detach map[string]string, err error) {
	detach = map[string]string{}
	taken := map[string]bool{}
	for _, x := range l.Disks {
		detach[x.name()] = x.element()
		taken[x.Target.Dev] = true
	}
	for _, x := range want.Disks {
		name := diskName(x.Serial, x.Source.File)
		if _, has := detach[name]; has {
			delete(detach, name)
			continue
		}
		prefix := x.Target.Dev[:2]
		for n := 0; ; n++ {
			if x.Target.Dev = prefix + letter(n); !taken[x.Target.Dev] {
				break
			}
		}
		taken[x.Target.Dev] = true
		x.Boot = nil // the order is fixed when a guest starts
		b, err := xml.Marshal(struct {
			XMLName xml.Name `xml:"disk"`
			diskXML
		}{diskXML: x})
		if err != nil {
			return nil, nil, err
		}
		attach = append(attach, string(b))
	}
	for _, x := range l.NICs {
		detach[strings.ToLower(x.MAC.Address)] = x.element()
	}
	for _, x := range want.Interfaces {
		if _, has := detach[x.MAC.Address]; has {
			delete(detach, x.MAC.Address)
			continue
		}
		x.Boot = nil
		b, err := xml.Marshal(struct {
			XMLName xml.Name `xml:"interface"`
			interfaceXML
		}{interfaceXML: x})
		if err != nil {
			return nil, nil, err
		}
		attach = append(attach, string(b))
	}
	return attach, detach, nil
}

const (
	affectLive = 1 // VIR_DOMAIN_AFFECT_LIVE
	// unplugAgain is how often a guest is asked anew to let go of a device: one that was booting may have missed it.
	unplugAgain = 10 * time.Second
	unplugLook  = 100 * time.Millisecond
)

// Plug implements hypervisor.Plugger.
func (d *Driver) Plug(ctx context.Context, g hypervisor.Guest) error {
	const doing = "change the devices of"
	if err := g.Check(); err != nil {
		return err
	}
	p, err := d.platform(ctx, g)
	if err == nil {
		err = d.secrets(ctx, g)
	}
	if err != nil {
		return fmt.Errorf("%s guest %s: %w", doing, g.ID, err)
	}
	want := domain(g, p).Devices
	ref, have, err := d.live(ctx, g.ID, doing)
	if err != nil {
		return err
	}
	attach, detach, err := have.changes(want)
	if err != nil {
		return err
	}
	for _, element := range detach { // first, as they free their places
		if err := d.unplug(ctx, ref, element); err != nil {
			return letGo(ctx, g.ID, refused(g.ID, doing, err))
		}
	}
	for _, element := range attach {
		if _, err := d.ask(ctx, slow, procDomainAttach, new(encoder).dom(ref).str(element).u32(affectLive)); err != nil {
			return refused(g.ID, doing, err)
		}
	}
	asked, look := time.Now(), unplugLook
	for len(detach) > 0 {
		if _, have, err = d.live(ctx, g.ID, doing); err != nil {
			return letGo(ctx, g.ID, err)
		}
		if _, detach, err = have.changes(want); err != nil {
			return err
		}
		if len(detach) == 0 {
			break
		}
		if time.Since(asked) >= unplugAgain {
			asked = time.Now()
			for _, element := range detach {
				if err := d.unplug(ctx, ref, element); err != nil {
					return letGo(ctx, g.ID, refused(g.ID, doing, err))
				}
			}
		}
		select {
		case <-time.After(look):
			look = min(2*look, time.Second)
		case <-ctx.Done():
			return letGo(ctx, g.ID, ctx.Err())
		}
	}
	return d.Ensure(ctx, g)
}

// letGo is err, or what the end of ctx means while a guest is waited for.
func letGo(ctx context.Context, id string, err error) error {
	if ctx.Err() != nil {
		return fault.Wrap(fault.Conflict, ctx.Err(), "Guest %s does not let go of a device.", id)
	}
	return err
}

// unplug asks the guest to let go of a device; what it is asked for already, and what is gone, is a success.
func (d *Driver) unplug(ctx context.Context, ref domainRef, element string) error {
	_, err := d.ask(ctx, slow, procDomainDetach, new(encoder).dom(ref).str(element).u32(affectLive))
	if err != nil && (hasCode(err, codeDeviceMissing) || strings.Contains(err.Error(), "already in the process of unplug")) {
		return nil
	}
	return err
}

// resizeBytes is VIR_DOMAIN_BLOCK_RESIZE_BYTES.
const resizeBytes = 1

// Grow implements hypervisor.Grower.
func (d *Driver) Grow(ctx context.Context, id, serial string, size int64) error {
	const doing = "grow a disk of"
	ref, have, err := d.live(ctx, id, doing)
	if err != nil {
		return err
	}
	disk, err := have.disk(id, serial)
	if err != nil {
		return err
	}
	_, err = d.ask(ctx, slow, procBlockResize, new(encoder).dom(ref).str(disk.Target.Dev).u64(uint64(size)).u32(resizeBytes))
	return refused(id, doing, err)
}
