#!/bin/bash
# Checks the life of the test cluster, about a minute: a second boot starts nothing, a boot heals what died, and
# stopping leaves nothing on the machine. It stops the cluster that runs, and leaves it stopped.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
for part in settings process machine; do . "$cluster_src/lib/$part.sh"; done
need_root

# What a cluster makes on a machine, outside of its own folders too.
left() {
  ip -o link | awk -F': ' '{ print "link " $2 }'
  awk '{ print "mount " $2 }' /proc/self/mounts
  for family in iptables ip6tables; do
    "$family-save" 2>/dev/null | grep -E '^-A|^:[^ ]+ (-|DROP)' | sed 's/ \[.*//' || true
  done
  find /sys/fs/cgroup -type d \( -name kubepods -o -name docker \)
  find "$kubelet_dir" "$run_dir" "$docker_sock" "$out_dir/env" /run/docker /run/containerd -maxdepth 0 2>/dev/null || true
  leftover_pids
  echo "ip_forward $(cat /proc/sys/net/ipv4/ip_forward)"
}

pids() { head -q "$pid_dir"/*; }

"$cluster_src/down.sh"
before=$(left)
"$cluster_src/up.sh"

first=$(pids)
"$cluster_src/up.sh"
[ "$(pids)" = "$first" ] || die "a second up.sh started something anew"
say "ok: a second boot starts nothing"

for name in kube-scheduler kubelet coredns registry; do
  read -r pid _ <"$pid_dir/$name"
  kill -9 "$pid"
  while running "$name"; do sleep 0.1; done
done
"$cluster_src/up.sh"
for name in kube-scheduler kubelet coredns registry; do
  running "$name" || die "$name was killed, and up.sh did not start it again"
done
"$cluster_src/check.sh"
say "ok: a boot heals what died"

"$cluster_src/down.sh"
diff <(echo "$before") <(left) >&2 || die "the cluster left this on the machine"
say "ok: it leaves nothing"
