package images

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Bootable gives an image that the caller may start a server from. Call it with the
// transaction that writes the server: then the image cannot go between the two.
//
// Errors: fault.NotFound; fault.Invalid where it has no bytes, is deactivated, or is of a
// format that no host boots. The texts are for the user.
func (m *Images) Bootable(r store.Reader, by Caller, id model.ID) (*model.Image, error) {
	img, ok := store.Images.Get(r, id)
	switch {
	case !ok || !by.Sees(img):
		return nil, fault.New(fault.NotFound, "Image %s could not be found.", id)
	case img.Status != model.ImageActive:
		return nil, fault.New(fault.Invalid, "Image %s is not active.", id)
	case img.DiskFormat != "raw" && img.DiskFormat != "qcow2":
		return nil, fault.New(fault.Invalid, "Image %s is unacceptable: its disk format '%s' cannot be booted; raw and qcow2 can.", id, img.DiskFormat)
	case img.ContainerFormat != bootableContainer:
		return nil, fault.New(fault.Invalid, "Image %s is unacceptable: its container format '%s' cannot be booted; %s can.", id, img.ContainerFormat, bootableContainer)
	case Mapping(img) != "":
		return nil, fault.New(fault.Invalid, "Image %s is unacceptable: it has no data of its own, but names snapshots of volumes.", id)
	}
	return img, nil
}

// Copy says what a host needs to fetch and to trust the image.
func Copy(img *model.Image) model.ImageCopy { return img.Copy() }

// Open gives the bytes of an image that the caller may download.
//
// Errors: fault.NotFound for what the caller does not see; fault.Forbidden for a
// deactivated image, an administrator's calls aside; ErrNoData where there are no bytes.
func (m *Images) Open(ctx context.Context, snap store.Reader, by Caller, id model.ID) (*model.Image, Blob, error) {
	img, err := m.Get(snap, by, id)
	switch {
	case err != nil:
		return nil, nil, err
	case img.Status == model.ImageDeactivated && !by.Admin:
		return nil, nil, fault.New(fault.Forbidden, "The requested image has been deactivated. Image data download is forbidden.")
	case img.BlobID == "":
		return nil, nil, ErrNoData
	}
	f, _, err := m.cfg.Blobs.Open(ctx, img.BlobID)
	if err != nil {
		// Not the caller's fault, whatever kind the blobs gave it.
		return nil, nil, fmt.Errorf("open the data of image %s: %v", id, err)
	}
	return img, f, nil
}

// ErrNoData says that an image has no bytes yet.
var ErrNoData = fault.New(fault.NotFound, "No image data could be found")

// ServeBlob answers a host's request for the bytes of a blob, whole or in ranges; the
// blob's id is its ETag, for If-Range. Who may ask is the listener's concern.
func (m *Images) ServeBlob(w http.ResponseWriter, r *http.Request, blob model.ID) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD are served", http.StatusMethodNotAllowed)
		return
	}
	f, _, err := m.cfg.Blobs.Open(r.Context(), blob)
	if fault.Is(err, fault.NotFound) {
		http.Error(w, "no such blob", http.StatusNotFound)
		return
	}
	if err != nil {
		m.log.Error("a blob cannot be read", "blob", blob, "err", err)
		http.Error(w, "the blob cannot be read", http.StatusInternalServerError)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"`+blob+`"`)
	http.ServeContent(w, r, "", time.Time{}, f)
}
