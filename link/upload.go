package link

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"strings"

	"yakumo/fault"
	"yakumo/model"
)

// The kinds of things that a host uploads.
const (
	UploadImage  = "image"  // made of a guest's disk or of a volume; the id is the image's
	UploadBackup = "backup" // of a volume; the id is the backup's
)

// Upload is what a host sends to be kept by the servers.
type Upload struct {
	Host model.ID // who sends, by its certificate
	Kind string
	ID   model.ID
	Size int64 // bytes that Body gives
	// Body ends with io.EOF only where it had Size bytes with the SHA-256 that the host reckoned; with another error
	// nothing of it may be kept.
	Body io.Reader
}

// trailerSum carries the SHA-256 of an upload, hex, after its bytes.
const trailerSum = "X-Sha256"

// receive serves a host's upload.
func (s *Server) receive(w http.ResponseWriter, r *http.Request, host model.ID, kind, id string) {
	if r.ContentLength < 0 {
		http.Error(w, "the length is needed", http.StatusLengthRequired)
		return
	}
	body := &checkedBody{r: r.Body, left: r.ContentLength, sum: sha256.New(), want: func() string { return r.Trailer.Get(trailerSum) }}
	err := s.cfg.Upload(r.Context(), Upload{Host: host, Kind: kind, ID: id, Size: r.ContentLength, Body: body})
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	s.cfg.Log.Warn("a host's upload was not taken", "host", host, "kind", kind, "id", id, "err", err)
	text, ok := fault.Text(err)
	if !ok {
		text = "The servers failed to keep the upload."
	}
	w.WriteHeader(http.StatusBadGateway)
	if err := json.NewEncoder(w).Encode(peerError{fault.KindOf(err), text}); err != nil {
		s.cfg.Log.Debug("a host did not wait to hear of its upload", "host", host, "err", err)
	}
}

// checkedBody counts and hashes what passes, and is at its end only where both are right.
type checkedBody struct {
	r    io.Reader
	left int64
	sum  hash.Hash
	want func() string // known at the end of r
}

// Read implements io.Reader.
func (b *checkedBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.sum.Write(p[:n]) // a hash never fails
	b.left -= int64(n)
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	if b.left != 0 {
		return n, fault.New(fault.Invalid, "The upload broke off with %d bytes left.", b.left)
	}
	if got := hex.EncodeToString(b.sum.Sum(nil)); got != b.want() {
		return n, fault.New(fault.Invalid, "The SHA-256 of the upload is %s; %q was announced.", got, b.want())
	}
	return n, io.EOF
}

// Upload sends size bytes (at least one) of r to be kept under kind (UploadImage …) and id, to the server that has the stream or the
// first of the list. It may be repeated, whatever became of an earlier try: what is there already is a success.
//
// Errors: fault.Unavailable where no server took it now; whatever the server answered, such as fault.Forbidden where
// the host has no business with the id, NotFound where that is gone, Invalid and Unsupported for bad bytes.
func (c *Client) Upload(ctx context.Context, kind string, id model.ID, size int64, r io.Reader) error {
	c.mu.Lock()
	at := c.at
	c.mu.Unlock()
	if at == "" {
		at = c.cfg.Servers[0]
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sum := sha256.New()
	body := &hashedBody{r: io.TeeReader(io.LimitReader(r, size), sum)}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, "https://"+at+"/uploads/"+url.PathEscape(kind)+"/"+url.PathEscape(id), body)
	if err != nil {
		return err
	}
	req.ContentLength, req.Trailer = size, http.Header{trailerSum: nil}
	body.end = func() { req.Trailer.Set(trailerSum, hex.EncodeToString(sum.Sum(nil))) }
	resp, err := c.uploads.Do(req)
	if err != nil {
		if body.err != nil {
			return fmt.Errorf("read what is to be uploaded: %w", body.err)
		}
		return fault.Wrap(fault.Unavailable, err, "The servers cannot take an upload now.")
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNoContent {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "The servers cannot take an upload now.")
	}
	var e peerError
	if resp.StatusCode != http.StatusBadGateway || json.Unmarshal(text, &e) != nil {
		return fault.New(fault.Unavailable, "The servers cannot take an upload now: %s: %s.", resp.Status, strings.TrimSpace(string(text)))
	}
	return fault.New(e.Kind, "%s", e.Text)
}

// hashedBody calls end before it tells that it is at its end, when the trailer must be known.
type hashedBody struct {
	r   io.Reader
	end func()
	err error // of the source, io.EOF aside
}

// Read implements io.Reader.
func (b *hashedBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		b.end()
	case err != nil:
		b.err = err
	}
	return n, err
}
