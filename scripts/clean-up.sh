#!/usr/bin/env bash
# Removes the containers that a run left behind: `scripts/clean-up.sh OUT`.
#
# A run removes its own, even when it is killed; this is for runners that kill every process at once. A container is
# the run's when it has our label and a folder of the run's output folder is mounted in it. Others are not touched.
set -euo pipefail

out="$(realpath -m -- "$1")"
command -v docker >/dev/null || exit 0
containers="$(docker ps --all --quiet --filter label=vllm-perf.run 2>/dev/null)" || exit 0
for container in $containers; do
  mounted="$(docker inspect --format '{{range .Mounts}}{{println .Source}}{{end}}' "$container" 2>/dev/null)" || continue
  if [[ $'\n'"$mounted" == *$'\n'"$out/"* ]]; then
    echo "vllm-perf: removing container $container, which the run left behind" >&2
    docker rm --force --volumes "$container" >/dev/null || true
  fi
done
