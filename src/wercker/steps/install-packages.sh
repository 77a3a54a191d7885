install_packages() {
  as_root=
  if [ "$(id -u)" != 0 ]; then as_root=sudo; fi
  if command -v apt-get >/dev/null 2>&1; then
    $as_root apt-get update
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y --no-install-recommends "$@"
  elif command -v apk >/dev/null 2>&1; then
    $as_root apk add --no-cache "$@"
  elif command -v dnf >/dev/null 2>&1; then
    $as_root dnf install -y "$@"
  elif command -v yum >/dev/null 2>&1; then
    $as_root yum install -y "$@"
  else
    echo "install-packages: the box has none of apt-get, apk, dnf and yum" >&2
    exit 1
  fi
}
# Split at spaces: they are names of packages.
install_packages $WERCKER_INSTALL_PACKAGES_PACKAGES
