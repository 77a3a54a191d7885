#!/bin/bash
# Fills a folder with a small Debian 12: bash, git, a C compiler, make, curl, ssh.
# Takes the mirror and the proxy that this machine's apt uses.
set -euo pipefail
root=$1
# shellcheck disable=SC2016 # apt's own variables
mirror=$(apt-get indextargets --format '$(CODENAME) $(SITE)' 'Created-By: Packages' | awk '$1 == "bookworm" { print $2; exit }')
eval "$(apt-config shell proxy Acquire::http::Proxy)"
[ -z "${proxy:-}" ] || export http_proxy=$proxy
# shellcheck disable=SC2086
debootstrap --variant=minbase --include=bash,git,gcc,libc6-dev,make,curl,ca-certificates,openssh-client \
  bookworm "$root" ${mirror:-}
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/cache/debconf/* "$root"/var/log/* \
  "$root"/usr/share/{doc,man,info,locale,lintian}/* "$root"/etc/{resolv.conf,hostname}
find "$root/usr/lib" "$root/usr/share" -name '__pycache__' -prune -exec rm -rf {} +
# Nodes of devices are the engine's business.
rm -rf "${root:?}/dev"
mkdir "$root/dev"
echo 'user:x:1000:1000:user:/home/user:/bin/bash' >>"$root/etc/passwd"
echo 'user:x:1000:' >>"$root/etc/group"
mkdir -p "$root/home/user"
chown 1000:1000 "$root/home/user"
