#!/bin/bash
# Builds the tools of the test cluster from the pinned modules in tools/ and
# installs the Debian packages it needs beside them. Prints the folder with
# the built tools on stdout. Run again, it finds all done and takes no time.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
. "$cluster_src/lib/tools.sh"

build_group() {
  local g=$1 dir tmp begun
  dir=$(group_dir "$g")
  # shellcheck disable=SC2046 # names without spaces
  if [ -e "$dir/done" ] && (cd "$dir/bin" && ls $(cat "$dir/done")) >/dev/null 2>&1; then return 0; fi
  command -v go >/dev/null || die "no go on PATH: it builds the cluster's tools"
  say "building $g ..."
  begun=$(now)
  tmp=$dir.tmp
  rm -rf "$tmp" "$dir"
  mkdir -p "$tmp/bin"
  local args
  mapfile -t args < <(group_args "$g")
  # GOFLAGS of the user may ask for another mode; ours are all on the line.
  if ! env "$(group_env "$g")" GOBIN="$tmp/bin" GOFLAGS= GOWORK=off \
    nice -n 10 go -C "$cluster_src/tools/$g" install "${args[@]}" tool >"$tmp/log" 2>&1 9>&-; then
    tail -20 "$tmp/log" >&2
    die "building $g failed"
  fi
  # etcd's main package is called "server".
  [ "$g" != etcd ] || mv "$tmp/bin/server" "$tmp/bin/etcd"
  (cd "$tmp/bin" && echo -- *) >"$tmp/done"
  mv "$tmp" "$dir"
  say "built $g in $(since "$begun")"
}

mkdir -p "$cache_dir/tools"
bin=$(tools_dir)
lock build-tools
. "$cluster_src/lib/packages.sh"
apt_need "${packages[@]}"
"$cluster_src/engine.sh" fetch 9>&-

# complete: every link is there and leads to a program: somebody may have
# emptied a part of the cache.
complete() {
  local l
  [ -e "$bin/.done" ] || return 1
  for l in "$bin"/*; do [ -x "$l" ] || return 1; done
}
if ! complete; then
  for g in "${tool_groups[@]}"; do build_group "$g"; done
  rm -rf "$bin"
  mkdir -p "$bin"
  for g in "${tool_groups[@]}"; do ln -s "$(group_dir "$g")"/bin/* "$bin/"; done
  touch "$bin/.done"
fi
echo "$bin"
