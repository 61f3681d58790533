#!/bin/bash
# Starts systemd on a copy-on-write layer over this machine's root, in namespaces of its own: nothing that it does stays. Run by
# `unshare`, which ends it. $1: an empty folder. $2: the folder of the packages, which is /packages there.
set -euo pipefail
mount -t tmpfs tmpfs "$1"
mkdir "$1"/{upper,work,root}
root=$1/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$root"
mkdir -p "$root/packages"
mount --bind "$2" "$root/packages"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t bpf -o mode=700 bpf "$root/sys/fs/bpf"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
while read -r name major minor; do
    mknod -m 666 "$root/dev/$name" c "$major" "$minor"
done <<<$'null 1 3\nzero 1 5\nfull 1 7\nrandom 1 8\nurandom 1 9\ntty 5 0'
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
# The machine's own services and what it has of ours are not there; a refusal to start services is.
rm -rf "$root"/etc/systemd/system/*.wants "$root/var/lib/netverdict" "$root/var/lib/netverdict-query" "$root/etc/netverdict"
rm -f "$root/usr/sbin/policy-rc.d"
echo trial >"$root/etc/hostname"
: >"$root/etc/machine-id"
cd "$root"
mkdir -p former
pivot_root . former
umount -l /former
# As on a host: systemd hands credentials over by a mount that propagates.
mount --make-rshared /
ip link set lo up
exec env -i container=netverdict PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=basic.target --log-target=journal --show-status=no
