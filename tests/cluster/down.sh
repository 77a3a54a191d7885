#!/bin/bash
# Stops the test cluster and removes what it left on this machine. Images and
# registries stay for the next boot, unless --purge is given.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
for part in settings process machine; do . "$cluster_src/lib/$part.sh"; done
conf_dir=$state_dir/conf

purge=
for arg in "$@"; do
  case $arg in
    --purge) purge=1 ;;
    --quiet) say() { :; } ;;
    *) die "unknown option $arg" ;;
  esac
done
need_root
[ -n "${WINDLASS_LOCKED:-}" ] || lock cluster

# First those that start containers, then what they talk to. Each is waited
# for: a new engine that meets the socket of the old one ends at once.
for p in kubelet kube-proxy cri-dockerd coredns kube-scheduler kube-controller-manager kube-apiserver etcd; do
  stop_process "$p"
done
if running dockerd; then
  say "removing containers"
  DOCKER_HOST=unix://$docker_sock
  export DOCKER_HOST
  docker_cli=docker
  [ ! -e "$conf_dir/docker" ] || docker_cli=$(cat "$conf_dir/docker")
  "$docker_cli" ps -aq | xargs -r "$docker_cli" rm -fv >/dev/null || true
  "$docker_cli" network prune -f >/dev/null || true
fi
for p in git-ssh git-http registry-tls registry; do stop_process "$p"; done
stop_process dockerd 30
kill_leftovers
unmount_all
remove_links
clean_iptables
remove_cgroups
restore_sysctls
if [ -e "$kubelet_dir/.windlass-test" ]; then rm -rf "$kubelet_dir"; fi
rm -rf "$run_dir" "$docker_sock" "$state_dir/etcd" "$state_dir/cri" "$state_dir/pids" "$state_dir/git" "$state_dir/stamp"
rm -f "$out_dir/env" "$out_dir/kubeconfig"
[ -z "$purge" ] || rm -rf "$state_dir"
say "down"
