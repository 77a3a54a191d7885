#!/bin/bash
# The main job, end to end: publishes the example's repository, runs its pipeline, pulls and runs the image.
set -euo pipefail
cd "$(dirname "$0")/../.."
namespace=demo
windlass=target/release/windlass
url=$(tests/cluster/git-serve.sh publish examples/hello/app hello)
kubectl create namespace "$namespace" --dry-run=client -o yaml | kubectl apply -f - >/dev/null

# The example names the places of the test cluster; WINDLASS_CLUSTER=current has others.
run=examples/hello/run.yaml
if [ "${WINDLASS_CLUSTER:-}" = current ]; then
  run=$(mktemp)
  sed "s|http://git.windlass.test:8418/hello.git|$url|; s|127.0.0.1:5000|$WINDLASS_REGISTRY|" examples/hello/run.yaml >"$run"
fi
"$windlass" run -n "$namespace" -f "$run"

image=$(kubectl get plr -n "$namespace" --sort-by=.metadata.creationTimestamp \
  -o jsonpath='{.items[-1].status.steps[?(@.name=="push")].images[0].repository}@{.items[-1].status.steps[?(@.name=="push")].images[0].digest}')
docker pull --quiet "$image" >/dev/null
container=$(docker run --rm -d -p 127.0.0.1:5050:5000 "$image")
trap 'docker rm -f "$container" >/dev/null; [ "$run" = examples/hello/run.yaml ] || rm -f "$run"' EXIT
for _ in $(seq 50); do
  answer=$(curl -fsS http://127.0.0.1:5050/ 2>/dev/null) && break
  sleep 0.1
done
echo "the image answers: ${answer:?the image does not answer on port 5050}"
echo "pushed $image"
