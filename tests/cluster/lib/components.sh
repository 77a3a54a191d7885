# shellcheck shell=bash
# One function for each component of the cluster: writes its configuration
# and starts it. Those that others need are waited for.

kube() { kubectl --kubeconfig="$admin_conf" --request-timeout=10s "$@"; }
# write_conf NAME: standard input becomes that file. Untouched if it is the
# same already, as kube-proxy ends when its file is written.
write_conf() {
  local file=$conf_dir/$1
  mkdir -p "$(dirname "$file")"
  cat >"$file.new"
  cmp -s "$file.new" "$file" || cp "$file.new" "$file"
  rm "$file.new"
}
quiet_get() { curl -fsS -o /dev/null -m 2 "$@"; }

start_dockerd() {
  local runtime=(--default-runtime runc)
  # The kubelet wants sandboxes with a negative oom_score_adj, which a machine
  # without CAP_SYS_RESOURCE (bit 24) refuses: put a clamp before runc.
  local caps
  caps=$(awk '/^CapEff/ { print $2 }' /proc/self/status)
  if [ $((0x$caps >> 24 & 1)) = 0 ]; then
    sed "s|@RUNC@|$tools_bin/runc|" "$cluster_src/lib/runc-clamp" >"$run_dir/runc-clamp"
    chmod 755 "$run_dir/runc-clamp"
    runtime=(--add-runtime "clamp=$run_dir/runc-clamp" --default-runtime clamp)
  fi
  # An engine that was killed leaves its pid file, and refuses to start when
  # another process has that pid now.
  running dockerd || rm -f "$run_dir/docker.pid"
  # Without --ip-forward-no-drop it would cut pods off from each other.
  start_process dockerd "$tools_bin/dockerd" --host "unix://$docker_sock" --group root \
    --data-root "$state_dir/docker" --exec-root "$run_dir/docker" --pidfile "$run_dir/docker.pid" \
    --config-file "$conf_dir/none.json" --ip-forward-no-drop "${runtime[@]}"
}
ready_dockerd() {
  wait_for dockerd 60 "the Docker Engine answers" docker -H "unix://$docker_sock" version
}

start_etcd() {
  start_process etcd "$tools_bin/etcd" --data-dir "$state_dir/etcd" --log-level warn --unsafe-no-fsync \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster default=http://127.0.0.1:2380
}
ready_etcd() {
  wait_for etcd 30 "etcd is healthy" quiet_get http://127.0.0.1:2379/health
}

start_apiserver() {
  # Who wrote what: bench/ counts it.
  write_conf audit.yaml <<END
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, verbs: [get, list, watch]}
- {level: None, resources: [{group: coordination.k8s.io, resources: [leases]}]}
- {level: Metadata}
END
  start_process kube-apiserver "$tools_bin/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 \
    --bind-address="$node_ip" --advertise-address="$node_ip" --secure-port=6443 \
    --service-cluster-ip-range="$service_cidr" \
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
    --client-ca-file="$pki/ca.crt" \
    --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file="$pki/sa.pub" --service-account-signing-key-file="$pki/sa.key" \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
    --kubelet-certificate-authority="$pki/ca.crt" --kubelet-preferred-address-types=InternalIP \
    --kubelet-client-certificate="$pki/kubelet-client.crt" --kubelet-client-key="$pki/kubelet-client.key" \
    --audit-policy-file="$conf_dir/audit.yaml" --audit-log-path="$log_dir/audit.jsonl" \
    --audit-log-maxsize=50 --audit-log-maxbackup=1
}
ready_apiserver() {
  wait_for kube-apiserver 90 "the API server is ready" kube get --raw /readyz
}

start_controller_manager() {
  start_process kube-controller-manager "$tools_bin/kube-controller-manager" \
    --kubeconfig="$pki/controller-manager.conf" --bind-address=127.0.0.1 \
    --authentication-kubeconfig="$pki/controller-manager.conf" --authorization-kubeconfig="$pki/controller-manager.conf" \
    --root-ca-file="$pki/ca.crt" --service-account-private-key-file="$pki/sa.key" \
    --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" \
    --use-service-account-credentials --leader-elect=false --allocate-node-cidrs=false
}
start_scheduler() {
  start_process kube-scheduler "$tools_bin/kube-scheduler" --kubeconfig="$pki/scheduler.conf" \
    --authentication-kubeconfig="$pki/scheduler.conf" --authorization-kubeconfig="$pki/scheduler.conf" \
    --bind-address=127.0.0.1 --leader-elect=false
}
ready_controllers() {
  wait_for kube-controller-manager 60 "the controllers are healthy" quiet_get -k https://127.0.0.1:10257/healthz
  wait_for kube-scheduler 60 "the scheduler is healthy" quiet_get -k https://127.0.0.1:10259/healthz
}

start_cri_dockerd() {
  # "firewall" lets the traffic of pods through whatever else filters.
  write_conf cni/10-pods.conflist <<END
{"cniVersion": "0.4.0", "name": "windlass-pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$run_dir/ipam",
            "ranges": [[{"subnet": "$pod_cidr"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "firewall"},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
END
  start_process cri-dockerd "$tools_bin/cri-dockerd" --container-runtime-endpoint "unix://$cri_sock" \
    --docker-endpoint "unix://$docker_sock" --cri-dockerd-root-directory "$state_dir/cri" \
    --network-plugin=cni --cni-bin-dir=/usr/lib/cni --cni-conf-dir="$conf_dir/cni" --cni-cache-dir="$run_dir/cni-cache" \
    --pod-infra-container-image=pause:local
}
ready_cri_dockerd() {
  wait_for cri-dockerd 30 "cri-dockerd has its socket" test -S "$cri_sock"
}

start_kubelet() {
  # Images can not be fetched again, so they are never collected; nor must a
  # rather full disk of a developer evict pods.
  write_conf kubelet.yaml <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $node_ip
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $pki/ca.crt}
authorization: {mode: Webhook}
tlsCertFile: $pki/kubelet-serving.crt
tlsPrivateKeyFile: $pki/kubelet-serving.key
containerRuntimeEndpoint: unix://$cri_sock
clusterDNS: [$dns_ip]
clusterDomain: cluster.local
# Nothing of this machine's resolver (its search domains) leaks into pods.
resolvConf: $conf_dir/resolv.conf
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: []
maxPods: 250
syncFrequency: 10s
serializeImagePulls: false
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: "100Mi", nodefs.available: "1%", imagefs.available: "1%"}
END
  echo "nameserver $node_ip" | write_conf resolv.conf
  mkdir -p "$kubelet_dir"
  touch "$kubelet_dir/.windlass-test"
  start_process kubelet "$tools_bin/kubelet" --config="$conf_dir/kubelet.yaml" --kubeconfig="$pki/kubelet.conf" \
    --root-dir="$kubelet_dir" --hostname-override="$node_name" --node-ip="$node_ip"
}
ready_kubelet() {
  wait_for kubelet 90 "the node is Ready" node_ready
}
node_ready() {
  quiet_get http://127.0.0.1:10248/healthz &&
    [ "$(kube get node "$node_name" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')" = True ]
}

start_kube_proxy() {
  write_conf kube-proxy.yaml <<END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
bindAddress: $node_ip
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
clusterCIDR: $pod_cidr
clientConnection: {kubeconfig: $pki/kube-proxy.conf}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
iptables: {minSyncPeriod: 100ms, localhostNodePorts: false}
nodePortAddresses: [primary]
hostnameOverride: $node_name
END
  start_process kube-proxy "$tools_bin/kube-proxy" --config="$conf_dir/kube-proxy.yaml"
}
ready_kube_proxy() {
  wait_for kube-proxy 60 "kube-proxy is healthy" quiet_get http://127.0.0.1:10256/livez
}

start_coredns() {
  # Names outside the cluster do not exist: no test depends on the internet,
  # and no look-up waits for a resolver that may not be there. One block for
  # each zone, as "template" answers before the others whatever their order.
  write_conf Corefile <<END
cluster.local in-addr.arpa ip6.arpa {
  bind $node_ip
  errors
  kubernetes cluster.local in-addr.arpa ip6.arpa {
    kubeconfig $pki/coredns.conf
    ttl 5
  }
}
windlass.test {
  bind $node_ip
  hosts {
    $node_ip git.windlass.test
    ttl 5
  }
}
. {
  bind $node_ip
  template ANY ANY {
    rcode NXDOMAIN
  }
}
END
  start_process coredns "$tools_bin/coredns" -conf "$conf_dir/Corefile" -pidfile "$run_dir/coredns.pid"
}
# One question over TCP, by hand: no tool for DNS is on every machine.
dns_answers() {
  python3 - "$node_ip" <<'END'
import socket, struct, sys
name = b"".join(bytes([len(p)]) + p for p in b"kubernetes.default.svc.cluster.local".split(b"."))
ask = struct.pack(">6H", 7, 256, 1, 0, 0, 0) + name + b"\0\0\1\0\1"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
s.sendto(ask, (sys.argv[1], 53))
sys.exit(struct.unpack(">6H", s.recv(512)[:12])[3] == 0)
END
}
ready_coredns() {
  wait_for coredns 60 "CoreDNS knows the kubernetes Service" dns_answers
}

# start_registry NAME ADDRESS EXTRA_CONFIG
start_registry() {
  mkdir -p "$state_dir/$1"
  write_conf "$1.yaml" <<END
version: 0.1
log: {level: warn}
storage:
  filesystem: {rootdirectory: $state_dir/$1}
  delete: {enabled: true}
  maintenance: {uploadpurging: {enabled: false}}
http:
  addr: $2
  secret: not-a-secret
$3
END
  start_process "$1" docker-registry serve "$conf_dir/$1.yaml"
}
start_registries() {
  start_registry registry "$registry" ''
  start_registry registry-tls "$tls_registry" "  tls: {certificate: $pki/registry.crt, key: $pki/registry.key}
auth: {htpasswd: {realm: windlass-test, path: $pki/htpasswd}}"
}
ready_registries() {
  wait_for registry 20 "the open registry answers" quiet_get "http://$registry/v2/"
  wait_for registry-tls 20 "the TLS registry answers" \
    quiet_get --cacert "$pki/registry-ca.crt" -u "$demo_user:$demo_password" "https://$tls_registry/v2/"
}

# Over http and over ssh, the latter with a key for one client, which may do
# nothing but fetch.
start_git() {
  local ssh=$state_dir/ssh
  mkdir -p "$state_dir/git" /run/sshd
  start_process git-http python3 "$cluster_src/lib/git-http.py" "$state_dir/git" "$node_ip" "$git_port" "$demo_user" "$demo_password"
  if [ ! -e "$ssh/known_hosts" ]; then
    rm -rf "$ssh"
    mkdir -p "$ssh"
    ssh-keygen -q -t ed25519 -N '' -C windlass-test-host -f "$ssh/host"
    ssh-keygen -q -t ed25519 -N '' -C windlass-test-client -f "$ssh/client"
    echo "[$node_ip]:$ssh_port $(cut -d' ' -f1,2 "$ssh/host.pub")" >"$ssh/known_hosts"
  fi
  # A copy, as this checkout may go while the server runs.
  write_conf git-ssh-command <"$cluster_src/lib/git-ssh-command"
  echo "restrict,command=\"sh '$conf_dir/git-ssh-command' '$state_dir/git'\" $(cat "$ssh/client.pub")" >"$ssh/authorized_keys"
  write_conf sshd <<END
ListenAddress $node_ip:$ssh_port
HostKey $ssh/host
PidFile none
AuthorizedKeysFile $ssh/authorized_keys
StrictModes no
PermitRootLogin forced-commands-only
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
END
  start_process git-ssh /usr/sbin/sshd -D -e -f "$conf_dir/sshd"
}
ready_git() {
  wait_for git-http 20 "the git server answers" quiet_get "http://$node_ip:$git_port/"
  wait_for git-ssh 20 "the ssh server answers" ssh-keyscan -T 2 -p "$ssh_port" "$node_ip"
}
