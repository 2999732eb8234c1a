package libvirt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// probeDone is what the probe's guest tells QEMU's debug-exit device; QEMU then exits with
// 2*probeDone+1.
const probeDone = 0x2a

// probeSector is a boot sector that does what real guests do: it makes page tables, enters
// long mode, touches 14 MiB of memory, counts to 2^26, and tells the debug-exit device at port
// 0xf4 that it did. Code in real mode alone would not do: some hosts run that by interpreting
// each instruction and then never finish a kernel. GNU as and ld (-Ttext=0x7c00
// --oformat binary) make it from:
//
//	.code16
//	.globl _start
//	_start:
//	cli
//	xorw %ax,%ax
//	movw %ax,%ds
//	movw %ax,%es
//	movw %ax,%ss
//	movw $0x7c00,%sp
//	movw $0x1000,%di
//	movw $0xc00,%cx
//	xorl %eax,%eax
//	cld
//	rep stosl
//	movl $0x2003,0x1000
//	movl $0x3003,0x2000
//	movw $0x3000,%di
//	movl $0x83,%eax
//	movw $8,%cx
//	1: movl %eax,(%di)
//	addl $0x200000,%eax
//	addw $8,%di
//	loop 1b
//	movl $0x1000,%eax
//	movl %eax,%cr3
//	movl %cr4,%eax
//	orb $0x20,%al
//	movl %eax,%cr4
//	movl $0xc0000080,%ecx
//	rdmsr
//	orb $1,%ah
//	wrmsr
//	movl %cr0,%eax
//	orl $0x80000001,%eax
//	movl %eax,%cr0
//	lgdt gdtr
//	ljmp $8,$long
//	.code64
//	long:
//	movl $0x200000,%edi
//	1: movl %edi,(%rdi)
//	addl $0x1000,%edi
//	cmpl $0x1000000,%edi
//	jb 1b
//	movl $0x4000000,%ecx
//	1: decl %ecx
//	jnz 1b
//	movb $0x2a,%al
//	outb %al,$0xf4
//	1: hlt
//	jmp 1b
//	.align 8
//	gdt: .quad 0
//	.quad 0x00209a0000000000
//	gdtr: .word 15
//	.long gdt
var probeSector = []byte{
	0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0xbf, 0x00, 0x10, 0xb9,
	0x00, 0x0c, 0x66, 0x31, 0xc0, 0xfc, 0x66, 0xf3, 0xab, 0x66, 0xc7, 0x06, 0x00, 0x10, 0x03, 0x20,
	0x00, 0x00, 0x66, 0xc7, 0x06, 0x00, 0x20, 0x03, 0x30, 0x00, 0x00, 0xbf, 0x00, 0x30, 0x66, 0xb8,
	0x83, 0x00, 0x00, 0x00, 0xb9, 0x08, 0x00, 0x66, 0x89, 0x05, 0x66, 0x05, 0x00, 0x00, 0x20, 0x00,
	0x83, 0xc7, 0x08, 0xe2, 0xf2, 0x66, 0xb8, 0x00, 0x10, 0x00, 0x00, 0x0f, 0x22, 0xd8, 0x0f, 0x20,
	0xe0, 0x0c, 0x20, 0x0f, 0x22, 0xe0, 0x66, 0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32, 0x80, 0xcc,
	0x01, 0x0f, 0x30, 0x0f, 0x20, 0xc0, 0x66, 0x0d, 0x01, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0, 0x0f,
	0x01, 0x16, 0xb0, 0x7c, 0xea, 0x79, 0x7c, 0x08, 0x00, 0xbf, 0x00, 0x00, 0x20, 0x00, 0x89, 0x3f,
	0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, 0x81, 0xff, 0x00, 0x00, 0x00, 0x01, 0x72, 0xf0, 0xb9, 0x00,
	0x00, 0x00, 0x04, 0xff, 0xc9, 0x75, 0xfc, 0xb0, 0x2a, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd, 0x66, 0x90,
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x9a, 0x20, 0x00,
	0x0f, 0x00, 0xa0, 0x7c, 0x00, 0x00,
}

// ProbeKVM tells why guests cannot use hardware virtualisation here, nil if they can. It
// really starts a guest and waits until the guest has run: on some hosts, those that are
// guests themselves above all, /dev/kvm is there, opens, and then hangs or crawls. The probe
// takes a second where KVM works, and until ctx ends (give it some 10 s) where it does not.
func ProbeKVM(ctx context.Context, emulator string) error {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("no hardware virtualisation: %w", err)
	}
	f.Close()
	return probe(ctx, emulator, "kvm")
}

// probe boots the probe's guest by the firmware that real guests use.
func probe(ctx context.Context, emulator, accelerator string) error {
	dir, err := os.MkdirTemp("", "yakumo-probe-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	sector := make([]byte, 1<<20) // SeaBIOS does not boot from a disk of one sector
	copy(sector, probeSector)
	sector[510], sector[511] = 0x55, 0xaa
	disk := filepath.Join(dir, "disk")
	if err := os.WriteFile(disk, sector, 0o600); err != nil {
		return err
	}
	said := &firstBytes{}
	cmd := exec.Command(emulator, "-accel", accelerator, "-machine", "q35", "-m", "32", "-display", "none",
		"-nodefaults", "-no-user-config", "-no-reboot",
		"-device", "isa-debug-exit,iobase=0xf4,iosize=1",
		"-drive", "file="+disk+",format=raw,if=virtio,readonly=on")
	cmd.Stderr = said
	// A QEMU that hangs in the kernel outlives its kill for a while; nothing may wait for it.
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", emulator, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == 2*probeDone+1 {
			return nil
		}
		return fmt.Errorf("a guest under %s did not run: %v: %s", accelerator, err, said.text)
	case <-ctx.Done():
		cmd.Process.Kill()
		return fmt.Errorf("a guest under %s did not run in time: %w", accelerator, ctx.Err())
	}
}

// firstBytes keeps the first bytes of what a program complains about.
type firstBytes struct{ text []byte }

func (t *firstBytes) Write(p []byte) (int, error) {
	t.text = append(t.text, p[:min(len(p), 1024-len(t.text))]...)
	return len(p), nil
}
