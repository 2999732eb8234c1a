package libvirt

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Daemon describes a libvirtd of its own, beside any other on the machine: a test's, or a
// lab host's. libvirt's system daemon cannot be told other folders than its own; so it is
// started in a mount namespace where private folders are mounted over them. What that takes:
//
//   - a mount namespace whose mounts do not propagate (unshare -m makes one);
//   - run, lib, etc, cache and log folders of its own, mounted over libvirt's. Where a mount
//     point is missing, as on a machine without the distribution's libvirt service, it is made
//     in a tmpfs that stands, in this namespace only, for the folder above it and links to all
//     that is there: the machine itself is left as it is;
//   - a PID file in them, as the default one in /run lets only one libvirtd live;
//   - a host_uuid of its own, since two hosts of one UUID cannot migrate to each other;
//   - stdio_handler "file": no virtlogd; security_driver "none", user root, cgroup_controllers
//     and namespaces empty, dynamic_ownership and remember_owner off: no SELinux or AppArmor, no
//     systemd or D-Bus, and files that stay as their maker left them. This takes a guest's
//     escape from QEMU straight to root: for labs and tests only;
//   - a user and a group libvirt-qemu, which Debian's libvirtd looks up before it reads that it
//     is to use others: where they are missing, copies of passwd and group that have them are
//     mounted over the machine's.
//
// libvirtd waits for the end of a QEMU until its number is free. QEMU leaves libvirtd when it
// starts, so that is when process 1 has waited for it: at once with systemd, seconds later
// with some containers' process 1, at each stop of a guest and four times when libvirtd first
// looks at what QEMU can do. Where that may be, the starter calls ReapGuests before it starts
// libvirtd.
//
// A network namespace is the starter's business: prefix Command with "nsenter --net=/run/netns/NAME".
type Daemon struct {
	Dir      string // an absolute folder of its own; all its files are below it
	HostUUID string
	// Containers has it run containers too. That takes control groups (cgroups(7)), which a machine in namespaces, and "ip netns exec",
	// hide with the rest of /sys: they are mounted again. Where both versions are, the second is taken out of libvirt's sight,
	// as libvirt_lxc (9.0) fails to bring both into a container.
	Containers bool
}

// containerMounts is the shell script that makes control groups and /proc be there as libvirt's LXC driver takes them: a user namespace gets
// no /proc of its own where all that are there are covered in parts (mount_too_revealing of the kernel). Each hierarchy of version 1 is
// a mount, named by its controllers or, where it has none, by itself (cgroups(7), /proc/[pid]/cgroup).
const containerMounts = `at=/sys/fs/cgroup
if [ -z "$(ls $at)" ]; then
  sets=$(grep -v ^0: /proc/self/cgroup | cut -d: -f2)
  if [ -z "$sets" ]; then mount -t cgroup2 cgroup2 $at; else
    mount -t tmpfs -o mode=755 cgroup $at
    for set in $sets; do
      case $set in name=*) dir=$at/${set#name=}; opts=none,$set;; *) dir=$at/$set; opts=$set;; esac
      mkdir $dir; mount -t cgroup -o $opts cgroup $dir
      for one in $(echo ${set#name=} | tr , ' '); do [ -e $at/$one ] || ln -s $set $at/$one; done
    done
  fi
elif [ -d $at/unified ]; then umount $at/unified; fi
if grep -q ' /proc/' /proc/self/mountinfo; then mount -t proc proc /proc; fi
`

// daemonFolders maps the daemon's own folders to where libvirtd looks for them.
var daemonFolders = []struct{ own, mount string }{
	{"run", "/run/libvirt"}, {"lib", "/var/lib/libvirt"}, {"etc", "/etc/libvirt"},
	{"cache", "/var/cache/libvirt"}, {"log", "/var/log/libvirt"},
}

// WriteConfig makes the folders and writes libvirtd.conf and qemu.conf. It can be repeated.
func (d Daemon) WriteConfig() error {
	for _, f := range daemonFolders {
		if err := os.MkdirAll(filepath.Join(d.Dir, f.own), 0o755); err != nil {
			return fmt.Errorf("prepare libvirtd in %s: %w", d.Dir, err)
		}
	}
	files := map[string]string{
		"libvirtd.conf": fmt.Sprintf(`host_uuid = %q
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_rw_perms = "0700"
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
`, d.HostUUID),
		"qemu.conf": `user = "root"
group = "root"
stdio_handler = "file"
security_driver = "none"
cgroup_controllers = []
namespaces = []
dynamic_ownership = 0
remember_owner = 0
`,
	}
	for _, name := range []string{"passwd", "group"} {
		text, err := os.ReadFile("/etc/" + name)
		if err != nil {
			return fmt.Errorf("prepare libvirtd in %s: %w", d.Dir, err)
		}
		files[name] = withAccount(string(text), accounts[name])
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(d.Dir, "etc", name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("prepare libvirtd in %s: %w", d.Dir, err)
		}
	}
	return nil
}

// accounts are the lines that passwd and group need; the numbers are those that Debian's
// libvirt service reserves.
var accounts = map[string]string{
	"passwd": "libvirt-qemu:x:64055:64055:Libvirt Qemu,,,:/var/lib/libvirt:/usr/sbin/nologin",
	"group":  "libvirt-qemu:x:64055:",
}

// withAccount gives the text of a passwd or group file with the line, unless its name is there.
func withAccount(text, line string) string {
	name, _, _ := strings.Cut(line, ":")
	if strings.HasPrefix(text, name+":") || strings.Contains(text, "\n"+name+":") {
		return text
	}
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return text + line + "\n"
}

// Command gives the arguments of the process that becomes libvirtd (its number is libvirtd's).
// It must run as root.
func (d Daemon) Command() []string {
	var script strings.Builder
	script.WriteString("set -e; ")
	if d.Containers {
		script.WriteString(containerMounts)
	}
	for i, f := range daemonFolders {
		above, aside := filepath.Dir(f.mount), filepath.Join(d.Dir, fmt.Sprintf("aside%d", i))
		fmt.Fprintf(&script, "if ! [ -d %[1]s ]; then mkdir -p %[2]s; mount --bind %[3]s %[2]s; mount -t tmpfs -o mode=755 yakumo %[3]s; "+
			"find %[2]s -mindepth 1 -maxdepth 1 -exec ln -s -t %[3]s {} +; mkdir %[1]s; fi; ", quote(f.mount), quote(aside), quote(above))
		fmt.Fprintf(&script, "mount --bind %s %s; ", quote(filepath.Join(d.Dir, f.own)), quote(f.mount))
	}
	for name := range accounts {
		fmt.Fprintf(&script, "mount --bind %s /etc/%s; ", quote(filepath.Join(d.Dir, "etc", name)), name)
	}
	script.WriteString("exec libvirtd --pid-file /run/libvirt/libvirtd.pid")
	return []string{"unshare", "-m", "--propagation", "private", "sh", "-c", script.String()}
}

// SocketPath is where the daemon listens.
func (d Daemon) SocketPath() string { return filepath.Join(d.Dir, "run", "libvirt-sock") }

// PIDFile is where the process of a running guest with the given domain name stands.
func (d Daemon) PIDFile(name string) string {
	return filepath.Join(d.Dir, "run", "qemu", name+".pid")
}

// ContainerPIDFile is where the process of libvirt's that holds a running container with the given domain name stands.
func (d Daemon) ContainerPIDFile(name string) string {
	return filepath.Join(d.Dir, "run", "lxc", name+".pid")
}

// quote makes s one word of the shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
