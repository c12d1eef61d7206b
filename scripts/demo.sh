#!/usr/bin/env bash
# From a clone to a verdict: installs the packages it needs, builds `qwenbench run`, runs profiles/tiny-vl.json.
# Further arguments go to `qwenbench run`.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh minimal

# The CUDA backend takes minutes to build: only where a GPU answers.
cuda=OFF
if nvidia-smi -L >/dev/null 2>&1 && { command -v nvcc || [ -x /usr/local/cuda/bin/nvcc ]; } >/dev/null; then cuda=ON; fi

cmake -S . -B build/demo -G Ninja -DCMAKE_BUILD_TYPE=Release -DQWENBENCH_TESTS=OFF \
  -DQWENBENCH_OPTIMIZATION=-O1 -DQWENBENCH_UNITY_BUILD=ON -DQWENBENCH_CUDA=$cuda >&2
cmake --build build/demo --target qwenbench qwenbench-run >&2

exec build/demo/bin/qwenbench run --profile tiny-vl "$@"
