#!/usr/bin/env bash
# Every test: Release, with CUDA where nvcc is found, sanitizers, a short fuzzing of each parser. Says which stage failed; the last line is ctest's
# summary of the Release build. Logs: build/test-logs/STAGE.log
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

fuzz_seconds=${FUZZ_SECONDS:-20}
# With ccache, what another clone has compiled is not compiled again.
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
logs=build/test-logs
mkdir -p "$logs"

stage() {  # stage NAME COMMAND...: shows the end of the log where the command fails, and stops
  local name=$1 start=$SECONDS
  shift
  printf '== %s\n' "$name"
  if "$@" >"$logs/$name.log" 2>&1; then
    printf '   done in %d s\n' "$((SECONDS - start))"
  else
    tail -n 80 "$logs/$name.log"
    printf 'FAILED: stage %s (whole log: %s/%s.log)\n' "$name" "$logs" "$name"
    exit 1
  fi
}

build() { cmake --preset "$1" && cmake --build "build/$1" --target all "${@:2}"; }

run_tests() { ctest --preset "$1" -j "$(nproc)" --timeout 900 "${@:2}"; }

# The suites in which several threads work together; the others would only repeat what AddressSanitizer saw.
tsan_suites=(base_test comm_test backend_test engine_test parity_test)

build_tsan() { cmake --preset cpu-tsan && cmake --build build/cpu-tsan --target "${tsan_suites[@]}"; }

# Without address randomisation: older ThreadSanitizers do not know the layouts of newer kernels.
run_tests_tsan() {
  local fixed=() pattern
  setarch "$(uname -m)" -R true 2>/dev/null && fixed=(setarch "$(uname -m)" -R)
  pattern=$(IFS='|'; echo "^(${tsan_suites[*]})\$")
  "${fixed[@]}" ctest --preset cpu-tsan -R "$pattern" -j "$(nproc)" --timeout 900
}

build_fuzzers() {
  local targets=()
  for source in tests/fuzz/*_fuzz.cpp; do targets+=("$(basename "$source" .cpp)"); done
  cmake --preset fuzz && cmake --build build/fuzz --target "${targets[@]}"
}

# fuzz NAME FOLDER...: the files of the folders are the corpus to begin with.
fuzz() {
  local name=$1 corpus
  shift
  corpus=$(mktemp -d)
  "build/fuzz/fuzz/$name" -max_total_time="$fuzz_seconds" -timeout=20 -rss_limit_mb=3000 -print_final_stats=1 \
    -artifact_prefix="$logs/" "$corpus" "$@"
  local code=$?
  rm -rf "$corpus"
  return $code
}

fuzz_corpus() {
  case $1 in
    profile_fuzz) echo profiles ;;
    tokenizer_fuzz) echo tests/model_text/fixtures ;;
    image_fuzz) echo tests/model_image/fixtures ;;
    safetensors_fuzz) echo tests/fuzz/corpus/safetensors ;;
  esac
}

stage setup scripts/setup.sh full
stage build build cpu benchmarks
stage test run_tests cpu
stage demo scripts/demo.sh --dry-run   # the one unity build
if command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ]; then
  stage build-cuda build cuda benchmarks
  stage test-cuda run_tests cuda -LE slow
  grep -E 'Skipped' "$logs/test-cuda.log" | sort -u
else
  echo '== build-cuda: skipped, no nvcc here'
fi
stage build-asan build cpu-asan
stage test-asan run_tests cpu-asan -LE slow   # slow: whole experiments, whose parts the others instrument
stage build-tsan build_tsan
stage test-tsan run_tests_tsan
stage build-fuzz build_fuzzers
for source in tests/fuzz/*_fuzz.cpp; do
  name=$(basename "$source" .cpp)
  stage "$name" fuzz "$name" "$(fuzz_corpus "$name")"
done

grep -E 'tests passed' "$logs/test.log" | tail -n 1
