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
# The tag stays the same: the image's own ID makes the pods change when it does.
helm upgrade --install windlass charts/windlass -n "$namespace" --create-namespace --skip-crds -f "$values" >/dev/null
id=$(docker image inspect windlass:dev --format '{{.Id}}')
for part in deploy/windlass-controller ds/windlass-agent; do
  kubectl -n "$namespace" patch "$part" --type merge -p "{\"spec\":{\"template\":{\"metadata\":{\"annotations\":{\"windlass.dev/image-id\":\"$id\"}}}}}" >/dev/null
done
for part in deploy/windlass-controller ds/windlass-agent; do
  kubectl -n "$namespace" rollout status "$part" --timeout=120s
done
