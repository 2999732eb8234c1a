package model_test

import (
	"strings"
	"testing"

	"yakumo/model"
)

// TestTPM: which module a flavor and an image ask for, and Nova's words for what they cannot.
func TestTPM(t *testing.T) {
	type m = map[string]string
	for _, c := range []struct {
		specs, hardware m
		want            model.TPM
		wrong           string
	}{
		{nil, nil, model.TPM{}, ""},
		{m{"hw:tpm_model": "tpm-crb"}, nil, model.TPM{}, ""},
		{m{"hw:tpm_version": "2.0"}, nil, model.TPM{Version: "2.0", Model: "tpm-tis"}, ""},
		{m{"hw:tpm_version": "2.0"}, m{"hw_tpm_version": "2.0", "hw_tpm_model": "tpm-crb"}, model.TPM{Version: "2.0", Model: "tpm-crb"}, ""},
		{nil, m{"hw_tpm_version": "1.2"}, model.TPM{Version: "1.2", Model: "tpm-tis"}, ""},
		{m{"hw:tpm_version": "2.0"}, m{"hw_tpm_version": "1.2"}, model.TPM{Version: "2.0", Model: "tpm-tis"}, "Flavor f has hw:tpm_version extra spec explicitly set to 2.0, conflicting with image i which has hw_tpm_version explicitly set to 1.2."},
		{nil, m{"hw_tpm_version": "3"}, model.TPM{Version: "3", Model: "tpm-tis"}, "Invalid TPM version '3'. Allowed values: 1.2, 2.0."},
		{nil, m{"hw_tpm_version": "2.0", "hw_tpm_model": "x"}, model.TPM{Version: "2.0", Model: "x"}, "Invalid TPM model 'x'. Allowed values: tpm-tis, tpm-crb."},
		{m{"hw:tpm_version": "1.2", "hw:tpm_model": "tpm-crb"}, nil, model.TPM{Version: "1.2", Model: "tpm-crb"}, "TPM model CRB is only valid with TPM version 2.0."},
	} {
		if got := model.TPMOf(c.specs, c.hardware); got != c.want {
			t.Errorf("%v, %v: %+v, want %+v", c.specs, c.hardware, got, c.want)
		}
		if wrong := model.BadFirmware("f", "i", c.specs, c.hardware); wrong != c.wrong {
			t.Errorf("%v, %v: %q, want %q", c.specs, c.hardware, wrong, c.wrong)
		}
	}
	if got := (model.TPM{}).Lacking(nil); got != "" {
		t.Error(got)
	}
	two := model.TPM{Version: "2.0", Model: "tpm-tis"}
	if got := two.Lacking([]string{"1.2"}); !strings.Contains(got, "swtpm") || two.Lacking([]string{"1.2", "2.0"}) != "" {
		t.Error(got)
	}
}
