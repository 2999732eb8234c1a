#!/usr/bin/env bash
# Makes a full Debian 12 guest image with cloud-init: images/debian/build.sh OUT.qcow2
#
# The same assembly as images/mini: no mounts, no loop devices. It takes a minute and a half and an apt mirror, and the
# guest takes minutes to boot under emulation, so it is for nightly tests (nightly.sh), not for each one.
set -euo pipefail

[ $# = 1 ] || { echo "usage: $0 OUT.qcow2" >&2; exit 2; }
mkdir -p "$(dirname "$1")"
out=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:${PATH:-} LC_ALL=C
umask 022

for p in mmdebstrap mke2fs debugfs mkfs.vfat mcopy syslinux sfdisk qemu-img; do
  type -P $p >/dev/null || { echo "$0: no program $p; scripts/deps.sh test installs what is missing" >&2; exit 1; }
done

packages=(
  linux-image-cloud-amd64 initramfs-tools systemd-sysv udev dbus systemd-resolved netplan.io iproute2 iputils-ping
  openssh-server cloud-init cloud-guest-utils e2fsprogs fdisk qemu-guest-agent locales sudo acpid ca-certificates curl
)
suite=bookworm
work=$(mktemp -d "$out.XXXXXX")
trap 'rm -rf "$work"' EXIT

# The hooks run inside mmdebstrap with the root file system as $1.
cat >"$work/customize" <<'HOOK'
#!/bin/sh
set -e
root=$1
cat >"$root/etc/fstab" <<'F'
LABEL=yakumo-debian / ext4 noatime,errors=remount-ro 0 1
F
echo debian >"$root/etc/hostname"
echo 'en_US.UTF-8 UTF-8' >"$root/etc/locale.gen"
chroot "$root" locale-gen >/dev/null
mkdir -p "$root/etc/cloud/cloud.cfg.d"
cat >"$root/etc/cloud/cloud.cfg.d/90-yakumo.cfg" <<'F'
datasource_list: [ConfigDrive, OpenStack, Ec2, None]
# A search over hosts that do not exist must not hold the boot for long.
datasource:
  OpenStack: {max_wait: 30, timeout: 5, retries: 3}
  Ec2: {max_wait: 30, timeout: 5}
growpart: {mode: auto, devices: [/], ignore_growroot_disabled: false}
F
chroot "$root" systemctl -q enable systemd-networkd systemd-resolved ssh serial-getty@ttyS0 acpid
# Each instance gets its own identity.
rm -f "$root"/etc/ssh/ssh_host_*_key* "$root/var/lib/dbus/machine-id"
: >"$root/etc/machine-id"
# What the guest does not read.
rm -rf "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
find "$root/usr/share/locale" -mindepth 1 -maxdepth 1 ! -name 'en*' ! -name locale.alias -exec rm -rf {} +
HOOK
chmod 755 "$work/customize"
echo "debian: packages of $suite"
mmdebstrap --quiet --mode=root --variant=minbase --include="$(IFS=,; echo "${packages[*]}")" \
  --customize-hook="$work/customize" "$suite" "$work/root.tar" >"$work/log" 2>&1 ||
  { tail -n 40 "$work/log" >&2; exit 1; }

echo "debian: disk"
mkdir "$work/root"
tar -xf "$work/root.tar" -C "$work/root" --numeric-owner --xattrs
rm "$work/root.tar"
boot=64 size=2048 # MiB; the root grows to the disk at boot
cp "$work"/root/boot/vmlinuz-* "$work/vmlinuz"
cp "$work"/root/boot/initrd.img-* "$work/initrd.img"
cat >"$work/syslinux.cfg" <<'CFG'
DEFAULT debian
PROMPT 0
TIMEOUT 0
LABEL debian
  KERNEL /vmlinuz
  INITRD /initrd.img
  APPEND root=LABEL=yakumo-debian rw console=tty0 console=ttyS0,115200 quiet no_timer_check random.trust_cpu=on
CFG
truncate -s ${boot}M "$work/boot.fat"
mkfs.vfat -F 16 "$work/boot.fat" >/dev/null
mcopy -i "$work/boot.fat" "$work/vmlinuz" "$work/initrd.img" "$work/syslinux.cfg" ::/
syslinux --install "$work/boot.fat"
mke2fs -q -t ext4 -m 1 -L yakumo-debian -d "$work/root" "$work/root.ext4" $((size - boot - 1))M >/dev/null
truncate -s ${size}M "$work/disk.raw"
sfdisk -q "$work/disk.raw" <<PARTS
label: dos
start=2048, size=$((boot * 2048)), type=0e, bootable
start=$(((boot + 1) * 2048)), type=83
PARTS
dd if=/usr/lib/syslinux/mbr/mbr.bin of="$work/disk.raw" conv=notrunc bs=440 count=1 status=none
dd if="$work/boot.fat" of="$work/disk.raw" bs=1M seek=1 conv=notrunc,sparse status=none
dd if="$work/root.ext4" of="$work/disk.raw" bs=1M seek=$((boot + 1)) conv=notrunc,sparse status=none
qemu-img convert -c -O qcow2 -o compression_type=zstd "$work/disk.raw" "$work/out.qcow2"
mv "$work/out.qcow2" "$out"
echo "debian: $out, $(($(stat -c %s "$out") >> 20)) MiB"
