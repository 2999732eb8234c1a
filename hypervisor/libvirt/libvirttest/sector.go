package libvirttest

import (
	"encoding/binary"
	"os"
	"testing"
)

// Sector describes a guest of 512 bytes: a boot sector that the firmware loads and that needs
// nothing else. It writes Greeting to the first serial port, then echoes what comes there,
// powers the machine off at its power button and lets go of devices that are unplugged, unless it is Deaf.
type Sector struct {
	Greeting string // at most 200 bytes
	Deaf     bool
	// Counts has it write a number, one more each time, to the sector CountFirst of its disk and then to the sector
	// CountSecond, as fast as it can: at any moment the first is as large as the second or one more.
	Counts bool
}

// Where a Sector that Counts keeps its numbers: the first four bytes, little-endian.
const (
	CountFirst  = 8
	CountSecond = 1024
)

// WriteDisk writes the guest's disk, a raw image.
func (s Sector) WriteDisk(t testing.TB, path string) {
	t.Helper()
	if err := os.WriteFile(path, s.disk(t), 0o600); err != nil {
		t.Fatal(err)
	}
}

// disk assembles the program, 16-bit code that the firmware starts at 0x7c00. The machine is a
// q35, where SeaBIOS puts the ACPI power management block at 0x600 (PM1 status, enable at +2
// and control at +4, ACPI 6.5 section 4.8.3) and the serial port is a 16550 at 0x3f8.
func (s Sector) disk(t testing.TB) []byte {
	const origin = 0x7c00
	a := &assembler{labels: map[string]int{}}
	a.emit(0xfa)                   // cli
	a.emit(0x31, 0xc0)             // xor ax, ax
	a.emit(0x8e, 0xd8)             // mov ds, ax
	a.emit(0x8e, 0xd0)             // mov ss, ax
	a.emit(0xbc, 0x00, 0x7c)       // mov sp, 0x7c00
	a.emit(0xb0, 0xfe, 0xe6, 0x21) // only the timer interrupts, to wake from hlt
	a.emit(0xb0, 0xff, 0xe6, 0xa1)
	a.emit(0x31, 0xc9) // xor cx, cx: how often to look again before sleeping
	if !s.Deaf {
		a.emit(0xba, 0x02, 0x06, 0xb8, 0x00, 0x01, 0xef) // PM1 enable: power button
	}
	a.emit(0xbe) // mov si, greeting
	a.word("text")
	a.label("print")
	a.emit(0xac, 0x84, 0xc0) // lodsb; test al, al
	a.jump(0x74, "loop")     // jz
	a.call("putc")
	a.jump(0xeb, "print")

	a.label("loop")
	a.emit(0xba, 0x00, 0x06, 0xed) // in ax, PM1 status
	a.emit(0xf6, 0xc4, 0x01)       // test ah, 1: power button
	a.jump(0x75, "off")
	a.emit(0xba, 0xfd, 0x03, 0xec) // in al, line status
	a.emit(0xa8, 0x01)             // test al, 1: data ready
	a.jump(0x74, "idle")
	a.emit(0xba, 0xf8, 0x03, 0xec) // in al, data
	a.call("putc")
	a.emit(0xb9, 0x00, 0x40) // mov cx, 0x4000: more is likely to come
	a.jump(0xeb, "loop")
	a.label("idle")
	a.jump(0xe3, "sleep") // jcxz
	a.emit(0x49)          // dec cx
	a.jump(0xeb, "loop")
	a.label("sleep")
	if !s.Deaf {
		// ACPI PCI hot-plug as QEMU does it on q35 (its docs/specs/acpi_pci_hotplug): for each bus, ask which slots are
		// to go down and eject those.
		a.emit(0x66, 0x31, 0xdb) // xor ebx, ebx
		a.label("bus")
		a.emit(0xba, 0xd0, 0x0c, 0x66, 0x89, 0xd8, 0x66, 0xef) // out 0xcd0, ebx: select the bus
		a.emit(0xba, 0xc4, 0x0c, 0x66, 0xed, 0x66, 0x85, 0xc0) // in eax, 0xcc4: down; test eax, eax
		a.jump(0x74, "kept")
		a.emit(0xba, 0xc8, 0x0c, 0x66, 0xef) // out 0xcc8, eax: eject
		a.label("kept")
		a.emit(0x66, 0x43, 0x80, 0xfb, 0x40) // inc ebx; cmp bl, 64
		a.jump(0x72, "bus")
	}
	if s.Counts {
		a.emit(0x66, 0xff, 0x06, 0x00, 0x80) // inc dword [0x8000]
		for _, sector := range []uint16{CountFirst, CountSecond} {
			a.emit(0xb8, byte(sector), byte(sector>>8)) // mov ax, sector
			a.call("write")
		}
		a.jump(0xeb, "loop")
	}
	a.emit(0xfb, 0xf4, 0xfa) // sti; hlt; cli: the timer wakes it 18 times a second
	a.jump(0xeb, "loop")

	a.label("off")
	a.emit(0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef) // PM1 control: sleep enable, type 0 is S5 on QEMU
	a.emit(0xf4, 0xeb, 0xfd)                         // hlt for ever

	a.label("putc")
	a.emit(0x88, 0xc4)       // mov ah, al
	a.emit(0xba, 0xfd, 0x03) // mov dx, line status
	a.label("busy")
	a.emit(0xec, 0xa8, 0x20) // in al, dx; test al, 0x20: transmitter empty
	a.jump(0x74, "busy")
	a.emit(0x88, 0xe0, 0xba, 0xf8, 0x03, 0xee, 0xc3) // mov al, ah; out data, al; ret

	if s.Counts { // BIOS interrupt 0x13, function 0x43, with a disk address packet
		a.label("write")
		a.emit(0xbe)
		a.word("packet")
		a.emit(0x89, 0x44, 0x08)                               // mov [si+8], ax
		a.emit(0xb8, 0x00, 0x43, 0xb2, 0x80, 0xcd, 0x13, 0xc3) // mov ax, 0x4300; mov dl, 0x80; int 0x13; ret
		a.label("packet")
		a.emit(0x10, 0, 1, 0, 0x00, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) // one sector at 0:0x8000
	}
	a.label("text")
	a.emit([]byte(s.Greeting)...)
	a.emit(0)
	code := a.finish(t, origin)
	if len(code) > 510 {
		t.Fatalf("the guest takes %d bytes of a sector's 510", len(code))
	}
	disk := make([]byte, 1<<20) // SeaBIOS wants a disk of a plausible size
	copy(disk, code)
	disk[510], disk[511] = 0x55, 0xaa
	return disk
}

// assembler collects code and the places that refer to labels.
type assembler struct {
	code   []byte
	labels map[string]int
	fixes  []fix
}

type fix struct {
	at    int
	label string
	kind  byte // 'b' relative byte, 'w' relative word, 'a' absolute word
}

func (a *assembler) emit(b ...byte)    { a.code = append(a.code, b...) }
func (a *assembler) label(name string) { a.labels[name] = len(a.code) }
func (a *assembler) word(label string) { a.refer(label, 'a', 2) }
func (a *assembler) call(label string) { a.emit(0xe8); a.refer(label, 'w', 2) }
func (a *assembler) jump(op byte, label string) {
	a.emit(op)
	a.refer(label, 'b', 1)
}

func (a *assembler) refer(label string, kind byte, size int) {
	a.fixes = append(a.fixes, fix{len(a.code), label, kind})
	a.emit(make([]byte, size)...)
}

func (a *assembler) finish(t testing.TB, origin int) []byte {
	for _, f := range a.fixes {
		to, ok := a.labels[f.label]
		if !ok {
			t.Fatalf("the label %s is not defined", f.label)
		}
		switch f.kind {
		case 'b':
			n := to - f.at - 1
			if n < -128 || n > 127 {
				t.Fatalf("the label %s is %d bytes away", f.label, n)
			}
			a.code[f.at] = byte(int8(n))
		case 'w':
			binary.LittleEndian.PutUint16(a.code[f.at:], uint16(int16(to-f.at-2)))
		case 'a':
			binary.LittleEndian.PutUint16(a.code[f.at:], uint16(origin+to))
		}
	}
	return a.code
}
