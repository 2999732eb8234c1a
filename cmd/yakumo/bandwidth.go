package main

import (
	"strconv"
	"strings"

	"yakumo/fault"
	"yakumo/model"
)

// parseBandwidth reads the values of --bandwidth: "physnet:kbit/s", "tunnel:kbit/s" or
// "packets:thousand packets/s". It may name only physical networks that are mapped.
func parseBandwidth(list []string, providers map[string]string) (map[string]int, error) {
	out := map[string]int{}
	for _, m := range list {
		refuse := func(why string) error { return fault.New(fault.Invalid, "--bandwidth %s: %s.", m, why) }
		name, rate, ok := strings.Cut(m, ":")
		n, err := strconv.Atoi(rate)
		_, twice := out[name]
		switch {
		case !ok || err != nil || n < 0 || n > 1<<31-1:
			return nil, refuse("it must be a name and a whole number of kbit/s, such as physnet1:10000000")
		case name != model.BandwidthTunnel && name != model.PacketRate && providers[name] == "":
			return nil, refuse("the name is neither tunnel, packets nor a physical network of --bridge-mapping")
		case twice:
			return nil, refuse("the name stands there twice")
		}
		out[name] = n
	}
	return out, nil
}
