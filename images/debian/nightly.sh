#!/usr/bin/env bash
# Builds the Debian guest image, boots it once with a config drive and checks that cloud-init ends "done", having taken
# host name, key and commands from the drive: images/debian/nightly.sh [IMAGE.qcow2]
#
# It boots under emulation, with a network of its own that leads nowhere, and takes about three minutes, of which one and
# a half are the boot. With IMAGE it builds nothing.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
qemu=
trap '[ -z "$qemu" ] || kill "$qemu" 2>/dev/null || true; rm -rf "$work"' EXIT
image=${1:-$work/debian.qcow2}
[ $# = 1 ] || "$here/build.sh" "$image"

latest=$work/openstack/latest
mkdir -p "$latest"
key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx0mYw3Zv0sZzQ0mF3m0aVdXnVhUQ4y3b5u6b9w9e1R nightly"
cat >"$latest/meta_data.json" <<JSON
{"uuid": "0d9a3c52-66b5-4a6e-8f5f-2b7d6f7a0001", "hostname": "nightly.example.org", "name": "nightly",
 "public_keys": {"nightly": "$key"}}
JSON
echo '{}' >"$latest/vendor_data.json"
# The command that reports runs outside cloud-init, since it waits for cloud-init's end.
cat >"$latest/user_data" <<'YAML'
#cloud-config
runcmd:
  - [systemd-run, --quiet, /bin/sh, -c, "cloud-init status --wait --long >/run/report; echo \"exit $?\" >>/run/report;
     { echo REPORT; cat /run/report; echo host $(hostname); echo disk $(df -m --output=size / | tail -n 1);
       cat /home/debian/.ssh/authorized_keys; echo END; } >/dev/ttyS0; poweroff"]
YAML
truncate -s 4M "$work/drive.img"
mkfs.vfat -n config-2 "$work/drive.img" >/dev/null 2>&1
mcopy -s -i "$work/drive.img" "$work/openstack" ::/
qemu-img create -q -f qcow2 -F qcow2 -b "$(realpath "$image")" "$work/disk.qcow2" 4G

start=$SECONDS
timeout 900 qemu-system-x86_64 -machine q35,accel=tcg -cpu max -smp 2 -m 1024 -nodefaults -display none \
  -smbios type=1,product="OpenStack Compute" -serial "file:$work/console" \
  -drive "if=none,id=root,format=qcow2,file=$work/disk.qcow2" -device virtio-blk-pci,drive=root,bootindex=1 \
  -drive "if=none,id=config,format=raw,readonly=on,file=$work/drive.img" -device virtio-blk-pci,drive=config \
  -netdev user,id=net,restrict=on -device virtio-net-pci,netdev=net -device virtio-rng-pci &
qemu=$!
wait "$qemu" || { echo "debian: the guest did not power off within 15 minutes; the end of its console:" >&2; tail -n 40 "$work/console" >&2; exit 1; }
qemu=

report=$(tr -d '\r' <"$work/console" | sed -n '/^REPORT$/,/^END$/p')
echo "$report"
for want in '^status: done$' '^exit 0$' '^host nightly$' "^$key$"; do
  grep -Eq -- "$want" <<<"$report" || { echo "debian: the report has no line $want" >&2; exit 1; }
done
size=$(awk '$1 == "disk" {print $2}' <<<"$report")
[ "${size:-0}" -gt 3500 ] || { echo "debian: the root file system has ${size:-?} MiB of a disk of 4096" >&2; exit 1; }
echo "debian: cloud-init done; power-on to power-off in $((SECONDS - start)) s"
