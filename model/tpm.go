package model

import (
	"slices"
	"strings"
)

// TPM is the trusted platform module that a guest is to have, emulated by its host. The zero value: none.
type TPM struct {
	Version string // 1.2, 2.0
	Model   string // tpm-tis, tpm-crb
}

const (
	tpmTIS = "tpm-tis"
	tpmCRB = "tpm-crb"
	tpm2   = "2.0"
)

// TPMOf reads a flavor's extra specs and an image's properties, which do not contradict each other: BadFirmware tells of it.
func TPMOf(specs, hardware map[string]string) TPM {
	read := func(name string) string {
		if v := strings.TrimSpace(specs["hw:"+name]); v != "" {
			return v
		}
		return strings.TrimSpace(hardware["hw_"+name])
	}
	t := TPM{read("tpm_version"), read("tpm_model")}
	switch {
	case t.Version == "": // a model alone asks for nothing, as in Nova
		return TPM{}
	case t.Model == "":
		t.Model = tpmTIS
	}
	return t
}

// Lacking tells why a host whose guests can have TPMs of these versions cannot start a guest with this one; "" it can.
func (t TPM) Lacking(versions []string) string {
	if t.Version == "" || slices.Contains(versions, t.Version) {
		return ""
	}
	return "TPM " + t.Version + ": it emulates none for guests (Debian: the packages swtpm and swtpm-tools)"
}

// badTPM gives, in Nova's words, why an image and a flavor by the names cannot make a server; "" they can.
func badTPM(flavor, image string, specs, hardware map[string]string) string {
	for _, name := range []string{"tpm_version", "tpm_model"} {
		ours, theirs := strings.TrimSpace(specs["hw:"+name]), strings.TrimSpace(hardware["hw_"+name])
		if ours != "" && theirs != "" && ours != theirs {
			return "Flavor " + flavor + " has hw:" + name + " extra spec explicitly set to " + clip(ours) + ", conflicting with image " + image +
				" which has hw_" + name + " explicitly set to " + clip(theirs) + "."
		}
	}
	switch t := TPMOf(specs, hardware); {
	case t.Version == "":
		return ""
	case t.Version != "1.2" && t.Version != tpm2:
		return "Invalid TPM version '" + clip(t.Version) + "'. Allowed values: 1.2, 2.0."
	case t.Model != tpmTIS && t.Model != tpmCRB:
		return "Invalid TPM model '" + clip(t.Model) + "'. Allowed values: tpm-tis, tpm-crb."
	case t.Model == tpmCRB && t.Version != tpm2:
		return "TPM model CRB is only valid with TPM version 2.0."
	}
	return ""
}
