package libvirttest

import (
	"encoding/binary"
	"os"
	"testing"
)

// EFI describes a guest of 261 bytes that a UEFI firmware starts, and no other: a program on a FAT file system, as EFI/BOOT/BOOTX64.EFI. At each
// start it adds one to a variable that the firmware keeps, writes "UEFI, start 1" (2, 3 … 9) to the first serial port, echoes what comes there, and powers the
// machine off at its power button. It is not signed.
type EFI struct{}

// efiProgram does so. Only the firmware's timer interrupts it. GNU as and ld (-Ttext=0x1000 --oformat binary) make it from:
//
//	.code64
//	.globl _start
//	_start:
//	subq $72, %rsp
//	movq 88(%rdx), %rbx          # EFI_SYSTEM_TABLE.RuntimeServices
//	movq $1, 56(%rsp)            # DataSize
//	movb $0, 48(%rsp)            # Data
//	leaq name(%rip), %rcx
//	leaq guid(%rip), %rdx
//	xorl %r8d, %r8d
//	leaq 56(%rsp), %r9
//	leaq 48(%rsp), %rax
//	movq %rax, 32(%rsp)
//	call *72(%rbx)               # GetVariable
//	incb 48(%rsp)
//	leaq name(%rip), %rcx
//	leaq guid(%rip), %rdx
//	movl $7, %r8d                # non-volatile, at boot, at run time
//	movl $1, %r9d
//	leaq 48(%rsp), %rax
//	movq %rax, 32(%rsp)
//	call *88(%rbx)               # SetVariable
//	movb 48(%rsp), %al
//	addb $48, %al
//	movb %al, digit(%rip)
//	movl $0x602, %edx            # PM1 enable: power button
//	movl $0x100, %eax
//	outw %ax, %dx
//	leaq text(%rip), %rsi
//	1:	lodsb
//	testb %al, %al
//	jz loop
//	call putc
//	jmp 1b
//	loop:
//	movl $0x600, %edx            # PM1 status
//	inw %dx, %ax
//	testb $1, %ah
//	jnz off
//	movl $0x3fd, %edx
//	inb %dx, %al
//	testb $1, %al
//	jnz 2f
//	hlt                          # the firmware's timer wakes it
//	jmp loop
//	2:	movl $0x3f8, %edx
//	inb %dx, %al
//	call putc
//	jmp loop
//	off:
//	movl $0x604, %edx            # PM1 control: sleep enable, type 0
//	movl $0x2000, %eax
//	outw %ax, %dx
//	3:	hlt
//	jmp 3b
//	putc:
//	movb %al, %cl
//	movl $0x3fd, %edx
//	4:	inb %dx, %al
//	testb $0x20, %al
//	jz 4b
//	movb %cl, %al
//	movl $0x3f8, %edx
//	outb %al, %dx
//	ret
//	guid:	.quad 0x11111111591a4b55, 0x2222222222222222
//	name:	.short 'B', 'o', 'o', 't', 's', 0
//	text:	.ascii "UEFI, start "
//	digit:	.asciz "0\r\n"
var efiProgram = []byte{
	0x48, 0x83, 0xec, 0x48, 0x48, 0x8b, 0x5a, 0x58, 0x48, 0xc7, 0x44, 0x24, 0x38, 0x01, 0x00, 0x00,
	0x00, 0xc6, 0x44, 0x24, 0x30, 0x00, 0x48, 0x8d, 0x0d, 0xcc, 0x00, 0x00, 0x00, 0x48, 0x8d, 0x15,
	0xb5, 0x00, 0x00, 0x00, 0x45, 0x31, 0xc0, 0x4c, 0x8d, 0x4c, 0x24, 0x38, 0x48, 0x8d, 0x44, 0x24,
	0x30, 0x48, 0x89, 0x44, 0x24, 0x20, 0xff, 0x53, 0x48, 0xfe, 0x44, 0x24, 0x30, 0x48, 0x8d, 0x0d,
	0xa5, 0x00, 0x00, 0x00, 0x48, 0x8d, 0x15, 0x8e, 0x00, 0x00, 0x00, 0x41, 0xb8, 0x07, 0x00, 0x00,
	0x00, 0x41, 0xb9, 0x01, 0x00, 0x00, 0x00, 0x48, 0x8d, 0x44, 0x24, 0x30, 0x48, 0x89, 0x44, 0x24,
	0x20, 0xff, 0x53, 0x58, 0x8a, 0x44, 0x24, 0x30, 0x04, 0x30, 0x88, 0x05, 0x91, 0x00, 0x00, 0x00,
	0xba, 0x02, 0x06, 0x00, 0x00, 0xb8, 0x00, 0x01, 0x00, 0x00, 0x66, 0xef, 0x48, 0x8d, 0x35, 0x72,
	0x00, 0x00, 0x00, 0xac, 0x84, 0xc0, 0x74, 0x07, 0xe8, 0x37, 0x00, 0x00, 0x00, 0xeb, 0xf4, 0xba,
	0x00, 0x06, 0x00, 0x00, 0x66, 0xed, 0xf6, 0xc4, 0x01, 0x75, 0x1a, 0xba, 0xfd, 0x03, 0x00, 0x00,
	0xec, 0xa8, 0x01, 0x75, 0x03, 0xf4, 0xeb, 0xe7, 0xba, 0xf8, 0x03, 0x00, 0x00, 0xec, 0xe8, 0x11,
	0x00, 0x00, 0x00, 0xeb, 0xda, 0xba, 0x04, 0x06, 0x00, 0x00, 0xb8, 0x00, 0x20, 0x00, 0x00, 0x66,
	0xef, 0xf4, 0xeb, 0xfd, 0x88, 0xc1, 0xba, 0xfd, 0x03, 0x00, 0x00, 0xec, 0xa8, 0x20, 0x74, 0xfb,
	0x88, 0xc8, 0xba, 0xf8, 0x03, 0x00, 0x00, 0xee, 0xc3, 0x55, 0x4b, 0x1a, 0x59, 0x11, 0x11, 0x11,
	0x11, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x42, 0x00, 0x6f, 0x00, 0x6f, 0x00, 0x74,
	0x00, 0x73, 0x00, 0x00, 0x00, 0x55, 0x45, 0x46, 0x49, 0x2c, 0x20, 0x73, 0x74, 0x61, 0x72, 0x74,
	0x20, 0x30, 0x0d, 0x0a, 0x00,
}

// WriteDisk writes the guest's disk, a raw image.
func (EFI) WriteDisk(t testing.TB, path string) {
	t.Helper()
	if err := os.WriteFile(path, fat12(peImage(efiProgram)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// peImage makes a program of code that runs wherever it is: one section, without relocations (PE format, "PE32+").
func peImage(code []byte) []byte {
	const header, page, file = 64, 0x1000, 0x200
	le := binary.LittleEndian
	b := make([]byte, 2*file)
	copy(b, "MZ")
	le.PutUint32(b[60:], header)
	copy(b[header:], "PE\x00\x00")
	coff := b[header+4:]
	le.PutUint16(coff[0:], 0x8664)
	le.PutUint16(coff[2:], 1)     // section
	le.PutUint16(coff[16:], 0xf0) // size of the optional header
	le.PutUint16(coff[18:], 0x22) // executable, large addresses
	opt := coff[20:]
	le.PutUint16(opt[0:], 0x20b)
	le.PutUint32(opt[4:], file)  // size of the code
	le.PutUint32(opt[16:], page) // entry
	le.PutUint32(opt[20:], page) // base of the code
	le.PutUint32(opt[32:], page) // alignment of sections
	le.PutUint32(opt[36:], file) // in the file
	le.PutUint32(opt[56:], 2*page)
	le.PutUint32(opt[60:], file) // size of the headers
	le.PutUint16(opt[68:], 10)   // an EFI application
	le.PutUint32(opt[108:], 16)  // directories, all empty
	section := opt[0xf0:]
	copy(section, ".text")
	le.PutUint32(section[8:], uint32(len(code)))
	le.PutUint32(section[12:], page)
	le.PutUint32(section[16:], file)
	le.PutUint32(section[20:], file)
	le.PutUint32(section[36:], 0xe0000020) // code that may be read, written and executed
	copy(b[file:], code)
	return b
}

// fat12 makes a disk of 1 MiB with a file system and a program of 1 KiB in it.
func fat12(program []byte) []byte {
	const sector, sectors, table, roots = 512, 2048, 6, 16
	le := binary.LittleEndian
	b := make([]byte, sector*sectors)
	copy(b, "\xeb\x3c\x90YAKUMO  ")
	le.PutUint16(b[11:], sector)
	b[13] = 1 // sector a cluster
	le.PutUint16(b[14:], 1)
	b[16] = 1 // table
	le.PutUint16(b[17:], roots)
	le.PutUint16(b[19:], sectors)
	b[21] = 0xf8
	le.PutUint16(b[22:], table)
	b[38] = 0x29
	copy(b[43:], "NO NAME    FAT12   ")
	b[510], b[511] = 0x55, 0xaa
	// Entries of 12 bits: the media, the end, and the clusters 2 (EFI), 3 (BOOT), 4 and 5 (the program).
	copy(b[sector:], []byte{0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0x05, 0xf0, 0xff})
	entry := func(at int, name string, attribute byte, cluster, size int) {
		copy(b[at:], name)
		b[at+11] = attribute
		le.PutUint16(b[at+26:], uint16(cluster))
		le.PutUint32(b[at+28:], uint32(size))
	}
	root := sector * (1 + table)
	cluster := func(n int) int { return root + roots*32 + (n-2)*sector }
	const folder = 0x10
	entry(root, "EFI        ", folder, 2, 0)
	entry(cluster(2), ".          ", folder, 2, 0)
	entry(cluster(2)+32, "..         ", folder, 0, 0)
	entry(cluster(2)+64, "BOOT       ", folder, 3, 0)
	entry(cluster(3), ".          ", folder, 3, 0)
	entry(cluster(3)+32, "..         ", folder, 2, 0)
	entry(cluster(3)+64, "BOOTX64 EFI", 0, 4, len(program))
	copy(b[cluster(4):], program)
	return b
}
