# shellcheck shell=bash
# Prepares the machine for a node, and cleans up after it: links, sysctls,
# mounts, iptables and cgroups.

prepare_machine() {
  mkdir -p "$state_dir" "$conf_dir" "$run_dir"
  chmod 700 "$state_dir"
  echo '{}' >"$conf_dir/none.json"
  # Mounts that the kubelet makes must be seen in containers: share them, as
  # is the default on machines with systemd.
  [ "$(findmnt -no PROPAGATION /)" = shared ] || mount --make-rshared /
  # A bridge without ports, because not every kernel has dummy links.
  if ! ip link show "$node_link" >/dev/null 2>&1; then
    ip link add "$node_link" type bridge
  fi
  ip addr replace "$node_ip/32" dev "$node_link"
  ip link set "$node_link" up
  # So that Services can be reached without a default route, too.
  ip route replace "$service_cidr" dev "$node_link" src "$node_ip"
  if [ ! -e "$run_dir/ip_forward" ]; then
    cat /proc/sys/net/ipv4/ip_forward >"$run_dir/ip_forward"
  fi
  echo 1 >/proc/sys/net/ipv4/ip_forward
  # Pods that share the bridge reach each other through Services only when
  # its packets go through iptables.
  modprobe br_netfilter 2>/dev/null || true
  [ ! -e /proc/sys/net/bridge/bridge-nf-call-iptables ] || echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables
}

# Processes whose command line names our run folder: what an engine that was
# killed leaves (containerd and its shims). Plus all in containers' cgroups.
leftover_pids() {
  pids_of_folder "$run_dir/docker/"
  find /sys/fs/cgroup \( -path '*/kubepods/*' -o -path '*/docker/*' \) -name cgroup.procs -exec cat {} + 2>/dev/null | sort -un
}
kill_leftovers() {
  local try pids
  for try in 1 2 3 4 5 6 7 8 9 10; do
    mapfile -t pids < <(leftover_pids)
    [ ${#pids[@]} != 0 ] || return 0
    [ "$try" != 1 ] || say "killing ${#pids[@]} processes that an engine left"
    kill -9 "${pids[@]}" 2>/dev/null || true
    sleep 0.2
  done
  say "these do not end: ${pids[*]}"
}

unmount_all() {
  local m
  awk '{ print $2 }' /proc/self/mounts | sort -ru | while read -r m; do
    case $m in
      "$kubelet_dir"/* | "$state_dir"/* | "$run_dir"/*) umount "$m" 2>/dev/null || umount -l "$m" || true ;;
    esac
  done
}

remove_links() {
  local l
  for l in "$node_link" cni0 docker0; do
    ip link delete "$l" 2>/dev/null || true
  done
}

# Leaves the rules of others: takes out every chain and rule that kube-proxy,
# the kubelet, Docker and the CNI plugins made.
clean_iptables() {
  local family rules
  for family in iptables ip6tables; do
    rules=$("$family-save" 2>/dev/null) || continue
    case $rules in
      *KUBE-* | *DOCKER* | *CNI-*) ;;
      *) continue ;;
    esac
    grep -v -E -e 'KUBE-|DOCKER|CNI-| (cni0|docker0) |172\.17\.0\.0/16' <<<"$rules" | "$family-restore"
  done
}

remove_cgroups() {
  local top
  for top in /sys/fs/cgroup/kubepods /sys/fs/cgroup/*/kubepods /sys/fs/cgroup/docker /sys/fs/cgroup/*/docker; do
    [ ! -d "$top" ] || find "$top" -depth -type d -exec rmdir {} \; 2>/dev/null || true
  done
}

# Folders outside of ours that the engine and sshd insist on, if nobody else
# has something in them. Shims that were killed leave their sockets there.
remove_empty_folders() {
  pgrep -x containerd >/dev/null || find /run/containerd/s -type s -delete 2>/dev/null || true
  rmdir /run/docker/plugins /run/docker /run/containerd/s /run/containerd /run/sshd 2>/dev/null || true
}

restore_sysctls() {
  [ ! -e "$run_dir/ip_forward" ] || cat "$run_dir/ip_forward" >/proc/sys/net/ipv4/ip_forward
}
