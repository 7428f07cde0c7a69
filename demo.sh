#!/usr/bin/env bash
# The main job on the embedded stream: a student adapts to a football match, live.
# Arguments go to the binary and win over those here:
# ./demo.sh --workdir=runs/park --stream=synthetic:park
set -euo pipefail
cd "$(dirname "$0")"
. ./venv.sh
exec python -m experiments.online_distill \
  --workdir=runs/demo --stream=synthetic:sports --height=192 --width=320 "$@"
