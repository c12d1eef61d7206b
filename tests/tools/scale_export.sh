#!/bin/sh
# Exports of calibrate-kv, read by the ecosystem's own libraries. Exit code 77 (skipped) where they are not installed.
#   scale_export.sh PYTHON BIN_FOLDER SOURCE_FOLDER
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$2/qwenbench" calibrate-kv --profile tiny-vl --num-samples 4 -q -o "$folder/tensor.json" \
  --export compressed-tensors,modelopt,sglang > /dev/null
"$2/qwenbench" calibrate-kv --profile tiny-vl --model datasets/models/qwen3-vl-tiny --num-samples 4 -q \
  --granularity head -o "$folder/head.json" --export compressed-tensors,sglang > /dev/null
"$1" "$3/scripts/fixtures/check_scale_export.py" "$folder/tensor.json"
"$1" "$3/scripts/fixtures/check_scale_export.py" "$folder/head.json"
