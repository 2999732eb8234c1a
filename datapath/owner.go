package datapath

import (
	"net/netip"
	"strings"

	"yakumo/datapath/pipeline"
	"yakumo/model"
)

// OwnerOf finds the port and fixed address behind an alias; drivers use it for MetadataOwner.
func OwnerOf(p *pipeline.Program, ord Ordinals, addr netip.Addr) (Owner, bool) {
	n, ok := p.Env().AliasOrdinal(addr)
	if !ok {
		return Owner{}, false
	}
	key, ok := ord.Find(pipeline.OrdinalAlias, n)
	if !ok || !p.InUse(pipeline.OrdinalKey{Kind: pipeline.OrdinalAlias, Key: key}) {
		return Owner{}, false
	}
	id, text, _ := strings.Cut(key, "/")
	a, err := netip.ParseAddr(text)
	port, known := p.Row(model.RowID{Kind: model.RowPort, Key: id}).(*model.HostPort)
	if err != nil || !known {
		return Owner{}, false
	}
	return Owner{Port: id, Network: port.NetworkID, Address: a}, true
}
