#!/bin/bash
# Builds the image windlass:dev from the binaries in target/image, with the cluster's own engine and no network.
set -euo pipefail
cd "$(dirname "$0")/../.."
DOCKER_BUILDKIT=0 docker build --quiet --target prebuilt --build-arg BASE="${WINDLASS_IMAGE_BASE:-debian:local}" -t windlass:dev . >/dev/null
docker image inspect windlass:dev --format 'image windlass:dev {{.Id}}'
