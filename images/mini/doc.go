// Package mini holds the sources of yakumo-mini, the guest image of labs and tests, and the test that boots it.
//
// build.sh makes the image from Debian's packages; early-init is the initial RAM disk's /init, root/ holds the files
// that are copied into the image, guest/ and sudo/ are the two programs written for it. The package has no code of its
// own, and nothing imports it; package probe below it is a tool of the lab too. docs/guide/guest-images.md describes the
// image to its users.
package mini
