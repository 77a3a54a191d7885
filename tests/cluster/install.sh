#!/bin/bash
# Installs the chart with the image windlass:dev and the cluster's registries, and waits until it works.
# Safe to repeat: a new image or chart replaces the old one.
set -euo pipefail
cd "$(dirname "$0")/../.."
namespace=windlass-system

# A directory of the node, which the artifact server, that is not root, may write. It goes with the cluster's data.
make_volume() {
  local artifacts
  artifacts=$(dirname "$WINDLASS_CLUSTER_LOGS")/artifacts
  mkdir -p "$artifacts"
  chown 65532:65532 "$artifacts"
  kubectl apply -f - >/dev/null <<END
apiVersion: v1
kind: PersistentVolume
metadata: {name: windlass-artifacts}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: windlass-test
  persistentVolumeReclaimPolicy: Retain
  claimRef: {namespace: $namespace, name: windlass-artifacts}
  hostPath: {path: "$artifacts", type: Directory}
END
}

kubectl apply --server-side --force-conflicts -f crds/ >/dev/null
# `kubectl wait` gives up on a definition that is so new that its list of conditions is null.
deadline=$((SECONDS + 30))
until kubectl wait --for=condition=Established --timeout=30s crd/pipelines.windlass.dev crd/pipelineruns.windlass.dev >/dev/null; do
  ((SECONDS < deadline)) || exit 1
  sleep 0.2
done
parts=(deploy/windlass-controller ds/windlass-agent)
if [ "${WINDLASS_CLUSTER:-}" != current ]; then
  make_volume
  parts+=(deploy/windlass-artifacts)
fi
# The tag stays the same: the image's own ID makes the pods change when it does.
tests/cluster/values.sh |
  helm upgrade --install windlass charts/windlass -n "$namespace" --create-namespace --skip-crds -f - >/dev/null
id=$(docker image inspect windlass:dev --format '{{.Id}}')
for part in "${parts[@]}"; do
  kubectl -n "$namespace" patch "$part" --type merge -p "{\"spec\":{\"template\":{\"metadata\":{\"annotations\":{\"windlass.dev/image-id\":\"$id\"}}}}}" >/dev/null
done
for part in "${parts[@]}"; do
  kubectl -n "$namespace" rollout status "$part" --timeout=120s
done
