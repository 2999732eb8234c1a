#!/usr/bin/env bash
# Makes the guest image yakumo-mini from Debian's packages: images/mini/build.sh OUT.qcow2 [PROGRAM...]
#
# Programs that are named are installed besides, with their libraries, as for a test that needs keepalived in guests.
#
# No mounts and no loop devices: file systems are filled by mke2fs -d and mcopy. Files get one fixed date and the file
# systems fixed ids, so that the same packages and sources give the same bytes. Nothing is done when OUT was made from
# the same inputs (their hash stands in OUT.inputs). YAKUMO_MINI_FORCE=1 builds regardless.
set -euo pipefail

[ $# -ge 1 ] || { echo "usage: $0 OUT.qcow2 [PROGRAM...]" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$(dirname "$1")"
out=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
extra=("${@:2}")
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:${PATH:-} LC_ALL=C
umask 022

packages=(
  busybox-static bash dash dropbear-bin openssh-client openssh-sftp-server curl ca-certificates ncat netcat-openbsd iperf3 tcpdump
  iputils-ping iproute2 util-linux e2fsprogs kmod syslinux syslinux-common systemd-boot-efi
)
# Everything that the image holds: the programs, each installed as usr/bin/NAME with the libraries it is linked to.
programs=(
  bash dash dropbear dropbearkey dbclient scp curl ncat nc.openbsd iperf3 tcpdump ping ip tc bridge ss lsblk blkid mke2fs resize2fs e2fsck "${extra[@]}"
)
# Modules that a guest may need, with what they depend on. The first line is for the initial RAM disk.
boot_modules=(virtio_pci virtio_blk virtio_scsi sd_mod)
modules=(
  virtio_net virtio_rng virtio_balloon virtio_console sr_mod isofs vfat nls_ascii nls_cp437 nls_utf8 button evdev
  8021q tun bridge veth dummy vxlan qemu_fw_cfg i6300esb loop xfs
)

kernel=$(for k in /lib/modules/*-cloud-amd64; do [ -e "/boot/vmlinuz-${k##*/}" ] && echo "${k##*/}"; done | sort -V | tail -n 1)
[ -n "$kernel" ] || { echo "$0: the package linux-image-cloud-amd64 is not installed" >&2; exit 1; }

inputs=$({
  (cd "$here" && find . -type f ! -name '*_test.go' -print0 | sort -z | xargs -0 sha256sum)
  dpkg-query -W -f='${Package} ${Version}\n' "${packages[@]}" "linux-image-$kernel" libc6 libssl3 libcurl4
  for p in "${extra[@]}"; do echo "$p" && sha256sum "$(type -P "$p")"; done
  go version
} | sha256sum | cut -d' ' -f1)
if [ -s "$out" ] && [ "$(cat "$out.inputs" 2>/dev/null)" = "$inputs" ] && [ -z "${YAKUMO_MINI_FORCE:-}" ]; then
  exit 0
fi

work=$(mktemp -d "$out.XXXXXX")
trap 'rm -rf "$work"' EXIT
date=1700000000 # of every file
root=$work/root

mkdir -p "$root"/usr/{bin,lib,lib64} "$root"/{boot,dev,proc,sys,run,tmp,mnt,media,root,home/cirros,opt} \
  "$root"/etc/dropbear "$root"/var/{lib/yakumo,log,tmp,spool/cron/crontabs,www} "$root"/usr/share
for d in bin sbin; do ln -s usr/bin "$root/$d"; done
for d in lib lib64; do ln -s usr/$d "$root/$d"; done
ln -s bin "$root/usr/sbin"
ln -s ../run "$root/var/run"
ln -s /run/resolv.conf "$root/etc/resolv.conf"
ln -s /proc/mounts "$root/etc/mtab"
cp -R "$here/root/." "$root/"
chmod 755 "$root"/etc/init.d/* "$root/etc/udhcpc.script" "$root"/etc/acpi/PWRF/*
chmod 600 "$root/etc/shadow"
chmod 700 "$root/root"

# install_program FILE [NAME]: the program and the libraries that the loader would give it.
install_program() {
  local file=$1 name=${2:-${1##*/}} lib
  cp -L "$file" "$root/usr/bin/$name"
  chmod 755 "$root/usr/bin/$name"
  for lib in $(ldd "$file" 2>/dev/null | grep -o '/[^ ]*'); do
    case $lib in
    */ld-linux-*) [ -e "$root/usr/lib64/${lib##*/}" ] || cp -L "$lib" "$root/usr/lib64/" ;;
    *) [ -e "$root/usr/lib/x86_64-linux-gnu/${lib##*/}" ] || install -D -m 644 "$lib" "$root/usr/lib/x86_64-linux-gnu/${lib##*/}" ;;
    esac
  done
}
for p in "${programs[@]}"; do
  file=$(type -P "$p") || { echo "$0: no program $p; scripts/deps.sh installs what is missing" >&2; exit 1; }
  install_program "$file"
done
install_program /usr/lib/openssh/sftp-server
ln -s ../bin/sftp-server "$root/usr/lib/sftp-server"
ln -s dash "$root/usr/bin/sh" # busybox's shell would run its own ip and ping instead of the real ones
for t in d/dumb l/linux s/screen v/vt100 v/vt220 x/xterm x/xterm-256color; do
  install -D -m 644 "/lib/terminfo/$t" "$root/usr/lib/terminfo/$t"
done
ln -s dbclient "$root/usr/bin/ssh"
ln -s mke2fs "$root/usr/bin/mkfs.ext4"
ln -s mke2fs "$root/usr/bin/mkfs.ext3"
ln -s mke2fs "$root/usr/bin/mkfs.ext2"
ln -s ip "$root/usr/bin/iproute2"
cp /etc/mke2fs.conf "$root/etc/"
cp -R /etc/iproute2 "$root/etc/"
install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
for lib in libgcc_s.so.1; do # for pthread_cancel, loaded at run time
  cp -L "/lib/x86_64-linux-gnu/$lib" "$root/usr/lib/x86_64-linux-gnu/"
done
cp /bin/busybox "$root/usr/bin/busybox"
for a in $(busybox --list); do
  case $a in busybox | dpkg | dpkg-deb | rpm | rpm2cpio | wget) continue ;; esac # Debian's busybox wget crashes
  [ -e "$root/usr/bin/$a" ] || ln -s busybox "$root/usr/bin/$a"
done
ln -sf busybox "$root/usr/bin/init"

# The cache lives outside the image: a build that changes only a script need not compile.
for c in guest sudo; do
  (cd "$here" && CGO_ENABLED=0 GOFLAGS= go build -trimpath -buildvcs=false -ldflags '-s -w -buildid=' -o "$work/$c" "./$c")
done
install -m 755 "$work/guest" "$root/usr/bin/yakumo-guest"
install -m 755 "$work/sudo" "$root/usr/bin/sudo"
ln -s yakumo-guest "$root/usr/bin/probe"
ln -s ping "$root/usr/bin/ping4"
ln -sf ping "$root/usr/bin/ping6"

# module_files NAME...: files of the modules and of what they need, in the order of loading.
module_files() {
  local m
  for m in "$@"; do
    modprobe -S "$kernel" -d / -D "$m" 2>/dev/null | awk '$1 == "insmod" {print $2}'
  done | awk '!seen[$0]++'
}
for f in $(module_files "${boot_modules[@]}" "${modules[@]}"); do
  install -D -m 644 "$f" "$root/usr/lib/modules/$kernel/kernel/${f##*/}"
done
cp /lib/modules/"$kernel"/modules.builtin{,.modinfo} /lib/modules/"$kernel"/modules.order "$root/usr/lib/modules/$kernel/"
depmod -b "$root/usr" "$kernel" 2>/dev/null || depmod -b "$root" "$kernel"
rm -f "$root/usr/lib/modules/$kernel"/*.bin "$root/usr/lib/modules/$kernel"/modules.{builtin*,order,softdep,devname}

# The initial RAM disk: busybox, the disk drivers and early-init.
initrd=$work/initrd
mkdir -p "$initrd"/{bin,dev,proc,sys,root,modules}
cp /bin/busybox "$initrd/bin/"
install -m 755 "$here/early-init" "$initrd/init"
for f in $(module_files "${boot_modules[@]}"); do
  cp "$f" "$initrd/modules/"
  echo "${f##*/}"
done >"$initrd/modules/order"
find "$root" "$initrd" -exec touch -h -d @$date {} +
(cd "$initrd" && find . | sort | cpio -o -H newc --quiet --reproducible) | zstd -q -19 >"$work/initrd.zst"
chown -R 0:0 "$root"
chown -R 1000:1000 "$root/home/cirros"
chmod 4755 "$root/usr/bin/sudo" "$root/usr/bin/ping" # after chown, which clears the bit

# The disk: a FAT partition for the boot loader, then the root, which grows at boot. Sizes in MiB.
boot=20 size=$((112 + 32 * (${#extra[@]} > 0)))
options="console=tty0 console=ttyS0,115200 quiet panic=10 no_timer_check mitigations=off random.trust_cpu=on"
cat >"$work/syslinux.cfg" <<CFG
DEFAULT mini
PROMPT 0
TIMEOUT 0
LABEL mini
  KERNEL /vmlinuz
  INITRD /initrd.zst
  APPEND $options
CFG
cp "/boot/vmlinuz-$kernel" "$work/vmlinuz"
touch -d @$date "$work"/{vmlinuz,initrd.zst,syslinux.cfg}
export SOURCE_DATE_EPOCH=$date MTOOLS_SKIP_CHECK=1
truncate -s ${boot}M "$work/boot.fat"
mkfs.vfat -F 16 --invariant -i 59414b55 "$work/boot.fat" >/dev/null
mcopy -m -i "$work/boot.fat" "$work/vmlinuz" "$work/initrd.zst" "$work/syslinux.cfg" ::/
syslinux --install "$work/boot.fat"
# The same for UEFI, which looks for EFI/BOOT/BOOTX64.EFI; syslinux's own crashes on some machines.
mkdir -p "$work"/esp/{EFI/BOOT,loader/entries}
cp /usr/lib/systemd/boot/efi/systemd-bootx64.efi "$work/esp/EFI/BOOT/BOOTX64.EFI"
echo "timeout 0" >"$work/esp/loader/loader.conf"
printf 'title mini\nlinux /vmlinuz\ninitrd /initrd.zst\noptions %s\n' "$options" >"$work/esp/loader/entries/mini.conf"
find "$work/esp" -exec touch -d @$date {} +
mcopy -s -m -i "$work/boot.fat" "$work"/esp/* ::/
E2FSPROGS_FAKE_TIME=$date mke2fs -q -t ext4 -b 4096 -i 16384 -m 0 -J size=4 -L yakumo-mini -U 59414b55-4d55-4d49-4e49-000000000001 \
  -E hash_seed=59414b55-4d55-4d49-4e49-000000000002,lazy_itable_init=0,nodiscard,root_owner=0:0 \
  -d "$root" "$work/root.ext4" $((size - boot - 1))M >/dev/null
# mke2fs takes the times of change and access from the files, where no program can set the former.
(cd "$root" && find . | sed "s|^\\.|/|; s|//|/|" | awk -v d=@$date '{
  for (i = split("ctime atime mtime crtime", f); i; i--) {
    printf "set_inode_field \"%s\" %s %s\nset_inode_field \"%s\" %s_extra 0\n", $0, f[i], d, $0, f[i]
  }
}') >"$work/times"
E2FSPROGS_FAKE_TIME=$date debugfs -w -f "$work/times" "$work/root.ext4" >/dev/null 2>"$work/debugfs.log"
grep -v '^debugfs ' "$work/debugfs.log" >&2 && exit 1
truncate -s ${size}M "$work/disk.raw"
sfdisk -q "$work/disk.raw" <<PARTS
label: dos
label-id: 0x59414b55
start=2048, size=$((boot * 2048)), type=0e, bootable
start=$(((boot + 1) * 2048)), type=83
PARTS
dd if=/usr/lib/syslinux/mbr/mbr.bin of="$work/disk.raw" conv=notrunc bs=440 count=1 status=none
dd if="$work/boot.fat" of="$work/disk.raw" bs=1M seek=1 conv=notrunc,sparse status=none
dd if="$work/root.ext4" of="$work/disk.raw" bs=1M seek=$((boot + 1)) conv=notrunc,sparse status=none
qemu-img convert -c -O qcow2 -o compression_type=zstd "$work/disk.raw" "$work/out.qcow2"
mv "$work/out.qcow2" "$out"
echo "$inputs" >"$out.inputs"
echo "yakumo-mini: $out, $(($(stat -c %s "$out") >> 20)) MiB"
