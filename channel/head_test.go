package channel

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

// FuzzHead: whatever a caller says, it is bounded, and what is read can be written and read again.
func FuzzHead(f *testing.F) {
	var good bytes.Buffer
	if err := writeHead(&good, head{Service: "move/file", Args: []byte(`{"a":1}`)}); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0, 0, 2, '{', '}', 'x'})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		var h head
		if readHead(r, &h) != nil {
			return
		}
		if n := binary.BigEndian.Uint32(in); len(in)-r.Len() != int(n)+4 {
			t.Fatalf("a head of %d bytes took %d", n, len(in)-r.Len())
		}
		var out bytes.Buffer
		if writeHead(&out, h) != nil {
			return // escaped, it may be longer than allowed
		}
		var again head
		if err := readHead(&out, &again); err != nil || again.Service != strings.ToValidUTF8(h.Service, "\ufffd") {
			t.Fatalf("%q came back as %q: %v", h.Service, again.Service, err)
		}
	})
}
