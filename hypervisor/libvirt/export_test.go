package libvirt

import (
	"context"
	"strings"

	"golang.org/x/sys/unix"

	"yakumo/hypervisor"
)

// DefineForeign runs g as somebody else would: without what marks a domain as ours.
func (d *Driver) DefineForeign(ctx context.Context, g hypervisor.Guest) error {
	text, _, err := definition(g, platform{accelerator: "tcg"})
	if err != nil {
		return err
	}
	text = strings.ReplaceAll(text, metadataNS, "urn:example:other")
	out, err := d.ask(ctx, slow, procDomainDefineXML, new(encoder).str(text).u32(1))
	if err != nil {
		return err
	}
	_, err = d.ask(ctx, slow, procDomainCreate, new(encoder).dom(out.dom()).u32(0))
	return err
}

// RemoveForeign ends what DefineForeign began.
func (d *Driver) RemoveForeign(ctx context.Context, id string) error {
	uuid, _ := parseUUID(id)
	ref := domainRef{name: id, uuid: uuid}
	if _, err := d.ask(ctx, slow, procDomainDestroy, new(encoder).dom(ref).u32(0)); err != nil {
		return err
	}
	_, err := d.ask(ctx, slow, procDomainUndefine, new(encoder).dom(ref).u32(0))
	return err
}

// unixStat is what the kernel says of a file.
type unixStat struct{ unix.Stat_t }

func (s *unixStat) of(path string) error { return unix.Stat(path, &s.Stat_t) }

// Look makes one round trip to libvirtd.
func (d *Driver) Look(ctx context.Context, id string) error {
	uuid, _ := parseUUID(id)
	_, _, err := d.power(ctx, domainRef{name: id, uuid: uuid})
	return err
}

// LiveDisk gives what libvirt says of a running guest's disk.
func (d *Driver) LiveDisk(ctx context.Context, id, serial string) (string, error) {
	_, have, err := d.live(ctx, id, "look at")
	if err != nil {
		return "", err
	}
	x, err := have.disk(id, serial)
	return x.Inner, err
}

// ParsePlaces reads a domain's definition.
func ParsePlaces(text string) ([]hypervisor.Place, error) { return parsePlaces(text) }

// CreateOnly starts a container and leaves it waiting.
func (c *Containers) CreateOnly(ctx context.Context, id string) error {
	ref, r, err := c.d.known(ctx, id, "start")
	if err != nil {
		return err
	}
	return c.create(ctx, id, ref, r)
}

// TracksWrites tells of a running guest's definition whether it can move while it runs.
func TracksWrites(running string) bool { return tracksWrites(running) }

// Definition gives a running guest's definition.
func (d *Driver) Definition(ctx context.Context, id string) (string, error) {
	uuid, _ := parseUUID(id)
	out, err := d.ask(ctx, slow, procDomainGetXMLDesc, new(encoder).dom(domainRef{name: "yk-" + id, uuid: uuid}).u32(0))
	if err != nil {
		return "", err
	}
	return out.str(), out.err
}

// Numbers reads numbers of CPUs.
func Numbers(text string) ([]int, bool) { return numbers(text) }

// DefinitionOf gives the definition of g, on a host that is able to boot securely or not.
func DefinitionOf(g hypervisor.Guest, secure bool) (string, error) {
	text, _, err := definition(g, platform{accelerator: "tcg", secureBoot: secure})
	return text, err
}

// Elsewhere gives a running guest's definition as that of another host, there.
func Elsewhere(running, there string) (string, error) {
	text, _, err := elsewhere(running, there, nil)
	return text, err
}
