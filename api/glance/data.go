package glance

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/images"
)

func (s *service) upload(c *api.Context) error {
	h := c.R.Header
	mt, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil || mt != "application/octet-stream" {
		return fault.New(fault.Unsupported, "The data of an image must be sent as application/octet-stream.")
	}
	if name := h.Get("X-Image-Meta-Store"); name != "" && name != storeName {
		return fault.New(fault.Invalid, "Store identifier '%s' is not known.", name)
	}
	want := images.Expect{Size: c.R.ContentLength}
	if sum := h.Get("Content-Md5"); sum != "" {
		if want.MD5, err = parseMD5(sum); err != nil {
			return err
		}
	}
	body := &idleReader{r: c.R.Body, ctl: http.NewResponseController(c.W), idle: s.idle}
	if _, err := s.images.Upload(c.R.Context(), caller(c), c.Param("id"), want, body); err != nil {
		return err
	}
	body.end()
	return c.Empty(http.StatusNoContent)
}

// parseMD5 reads a Content-MD5 header: base64 by RFC 1864, or hex as Glance itself sends it.
func parseMD5(s string) (string, error) {
	if b, err := hex.DecodeString(s); err == nil && len(b) == 16 {
		return strings.ToLower(s), nil
	}
	if b, err := base64.StdEncoding.DecodeString(s); err == nil && len(b) == 16 {
		return hex.EncodeToString(b), nil
	}
	return "", fault.New(fault.Invalid, "The header Content-MD5 is not an MD5 sum.")
}

// idleReader ends an upload whose sender has fallen silent: each read gets a time of its own.
type idleReader struct {
	r    io.Reader
	ctl  *http.ResponseController
	idle time.Duration
}

// Read implements io.Reader.
func (i *idleReader) Read(p []byte) (int, error) {
	if err := i.ctl.SetReadDeadline(time.Now().Add(i.idle)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	return i.r.Read(p)
}

// end takes the deadline off the connection, which may carry other requests.
func (i *idleReader) end() { _ = i.ctl.SetReadDeadline(time.Time{}) }

func (s *service) download(c *api.Context) error {
	img, f, err := s.images.Open(c.R.Context(), c.Snapshot(), caller(c), c.Param("id"))
	if errors.Is(err, images.ErrNoData) {
		return c.Empty(http.StatusNoContent)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	h := c.W.Header()
	h.Set("Content-Type", "application/octet-stream")
	if c.R.Header.Get("Range") == "" {
		h.Set("Content-MD5", img.Checksum) // in hex, unlike RFC 1864: clients compare it so
	}
	http.ServeContent(c.W, c.R, "", time.Time{}, f)
	return nil
}
