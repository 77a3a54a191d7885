#!/bin/bash
# Fills a folder with Debian's busybox, the libraries that it loads, and what
# programs expect of a root: users, temporary folders. There is no bash.
# The dynamic one, because glibc's name look-ups fail in static programs.
set -euo pipefail
root=$1
bin=$(command -v busybox)
mkdir -p "$root"/{bin,etc,tmp,root,home,var/tmp,var/run,proc,sys,dev,usr/local/bin,usr/share}
chmod 1777 "$root/tmp" "$root/var/tmp"
for d in sbin usr/bin usr/sbin; do ln -s "$(realpath -m --relative-to="$root/$(dirname $d)" "$root/bin")" "$root/$d"; done
cp "$bin" "$root/bin/busybox"
for applet in $(busybox --list); do
  [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
ldd "$bin" | grep -o '/[^ ]*' | while read -r lib; do
  mkdir -p "$root$(dirname "$lib")"
  cp -L "$lib" "$root$lib"
done
libc=$(ldd "$bin" | awk '/libc\.so/ { print $3 }')
cp -L "$(dirname "$libc")"/libnss_{dns,files}.so.2 "$root$(dirname "$libc")/" 2>/dev/null || true
cat >"$root/etc/passwd" <<END
root:x:0:0:root:/root:/bin/sh
user:x:1000:1000:user:/home:/bin/sh
nobody:x:65534:65534:nobody:/home:/bin/sh
END
printf 'root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n' >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
chmod 777 "$root/home"
