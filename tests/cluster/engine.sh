#!/bin/bash
# More Docker Engines beside the cluster's own, for the tests of those that users have:
#   engine.sh fetch            unpacks Debian's engine into the cache; build-tools.sh does it
#   engine.sh start KIND NAME  starts one that has busybox:local, prints its DOCKER_HOST
#   engine.sh stop NAME        stops it; nothing of it stays
#   engine.sh stop-all
# KIND is `debian` (Debian 12's docker.io: 20.10, API 1.41) or `graphdriver` (the cluster's version with the older of its
# two image stores; the cluster's own has the newer, of containerd). NAME ends with `-PID`: when the process PID ends, the
# engine is stopped. It has its own data, sockets, bridge, addresses and cgroups, and touches no iptables.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
for part in settings tools process; do . "$cluster_src/lib/$part.sh"; done

engines_dir=$state_dir/engines
engines_run=$run_dir/engines
pid_dir=$engines_dir/pids
log_dir=$engines_dir/logs
tools_bin=$(tools_dir)

# The newest of Debian's engine in the cache. Its packages change with each point release, and the mirror has
# the last one only: any 20.10 will do.
debian_dir() { find "$cache_dir/tools" -maxdepth 1 -name 'debian-docker-20.10.*' ! -name '*.tmp' 2>/dev/null | sort -V | tail -1; }

fetch() {
  [ -z "$(debian_dir)" ] || return 0
  lock debian-docker
  [ -z "$(debian_dir)" ] || return 0
  local tmp=$cache_dir/tools/debian-docker.tmp version packages=(docker.io containerd runc) deb
  say "fetching Debian's Docker Engine"
  rm -rf "$tmp"
  mkdir -p "$tmp/deb"
  # As root apt would give the download to a user of its own, who may not write here.
  download() { (cd "$tmp/deb" && apt-get -qq -o APT::Sandbox::User=root download "${packages[@]}"); }
  download >"$tmp/log" 2>&1 9>&- || { apt-get -qq update && download; } >"$tmp/log" 2>&1 9>&- || {
    tail -20 "$tmp/log" >&2
    die "apt-get download ${packages[*]} failed"
  }
  for deb in "$tmp"/deb/*.deb; do dpkg -x "$deb" "$tmp"; done
  version=$(dpkg-deb -f "$tmp"/deb/docker.io_*.deb Version)
  [[ $version == 20.10.* ]] || die "Debian's docker.io is $version: expected 20.10, that of Debian 12"
  rm -rf "$tmp/deb" "$tmp/usr/share"
  mv "$tmp" "$cache_dir/tools/debian-docker-${version//[^A-Za-z0-9.]/-}"
}

sock_of() { echo "$engines_run/$1/docker.sock"; }
docker_of() { local name=$1; shift; DOCKER_HOST=unix://$(sock_of "$name") "$tools_bin/docker" "$@"; }
# Links have at most 15 characters in their names: the address says whose a link is.
links_of() { [ ! -e "$engines_run/$1/net" ] || ip -o -4 addr show | awk -v net="$(cat "$engines_run/$1/net")." 'index($4, net) == 1 { print $2 }'; }

# free_net: a /24 that nobody has.
free_net() {
  local n
  for n in $(seq 1 250); do
    if ! ip -o -4 addr show | grep -qF " 10.246.$n." && ! grep -qxsF "10.246.$n" "$engines_run"/*/net; then
      echo "10.246.$n"
      return
    fi
  done
  die "all addresses of engines are taken"
}

start() {
  local kind=$1 name=$2 own=$engines_run/$2 bin net link config='{}' path args=() begun
  begun=$(now)
  case $kind in
    debian)
      "$0" fetch
      bin=$(debian_dir)/usr/sbin/dockerd
      path=$(debian_dir)/usr/sbin:$(debian_dir)/usr/bin:$PATH ;;
    graphdriver)
      bin=$tools_bin/dockerd path=$tools_bin:$PATH
      args+=(--storage-driver overlay2)
      config='{"features": {"containerd-snapshotter": false}}' ;;
    *) die "unknown kind $kind" ;;
  esac
  lock engines
  sweep
  mkdir -p "$own" "$engines_dir/$name"
  # Stops it when its user is gone, however that ended.
  setsid "$0" reap "$name" >/dev/null 2>&1 </dev/null 9>&- &
  disown $!
  net=$(free_net)
  echo "$net" >"$own/net"
  echo "$config" >"$own/daemon.json"
  link=wl${net##*.}-engine
  ip link add "$link" type bridge
  ip addr add "$net.1/25" dev "$link"
  ip link set "$link" up
  PATH=$path start_process "$name" "$bin" --host "unix://$(sock_of "$name")" --group root \
    --data-root "$engines_dir/$name" --exec-root "$own/exec" --pidfile "$own/docker.pid" --config-file "$own/daemon.json" \
    --bridge "$link" --default-address-pool "base=$net.128/25,size=28" --iptables=false --ip6tables=false \
    --ip-masq=false --ip-forward=false --cgroup-parent "/windlass-$name" "${args[@]}"
  wait_for "$name" 60 "the engine $name answers" docker_of "$name" version
  "$tools_bin/docker" -H "unix://$docker_sock" save busybox:local | docker_of "$name" load -q >/dev/null
  say "engine $name is up in $(since "$begun")"
  echo "unix://$(sock_of "$name")"
}

# What an engine that was killed leaves.
pids_of() {
  pids_of_folder "$engines_run/$1/"
  find /sys/fs/cgroup -path "*/windlass-$1/*" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -un
}

stop() {
  local name=$1 m l pids try
  if running "$name"; then
    docker_of "$name" ps -aq | xargs -r "$tools_bin/docker" -H "unix://$(sock_of "$name")" rm -fv >/dev/null 2>&1 || true
    docker_of "$name" network prune -f >/dev/null 2>&1 || true
  fi
  stop_process "$name" 30
  for try in 1 2 3 4 5 6 7 8 9 10; do
    mapfile -t pids < <(pids_of "$name")
    [ ${#pids[@]} != 0 ] || break
    kill -9 "${pids[@]}" 2>/dev/null || true
    sleep 0.2
  done
  awk '{ print $2 }' /proc/self/mounts | sort -ru | while read -r m; do
    case $m in "$engines_run/$name"/* | "$engines_dir/$name"/*) umount "$m" 2>/dev/null || umount -l "$m" || true ;; esac
  done
  for l in $(links_of "$name"); do ip link delete "$l" 2>/dev/null || true; done
  for m in /sys/fs/cgroup/"windlass-$name" /sys/fs/cgroup/*/"windlass-$name"; do
    [ ! -d "$m" ] || find "$m" -depth -type d -exec rmdir {} \; 2>/dev/null || true
  done
  rm -rf "${engines_run:?}/$name" "${engines_dir:?}/$name" "$log_dir/$name".log*
}

names() { find "$engines_run" -mindepth 1 -maxdepth 1 -type d -printf '%f\n' 2>/dev/null || true; }

# sweep: stops the engines whose user is gone and whose reaper was killed.
sweep() {
  local name
  for name in $(names); do
    started_at "${name##*-}" >/dev/null || stop "$name"
  done
}

need_root
case ${1:-} in
  fetch) fetch ;;
  start)
    [[ ${3:-} =~ ^[a-z0-9-]+-[0-9]+$ ]] || die "usage: engine.sh start KIND NAME-PID"
    start "$2" "$3" ;;
  reap)
    tail --pid="${2##*-}" -f /dev/null
    lock engines
    stop "$2" ;;
  stop)
    [[ ${2:-} =~ ^[a-z0-9-]+$ ]] || die "usage: engine.sh stop NAME"
    stop "$2" ;;
  stop-all)
    for name in $(names); do stop "$name"; done
    rmdir "$engines_run" "$pid_dir" "$log_dir" "$engines_dir" 2>/dev/null || true ;;
  *) die "usage: engine.sh fetch | start KIND NAME-PID | stop NAME | stop-all" ;;
esac
