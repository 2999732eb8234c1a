package ovsdb

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how deep a message may nest; the protocol needs 11 levels.
const maxDepth = 64

// A SyntaxError says where a message is not the JSON that the protocol allows.
type SyntaxError struct {
	Offset int // bytes from the start of the text that was read
	Text   string
}

// Error gives the text and the offset.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("malformed message at byte %d: %s", e.Offset, e.Text)
}

// A cursor walks over one JSON text without building a tree of it: an update of many
// thousand rows is read in one pass, straight into rows. It is stricter than
// encoding/json: strings are valid UTF-8 without NUL (RFC 7047, 3.1) and without lone
// surrogates, and nesting ends at maxDepth.
type cursor struct {
	b     []byte
	i     int
	depth int
}

func (c *cursor) fail(format string, args ...any) error {
	return &SyntaxError{Offset: c.i, Text: fmt.Sprintf(format, args...)}
}

// peek gives the first byte of the next token, 0 at the end.
func (c *cursor) peek() byte {
	for c.i < len(c.b) {
		switch c.b[c.i] {
		case ' ', '\t', '\n', '\r':
			c.i++
		default:
			return c.b[c.i]
		}
	}
	return 0
}

// end fails where anything but white space is left.
func (c *cursor) end() error {
	if ch := c.peek(); c.i < len(c.b) {
		return c.fail("unexpected %q after the value", ch)
	}
	return nil
}

// open enters an array or object and gives its closing byte's position in the walk.
func (c *cursor) open(ch byte) error {
	if got := c.peek(); got != ch || c.i >= len(c.b) {
		return c.fail("want %q, not %s", ch, c.describe())
	}
	if c.depth++; c.depth > maxDepth {
		return c.fail("nested deeper than %d", maxDepth)
	}
	c.i++
	return nil
}

// more tells whether an element follows, n being how many were read, and eats the comma
// or the closing byte.
func (c *cursor) more(n int, closing byte) (bool, error) {
	switch ch := c.peek(); {
	case ch == closing && c.i < len(c.b):
		c.i++
		c.depth--
		return false, nil
	case n == 0:
		return true, nil
	case ch == ',':
		c.i++
		return true, nil
	}
	return false, c.fail("want ',' or %q, not %s", closing, c.describe())
}

// array calls each once for every element; each must read exactly that element.
func (c *cursor) array(each func(n int) error) error {
	if err := c.open('['); err != nil {
		return err
	}
	for n := 0; ; n++ {
		more, err := c.more(n, ']')
		if err != nil || !more {
			return err
		}
		if err := each(n); err != nil {
			return err
		}
	}
}

// object calls each once for every member; each must read exactly that member's value.
// The key is valid during the call only.
func (c *cursor) object(each func(key []byte) error) error {
	if err := c.open('{'); err != nil {
		return err
	}
	for n := 0; ; n++ {
		more, err := c.more(n, '}')
		if err != nil || !more {
			return err
		}
		key, err := c.text()
		if err != nil {
			return err
		}
		if c.peek() != ':' {
			return c.fail("want ':', not %s", c.describe())
		}
		c.i++
		if err := each(key); err != nil {
			return err
		}
	}
}

// str reads a string.
func (c *cursor) str() (string, error) {
	b, err := c.text()
	return string(b), err
}

// text reads a string as bytes that may be part of the input: copy them to keep them.
func (c *cursor) text() ([]byte, error) {
	if c.peek() != '"' {
		return nil, c.fail("want a string, not %s", c.describe())
	}
	start := c.i + 1
	ascii := true
	for i := start; i < len(c.b); i++ {
		switch ch := c.b[i]; {
		case ch == '"':
			if !ascii && !utf8.Valid(c.b[start:i]) {
				return nil, c.fail("a string is not valid UTF-8")
			}
			c.i = i + 1
			return c.b[start:i], nil
		case ch == '\\':
			return c.escaped(start, i)
		case ch < 0x20:
			c.i = i
			return nil, c.fail("control character in a string")
		case ch >= utf8.RuneSelf:
			ascii = false
		}
	}
	c.i = len(c.b)
	return nil, c.fail("a string does not end")
}

// escaped goes on with a string that starts at start and has its first backslash at i.
func (c *cursor) escaped(start, i int) ([]byte, error) {
	out := append([]byte(nil), c.b[start:i]...)
	for i < len(c.b) {
		ch := c.b[i]
		switch {
		case ch == '"':
			if !utf8.Valid(out) {
				return nil, c.fail("a string is not valid UTF-8")
			}
			c.i = i + 1
			return out, nil
		case ch < 0x20:
			c.i = i
			return nil, c.fail("control character in a string")
		case ch != '\\':
			out = append(out, ch)
			i++
			continue
		}
		c.i = i
		if i+1 >= len(c.b) {
			break
		}
		switch e := c.b[i+1]; e {
		case '"', '\\', '/':
			out = append(out, e)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, ok := c.hex4(i + 2)
			if !ok || r == 0 {
				return nil, c.fail("bad \\u escape in a string")
			}
			i += 4
			if utf16.IsSurrogate(r) {
				low, ok := c.hex4(i + 4)
				if !ok || c.b[i+2] != '\\' || c.b[i+3] != 'u' {
					return nil, c.fail("lone surrogate in a string")
				}
				if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
					return nil, c.fail("lone surrogate in a string")
				}
				i += 6
			}
			out = utf8.AppendRune(out, r)
		default:
			return nil, c.fail("unknown escape in a string")
		}
		i += 2
	}
	c.i = len(c.b)
	return nil, c.fail("a string does not end")
}

// hex4 reads four hexadecimal digits at i.
func (c *cursor) hex4(i int) (rune, bool) {
	if i+4 > len(c.b) {
		return 0, false
	}
	var r rune
	for _, ch := range c.b[i : i+4] {
		r <<= 4
		switch {
		case ch >= '0' && ch <= '9':
			r |= rune(ch - '0')
		case ch >= 'a' && ch <= 'f':
			r |= rune(ch-'a') + 10
		case ch >= 'A' && ch <= 'F':
			r |= rune(ch-'A') + 10
		default:
			return 0, false
		}
	}
	return r, true
}

// digits moves i over decimal digits and tells whether there was one.
func (c *cursor) digits(i int) (int, bool) {
	start := i
	for i < len(c.b) && c.b[i] >= '0' && c.b[i] <= '9' {
		i++
	}
	return i, i > start
}

// number reads a number's text (RFC 8259, 6).
func (c *cursor) number() ([]byte, error) {
	ch := c.peek()
	if ch != '-' && (ch < '0' || ch > '9') {
		return nil, c.fail("want a number, not %s", c.describe())
	}
	start, i := c.i, c.i
	if ch == '-' {
		i++
	}
	first := i
	i, ok := c.digits(i)
	if !ok || c.b[first] == '0' && i > first+1 {
		return nil, c.fail("malformed number")
	}
	if i < len(c.b) && c.b[i] == '.' {
		if i, ok = c.digits(i + 1); !ok {
			return nil, c.fail("malformed number")
		}
	}
	if i < len(c.b) && (c.b[i] == 'e' || c.b[i] == 'E') {
		i++
		if i < len(c.b) && (c.b[i] == '+' || c.b[i] == '-') {
			i++
		}
		if i, ok = c.digits(i); !ok {
			return nil, c.fail("malformed number")
		}
	}
	c.i = i
	return c.b[start:i], nil
}

// integer reads a whole number that fits in 64 bits. 1.0 and 1e3 are whole numbers, as
// they are to ovsdb-server.
func (c *cursor) integer() (int64, error) {
	at := c.i
	b, err := c.number()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err == nil {
		return n, nil
	}
	f, ferr := strconv.ParseFloat(string(b), 64)
	if errors.Is(err, strconv.ErrSyntax) && ferr == nil && f == float64(int64(f)) && f > -1<<53 && f < 1<<53 {
		return int64(f), nil
	}
	c.i = at
	return 0, c.fail("%.40q is not a 64-bit integer", b)
}

// real reads a number that fits in a double.
func (c *cursor) real() (float64, error) {
	at := c.i
	b, err := c.number()
	if err != nil {
		return 0, err
	}
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		c.i = at
		return 0, c.fail("%.40q is out of range", b)
	}
	return f, nil
}

// word eats the literal w where it comes next.
func (c *cursor) word(w string) bool {
	if c.peek() != w[0] || len(c.b)-c.i < len(w) || string(c.b[c.i:c.i+len(w)]) != w {
		return false
	}
	c.i += len(w)
	return true
}

// boolean reads true or false.
func (c *cursor) boolean() (bool, error) {
	switch {
	case c.word("true"):
		return true, nil
	case c.word("false"):
		return false, nil
	}
	return false, c.fail("want true or false, not %s", c.describe())
}

// skip reads any value and checks its syntax.
func (c *cursor) skip() error {
	switch ch := c.peek(); ch {
	case '{':
		return c.object(func([]byte) error { return c.skip() })
	case '[':
		return c.array(func(int) error { return c.skip() })
	case '"':
		_, err := c.text()
		return err
	case 't', 'f':
		_, err := c.boolean()
		return err
	case 'n':
		if c.word("null") {
			return nil
		}
		return c.fail("want a value, not %s", c.describe())
	default:
		_, err := c.number()
		return err
	}
}

// raw reads any value and gives its text, which is part of the input.
func (c *cursor) raw() ([]byte, error) {
	c.peek()
	start := c.i
	if err := c.skip(); err != nil {
		return nil, err
	}
	return c.b[start:c.i], nil
}

// describe names the next token for an error.
func (c *cursor) describe() string {
	switch ch := c.peek(); {
	case c.i >= len(c.b):
		return "the end"
	case ch == '{':
		return "an object"
	case ch == '[':
		return "an array"
	case ch == '"':
		return "a string"
	case ch == '-' || ch >= '0' && ch <= '9':
		return "a number"
	default:
		return strconv.QuoteRune(rune(ch))
	}
}

// errNotUTF8 is why a string cannot be sent.
var errNotUTF8 = errors.New("string is not valid UTF-8, or holds a NUL")

// checkText fails for strings that the protocol cannot carry.
func checkText(s string) error {
	for i := 0; i < len(s); i++ {
		if s[i] == 0 {
			return errNotUTF8
		}
	}
	if !utf8.ValidString(s) {
		return errNotUTF8
	}
	return nil
}

// appendText appends s as a JSON string.
func appendText(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if ch := s[i]; ch < 0x20 || ch >= utf8.RuneSelf || ch == '"' || ch == '\\' {
			quoted, err := json.Marshal(s)
			if err != nil { // Marshal has no error for strings
				panic(err)
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// ErrTooLarge is why a connection is given up whose peer sends a message larger than
// Config.MaxMessage.
var ErrTooLarge = errors.New("message is larger than allowed")

// A framer cuts a stream into messages: JSON objects one after another, with nothing
// but white space between. No message is longer than max bytes.
type framer struct {
	r          io.Reader
	max        int
	buf        []byte
	start, end int
}

const frameChunk = 64 << 10

// next gives one message; it is valid until the following call. The end of the stream
// between messages is io.EOF, inside one io.ErrUnexpectedEOF.
func (f *framer) next() ([]byte, error) {
	var depth int
	var quoted, escape bool
	for i := f.start; ; {
		for ; i < f.end; i++ {
			ch := f.buf[i]
			switch {
			case quoted:
				switch {
				case escape:
					escape = false
				case ch == '\\':
					escape = true
				case ch == '"':
					quoted = false
				}
			case ch == '"' && depth > 0:
				quoted = true
			case ch == '{' || ch == '[' && depth > 0:
				if depth == 0 {
					f.start = i
				}
				depth++
			case (ch == '}' || ch == ']') && depth > 0:
				if depth--; depth == 0 {
					msg := f.buf[f.start : i+1]
					f.start = i + 1
					if len(msg) > f.max {
						return nil, ErrTooLarge
					}
					return msg, nil
				}
			case depth == 0 && ch != ' ' && ch != '\n' && ch != '\t' && ch != '\r':
				return nil, &SyntaxError{Offset: i - f.start, Text: fmt.Sprintf("%q between messages", ch)}
			}
		}
		if depth == 0 {
			f.start = f.end
		}
		shift := f.start
		if err := f.fill(); err != nil {
			if errors.Is(err, io.EOF) && depth > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		i -= shift - f.start
	}
}

// fill reads more behind what is there, moving or growing the buffer as needed.
func (f *framer) fill() error {
	have := f.end - f.start
	if have >= f.max {
		return ErrTooLarge
	}
	if f.start > 0 {
		copy(f.buf, f.buf[f.start:f.end])
		f.start, f.end = 0, have
		if have == 0 && len(f.buf) > 16*frameChunk {
			f.buf = nil // one big message must not keep its memory for ever
		}
	}
	if len(f.buf)-f.end < frameChunk/2 {
		grown := make([]byte, max(frameChunk, 2*len(f.buf)))
		copy(grown, f.buf[:f.end])
		f.buf = grown
	}
	n, err := f.r.Read(f.buf[f.end:])
	f.end += n
	if n > 0 {
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}
