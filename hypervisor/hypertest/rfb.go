package hypertest

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Screen is what a VNC server shows.
type Screen struct {
	Width, Height int
	Name          string
	Colours       int // different pixels in the first whole update
}

// Look speaks RFB 3.8 without a password (RFC 6143) until the server has shown its whole screen once.
func Look(rw io.ReadWriter) (Screen, error) {
	var s Screen
	version := make([]byte, 12)
	if _, err := io.ReadFull(rw, version); err != nil {
		return s, fmt.Errorf("version: %w", err)
	}
	if string(version) != "RFB 003.008\n" {
		return s, fmt.Errorf("the server says %q", version)
	}
	if _, err := rw.Write(version); err != nil {
		return s, err
	}
	types, err := counted(rw, 1)
	if err != nil {
		return s, fmt.Errorf("security types: %w", err)
	}
	if string(types) != "\x01" { // None
		return s, fmt.Errorf("security types %v", types)
	}
	if _, err := rw.Write([]byte{1}); err != nil {
		return s, err
	}
	result := make([]byte, 4)
	if _, err := io.ReadFull(rw, result); err != nil || binary.BigEndian.Uint32(result) != 0 {
		return s, fmt.Errorf("security result %v: %w", result, err)
	}
	if _, err := rw.Write([]byte{1}); err != nil { // shared
		return s, err
	}
	init := make([]byte, 20)
	if _, err := io.ReadFull(rw, init); err != nil {
		return s, fmt.Errorf("server init: %w", err)
	}
	s.Width, s.Height = int(binary.BigEndian.Uint16(init)), int(binary.BigEndian.Uint16(init[2:]))
	name, err := counted(rw, 4)
	if err != nil {
		return s, fmt.Errorf("name: %w", err)
	}
	s.Name = string(name)
	// 32 bits a pixel, true colour; then: raw only; then: everything, please.
	ask := []byte{0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0, 2, 0, 0, 1, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0}
	ask = binary.BigEndian.AppendUint16(ask, uint16(s.Width))
	ask = binary.BigEndian.AppendUint16(ask, uint16(s.Height))
	if _, err := rw.Write(ask); err != nil {
		return s, err
	}
	seen := map[uint32]bool{}
	for covered := 0; covered < s.Width*s.Height; {
		head := make([]byte, 4)
		if _, err := io.ReadFull(rw, head); err != nil {
			return s, fmt.Errorf("update: %w", err)
		}
		if head[0] != 0 {
			return s, fmt.Errorf("message %d in place of an update", head[0])
		}
		for range binary.BigEndian.Uint16(head[2:]) {
			rect := make([]byte, 12)
			if _, err := io.ReadFull(rw, rect); err != nil {
				return s, fmt.Errorf("rectangle: %w", err)
			}
			if enc := binary.BigEndian.Uint32(rect[8:]); enc != 0 {
				return s, fmt.Errorf("encoding %d", enc)
			}
			n := int(binary.BigEndian.Uint16(rect[4:])) * int(binary.BigEndian.Uint16(rect[6:]))
			pixels := make([]byte, 4*n)
			if _, err := io.ReadFull(rw, pixels); err != nil {
				return s, fmt.Errorf("pixels: %w", err)
			}
			for i := 0; i < len(pixels); i += 4 {
				seen[binary.LittleEndian.Uint32(pixels[i:])&0xffffff] = true
			}
			covered += n
		}
	}
	s.Colours = len(seen)
	return s, nil
}

// counted reads a length of size bytes and so many bytes.
func counted(r io.Reader, size int) ([]byte, error) {
	n := make([]byte, 4)
	if _, err := io.ReadFull(r, n[4-size:]); err != nil {
		return nil, err
	}
	b := make([]byte, min(binary.BigEndian.Uint32(n), 1<<16))
	_, err := io.ReadFull(r, b)
	return b, err
}
