package libvirt

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// element is an element of a domain's XML of which only a little is known: what libvirt itself wrote about a running
// guest, with all that it chose for it.
type element struct {
	name  xml.Name
	attrs []xml.Attr
	text  string
	kids  []*element
}

// parseTree reads an XML document. Comments and instructions are left out.
func parseTree(text string) (*element, error) {
	d := xml.NewDecoder(strings.NewReader(text))
	top := &element{}
	stack := []*element{top}
	for {
		t, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read a definition: %w", err)
		}
		at := stack[len(stack)-1]
		switch t := t.(type) {
		case xml.StartElement:
			n := &element{name: t.Name}
			for _, a := range t.Attr {
				if a.Name.Space != "xmlns" && a.Name.Local != "xmlns" { // the encoder writes them itself
					n.attrs = append(n.attrs, a)
				}
			}
			at.kids = append(at.kids, n)
			stack = append(stack, n)
		case xml.EndElement:
			stack = stack[:len(stack)-1]
		case xml.CharData:
			at.text += string(t)
		}
	}
	if len(top.kids) != 1 {
		return nil, errors.New("read a definition: it has no element")
	}
	return top.kids[0], nil
}

func (n *element) String() string {
	var b bytes.Buffer
	e := xml.NewEncoder(&b)
	// Neither can fail: the names came from a document, and the buffer takes everything.
	_ = n.encode(e)
	_ = e.Flush()
	return b.String()
}

func (n *element) encode(e *xml.Encoder) error {
	start := xml.StartElement{Name: n.name, Attr: n.attrs}
	if err := e.EncodeToken(start); err != nil {
		return err
	}
	if text := strings.TrimSpace(n.text); text != "" {
		if err := e.EncodeToken(xml.CharData(text)); err != nil {
			return err
		}
	}
	for _, k := range n.kids {
		if err := k.encode(e); err != nil {
			return err
		}
	}
	return e.EncodeToken(start.End())
}

// all gives the children of a name; first the first, nil where there is none. Both may be asked of nil.
func (n *element) all(name string) (out []*element) {
	if n == nil {
		return nil
	}
	for _, k := range n.kids {
		if k.name.Local == name {
			out = append(out, k)
		}
	}
	return out
}

func (n *element) first(name string) *element {
	if all := n.all(name); len(all) > 0 {
		return all[0]
	}
	return nil
}

func (n *element) attr(name string) string {
	if n == nil {
		return ""
	}
	for _, a := range n.attrs {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

func (n *element) set(name, value string) {
	for i := range n.attrs {
		if n.attrs[i].Name.Local == name {
			n.attrs[i].Value = value
			return
		}
	}
	n.attrs = append(n.attrs, xml.Attr{Name: xml.Name{Local: name}, Value: value})
}

// swap puts by in the place of the first child of its name, adds it where there is none, and takes the child away where by is nil.
func (n *element) swap(name string, by *element) {
	for i, k := range n.kids {
		if k.name.Local != name {
			continue
		}
		if by == nil {
			n.kids = append(n.kids[:i:i], n.kids[i+1:]...)
			return
		}
		n.kids[i] = by
		return
	}
	if by != nil {
		n.kids = append(n.kids, by)
	}
}

func (n *element) value() string {
	if n == nil {
		return ""
	}
	return strings.TrimSpace(n.text)
}
