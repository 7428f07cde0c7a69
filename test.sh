#!/usr/bin/env bash
# Runs the tests; arguments go to pytest (./test.sh -m slow for the long ones).
set -euo pipefail
cd "$(dirname "$0")"
. ./venv.sh
ruff check .
ruff format --check .
export OMP_NUM_THREADS=1  # or the threads of two tests fight for two cores
# A hundred programs are compiled here and most run once: fewer passes.
export XLA_FLAGS="--xla_backend_optimization_level=0 ${XLA_FLAGS:-}"
exec python -m pytest -q -n 2 --dist loadfile "$@"
