#!/usr/bin/env bash
# Installs the Debian packages that Yakumo needs and that are missing here.
#
#   scripts/deps.sh run    what a host, a server or a lab needs
#   scripts/deps.sh rbd    the same, and what a host with volumes in Ceph needs
#   scripts/deps.sh test   run and rbd, and what the tests need (stock clients, tools)
#
# It says what it installs, stays silent when there is nothing to do, and never
# starts a system-wide daemon: a lab brings its own, in namespaces of its own.
set -euo pipefail

run=(
  openvswitch-switch            # ovs-vswitchd, ovsdb-server
  libvirt-daemon libvirt-daemon-driver-qemu libvirt-daemon-driver-lxc   # one libvirtd a host
  qemu-system-x86 qemu-utils    # guests, qemu-img
  ovmf                          # UEFI firmware of guests
  swtpm swtpm-tools             # trusted platform modules of guests
  iproute2 iptables dmidecode ethtool ca-certificates curl
  # what the guest image yakumo-mini is made from
  linux-image-cloud-amd64 busybox-static dropbear-bin iperf3 netcat-openbsd ncat tcpdump
  openssh-client openssh-sftp-server iputils-ping
  novnc                         # the page for guests' screens
  cpio zstd syslinux syslinux-common systemd-boot-efi mtools dosfstools fdisk e2fsprogs util-linux kmod
)
rbd=(
  ceph-common                   # the engine's tools
  qemu-block-extra              # QEMU's driver
)
test=(
  python3-openstackclient       # the stock client
  awscli                        # and EC2's
  etcd-server                   # a real external etcd for the store's tests
  libvirt-clients               # virsh, beside which a benchmark moves a guest
  keepalived                    # VRRP between guests
  "${rbd[@]}" ceph-mon ceph-osd # a small Ceph for volumes
  mmdebstrap                    # the Debian guest image of the nightly test
)

want=("${run[@]}")
case ${1:-run} in
  rbd) want+=("${rbd[@]}") ;;
  test) want+=("${test[@]}") ;;
esac

missing=()
for p in "${want[@]}"; do
  dpkg-query -W -f='${Status}\n' "$p" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0

[ "$(id -u)" = 0 ] || { echo "deps: these packages are missing and only root can install them: ${missing[*]}" >&2; exit 1; }
echo "deps: installing ${missing[*]}"

# A policy that denies every service start holds while we install: the lab runs its own daemons.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod 755 $policy
  trap 'rm -f '"$policy" EXIT
fi
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update -q && apt-get install -y -q --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  echo "deps: apt-get failed; the end of its output:" >&2
  tail -n 30 "$log" >&2
  exit 1
fi
rm -f "$log"
