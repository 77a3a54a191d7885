#!/bin/bash
# Makes the images of the test cluster from this machine and its Debian
# mirror, as no image registry is needed for them: pause, busybox (sh only),
# debian (bash, git, gcc, make, curl) and scratch-noshell (one static
# program). Skips those that the engine has in their current form; contents
# are kept in the cache as tar files.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
for part in settings tools; do . "$cluster_src/lib/$part.sh"; done
tools_bin=$(tools_dir)
export PATH="$tools_bin:$PATH" DOCKER_HOST="unix://$docker_sock"
images_dir=$cluster_src/images

# Each fill_NAME makes the contents in the folder $1.
fill_pause() { gcc -O2 -static -s -o "$1/hold" "$images_dir/hold.c"; }
fill_scratch-noshell() { fill_pause "$1"; }
fill_busybox() { "$images_dir/busybox.sh" "$1"; }
fill_debian() { "$images_dir/debian.sh" "$1"; }

# changes NAME: the configuration of the image, in Dockerfile words.
changes() {
  case $1 in
    pause | scratch-noshell) echo 'ENTRYPOINT ["/hold"]' ;;
    busybox) printf '%s\n' 'CMD ["sh"]' 'ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin' ;;
    debian) printf '%s\n' 'CMD ["bash"]' 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' ;;
  esac
}

stamp_of() {
  local src=$images_dir/$1.sh
  [ -e "$src" ] || src=$images_dir/hold.c
  { cat "$src"; changes "$1"; } | sha256sum | cut -c1-12
}

make_image() {
  local name=$1 stamp tar root begun args=() line
  stamp=$(stamp_of "$name")
  tar=$cache_dir/images/$name-$stamp.tar
  begun=$(now)
  if [ ! -e "$tar" ]; then
    say "making the contents of $name:local"
    mkdir -p "$cache_dir/images"
    root=$(mktemp -d "$cache_dir/images/.root.XXXXXX")
    chmod 755 "$root"
    "fill_$name" "$root" >"$cache_dir/images/$name.log" 2>&1 || {
      tail -20 "$cache_dir/images/$name.log" >&2
      die "making $name failed"
    }
    tar -C "$root" --numeric-owner --one-file-system -cf "$tar.new" .
    mv "$tar.new" "$tar"
    rm -rf --one-file-system "$root"
  fi
  while read -r line; do args+=(-c "$line"); done < <(changes "$name")
  docker import "${args[@]}" -c "LABEL windlass.test.stamp=$stamp" "$tar" "$name:local" >/dev/null
  say "made image $name:local in $(since "$begun")"
}

lock images
todo=()
for name in pause busybox scratch-noshell debian; do
  have=$(docker image inspect -f '{{index .Config.Labels "windlass.test.stamp"}}' "$name:local" 2>/dev/null || true)
  [ "$have" = "$(stamp_of "$name")" ] || todo+=("$name")
done
for name in "${todo[@]}"; do make_image "$name"; done
