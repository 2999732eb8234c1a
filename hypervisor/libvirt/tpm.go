package libvirt

import (
	"context"
	"encoding/xml"
	"fmt"
	"slices"
)

// A trusted platform module is a process swtpm of its own beside QEMU. libvirt starts it, keeps what it holds in a folder of its own by the
// guest's id, and removes that when the guest is undefined.
type tpmXML struct {
	Model   string        `xml:"model,attr"`
	Backend tpmBackendXML `xml:"backend"`
}

type tpmBackendXML struct {
	Type    string `xml:"type,attr"`
	Version string `xml:"version,attr"`
}

// tpmVersions gives the versions of the modules that the host can emulate, sorted.
func (d *Driver) tpmVersions(ctx context.Context) ([]string, error) {
	// Of the host's first emulator, architecture and kind of guests, for a q35.
	out, err := d.ask(ctx, slow, procDomainCapabilities, new(encoder).u32(0).some("x86_64").some("q35").some("qemu").u32(0))
	if err != nil {
		return nil, fmt.Errorf("ask what guests can have: %w", err)
	}
	text := out.str()
	if out.err != nil {
		return nil, out.err
	}
	return parseTPM(text)
}

func parseTPM(text string) ([]string, error) {
	var caps struct {
		XMLName xml.Name `xml:"domainCapabilities"`
		TPM     struct {
			Supported string `xml:"supported,attr"`
			Enums     []struct {
				Name   string   `xml:"name,attr"`
				Values []string `xml:"value"`
			} `xml:"enum"`
		} `xml:"devices>tpm"`
	}
	if err := xml.Unmarshal([]byte(text), &caps); err != nil {
		return nil, fmt.Errorf("read what guests can have: %w", err)
	}
	if caps.TPM.Supported != "yes" {
		return nil, nil
	}
	enum := func(name string) []string {
		for _, e := range caps.TPM.Enums {
			if e.Name == name {
				return e.Values
			}
		}
		return nil
	}
	if !slices.Contains(enum("backendModel"), "emulator") {
		return nil, nil
	}
	return slices.Sorted(slices.Values(enum("backendVersion"))), nil
}
