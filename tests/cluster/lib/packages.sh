# shellcheck shell=bash
# Debian packages that the test cluster uses as they are.
packages=(
  # to build runc and the little static programs of the images
  gcc libc6-dev libseccomp-dev pkg-config
  # libraries of Debian's own Docker Engine, which is unpacked beside
  libdevmapper1.02.1 libsystemd0
  # networks of pods
  containernetworking-plugins iptables iproute2 conntrack ebtables ethtool
  # port-forward; registries and their password file; keys
  socat docker-registry apache2-utils openssl
  # contents of the images
  busybox debootstrap
  # the git server, over http and ssh
  git python3 openssh-server openssh-client
  # what the tests look at images with, and the shells that steps may have
  skopeo dash bash
  # tools of the scripts themselves
  curl procps util-linux ca-certificates
)
