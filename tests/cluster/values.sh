#!/bin/bash
# Prints the chart's values for the cluster of target/cluster/env: the image windlass:dev and the cluster's registries.
# A cluster of somebody else's (WINDLASS_CLUSTER=current) has what its administrator named, and no artifact store.
set -euo pipefail

cat <<END
image: {repository: windlass, tag: dev, pullPolicy: Never}
agent: {kubeletDir: $WINDLASS_KUBELET_DIR, engineSocket: ${DOCKER_HOST#unix://}}
registries:
- {host: "$WINDLASS_REGISTRY", insecure: true}
END
if [ "${WINDLASS_CLUSTER:-}" = current ]; then
  echo 'artifacts: {store: {kind: none}}'
  exit
fi
cat <<END
- {host: "$WINDLASS_TOKEN_SERVICE", insecure: true}
- {host: "$WINDLASS_TOKEN_REGISTRY", insecure: true, tokenHost: "$WINDLASS_TOKEN_SERVICE"}
- host: "$WINDLASS_TLS_REGISTRY"
  ca: |
END
sed 's/^/    /' "$WINDLASS_TLS_REGISTRY_CA"
# Public registries by their own names: tests answer for them on loopback.
for host in registry-1.docker.io quay.io gcr.io 123456789012.dkr.ecr.eu-west-1.amazonaws.com; do
  echo "- {host: $host, insecure: true, address: \"127.0.0.1:5011\"}"
done
echo '- {host: api.ecr.eu-west-1.amazonaws.com, insecure: true, address: "127.0.0.1:5010"}'
# Nothing provisions volumes here: install.sh makes one for the claim.
echo 'artifacts: {store: {directory: {size: 1Gi, storageClass: windlass-test}}}'
