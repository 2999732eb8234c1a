package libvirt

import (
	"context"
	"encoding/xml"
	"fmt"
	"strconv"
	"strings"

	"yakumo/hypervisor"
)

var _ hypervisor.Locator = (*Driver)(nil)

// Devices implements hypervisor.Locator by the addresses that libvirt gave the devices.
func (d *Driver) Devices(ctx context.Context, id string) ([]hypervisor.Place, error) {
	ref, _, err := d.known(ctx, id, "look at the devices of")
	if err != nil {
		return nil, err
	}
	out, err := d.ask(ctx, quick, procDomainGetXMLDesc, new(encoder).dom(ref).u32(0))
	if err != nil {
		return nil, refused(id, "look at the devices of", err)
	}
	text := out.str()
	if out.err != nil {
		return nil, out.err
	}
	return parsePlaces(text)
}

// placeXML is the address element of a device.
type placeXML struct {
	Type       string `xml:"type,attr"`
	Domain     string `xml:"domain,attr"`
	Bus        string `xml:"bus,attr"`
	Slot       string `xml:"slot,attr"`
	Function   string `xml:"function,attr"`
	Controller string `xml:"controller,attr"`
	Target     string `xml:"target,attr"`
	Unit       string `xml:"unit,attr"`
}

// name gives the bus and the address as Linux writes it; of numbers that make no sense, nothing.
func (a placeXML) name() (bus, address string) {
	n := func(s string) uint64 {
		v, err := strconv.ParseUint(s, 0, 16)
		if err != nil {
			bus = ""
		}
		return v
	}
	switch a.Type {
	case "pci":
		bus = "pci"
		address = fmt.Sprintf("%04x:%02x:%02x.%x", n(a.Domain), n(a.Bus), n(a.Slot), n(a.Function))
	case "drive":
		bus = "scsi"
		address = fmt.Sprintf("%d:%d:%d:%d", n(a.Controller), n(a.Bus), n(a.Target), n(a.Unit))
	}
	if bus == "" {
		return "", ""
	}
	return bus, address
}

// parsePlaces reads a domain's definition.
func parsePlaces(text string) ([]hypervisor.Place, error) {
	var dom struct {
		XMLName xml.Name `xml:"domain"`
		Disks   []struct {
			Serial  string    `xml:"serial"`
			Target  targetXML `xml:"target"`
			Address placeXML  `xml:"address"`
		} `xml:"devices>disk"`
		Interfaces []struct {
			MAC     addrXML  `xml:"mac"`
			Address placeXML `xml:"address"`
		} `xml:"devices>interface"`
	}
	if err := xml.Unmarshal([]byte(text), &dom); err != nil {
		return nil, fmt.Errorf("read the domain's definition: %w", err)
	}
	var out []hypervisor.Place
	for _, d := range dom.Disks {
		p := hypervisor.Place{Serial: d.Serial, Path: "/dev/" + d.Target.Dev}
		p.Bus, p.Address = d.Address.name()
		out = append(out, p)
	}
	for _, i := range dom.Interfaces {
		p := hypervisor.Place{MAC: strings.ToLower(i.MAC.Address)}
		p.Bus, p.Address = i.Address.name()
		out = append(out, p)
	}
	return out, nil
}
