package agent

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// readISO reads every file of an image as ECMA-119 and Rock Ridge tell a reader to, and
// checks on the way what readers differ in relying on: both byte orders, both path tables.
func readISO(t worldT, img []byte) map[string][]byte {
	t.Helper()
	both := func(b []byte) uint32 {
		v := binary.LittleEndian.Uint32(b)
		if v != binary.BigEndian.Uint32(b[4:]) {
			t.Fatalf("byte orders differ: % x", b[:8])
		}
		return v
	}
	pvd := img[16*2048:]
	if pvd[0] != 1 || string(pvd[1:6]) != "CD001" || img[17*2048] != 255 || int(both(pvd[80:]))*2048 != len(img) {
		t.Fatalf("volume descriptors: % x", pvd[:90])
	}
	files := map[string][]byte{}
	folders := map[uint32]string{} // by sector
	var walk func(path string, sector, size, parent uint32)
	walk = func(path string, sector, size, parent uint32) {
		folders[sector] = path
		dir := img[sector*2048 : sector*2048+size]
		last := ""
		for at, n := 0, 0; at < len(dir); n++ {
			l := int(dir[at])
			if l == 0 { // the rest of the sector is empty
				at = (at/2048 + 1) * 2048
				n--
				continue
			}
			if at/2048 != (at+l-1)/2048 {
				t.Fatal("a record crosses a sector")
			}
			r := dir[at : at+l]
			at += l
			where, length, id := both(r[2:]), both(r[10:]), string(r[33:33+r[32]])
			switch {
			case n == 0 && (id != "\x00" || where != sector), n == 1 && (id != "\x01" || where != parent):
				t.Fatalf("record %d of folder %q is %q at %d", n, path, id, where)
			case n < 2:
				continue
			case id <= last:
				t.Fatalf("%q follows %q", id, last)
			}
			last = id
			use := r[33+int(r[32]):]
			if r[32]%2 == 0 {
				use = use[1:]
			}
			name, px := "", false
			for len(use) >= 4 {
				f := use[:use[2]]
				use = use[use[2]:]
				switch string(f[:2]) {
				case "NM":
					name = string(f[5:])
				case "PX":
					mode := both(f[4:])
					px = mode&0o170000 == map[bool]uint32{true: 0o040000, false: 0o100000}[r[25]&2 != 0]
				}
			}
			if name == "" || !px || !strings.HasPrefix(id, strings.ToUpper(name)) {
				t.Fatalf("record %q: name %q, mode right: %v", id, name, px)
			}
			if r[25]&2 != 0 {
				walk(path+name+"/", where, length, sector)
			} else {
				files[path+name] = img[where*2048 : where*2048+length]
			}
		}
	}
	root := pvd[156:]
	walk("", both(root[2:]), both(root[10:]), both(root[2:]))
	size := both(pvd[132:])
	l := img[binary.LittleEndian.Uint32(pvd[140:])*2048:][:size]
	m := img[binary.BigEndian.Uint32(pvd[148:])*2048:][:size]
	var names []string // of the folders in the table, full
	for len(l) > 0 {
		sector, up := binary.LittleEndian.Uint32(l[2:]), binary.LittleEndian.Uint16(l[6:])
		if sector != binary.BigEndian.Uint32(m[2:]) || up != binary.BigEndian.Uint16(m[6:]) {
			t.Fatal("the path tables differ")
		}
		n := int(l[0])
		name := ""
		if len(names) > 0 {
			name = names[up-1] + string(l[8:8+n]) + "/"
		}
		if path, ok := folders[sector]; !ok || !strings.EqualFold(path, name) {
			t.Fatalf("the path table has %q at %d, the folders %q", name, sector, path)
		}
		names = append(names, name)
		l, m = l[8+n+n%2:], m[8+n+n%2:]
	}
	if len(names) != len(folders) {
		t.Fatalf("%d folders in the path table, %d in the tree", len(names), len(folders))
	}
	return files
}

func TestConfigDrive(t *testing.T) {
	w, a, s, _, alias := two(t)
	img, err := os.ReadFile(filepath.Join(w.dir, "servers", s[0].ID, driveFile))
	if err != nil {
		t.Fatal(err)
	}
	g, _ := w.host.Guest(s[0].ID)
	if d := g.Disks[1]; d.Path != filepath.Join(w.dir, "servers", s[0].ID, driveFile) || !d.ReadOnly || d.Device == "cdrom" || d.Format != "raw" {
		t.Errorf("the drive is the disk %+v", d)
	}
	files := readISO(t, img)
	for path, asked := range map[string]string{
		"openstack/latest/user_data": "/openstack/latest/user_data", "openstack/latest/network_data.json": "/openstack/latest/network_data.json",
		"openstack/latest/vendor_data.json": "/openstack/latest/vendor_data.json", "openstack/2012-08-10/user_data": "/openstack/2012-08-10/user_data",
		"ec2/latest/user-data": "/latest/user-data",
	} {
		if got := ask(a.Agent, alias[0], "GET", asked); files[path] == nil || !bytes.Equal(got.Body.Bytes(), files[path]) {
			t.Errorf("%s: the drive has %q, the service %q", path, files[path], got.Body)
		}
	}
	var drive, service openstackDocument
	if err := json.Unmarshal(files["openstack/latest/meta_data.json"], &drive); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(ask(a.Agent, alias[0], "GET", "/openstack/latest/meta_data.json").Body.Bytes(), &service); err != nil {
		t.Fatal(err)
	}
	// The password is told by the drive alone.
	if drive.AdminPass != "first" || service.AdminPass != "" {
		t.Errorf("the drive tells the password %q, the service %q", drive.AdminPass, service.AdminPass)
	}
	service.RandomSeed, service.AdminPass = drive.RandomSeed, drive.AdminPass
	if x, y := asJSON(t, drive), asJSON(t, service); x != y || drive.RandomSeed == "" {
		t.Errorf("the drive says %s\nthe service %s", x, y)
	}
	var meta map[string]any
	if err := json.Unmarshal(files["ec2/latest/meta-data.json"], &meta); err != nil || meta["local-ipv4"] != "10.0.0.11" {
		t.Errorf("ec2: %v, %v", meta, err)
	}
	for name := range files {
		if strings.Contains(name, "password") || strings.HasPrefix(name, "openstack/2012-08-10/network") {
			t.Errorf("the drive has %s", name)
		}
	}
	if _, err := os.Stat(filepath.Join(w.dir, "servers", s[1].ID, driveFile)); err == nil {
		t.Error("a drive that nobody asked for")
	}
	path := filepath.Join(t.TempDir(), "drive")
	if err := os.WriteFile(path, img, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("blkid", "-p", "-o", "export", path).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "LABEL=config-2\n") || !strings.Contains(string(out), "TYPE=iso9660\n") {
		t.Errorf("blkid: %v: %s", err, out)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Whatever files go into an image come out of it, with the right names and bytes.
func TestISORoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		files := map[string][]byte{}
		name := rapid.StringMatching(`[a-z0-9_-]{1,20}(\.[a-z]{1,4})?`)
		for range rapid.IntRange(0, 40).Draw(t, "files") {
			path := ""
			for range rapid.IntRange(0, 3).Draw(t, "depth") {
				path += rapid.SampledFrom([]string{"LATEST", "2012-08-10+", "D"}).Draw(t, "folder") + "/"
			}
			files[path+name.Draw(t, "name")] = rapid.SliceOfN(rapid.Byte(), 0, 5000).Draw(t, "data")
		}
		img := isoImage("config-2", time.Unix(1e9, 0), files)
		if !bytes.Equal(img, isoImage("config-2", time.Unix(1e9, 0), files)) {
			t.Fatal("the same input gives other bytes")
		}
		got := readISO(t, img)
		if len(got) != len(files) {
			t.Fatalf("%d files of %d", len(got), len(files))
		}
		for p, b := range files {
			if !bytes.Equal(got[p], b) {
				t.Fatalf("%s: %d bytes, want %d", p, len(got[p]), len(b))
			}
		}
	})
}
