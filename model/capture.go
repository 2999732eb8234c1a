package model

import "time"

// CaptureQuery is the body, in JSON, of the question "capture" that a server asks a host: what
// came by since the last question of the session. The first question begins to listen; a session
// that nobody asks for 10 s is over. The answer is a CaptureAnswer.
type CaptureQuery struct {
	Session ID `json:"session"`
	// Ports are those to listen at. Empty: all ports of the host, and its side of the underlay.
	Ports []ID `json:"ports,omitempty"`
	// Token, where not empty, must be in a frame for it to count.
	Token []byte `json:"token,omitempty"`
	// SnapLen is how many bytes of each frame are kept, 0 for all.
	SnapLen int `json:"snap_len,omitempty"`
	// Wait is how long the host waits for a first frame, at most 5 s.
	Wait time.Duration `json:"wait"`
	Stop bool          `json:"stop,omitempty"` // the session is over: the last answer
}

// CaptureAnswer is what a host has captured.
type CaptureAnswer struct {
	Frames []CapturedFrame `json:"frames,omitempty"`
	// Lost counts frames that came faster than they were fetched.
	Lost int `json:"lost,omitempty"`
}

// CapturedFrame is one frame at one port.
type CapturedFrame struct {
	Port    ID        `json:"port,omitempty"` // "": the underlay
	ToGuest bool      `json:"to_guest"`       // the guest gets it; else it sends it
	At      time.Time `json:"at"`
	Size    int       `json:"size"` // bytes on the wire
	Data    []byte    `json:"data"` // from the Ethernet header on, SnapLen bytes at most
}

// InjectQuery is the body of the question "inject": send a frame as if the guest behind the port had
// sent it. The answer is empty.
type InjectQuery struct {
	Port  ID     `json:"port"`
	Frame []byte `json:"frame"`
}
