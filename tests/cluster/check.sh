#!/bin/bash
# Smoke test of a running test cluster: prints a line of ok or FAIL for each
# thing that the project's tests rely on. Uses a namespace of its own.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
. "$cluster_src/lib/settings.sh"
[ -e "$out_dir/env" ] || die "no cluster: run up.sh first"
. "$out_dir/env"

ns=smoke-$$
scratch=$(mktemp -d)
failed=0
finish() {
  kubectl delete namespace "$ns" --wait=false >/dev/null 2>&1
  rm -rf "$scratch"
}
trap finish EXIT

check() {
  local what=$1 begun out
  shift
  begun=$(now)
  if out=$("$@" 2>&1); then
    printf 'ok    %-50s %s\n' "$what" "$(since "$begun")"
  else
    printf 'FAIL  %-50s %s\n%s\n' "$what" "$(since "$begun")" "$out"
    failed=1
  fi
}
k() { kubectl -n "$ns" "$@"; }
# expect TEXT COMMAND...: its output holds the text.
expect() {
  local text=$1 out
  shift
  out=$("$@" 2>&1) || { echo "$out"; return 1; }
  [[ $out == *"$text"* ]] || { echo "no '$text' in: $out"; return 1; }
}
in_pod() { k exec server -- sh -c "$1"; }

pods() {
  kubectl create namespace "$ns" >/dev/null || return 1
  local try
  for try in 1 2 3 4 5 6 7 8 9 10; do
    k get serviceaccount default >/dev/null 2>&1 && break
    [ "$try" != 10 ] || return 1
    sleep 0.5
  done
  k apply -f - <<END
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  terminationGracePeriodSeconds: 1
  volumes:
  - {name: mem, emptyDir: {medium: Memory, sizeLimit: 8Mi}}
  initContainers:
  - name: sidecar
    image: busybox:local
    restartPolicy: Always
    command: [sh, -c, 'touch /mem/sidecar; exec sleep 3600']
    volumeMounts: [{name: mem, mountPath: /mem}]
    startupProbe: {exec: {command: [test, -e, /mem/sidecar]}, periodSeconds: 1}
  containers:
  - name: main
    image: busybox:local
    command: [sh, -c, 'test -e /mem/sidecar && echo after-sidecar; echo page >/tmp/index; while :; do nc -l -p 8080 -e cat /tmp/index; done']
    volumeMounts: [{name: mem, mountPath: /mem}]
---
apiVersion: v1
kind: Pod
metadata: {name: noshell}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: scratch-noshell:local}]
---
apiVersion: v1
kind: Pod
metadata: {name: host}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: debian:local, command: [sleep, '3600']}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: server}
  ports: [{port: 80, targetPort: 8080}]
END
}
ready() { k wait --for=condition=Ready --timeout=60s pod/server pod/noshell pod/host; }

service() {
  local try
  for try in 1 2 3 4 5 6 7 8 9 10; do
    in_pod 'nc -w 2 web 80 </dev/null' | grep -q page && return 0
    sleep 0.3
  done
  return 1
}
no_such_name() {
  local begun
  begun=$(date +%s)
  in_pod 'nslookup no-such-name.example' && return 1
  [ $(($(date +%s) - begun)) -le 2 ] || { echo "took too long"; return 1; }
}
forward() {
  k port-forward pod/server 18080:8080 >"$scratch/forward" 2>&1 &
  local pid=$! try rc=1
  for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
    sleep 0.2
    # No answer of http here: the page is a bare line.
    if (exec 3<>/dev/tcp/127.0.0.1/18080 && timeout 3 cat <&3) 2>/dev/null | grep -q page; then
      rc=0
      break
    fi
  done
  kill "$pid" 2>/dev/null
  return "$rc"
}

push_pull() {
  docker tag scratch-noshell:local "$1/smoke:$ns" &&
    docker push -q "$1/smoke:$ns" &&
    docker rmi "$1/smoke:$ns" && docker pull -q "$1/smoke:$ns" && docker rmi "$1/smoke:$ns"
}
push_pull_tls() {
  export DOCKER_CONFIG=$scratch/docker
  local anonymous
  anonymous=$(curl -s -o /dev/null -w '%{http_code}' --cacert "$WINDLASS_TLS_REGISTRY_CA" "https://$WINDLASS_TLS_REGISTRY/v2/")
  [ "$anonymous" = 401 ] || { echo "anonymous gets $anonymous"; return 1; }
  docker login -u "$WINDLASS_DEMO_USER" --password-stdin "$WINDLASS_TLS_REGISTRY" <<<"$WINDLASS_DEMO_PASSWORD" &&
    push_pull "$WINDLASS_TLS_REGISTRY"
}

git_http() {
  mkdir -p "$scratch/repo"
  echo one >"$scratch/repo/file"
  local url
  url=$("$cluster_src/git-serve.sh" publish "$scratch/repo" "$ns") || return 1
  git clone -q "$url" "$scratch/clone" && grep -q one "$scratch/clone/file" &&
    k exec host -- git clone -q --depth 1 "$url" /tmp/clone
}
git_private() {
  local url with
  url=$("$cluster_src/git-serve.sh" publish "$scratch/repo" "$ns" --private) || return 1
  with=${url/:\/\//:\/\/$WINDLASS_DEMO_USER:$WINDLASS_DEMO_PASSWORD@}
  GIT_TERMINAL_PROMPT=0 git -c credential.helper= ls-remote "$url" && return 1
  git ls-remote "$with" | grep -q refs/heads/main
}
git_ssh() {
  GIT_SSH_COMMAND=$WINDLASS_GIT_SSH_COMMAND git ls-remote "$WINDLASS_GIT_SSH_URL/$ns.git" | grep -q refs/heads/main
}

check 'node is Ready' expect True kubectl get node "$node_name" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'
check 'versions of Kubernetes' expect v1.34.2 kubectl version
check 'pods are accepted' pods
check 'pods run, one with hostNetwork, one without shell' ready
check 'logs, and a native sidecar that starts first' expect after-sidecar k logs server -c main
check 'exec' expect uid=0 in_pod id
check 'port-forward' forward
check 'emptyDir of medium Memory is a tmpfs' expect tmpfs in_pod 'grep " /mem " /proc/mounts'
check 'DNS: kubernetes.default.svc' expect "$service_ip" in_pod 'nslookup kubernetes.default.svc.cluster.local && ping -c1 -W1 kubernetes.default.svc >/dev/null; nslookup kubernetes.default.svc.cluster.local'
check 'DNS: a name outside does not exist, at once' no_such_name
check 'a Service reaches its pod, from that pod too' service
check 'a Service reaches its pod from the machine' expect page bash -c "cat </dev/tcp/$(k get service web -o 'jsonpath={.spec.clusterIP}')/80"
check 'the API server through its Service' expect '"major"' k exec host -- curl -sk "https://$service_ip/version"
check "push and pull, $WINDLASS_REGISTRY" push_pull "$WINDLASS_REGISTRY"
check "push and pull with TLS and a password, $WINDLASS_TLS_REGISTRY" push_pull_tls
check 'git over http, from here and from a pod' git_http
check 'git over http with a password' git_private
check 'git over ssh' git_ssh
check 'docker build' bash -c "printf 'FROM busybox:local\nRUN echo built >/x\n' | docker build -q -t smoke:$ns - && docker run --rm smoke:$ns cat /x && docker rmi smoke:$ns"
check 'helm' expect v3.22.0 helm version
exit $failed
