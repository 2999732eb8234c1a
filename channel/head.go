package channel

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"yakumo/fault"
)

// maxHead bounds a head and an answer, bytes: both are read before anybody has said what for.
const maxHead = 64 << 10

// head is what a caller says first. On the wire it is JSON behind its length, 4 bytes, most significant first.
type head struct {
	Service string          `json:"service"`
	Args    json.RawMessage `json:"args,omitempty"`
}

// answer is what it is told, in the same form: all empty for "go on", or a fault.
type answer struct {
	Kind *fault.Kind `json:"kind,omitempty"`
	Code string      `json:"code,omitempty"`
	Text string      `json:"text,omitempty"`
}

// refusal gives err as an answer. What is not for users is told too: both ends are hosts of one cloud.
func refusal(err error) answer {
	kind, text := fault.KindOf(err), err.Error()
	if t, ok := fault.Text(err); ok {
		text = t
	}
	if len(text) > maxHead/8 { // JSON writes at most 6 bytes for one
		text = text[:maxHead/8]
	}
	return answer{Kind: &kind, Code: fault.CodeOf(err), Text: text}
}

// err gives the answer as an error.
func (a answer) err() error {
	if a.Kind == nil {
		return nil
	}
	return fault.Coded(*a.Kind, a.Code, "%s", a.Text)
}

func writeHead(w io.Writer, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > maxHead {
		return fault.New(fault.Invalid, "A channel's head of %d bytes is too long.", len(body))
	}
	// In one write: half a head is of no use to anybody.
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}

// readHead reads no byte beyond the head.
func readHead(r io.Reader, v any) error {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxHead {
		return fmt.Errorf("a head of %d bytes is too long", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	return json.Unmarshal(body, v)
}
