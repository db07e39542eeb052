#!/bin/bash
# A machine that has kernel TLS: tests/ktls/vm.sh FOLDER COMMAND...; tests/ktls/vm.sh --fetch only fetches its kernel.
#
# Runs COMMAND in FOLDER as root of a virtual machine with Debian's own kernel and its module tls. The files are this
# machine's, read-only but for FOLDER; the exit status is COMMAND's, and 125 if there was none. Needs the Debian package
# qemu-system-x86 and a Debian mirror: the kernel's package (70 MB) is fetched and unpacked once, into CACHE, and not
# installed. A boot takes some 5 s. The processor is emulated, unless it can be lent: what is true in there is true, what
# is slow in there need not be slow.
set -euo pipefail
# Whoever started this may be killed, and then all of it ends, first this and then the machine.
if [ "${ENDS_WITH_PARENT:-}" != $$ ]; then
    ENDS_WITH_PARENT=$$ exec setpriv --pdeathsig KILL "$0" "$@"
fi
cache=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/aioserve-tests/ktls-vm}
# Modules: the file system of the host, and TLS with the ciphers that it can use.
modules=(9p 9pnet_virtio virtio_pci tls aesni-intel gcm ccm chacha20poly1305)

download() {
    timeout 60 apt-get -qq -o APT::Sandbox::User=root download "$@" >/dev/null || {
        echo "apt-get download $* has not succeeded within 60 s" >&2
        return 1
    }
}

fetch() {
    local image package release module path
    # What somebody who was killed has left.
    rm -rf "$cache"/new.*
    work=$(mktemp -d "$cache/new.XXXXXX")
    # Not a function's trap on RETURN: it would not run when a command fails.
    trap 'rm -rf "$work"' EXIT
    cd "$work"
    download linux-image-amd64 busybox-static
    image=$(dpkg-deb -f linux-image-amd64_*.deb Depends | cut -d' ' -f1)
    download "$image"
    for package in "$image"_*.deb busybox-static_*.deb; do
        dpkg -x "$package" unpacked
    done
    release=$(ls unpacked/lib/modules)
    unpacked/bin/busybox depmod -b unpacked "$release" 2>/dev/null
    mkdir -p root/bin root/modules
    cp unpacked/bin/busybox root/bin/
    # What a module needs is loaded before it: modules.dep has it last to first, below /lib/modules/RELEASE.
    for module in "${modules[@]}"; do
        awk -F'[: ]+' -v name="/$module.ko" \
            'index($1, name) == length($1) - length(name) + 1 { for (i = NF; i >= 1; i--) if ($i != "") print $i }' \
            "unpacked/lib/modules/$release/modules.dep"
    done | awk '!seen[$0]++' >order
    while read -r path; do
        path=${path#/}
        cp "unpacked/lib/modules/$release/${path#lib/modules/"$release"/}" root/modules/
        basename "$path" >>root/order
    done <order
    cat >root/init <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /proc /sys /dev /new
$b mount -t proc proc /proc
$b mount -t devtmpfs dev /dev
while read -r module; do $b insmod "/modules/$module" 2>/dev/null; done </order
options=trans=virtio,version=9p2000.L,msize=512000
$b mount -t 9p -o "$options,ro,cache=loose" host /new || $b poweroff -f
$b mount -t proc proc /new/proc
$b mount -t sysfs sys /new/sys
$b mount -t devtmpfs dev /new/dev
$b mount -t tmpfs run /new/run
$b mkdir -p /new/dev/shm /new/dev/pts
$b mount -t tmpfs shm /new/dev/shm
$b mount -t devpts pts /new/dev/pts
folder=$($b sed -n 's/.*folder=\([^ ]*\).*/\1/p' /proc/cmdline)
$b mount -t 9p -o "$options,cache=mmap" folder "/new$folder"
$b ip link set lo up
export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export TMPDIR=/dev/shm PYTHONDONTWRITEBYTECODE=1
$b chroot /new /bin/bash -c "cd '$folder' && bash .command </dev/null; echo \$? >'$folder/.status'; sync" >/dev/ttyS1 2>&1
# What the serial line has still to say takes a moment.
$b sleep 0.2
$b poweroff -f
INIT
    chmod +x root/init
    (cd root && find . | bin/busybox cpio -o -H newc 2>/dev/null | gzip -1) >initrd
    mv unpacked/boot/vmlinuz-* "$cache/vmlinuz"
    mv initrd "$cache/initrd" # the last: whoever sees it has both
    cd /
}

mkdir -p "$cache"
(
    flock 9
    if [ ! -e "$cache/initrd" ]; then
        fetch
    fi
) 9>"$cache/lock"

[ "$1" != --fetch ] || exit 0

folder=$(realpath "$1")
shift
printf '%q ' "$@" >"$folder/.command"
rm -f "$folder/.status"
# A /dev/kvm that can be written to is not enough: it may itself be emulated, and a stock kernel hangs in that.
if [ -w /dev/kvm ] && grep -qwE 'vmx|svm' /proc/cpuinfo; then
    processor=(-accel kvm -cpu host)
else
    processor=(-accel tcg,thread=multi -cpu max)
fi
setpriv --pdeathsig TERM timeout --kill-after 5 "${PATIENCE:-150}" qemu-system-x86_64 "${processor[@]}" -smp 2 -m 1536 -display none -no-reboot -nic none \
    -serial "file:$folder/boot.log" -serial stdio -kernel "$cache/vmlinuz" -initrd "$cache/initrd" \
    -append "console=ttyS0 quiet loglevel=4 panic=-1 folder=$folder" \
    -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
    -virtfs "local,path=$folder,mount_tag=folder,security_model=none" </dev/null | sed -u 's/\r$//'
exit "$(cat "$folder/.status" 2>/dev/null || echo 125)"
