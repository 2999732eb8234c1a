package libvirt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// header is virNetMessageHeader; on the wire a length word that counts itself goes before it.
type header struct {
	prog, vers uint32
	proc       int32
	kind       uint32
	serial     uint32
	status     uint32
}

const headerLen = 4 + 24

// Programs (virnetprotocol.x, remote_protocol.x, virkeepaliveprotocol.x), all of version 1.
const (
	progRemote    = 0x20008086
	progQEMU      = 0x20008087 // what is QEMU's alone: qemu_protocol.x
	progKeepalive = 0x6b656570
)

// Kinds of message.
const (
	kindCall   = 0
	kindReply  = 1
	kindEvent  = 2 // also keepalive, in either direction
	kindStream = 3

	kindReplyFiles = 5 // a reply with open files
)

// Statuses.
const (
	statusOK       = 0
	statusError    = 1
	statusContinue = 2
)

// procMonitorCommand is QEMU_PROC_DOMAIN_MONITOR_COMMAND, of the program of QEMU.
const procMonitorCommand = 1

// Procedures of the keepalive program.
const (
	procPing = 1
	procPong = 2
)

// Procedures of the remote program, REMOTE_PROC_… in remote_protocol.x.
const (
	procConnectOpen        = 1
	procGetVersion         = 4
	procNodeGetInfo        = 6
	procGetCapabilities    = 7
	procDomainGetXMLDesc   = 14
	procDomainLookupByName = 23
	procDomainResume       = 28
	procDomainSuspend      = 34
	procDomainGetInfo      = 16
	procGetHostname        = 59
	procAuthList           = 66
	procDomainToNative     = 136 // CONNECT_DOMAIN_XML_TO_NATIVE
	procSecretDefine       = 142 // SECRET_DEFINE_XML
	procSecretSetValue     = 144
	procGetLibVersion      = 157
	procDomainAttach       = 160 // DOMAIN_ATTACH_DEVICE_FLAGS
	procDomainDetach       = 161 // DOMAIN_DETACH_DEVICE_FLAGS
	procDomainSave         = 182 // DOMAIN_MANAGED_SAVE
	procDomainHasSave      = 183 // DOMAIN_HAS_MANAGED_SAVE_IMAGE
	procDomainDropSave     = 184 // DOMAIN_MANAGED_SAVE_REMOVE
	procDomainAbortJob     = 164
	procMigrateMaxDowntime = 166 // DOMAIN_MIGRATE_SET_MAX_DOWNTIME
	procDomainCreate       = 196 // DOMAIN_CREATE_WITH_FLAGS
	procDomainOpenConsole  = 201
	procDomainInjectNMI    = 210
	procDomainGetState     = 212
	procDomainCapabilities = 342 // CONNECT_GET_DOMAIN_CAPABILITIES
	procDomainUndefine     = 231 // DOMAIN_UNDEFINE_FLAGS
	procDomainDestroy      = 234 // DOMAIN_DESTROY_FLAGS
	procBlockJobAbort      = 237 // DOMAIN_BLOCK_JOB_ABORT
	procBlockJobInfo       = 238 // DOMAIN_GET_BLOCK_JOB_INFO
	procDomainReset        = 245
	procBlockResize        = 251 // DOMAIN_BLOCK_RESIZE
	procListAllDomains     = 273 // CONNECT_LIST_ALL_DOMAINS
	procDomainShutdown     = 258 // DOMAIN_SHUTDOWN_FLAGS
	procDomainGetMetadata  = 265
	procDomainGetJobStats  = 298
	procMigratePerform3    = 305 // DOMAIN_MIGRATE_PERFORM3_PARAMS
	procMigrateFinish3     = 306 // DOMAIN_MIGRATE_FINISH3_PARAMS
	procEventRegister      = 316 // CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY
	procEventLifecycle     = 318 // DOMAIN_EVENT_CALLBACK_LIFECYCLE
	procDomainFreeze       = 335 // DOMAIN_FSFREEZE
	procDomainThaw         = 336 // DOMAIN_FSTHAW
	procDomainOpenGraphics = 343 // DOMAIN_OPEN_GRAPHICS_FD
	procGetAllDomainStats  = 344
	procBlockCopy          = 345 // DOMAIN_BLOCK_COPY
	procDomainDefineXML    = 350 // DOMAIN_DEFINE_XML_FLAGS
	procDomainSetPassword  = 357 // DOMAIN_SET_USER_PASSWORD
	procMigratePostCopy    = 364 // DOMAIN_MIGRATE_START_POST_COPY
	procAgentPatience      = 420 // DOMAIN_AGENT_SET_RESPONSE_TIMEOUT
)

// appendFrame appends a whole message to buf.
func appendFrame(buf []byte, h header, payload []byte) []byte {
	buf = binary.BigEndian.AppendUint32(buf, uint32(headerLen+len(payload)))
	for _, v := range []uint32{h.prog, h.vers, uint32(h.proc), h.kind, h.serial, h.status} {
		buf = binary.BigEndian.AppendUint32(buf, v)
	}
	return append(buf, payload...)
}

// readFrame reads one message. Memory grows with what has come, not with the announced length.
func readFrame(r io.Reader) (header, []byte, error) {
	var b [headerLen]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return header{}, nil, err
	}
	word := func(i int) uint32 { return binary.BigEndian.Uint32(b[4*i:]) }
	n := word(0)
	if n < headerLen || n > maxFrame {
		return header{}, nil, fmt.Errorf("a message of %d bytes is out of the protocol's bounds", n)
	}
	h := header{prog: word(1), vers: word(2), proc: int32(word(3)), kind: word(4), serial: word(5), status: word(6)}
	if n -= headerLen; n <= 64<<10 {
		p := make([]byte, n)
		if _, err := io.ReadFull(r, p); err != nil {
			return header{}, nil, unexpected(err)
		}
		return h, p, nil
	}
	var p bytes.Buffer
	if _, err := io.CopyN(&p, r, int64(n)); err != nil {
		return header{}, nil, unexpected(err)
	}
	return h, p.Bytes(), nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
