#!/usr/bin/env bash
# The whole experiment on checkpoints whose truth is known (scripts/rewrite_kv_ranges.py), with every question of the
# quality set: prints verdict, mean KL divergence, accuracy and scales of each, and keeps them with their intervals in
# FOLDER/known-truth.json beside the whole results. Some 20 minutes on 2 idle cores.
#   scripts/known_truth.sh [FOLDER for checkpoints and results]
#   scripts/known_truth.sh --print results/cpu/known-truth.json    # the table of a run of before
set -euo pipefail
cd "$(dirname "$0")/.."

print_table() {
  python3 - "$1" <<'PYTHON'
import json, sys
print(f"{'checkpoint':<20} {'verdict':<18} {'KL at 1.0':>10} {'calibrated':>11} {'accuracy at 1.0':>16} {'calibrated':>11}  scales")
for row in json.load(open(sys.argv[1]))["checkpoints"]:
    unit, calibrated = row["unit"], row["calibrated"]
    low, high = calibrated["scales"]
    accuracy = lambda variant: 100 * variant["correct"] / variant["questions"]
    print(f"{row['checkpoint']:<20} {row['verdict']:<18} {unit['kld_mean']:>10.3g} {calibrated['kld_mean']:>11.3g} "
          f"{accuracy(unit):>14.1f} % {accuracy(calibrated):>9.1f} %  {low:.3g} - {high:.3g}")
PYTHON
}

if [ "${1:-}" = --print ]; then
  print_table "$2"
  exit
fi

bin=${QWENBENCH_BIN:-build/cpu/bin}
folder=$(realpath -m "${1:-build/known_truth}")
base=datasets/models/qwen3-vl-tiny-w4a16
mkdir -p "$folder"

rewrite() { python3 scripts/rewrite_kv_ranges.py "$base" "$folder/$1" "${@:2}"; }
rewrite k-2e10 --k-exponent 10
rewrite v-2e-12 --v-exponent -12
rewrite v-head-2e16 --v-exponent 16 --v-heads 1

names=()
run() {  # NAME MODEL [more arguments]
  names+=("$1")
  rm -f "$folder/$1.json"
  "$bin/qwenbench" run --profile tiny-vl-full --model "$2" --trials 1 --num-prompts 1 --max-tokens 2 -q \
    --set workload.warmup_prompts=0 "${@:3}" -o "$folder/$1.json" > "$folder/$1.txt" 2>> "$folder/log.txt" || true
}
run plain "$base"
run k-2e10 "$folder/k-2e10"
run v-2e-12 "$folder/v-2e-12"
run v-head-2e16-tensor "$folder/v-head-2e16"
run v-head-2e16-head "$folder/v-head-2e16" --set calibration.granularity=head

python3 - "$folder" "${names[@]}" <<'PYTHON'
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])


def summary(variant):
    kld, tasks = variant["quality"]["kld"], variant["quality"]["tasks"]
    all_questions = tasks[-1]  # "all"
    return {"kld_mean": kld["mean"], "kld_mean_stderr": kld["mean_stderr"],
            "correct": all_questions["correct"], "questions": all_questions["n"]}


def scale_range(layers):
    values = []
    for layer in layers:
        for key in ("k_scale", "v_scale"):
            values += layer[key] if isinstance(layer[key], list) else [layer[key]]
    return [min(values), max(values)]


rows = []
for name in sys.argv[2:]:
    result = json.loads((folder / f"{name}.json").read_text())
    _, unit, calibrated = result["variants"]
    scales = calibrated["kv_scales"]
    rows.append({"checkpoint": name, "model_fingerprint": result["engine"]["model_fingerprint"],
                 "verdict": result["verdict"]["status"], "reasons": result["verdict"]["reasons"],
                 "unit": summary(unit),
                 "calibrated": summary(calibrated) | {"method": scales["method"], "sha256": scales["sha256"],
                                                      "scales": scale_range(scales["layers"])}})
environment = result["environment"]
whole = {"command": "scripts/known_truth.sh", "build_commit": environment["build_commit"],
         "git_is_dirty": environment["git_is_dirty"], "cpu_info": environment["cpu_info"], "checkpoints": rows}
(folder / "known-truth.json").write_text(json.dumps(whole, indent=1) + "\n")
PYTHON
print_table "$folder/known-truth.json"
