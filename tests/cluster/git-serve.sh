#!/bin/bash
# Publishes folders as git repositories on the test cluster's git server:
#   git-serve.sh publish FOLDER NAME [--private]   prints the URL
#   git-serve.sh remove NAME [--private]
#   git-serve.sh url NAME [--private]
# A folder that is a clone is published with all its branches and tags; of any
# other the files become one commit on the branch main (published again, they
# become the next one). Private ones ask for the demo user and password. Over
# ssh: ssh://root@NODE_IP:2222/NAME.git, see target/cluster/env.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
. "$cluster_src/lib/settings.sh"

git_dir=${WINDLASS_GIT_DIR:-$state_dir/git}
git_url=${WINDLASS_GIT_URL:-http://$node_ip:$git_port}

usage() { die "usage: git-serve.sh publish FOLDER NAME [--private] | remove NAME [--private] | url NAME [--private]"; }

git_quiet() {
  git -c init.defaultBranch=main -c safe.directory='*' -c advice.detachedHead=false \
    -c user.name=windlass-test -c user.email=test@windlass.test -c commit.gpgsign=false "$@"
}

publish() {
  local folder=$1 repo=$git_dir/$2.git
  [ -d "$folder" ] || die "no folder $folder"
  mkdir -p "$(dirname "$repo")"
  [ -d "$repo" ] || git_quiet init -q --bare "$repo"
  # Fetching one commit by its id, as build agents do, must work.
  git_quiet -C "$repo" config uploadpack.allowAnySHA1InWant true
  git_quiet -C "$repo" config uploadpack.allowFilter true
  if [ -e "$folder/.git" ]; then
    git_quiet -C "$folder" push -q --mirror "$repo"
    git_quiet -C "$repo" symbolic-ref HEAD "$(git_quiet -C "$folder" symbolic-ref -q HEAD || echo refs/heads/main)"
    return
  fi
  local index
  index=$(mktemp -u)
  (
    export GIT_INDEX_FILE=$index GIT_DIR=$repo GIT_WORK_TREE=$folder
    cd "$folder"
    git_quiet add -A --force .
    local tree old
    tree=$(git_quiet write-tree)
    old=$(git_quiet rev-parse -q --verify refs/heads/main || true)
    if [ -z "$old" ] || [ "$(git_quiet rev-parse "$old^{tree}")" != "$tree" ]; then
      git_quiet update-ref refs/heads/main "$(git_quiet commit-tree "$tree" ${old:+-p "$old"} -m "Publish ${folder##*/}")"
    fi
  )
  rm -f "$index"
}

[ $# -ge 2 ] || usage
action=$1
shift
folder=
if [ "$action" = publish ]; then
  folder=$(realpath "$1")
  shift
fi
[ $# -ge 1 ] || usage
name=$1
[[ $name =~ ^[A-Za-z0-9][A-Za-z0-9._/-]*$ && $name != *..* ]] || die "not a name for a repository: $name"
[ "${2:-}" != --private ] || name=private/$name
case $action in
  publish) publish "$folder" "$name" ;;
  remove) rm -rf "$git_dir/$name.git" && exit ;;
  url) ;;
  *) usage ;;
esac
echo "$git_url/$name.git"
