package libvirt

import (
	"encoding/binary"
	"io"
	"sync"
)

// finish watches the sending libvirtd tell the receiving one to run the guest. Where the answer is lost, the sender takes the
// move for failed and runs the guest again, although the receiver may run it too.
type finish struct {
	mu      sync.Mutex
	serials map[uint32]bool // of calls without an answer
	called  bool            // there was such a call
	// postCopy: the guest was told to run there before its memory is. Then the answer that this failed does not mean that it does not run.
	postCopy bool
}

// uncertain tells whether a receiver was told to run the guest and has not answered, or has not answered what it was asked.
func (f *finish) uncertain() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.serials) > 0 || f.called && f.postCopy
}

// switched notes that the move is one by post-copy from now on.
func (f *finish) switched() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.postCopy = true
}

func (f *finish) note(h header) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case h.prog != progRemote:
	case h.kind == kindCall && h.proc == procMigrateFinish3:
		f.serials[h.serial], f.called = true, true
	case h.kind == kindReply && h.proc == procMigrateFinish3:
		delete(f.serials, h.serial)
	}
}

// listen gives w such that the headers of the frames written to it are noted: of calls before they go on, of answers
// after they have.
func (f *finish) listen(w io.ReadWriteCloser) io.ReadWriteCloser {
	return &eavesdropper{ReadWriteCloser: w, f: f}
}

type eavesdropper struct {
	io.ReadWriteCloser
	f    *finish
	head []byte // of the frame that is under way, until it is whole
	left int    // bytes of the frame that are still to come
}

// Write implements io.Writer.
func (e *eavesdropper) Write(b []byte) (int, error) {
	var calls, answers []header
	for rest := b; len(rest) > 0; {
		if e.left > 0 {
			n := min(e.left, len(rest))
			e.left, rest = e.left-n, rest[n:]
			continue
		}
		n := min(headerLen-len(e.head), len(rest))
		e.head, rest = append(e.head, rest[:n]...), rest[n:]
		if len(e.head) < headerLen {
			break
		}
		word := func(i int) uint32 { return binary.BigEndian.Uint32(e.head[4*i:]) }
		h := header{prog: word(1), vers: word(2), proc: int32(word(3)), kind: word(4), serial: word(5), status: word(6)}
		e.left = max(int(word(0))-headerLen, 0)
		e.head = e.head[:0]
		if h.kind == kindCall {
			calls = append(calls, h)
		} else {
			answers = append(answers, h)
		}
	}
	for _, h := range calls {
		e.f.note(h)
	}
	n, err := e.ReadWriteCloser.Write(b)
	if err == nil {
		for _, h := range answers {
			e.f.note(h)
		}
	}
	return n, err
}

// CloseWrite ends the direction.
func (e *eavesdropper) CloseWrite() error {
	if half, ok := e.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return e.ReadWriteCloser.Close()
}
