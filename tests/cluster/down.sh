#!/bin/bash
# Stops the test cluster and removes what it left on this machine. Images and
# registries stay for the next boot, unless --purge is given.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
for part in settings process machine; do . "$cluster_src/lib/$part.sh"; done

purge=
for arg in "$@"; do
  case $arg in
    --purge) purge=1 ;;
    --quiet) say() { :; } ;;
    *) die "unknown option $arg" ;;
  esac
done

remove_containers() {
  running dockerd || return 0
  say "removing containers"
  export DOCKER_HOST=unix://$docker_sock
  docker ps -aq | xargs -r docker rm -fv >/dev/null || true
  docker network prune -f >/dev/null || true
}

# First those that start containers, then what they talk to. Each is waited
# for: a new engine that meets the socket of the old one ends at once.
stop_all() {
  local p
  for p in kubelet kube-proxy cri-dockerd coredns kube-scheduler kube-controller-manager kube-apiserver etcd; do
    stop_process "$p"
  done
  remove_containers
  for p in git-ssh git-http registry-tls registry; do stop_process "$p"; done
  stop_process dockerd 30
}

need_root
[ -n "${WINDLASS_LOCKED:-}" ] || lock cluster

# Without this folder no cluster of ours ran since the machine booted: rules,
# mounts and cgroups that look like ours belong to somebody else.
if [ -d "$run_dir" ]; then
  [ ! -e "$run_dir/tools" ] || PATH="$(cat "$run_dir/tools"):$PATH"
  "$cluster_src/engine.sh" stop-all 9>&-
  stop_all
  kill_leftovers
  unmount_all
  remove_links
  clean_iptables
  remove_cgroups
  restore_sysctls
  remove_empty_folders
  rm -f "$docker_sock"
fi
[ ! -e "$kubelet_dir/.windlass-test" ] || rm -rf "$kubelet_dir"
rm -rf "$run_dir" "$state_dir"/{etcd,cri,pids,git,stamp}
rm -f "$out_dir/env" "$out_dir/kubeconfig"
[ -z "$purge" ] || rm -rf "$state_dir"
say "down"
