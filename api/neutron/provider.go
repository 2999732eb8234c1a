package neutron

import (
	"encoding/json"
	"strconv"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
)

// segmentAttrs are the provider attributes of a network, which administrators see and may
// choose, and what its segment can carry.
func segmentAttrs() []attribute[model.Network, network.NetworkSpec] {
	type (
		R = model.Network
		S = network.NetworkSpec
	)
	// text is a text attribute that null leaves to the cloud.
	text := func(name string, get func(*R) string, field func(*S) **string) attribute[R, S] {
		a := textAttr(name, adminOnly, adminOnly, get, field)
		set := a.set
		a.hidden = true
		a.set = func(s *S, raw json.RawMessage) error {
			if isNull(raw) {
				return nil
			}
			return set(s, raw)
		}
		return a
	}
	kind := text("provider:network_type", func(w *R) string { return w.Type }, func(s *S) **string { return &s.Type })
	physical := text("provider:physical_network", func(w *R) string { return w.PhysicalNetwork }, func(s *S) **string { return &s.PhysicalNetwork })
	physical.emit = func(b []byte, _ *view, w *R) []byte { return appendStringOrNull(b, w.PhysicalNetwork) }
	id := attribute[R, S]{name: "provider:segmentation_id", post: adminOnly, put: adminOnly, hidden: true,
		set: func(s *S, raw json.RawMessage) error {
			if isNull(raw) {
				return nil
			}
			n, err := readInt("provider:segmentation_id", raw)
			s.Segmentation = &n
			return err
		},
		emit: func(b []byte, _ *view, w *R) []byte {
			if n := w.Segmentation(); n != 0 {
				return strconv.AppendInt(b, int64(n), 10)
			}
			return append(b, "null"...)
		},
		match: func(_ *view, w *R) []string {
			if n := w.Segmentation(); n != 0 {
				return []string{strconv.Itoa(n)}
			}
			return nil
		}}
	transparent := boolAttr("vlan_transparent", everyone, readOnly, func(w *R) bool { return w.VLANTransparent }, func(s *S) **bool { return &s.VLANTransparent })
	setTransparent := transparent.set
	transparent.set = func(s *S, raw json.RawMessage) error {
		if isNull(raw) {
			return nil
		}
		return setTransparent(s, raw)
	}
	return []attribute[R, S]{
		kind, id, physical, transparent,
		{name: "segments", post: adminOnly, put: adminOnly, set: func(s *S, raw json.RawMessage) error { return setSegments(s, raw, kind, physical, id) }},
	}
}

// setSegments reads the list of a network's segments, of which it has one: some clients say
// the provider attributes so.
func setSegments(s *network.NetworkSpec, raw json.RawMessage, attrs ...attribute[model.Network, network.NetworkSpec]) error {
	if isDefault(raw) {
		return nil
	}
	names := make([]string, 0, len(attrs))
	for _, a := range attrs {
		names = append(names, a.name)
	}
	list, err := readObjects("segments", raw, names...)
	switch {
	case err != nil:
		return err
	case s.Type != nil || s.PhysicalNetwork != nil || s.Segmentation != nil: // read before: attributes come by their names
		return fault.Coded(fault.Invalid, "SegmentsSetInConjunctionWithProviders", "Segments and provider values cannot both be set.")
	case len(list) > 1:
		return fault.Coded(fault.NotImplemented, "HTTPNotImplemented", "Networks of several segments are not offered: say one.")
	}
	for _, o := range list {
		for _, a := range attrs {
			if v, ok := o[a.name]; ok {
				if err := a.set(s, v); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
