# shellcheck shell=bash
# The tools of the test cluster that are built from pinned Go modules: which
# groups there are, with which flags, and in which folder each is kept.

tool_groups=(etcd runc engine docker-cli k8s cri-dockerd coredns helm registry versitygw)

k8s_version=v1.34.2
k8s_commit=8cc511e399b929453cd98ae65b419c3cc227ec79

# group_env GROUP: environment of the build. group_args GROUP: its arguments.
group_env() {
  case $1 in
    runc) echo CGO_ENABLED=1 ;; # libseccomp
    *) echo CGO_ENABLED=0 ;;
  esac
}
group_args() {
  local v=k8s.io/component-base/version d=github.com/moby/moby/v2/dockerversion
  local x='-s -w'
  printf '%s\n' -mod=readonly -trimpath -buildvcs=false
  case $1 in
    # Without these --version prints a template, and charts that check the
    # version of Kubernetes fail.
    k8s) x+=" -X $v.gitVersion=$k8s_version -X $v.gitMajor=1 -X $v.gitMinor=34"
      x+=" -X $v.gitCommit=$k8s_commit -X $v.gitTreeState=clean -X $v.buildDate=2025-11-11T00:00:00Z" ;;
    engine) x+=" -X $d.Version=29.0.0+moby.v2.0.0-beta.24" ;;
    docker-cli) x+=" -X github.com/docker/cli/cli/version.Version=29.7.2" ;;
    helm) x+=" -X helm.sh/helm/v3/internal/version.version=v3.22.0" ;;
    registry) x+=" -X github.com/distribution/distribution/v3/version.version=v3.1.2" ;;
    runc) printf '%s\n' -tags=seccomp ;;
  esac
  printf '%s\n' "-ldflags=$x"
}

# group_stamp GROUP: changes when its module files or its flags do.
group_stamp() {
  { cat "$cluster_src/tools/$1/go.mod" "$cluster_src/tools/$1/go.sum"
    group_env "$1"; group_args "$1"; uname -m; } | sha256sum | cut -c1-12
}
group_dir() { echo "$cache_dir/tools/$1-$(group_stamp "$1")"; }

# tools_dir: one folder with a link to each tool of this very set of groups.
tools_dir() {
  local g
  for g in "${tool_groups[@]}"; do group_stamp "$g"; done | sha256sum |
    { read -r h _; echo "$cache_dir/tools/all-${h:0:12}/bin"; }
}
