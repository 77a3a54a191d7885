#!/bin/bash
# Boots the test cluster: a Docker Engine and a one-node Kubernetes on this
# machine, two registries and a git server. Builds what is not built yet. Run
# again, it looks whether all is well and restarts what died. Afterwards:
#   . target/cluster/env
# WINDLASS_CLUSTER=current takes the cluster of your kubeconfig instead.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
for part in settings tools process pki machine components; do . "$cluster_src/lib/$part.sh"; done

use_current() {
  command -v kubectl >/dev/null || die "WINDLASS_CLUSTER=current needs a kubectl on PATH"
  kubectl --request-timeout=10s get --raw /readyz >/dev/null || die "the cluster of your kubeconfig does not answer"
  mkdir -p "$out_dir"
  (umask 077 && kubectl config view --minify --flatten >"$out_dir/kubeconfig")
  echo "export KUBECONFIG='$out_dir/kubeconfig' WINDLASS_CLUSTER=current" >"$out_dir/env"
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
export WINDLASS_TLS_REGISTRY_CA='$pki/registry-ca.crt'
export WINDLASS_CLUSTER_CA='$pki/ca.crt'
export WINDLASS_DEMO_USER='$demo_user'
export WINDLASS_DEMO_PASSWORD='$demo_password'
export WINDLASS_GIT_URL='http://$node_ip:$git_port'
export WINDLASS_CLUSTER_LOGS='$log_dir'
END
  mv "$out_dir/env.new" "$out_dir/env"
}

# A cluster of other tools, settings or flags is stopped before the new boots.
stop_if_outdated() {
  stamp=$({ echo "$tools_bin"; cat "$cluster_src"/lib/*; } | sha256sum | cut -c1-12)
  if [ -e "$state_dir/stamp" ] && [ "$(cat "$state_dir/stamp")" != "$stamp" ]; then
    say "the cluster that is here was made by other scripts: starting afresh"
    "$cluster_src/down.sh" 9>&-
  fi
}

# Whether nothing runs: then what the last cluster left is no use.
wipe_if_stopped() {
  local f
  for f in "$pid_dir"/*; do
    if [ -e "$f" ] && running "$(basename "$f")"; then return 0; fi
  done
  WINDLASS_LOCKED=1 "$cluster_src/down.sh" --quiet
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
make_pki
echo "$stamp" >"$state_dir/stamp"

start_dockerd
start_etcd
ready_etcd
start_apiserver
start_registries
start_git
start_cri_wait() { ready_dockerd && start_cri_dockerd; }
start_cri_wait
"$cluster_src/images.sh" 9>&- &
images=$!
ready_apiserver
start_controller_manager
start_scheduler
ready_cri_dockerd
start_kubelet
sed -e "s/@DNS_IP@/$dns_ip/; s/@NODE_IP@/$node_ip/" "$cluster_src/lib/base.yaml" >"$conf_dir/base.yaml"
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
