#!/usr/bin/env bash
# The main job on the embedded stream: a student learns a street, live.
# Arguments go to the binary: ./demo.sh --stream=synthetic:park
set -euo pipefail
cd "$(dirname "$0")"
. ./venv.sh
workdir=${OJD_DEMO_DIR:-runs/demo}
exec python -m experiments.online_distill \
  --workdir="$workdir" --stream=synthetic:sports --height=192 --width=320 "$@"
