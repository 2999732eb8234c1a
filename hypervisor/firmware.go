package hypervisor

import "strings"

// firmware reads what starts the guest: hw_firmware_type of its image, and os:secure_boot of its flavor or os_secure_boot of its image, which
// must not contradict each other.
func (r *specReader) firmware() (uefi bool, secure Secure) {
	uefi = r.choice("hw_firmware_type", "bios", "uefi") == "uefi"
	const flavor, image = "os:secure_boot", "os_secure_boot"
	words := map[string]Secure{"": SecureOff, "disabled": SecureOff, "required": SecureRequired, "optional": SecureOptional}
	asked := strings.TrimSpace(r.g.Specs[flavor])
	ofImage := strings.TrimSpace(r.g.Specs[image])
	switch {
	case asked == "":
		asked = ofImage
	case ofImage != "" && ofImage != asked:
		r.refuse(flavor, asked, "and the image's "+image+" "+ofImage)
	}
	secure, known := words[asked]
	switch {
	case !known:
		r.refuse(image, asked, "which is none of disabled, required, optional")
	case !uefi && secure == SecureRequired:
		r.refuse(image, asked, "which takes hw_firmware_type=uefi")
	case !uefi:
		secure = SecureOff
	}
	return uefi, secure
}
