#!/bin/bash
# Installs the chart with the image windlass:dev and the cluster's registries, and waits until it works.
# Safe to repeat: a new image or chart replaces the old one.
set -euo pipefail
cd "$(dirname "$0")/../.."
namespace=windlass-system
values=$(mktemp)
trap 'rm -f "$values"' EXIT
{
  printf 'image: {repository: windlass, tag: dev, pullPolicy: Never}\n'
  printf 'agent: {kubeletDir: %s, engineSocket: %s}\n' "$WINDLASS_KUBELET_DIR" "${DOCKER_HOST#unix://}"
  # Nothing provisions volumes here: the claim gets one that is made below.
  printf 'artifacts: {store: {directory: {size: 1Gi, storageClass: windlass-test}}}\n'
  printf 'registries:\n'
  printf -- '- {host: "%s", insecure: true}\n' "$WINDLASS_REGISTRY" "$WINDLASS_TOKEN_SERVICE"
  printf -- '- {host: "%s", insecure: true, tokenHost: "%s"}\n' "$WINDLASS_TOKEN_REGISTRY" "$WINDLASS_TOKEN_SERVICE"
  printf -- '- host: "%s"\n  ca: |\n' "$WINDLASS_TLS_REGISTRY"
  sed 's/^/    /' "$WINDLASS_TLS_REGISTRY_CA"
  # Public registries by their own names: tests answer for them on loopback.
  for host in registry-1.docker.io quay.io gcr.io 123456789012.dkr.ecr.eu-west-1.amazonaws.com; do
    printf -- '- {host: %s, insecure: true, address: "127.0.0.1:5011"}\n' "$host"
  done
  printf -- '- {host: api.ecr.eu-west-1.amazonaws.com, insecure: true, address: "127.0.0.1:5010"}\n'
} >"$values"
kubectl apply --server-side --force-conflicts -f crds/ >/dev/null
kubectl wait --for=condition=Established --timeout=30s crd/pipelines.windlass.dev crd/pipelineruns.windlass.dev >/dev/null
# A directory of the node, which the server, that is not root, may write. It goes with the cluster's data.
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
# The tag stays the same: the image's own ID makes the pods change when it does.
helm upgrade --install windlass charts/windlass -n "$namespace" --create-namespace --skip-crds -f "$values" >/dev/null
id=$(docker image inspect windlass:dev --format '{{.Id}}')
parts=(deploy/windlass-controller deploy/windlass-artifacts ds/windlass-agent)
for part in "${parts[@]}"; do
  kubectl -n "$namespace" patch "$part" --type merge -p "{\"spec\":{\"template\":{\"metadata\":{\"annotations\":{\"windlass.dev/image-id\":\"$id\"}}}}}" >/dev/null
done
for part in "${parts[@]}"; do
  kubectl -n "$namespace" rollout status "$part" --timeout=120s
done
