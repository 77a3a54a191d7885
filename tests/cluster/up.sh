#!/bin/bash
# Boots the test cluster: a Docker Engine and a one-node Kubernetes on this
# machine, two registries and a git server. Builds what is not built yet. Run
# again, it looks whether all is well and restarts what died. Afterwards:
#   . target/cluster/env
# WINDLASS_CLUSTER=current takes the cluster of your kubeconfig instead, for the
# installation and the demo; it says which variables that needs.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
for part in settings tools process pki machine components; do . "$cluster_src/lib/$part.sh"; done

# What our own cluster has, somebody else's must name.
use_current() {
  local tool name what missing=
  for tool in kubectl helm docker curl; do
    command -v "$tool" >/dev/null || die "WINDLASS_CLUSTER=current needs $tool on PATH"
  done
  while read -r name what; do
    [ -n "${!name:-}" ] || missing+=$'\n'"  $name: $what"
  done <<'END'
WINDLASS_REGISTRY host:port of a registry without TLS that nodes and this machine reach
WINDLASS_GIT_DIR directory of this machine for bare git repositories
WINDLASS_GIT_URL address below which pods find them
END
  [ -z "$missing" ] || die "WINDLASS_CLUSTER=current needs these variables:$missing"
  export DOCKER_HOST=${DOCKER_HOST:-unix:///var/run/docker.sock}
  kubectl --request-timeout=10s get --raw /readyz >/dev/null || die "the cluster of your kubeconfig does not answer"
  docker image inspect debian:local >/dev/null 2>&1 ||
    die "the node's engine ($DOCKER_HOST) has no image debian:local: tag one that has git, ssh, make and a C compiler"
  mkdir -p "$out_dir"
  (umask 077 && kubectl config view --minify --flatten >"$out_dir/kubeconfig.new")
  mv "$out_dir/kubeconfig.new" "$out_dir/kubeconfig" # it may be the current one
  cat >"$out_dir/env.new" <<END
# Source this to use the cluster of your kubeconfig.
export WINDLASS_CLUSTER=current
export KUBECONFIG='$out_dir/kubeconfig'
export DOCKER_HOST='$DOCKER_HOST'
export WINDLASS_KUBELET_DIR='${WINDLASS_KUBELET_DIR:-/var/lib/kubelet}'
export WINDLASS_REGISTRY='$WINDLASS_REGISTRY'
export WINDLASS_GIT_DIR='$WINDLASS_GIT_DIR'
export WINDLASS_GIT_URL='$WINDLASS_GIT_URL'
END
  mv "$out_dir/env.new" "$out_dir/env"
  say "using $(kubectl config current-context)"
}

write_env() {
  mkdir -p "$out_dir"
  (umask 077 && cp "$admin_conf" "$out_dir/kubeconfig.new")
  mv "$out_dir/kubeconfig.new" "$out_dir/kubeconfig"
  cat >"$out_dir/env.new" <<END
# Source this to use the test cluster.
export KUBECONFIG='$out_dir/kubeconfig'
export PATH='$tools_bin':"\$PATH"
export DOCKER_HOST='unix://$docker_sock'
export WINDLASS_NODE='$node_name'
export WINDLASS_NODE_IP='$node_ip'
export WINDLASS_KUBELET_DIR='$kubelet_dir'
export WINDLASS_REGISTRY='$registry'
export WINDLASS_TLS_REGISTRY='$tls_registry'
export WINDLASS_TOKEN_REGISTRY='$token_registry'
export WINDLASS_TOKEN_SERVICE='$token_service'
export WINDLASS_TLS_REGISTRY_CA='$pki/registry-ca.crt'
export WINDLASS_CLUSTER_CA='$pki/ca.crt'
export WINDLASS_DEMO_USER='$demo_user'
export WINDLASS_DEMO_PASSWORD='$demo_password'
export WINDLASS_GIT_URL='http://$node_ip:$git_port'
export WINDLASS_GIT_SSH_URL='ssh://root@$node_ip:$ssh_port'
export WINDLASS_GIT_SSH_KEY='$state_dir/ssh/client'
export WINDLASS_GIT_SSH_KNOWN_HOSTS='$state_dir/ssh/known_hosts'
export WINDLASS_GIT_SSH_COMMAND="ssh -F none -i '$state_dir/ssh/client' -o UserKnownHostsFile='$state_dir/ssh/known_hosts' -o IdentitiesOnly=yes"
export WINDLASS_CLUSTER_LOGS='$log_dir'
END
  mv "$out_dir/env.new" "$out_dir/env"
}

# A cluster of other tools, settings or flags is stopped before the new boots.
stop_if_outdated() {
  stamp=$({ echo "$tools_bin"; cat "$cluster_src"/lib/{settings,components,pki,machine}.sh "$cluster_src"/lib/{base.yaml,runc-clamp,git-http.py}; } | sha256sum | cut -c1-12)
  if [ -e "$state_dir/stamp" ] && [ "$(cat "$state_dir/stamp")" != "$stamp" ]; then
    say "the cluster that is here was made by other scripts: starting afresh"
    "$cluster_src/down.sh" 9>&-
  fi
}

# Whether nothing runs: then what the last cluster left is no use.
wipe_if_stopped() {
  fresh=
  local f
  for f in "$pid_dir"/*; do
    if [ -e "$f" ] && running "$(basename "$f")"; then return 0; fi
  done
  "$cluster_src/down.sh" --quiet 9>&-
  fresh=1
  refuse_foreign
}

# Somebody else's engine or kubelet would be in our way, and we in theirs.
refuse_foreign() {
  if docker -H "unix://$docker_sock" version >/dev/null 2>&1; then
    die "another Docker Engine answers at $docker_sock: stop it, or use WINDLASS_CLUSTER=current"
  fi
  [ ! -e "$kubelet_dir" ] || [ -z "$(ls -A "$kubelet_dir")" ] ||
    die "$kubelet_dir is not ours: another kubelet uses this machine; remove it, or use WINDLASS_CLUSTER=current"
}

if [ "${WINDLASS_CLUSTER:-}" = current ]; then
  use_current
  exit
fi

need_root
begun=$(now)
tools_bin=$("$cluster_src/build-tools.sh")
export PATH="$tools_bin:$PATH"
lock cluster
export WINDLASS_LOCKED=1
stop_if_outdated
wipe_if_stopped
prepare_machine
echo "$tools_bin" >"$run_dir/tools"
make_pki
echo "$stamp" >"$state_dir/stamp"

start_dockerd
start_etcd
ready_etcd
start_apiserver
start_registries
start_git
ready_dockerd
[ -z "$fresh" ] || docker ps -aq | xargs -r docker rm -fv >/dev/null
start_cri_dockerd
"$cluster_src/images.sh" 9>&- &
images=$!
ready_apiserver
start_controller_manager
start_scheduler
ready_cri_dockerd
start_kubelet
sed -e "s/@DNS_IP@/$dns_ip/; s/@NODE_IP@/$node_ip/" "$cluster_src/lib/base.yaml" | write_conf base.yaml
wait_for kube-apiserver 30 "the basic objects are there" kube apply -f "$conf_dir/base.yaml"
start_kube_proxy
start_coredns
ready_controllers
ready_kubelet
ready_kube_proxy
ready_coredns
ready_registries
ready_git
wait_for kube-controller-manager 30 "namespaces have service accounts" kube -n default get serviceaccount default
wait "$images" || die "making the images failed"
write_env
say "up in $(since "$begun"): . target/cluster/env"
