#!/bin/busybox sh
# First process of a guest: puts the host's root, read-only, under a layer in memory, runs /run/rig/job there, ends.
export PATH=/bin
/bin/busybox --install -s /bin

mount -t devtmpfs devtmpfs /dev
mkdir -p /proc /sys
mount -t proc proc /proc
mount -t sysfs sysfs /sys

for module in $(cat /modules/order); do
    insmod "/modules/$module.ko" || echo "rig: $module.ko cannot be loaded"
done

share=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o "$share,cache=loose,ro" host /host || { echo "rig: no root"; poweroff -f; }
mount -t tmpfs -o size=75% tmpfs /top
mkdir /top/upper /top/work
mount -t overlay -o lowerdir=/host,upperdir=/top/upper,workdir=/top/work overlay /root

for kind in proc sysfs:sys devtmpfs:dev; do
    mount -t "${kind%%:*}" none "/root/${kind##*:}"
done
mkdir -p /root/dev/pts /root/dev/shm
mount -t devpts none /root/dev/pts
mount -t tmpfs none /root/dev/shm
mount -t tmpfs none /root/run
mount -t bpf none /root/sys/fs/bpf
mount -t debugfs none /root/sys/kernel/debug
mkdir -p /root/run/rig /root/run/netns /root/run/modules
mount -t 9p -o "$share,cache=none" results /root/run/rig
mount -t 9p -o "$share,cache=loose,ro" modules /root/run/modules

# /lib may be a link to usr/lib, which holds the host's modules, or none.
mkdir -p /root/usr/lib/modules
mount --bind /root/run/modules /root/usr/lib/modules

# What the kernel requests automatically, it requests here.
mkdir -p /sbin
printf '#!/bin/sh\nexec /bin/busybox chroot /root /sbin/modprobe "$@"\n' >/sbin/modprobe
chmod 755 /sbin/modprobe

chroot /root /usr/sbin/ip link set lo up
for number in 1 2 3; do
    [ -e /root/run/rig/job ] && break
    sleep 1
done
if grep -q rig.shell /proc/cmdline; then
    setsid cttyhack chroot /root /bin/sh /run/rig/job
else
    chroot /root /bin/sh /run/rig/job </dev/null
fi
echo $? >/root/run/rig/status
sync
poweroff -f
