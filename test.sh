#!/usr/bin/env bash
# Runs the tests; arguments go to pytest (./test.sh -m slow for the long ones).
set -euo pipefail
cd "$(dirname "$0")"
. ./venv.sh
ruff check .
ruff format --check .
export OMP_NUM_THREADS=1  # or the threads of two tests fight for two cores
# Hundreds of programs are compiled here and most run once: fewer passes, and
# the older emitters, which compile several times as fast.
export XLA_FLAGS="--xla_backend_optimization_level=0 \
  --xla_llvm_disable_expensive_passes=true \
  --xla_cpu_parallel_codegen_split_count=1 \
  --xla_cpu_use_fusion_emitters=false ${XLA_FLAGS:-}"
# One more than the cores: some tests wait for processes.
exec python -m pytest -q -n 3 --dist loadfile "$@"
