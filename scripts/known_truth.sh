#!/usr/bin/env bash
# The whole experiment on checkpoints whose truth is known (scripts/rewrite_kv_ranges.py), with every question of the
# quality set: prints verdict, mean KL divergence and accuracy of each. Some 15 minutes on 2 cores.
#   scripts/known_truth.sh [FOLDER for checkpoints and results]
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${QWENBENCH_BIN:-build/cpu/bin}
folder=$(realpath -m "${1:-build/known_truth}")
base=datasets/models/qwen3-vl-tiny-w4a16
mkdir -p "$folder"

rewrite() { python3 scripts/rewrite_kv_ranges.py "$base" "$folder/$1" "${@:2}"; }
rewrite k-2e10 --k-exponent 10
rewrite v-2e-12 --v-exponent -12
rewrite v-head-2e16 --v-exponent 16 --v-heads 1

run() {  # NAME MODEL [more arguments]
  "$bin/qwenbench" run --profile tiny-vl-full --model "$2" --trials 1 --num-prompts 1 --max-tokens 2 -q \
    --set workload.warmup_prompts=0 "${@:3}" -o "$folder/$1.json" > "$folder/$1.txt" 2>> "$folder/log.txt" || true
}
run plain "$base"
run k-2e10 "$folder/k-2e10"
run v-2e-12 "$folder/v-2e-12"
run v-head-2e16-tensor "$folder/v-head-2e16"
run v-head-2e16-head "$folder/v-head-2e16" --set calibration.granularity=head

python3 - "$folder" <<'PYTHON'
import json, pathlib, sys
print(f"{'checkpoint':<20} {'verdict':<18} {'KL at 1.0':>10} {'calibrated':>11} {'accuracy at 1.0':>16} {'calibrated':>11}  scales")
for name in ("plain", "k-2e10", "v-2e-12", "v-head-2e16-tensor", "v-head-2e16-head"):
    result = json.loads((pathlib.Path(sys.argv[1]) / f"{name}.json").read_text())
    _, unit, calibrated = result["variants"]
    flat = lambda x: x if isinstance(x, list) else [x]
    scales = [s for layer in calibrated["kv_scales"]["layers"] for key in ("k_scale", "v_scale") for s in flat(layer[key])]
    kl = lambda v: v["quality"]["kld"]["mean"]
    accuracy = lambda v: 100 * v["quality"]["tasks"][-1]["accuracy"]
    print(f"{name:<20} {result['verdict']['status']:<18} {kl(unit):>10.3g} {kl(calibrated):>11.3g} "
          f"{accuracy(unit):>14.1f} % {accuracy(calibrated):>9.1f} %  {min(scales):.3g} - {max(scales):.3g}")
PYTHON
