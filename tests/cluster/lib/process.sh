# shellcheck shell=bash
# Starts, watches and stops the processes of the cluster. A process is known
# by its pid and its start time, so that a pid that the kernel gave to
# somebody else since is never taken for ours.

pid_dir=$state_dir/pids
log_dir=$state_dir/logs

# started_at PID: start time in clock ticks; fails if there is no such process
# or only its zombie.
started_at() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  stat=${stat##*) } # the name before it may hold spaces
  # shellcheck disable=SC2086
  set -- $stat
  [ "$1" != Z ] || return 1
  echo "${20}"
}

running() {
  local pid at
  read -r pid at 2>/dev/null <"$pid_dir/$1" || return 1
  [ "$(started_at "$pid")" = "$at" ]
}

# start_process NAME COMMAND...: start it in a session of its own, unless it
# runs. Descriptor 9 is the lock of the script.
start_process() {
  local name=$1
  shift
  running "$name" && return 0
  mkdir -p "$pid_dir" "$log_dir"
  [ ! -e "$log_dir/$name.log" ] || mv "$log_dir/$name.log" "$log_dir/$name.log.1"
  say "starting $name"
  setsid "$@" >"$log_dir/$name.log" 2>&1 </dev/null 9>&- &
  local pid=$!
  echo "$pid $(started_at "$pid")" >"$pid_dir/$name"
  disown "$pid"
}

# stop_process NAME [SECONDS]: ask it to end, wait, then force it.
stop_process() {
  local name=$1 left=$((${2:-15} * 10)) pid
  running "$name" || { rm -f "$pid_dir/$name"; return 0; }
  read -r pid _ <"$pid_dir/$name"
  say "stopping $name"
  kill "$pid" 2>/dev/null || true
  while running "$name" && [ $left -gt 0 ]; do
    sleep 0.1
    left=$((left - 1))
  done
  if running "$name"; then
    say "$name does not end, killing it"
    kill -9 "$pid" 2>/dev/null || true
    while running "$name"; do sleep 0.1; done
  fi
  rm -f "$pid_dir/$name"
}

# wait_for NAME SECONDS WHAT COMMAND...: until the command succeeds. Gives up
# when time is over or the process NAME ended, and shows the end of its log.
wait_for() {
  local name=$1 limit=$2 what=$3 begun told=
  shift 3
  begun=$(date +%s)
  until "$@" >/dev/null 2>&1 9>&-; do
    if ! running "$name"; then
      show_log "$name"
      die "$name ended before $what"
    fi
    if [ $(($(date +%s) - begun)) -ge "$limit" ]; then
      show_log "$name"
      die "gave up after $limit s waiting until $what"
    fi
    if [ -z "$told" ] && [ $(($(date +%s) - begun)) -ge 2 ]; then
      say "waiting until $what"
      told=1
    fi
    sleep 0.1
  done
}

show_log() {
  say "last lines of $log_dir/$1.log:"
  tail -20 "$log_dir/$1.log" >&2 || true
}

# Containerd, shims and proxies of an engine that was killed: their command lines name its folder, $1.
pids_of_folder() {
  local p
  for p in /proc/[0-9]*; do
    case $(cat "$p/comm" 2>/dev/null) in
      containerd* | docker-proxy | runc*)
        if tr '\0' ' ' 2>/dev/null <"$p/cmdline" | grep -qF -e "$1"; then echo "${p#/proc/}"; fi ;;
    esac
  done
}
