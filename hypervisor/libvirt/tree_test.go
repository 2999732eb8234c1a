package libvirt

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"

	"yakumo/hypervisor"
)

// TestElsewhereKeepsTheMachine: what libvirt chose for a running guest stays, what is of the host changes.
func TestElsewhereKeepsTheMachine(t *testing.T) {
	const running = `<domain type="qemu"><name>yk-g</name><title>old</title><metadata><yk:guest xmlns:yk="urn:yakumo:guest:1" digest="x"/></metadata>
<os><type machine="pc-q35-7.2">hvm</type></os><devices><emulator>/usr/bin/q</emulator>
<disk type="file" device="disk"><source file="/a/root"/><backingStore type="file"><source file="/a/base"/></backingStore><target dev="vda" bus="virtio"/><serial>root</serial><address type="pci" slot="0x07"/></disk>
<disk type="file" device="disk"><source file="/a/vol"/><target dev="vdc" bus="virtio"/><serial>vol</serial><address type="pci" slot="0x09"/></disk>
<interface type="ethernet"><mac address="FA:16:3e:00:00:01"/><target dev="tapa"/><address type="pci" slot="0x01"/></interface>
<serial type="pty"><log file="/a/log" append="on"/><target type="isa-serial"/></serial><console type="pty"><log file="/a/log" append="on"/></console></devices></domain>`
	g := hypervisor.Guest{ID: "00000000-0000-4000-8000-000000000001", Name: "yk-g", Title: "new & <better>", VCPUs: 1, MemoryMiB: 64, ConsoleLog: "/b/log",
		Disks: []hypervisor.Disk{{Path: "/b/vol", Format: "raw", Serial: "vol"}, {Path: "/b/root", Format: "qcow2", Serial: "root"}},
		NICs:  []hypervisor.NIC{{ID: "p", MAC: "fa:16:3e:00:00:01", Tap: "tapb"}}}
	there, digest, err := definition(g, platform{accelerator: "tcg"})
	if err != nil {
		t.Fatal(err)
	}
	text, targets, err := elsewhere(running, there, []string{"root"})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(targets, []string{"vda"}) {
		t.Errorf("disks to be copied: %v", targets)
	}
	for _, want := range []string{"pc-q35-7.2", `slot="0x07"`, `slot="0x09"`, `slot="0x01"`, `dev="vdc"`, "/b/root", "/b/vol", "tapb", "/b/log", digest, "new &amp; &lt;better&gt;", metadataNS} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is lost", want)
		}
	}
	for _, not := range []string{"/a/", "tapa", "backingStore", "old"} {
		if strings.Contains(text, not) {
			t.Errorf("%s has stayed", not)
		}
	}
	again, err := parseTree(text)
	if err != nil || again.String() != text {
		t.Errorf("what was written is not what is read: %v", err)
	}
	if _, _, err := elsewhere(running, there, []string{"other"}); err == nil {
		t.Error("a disk that is not there is to be copied")
	}
	g.Disks = g.Disks[1:]
	fewer, _, err := definition(g, platform{accelerator: "tcg"})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := elsewhere(running, fewer, nil); err == nil {
		t.Error("a disk is lost on the way")
	}
	for _, bad := range []string{"", "<a>", "<a></b>", "x"} {
		if _, err := parseTree(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func FuzzTree(f *testing.F) {
	f.Add(`<domain type="x"><a b="1">t</a><yk:g xmlns:yk="urn:y"/></domain>`)
	f.Fuzz(func(t *testing.T, in string) {
		n, err := parseTree(in)
		if err != nil {
			return
		}
		n.first("a").first("b").attr("c")
		_ = n.String()
	})
}

func TestParamsAreWhatIsRead(t *testing.T) {
	e := new(encoder).params(new(params).str("name", "value").ullong("n", 1<<40))
	d := decoder{buf: e.buf}
	n := d.numbers()
	if d.err != nil || len(d.buf) != 0 || len(n) != 2 || n["n"] != 1<<40 {
		t.Errorf("%v, %v, %d bytes left", n, d.err, len(d.buf))
	}
}

type sink struct{ io.ReadWriteCloser }

func (sink) Write(b []byte) (int, error) { return len(b), nil }

// TestFinishIsHeard: however the bytes come, a call without an answer is noticed.
func TestFinishIsHeard(t *testing.T) {
	call := func(proc int32, kind, serial uint32, size int) []byte {
		return appendFrame(nil, header{prog: progRemote, vers: 1, proc: proc, kind: kind, serial: serial}, make([]byte, size))
	}
	for step := 1; step < 70; step++ {
		f := &finish{serials: map[uint32]bool{}}
		feed := func(w io.Writer, frames ...[]byte) {
			for part := range slices.Chunk(bytes.Join(frames, nil), step) {
				w.Write(part)
			}
		}
		out, back := f.listen(sink{}), f.listen(sink{})
		feed(out, call(1, kindCall, 1, 0), call(305, kindCall, 2, 900))
		feed(back, call(1, kindReply, 1, 4), call(305, kindReply, 2, 0))
		if f.uncertain() {
			t.Fatalf("in steps of %d: other calls are taken for it", step)
		}
		feed(out, call(procMigrateFinish3, kindCall, 3, 120))
		if !f.uncertain() {
			t.Fatalf("in steps of %d: the call was not heard", step)
		}
		feed(back, call(procMigrateFinish3, kindReply, 3, 60))
		if f.uncertain() {
			t.Fatalf("in steps of %d: the answer was not heard", step)
		}
	}
}
