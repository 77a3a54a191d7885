# shellcheck shell=bash
# Shared by every script here: where things live, how to print, wait and lock.
# Sourced, never run. Safe to source twice.

cluster_src=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
repo_root=$(cd "$cluster_src/../.." && pwd)
cache_dir=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/windlass
# All that a running cluster owns: data roots, sockets, logs, pid files, keys.
state_dir=${XDG_STATE_HOME:-${HOME:-/root}/.local/state}/windlass/cluster
out_dir=${WINDLASS_OUT:-$repo_root/target/cluster}

# Docker's, containerd's and the CNI plugins' own folders are in sbin.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

say() { printf 'cluster: %s\n' "$*" >&2; }
die() {
  say "ERROR: $*"
  exit 1
}

# now: seconds since boot with two decimals, for durations.
now() { cut -d' ' -f1 /proc/uptime; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f s", b - a }'; }

# lock NAME: hold a lock until this process ends. Children must not inherit
# it (start_process closes the descriptor), or it would never be free again.
lock() {
  mkdir -p "$cache_dir/lock"
  exec 9>"$cache_dir/lock/$1"
  if ! flock -n 9; then
    say "waiting for another run of $1"
    flock 9
  fi
}

need_root() {
  [ "$(id -u)" = 0 ] || die "this needs root (it runs a container engine and a kubelet)"
}

# apt_need PACKAGE...: install the missing ones; silent and fast if none is.
apt_need() {
  local missing=() p have
  # shellcheck disable=SC2016 # dpkg's own variables
  have=$(dpkg-query -W -f='${db:Status-Status} ${Package} ' "$@" 2>/dev/null || true)
  for p in "$@"; do
    [[ " $have" == *" installed $p "* ]] || missing+=("$p")
  done
  [ ${#missing[@]} = 0 ] && return 0
  need_root
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  # No package may start a service of its own: this file forbids it. Keep a
  # file that is there already.
  local policy=/usr/sbin/policy-rc.d made=
  if [ ! -e $policy ]; then
    made=1
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
  fi
  local rc=0
  {
    apt-get -qq update && apt-get -qq -y --no-install-recommends install "${missing[@]}"
  } >"$cache_dir/apt.log" 2>&1 9>&- || rc=$?
  [ -z "$made" ] || rm -f $policy
  if [ $rc != 0 ]; then
    tail -20 "$cache_dir/apt.log" >&2
    die "apt-get failed"
  fi
}
