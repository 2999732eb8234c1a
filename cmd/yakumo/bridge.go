package main

import (
	"strings"

	"yakumo/fault"
	"yakumo/model"
)

// Bounds of names: a physical network's by Neutron's API reference, a bridge's by the kernel,
// for a bridge is a network device too (IFNAMSIZ less its terminator).
const (
	maxPhysicalNetwork = 64
	maxBridgeName      = 15
)

// parseBridgeMappings reads the values of --bridge-mapping, in the form of Neutron's bridge_mappings: "physnet:bridge".
// Neither a physical network nor a bridge may stand twice, and none may be the integration bridge.
func parseBridgeMappings(list []string, integration string) (map[string]string, error) {
	out, taken := map[string]string{}, map[string]string{integration: "the integration bridge"}
	for _, m := range list {
		refuse := func(why string) error { return fault.New(fault.Invalid, "--bridge-mapping %s: %s.", m, why) }
		network, bridge, ok := strings.Cut(m, ":")
		switch {
		case !ok || network == "" || bridge == "":
			return nil, refuse("it must be a physical network and a bridge, such as physnet1:br-ex")
		case len(network) > maxPhysicalNetwork:
			return nil, refuse("a physical network's name has at most 64 bytes")
		case len(bridge) > maxBridgeName:
			return nil, refuse("a bridge's name has at most 15 bytes")
		case strings.ContainsAny(m, " \t\r\n/,") || strings.Contains(bridge, ":"):
			return nil, refuse("names hold no blank, slash, comma or colon")
		case network == model.BandwidthTunnel || network == model.PacketRate:
			return nil, refuse("a physical network cannot have that name: --bandwidth has its own use for it")
		case out[network] != "":
			return nil, refuse("the physical network stands there twice")
		case taken[bridge] != "":
			return nil, refuse("the bridge is that of " + taken[bridge])
		}
		out[network], taken[bridge] = bridge, network
	}
	return out, nil
}
