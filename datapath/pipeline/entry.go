package pipeline

import (
	"fmt"
	"slices"
)

// Feature names the part of the pipeline that an entry belongs to.
type Feature uint8

// The features.
const (
	FeatureBase Feature = iota + 1 // entries that are there whatever the rows say
	FeatureClassify
	FeatureAntiSpoof
	FeatureARP
	FeatureDHCP
	FeatureMetadata
	FeatureGroup
	FeatureLookup
	FeatureFlood
	FeatureOutput
	FeatureRouter
	FeatureNAT
	FeatureProvider
	FeatureND
	FeatureRA
	FeatureDHCPv6
	FeatureDNS
	FeatureMulticast
	FeatureMirror
	FeatureQoS
	FeatureTrunk
	FeatureStandby
	FeatureScope
	FeatureHeld
	numFeatures
)

var featureNames = [numFeatures]string{
	FeatureBase: "base", FeatureClassify: "classify", FeatureAntiSpoof: "anti-spoof", FeatureARP: "arp", FeatureDHCP: "dhcp",
	FeatureMetadata: "metadata", FeatureGroup: "group", FeatureLookup: "lookup", FeatureFlood: "flood", FeatureOutput: "output",
	FeatureRouter: "router", FeatureNAT: "nat", FeatureProvider: "provider", FeatureND: "nd", FeatureRA: "ra", FeatureDHCPv6: "dhcpv6",
	FeatureDNS: "dns", FeatureMulticast: "multicast", FeatureMirror: "mirror", FeatureQoS: "qos", FeatureTrunk: "trunk", FeatureStandby: "standby", FeatureScope: "scope", FeatureHeld: "held",
}

// String gives the feature's name.
func (f Feature) String() string {
	if f > 0 && f < numFeatures {
		return featureNames[f]
	}
	return fmt.Sprintf("feature-%d", uint8(f))
}

// Entry is one line of the pipeline: of the entries of its stage whose match a packet
// meets, the one with the highest priority acts.
type Entry struct {
	Stage    Stage
	Priority uint16
	Feature  Feature
	Match    Match
	Actions  []Action
}

// Key identifies an entry in a switch: two entries with equal stage, priority and match
// cannot stand side by side.
type Key string

// Key gives the entry's key.
func (e *Entry) Key() Key {
	var buf [160]byte
	return Key(e.appendKey(buf[:0]))
}

func (e *Entry) appendKey(b []byte) []byte {
	return e.Match.appendKey(append(b, byte(e.Stage), byte(e.Priority>>8), byte(e.Priority)))
}

// acts tells whether two entries of the same key are the same. All actions are comparable.
func (e *Entry) acts(o *Entry) bool {
	return e == o || e.Feature == o.Feature && slices.Equal(e.Actions, o.Actions)
}

// String gives stage, priority, match and actions on one line.
func (e *Entry) String() string {
	return fmt.Sprintf("%v %d %v -> %s", e.Stage, e.Priority, e.Match, actionsString(e.Actions))
}

// merge says how entries of several rows with one key become one.
type merge uint8

const (
	mergeNone merge = iota // they must be equal
	mergeConj              // the union of their Conj actions
	mergeLegs              // the union of their Leg and Tunnel actions
)

func (e *Entry) merge() merge {
	if len(e.Actions) == 0 {
		return mergeNone
	}
	if e.Stage == Mirror {
		return mergeLegs
	}
	switch e.Actions[0].(type) {
	case Conj:
		return mergeConj
	case Leg:
		return mergeLegs
	}
	return mergeNone
}
