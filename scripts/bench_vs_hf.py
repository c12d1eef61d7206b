#!/usr/bin/env python3
"""The engine against Hugging Face Transformers on this machine: same model, same threads, one table of ratios.

    python3 scripts/bench_vs_hf.py [--model datasets/models/qwen3-vl-tiny] [--threads N] [--build build/cpu]

Needs torch and transformers >= 5 for the Hugging Face side only. Each number is the median of several runs after a
warm-up: prefill of 512 tokens; decoding 95 tokens after a prompt of 32 (context <= 128), at batch 1 and 16. Hugging
Face decodes by its own generate() with its KV cache, the time of a one-token generate() taken off. Engine and Hugging
Face take turns, so that drift of the machine meets both.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
PREFILL, PROMPT, OUTPUT = 512, 32, 96
METRICS = ["prefill_tokens_per_s", "decode_1_tokens_per_s", "decode_16_tokens_per_s"]


def engine(binary, model, threads, *mode):
    start = time.perf_counter()
    out = subprocess.run([binary, model, str(threads), *mode], check=True, capture_output=True, text=True).stdout
    wall = time.perf_counter() - start
    return {name: float(value) for name, value in map(str.split, out.splitlines())} | {"process_s": wall}


class HuggingFace:
    def __init__(self, directory, dtype):
        import torch
        from transformers import Qwen3VLForConditionalGeneration
        self.torch = torch
        self.model = Qwen3VLForConditionalGeneration.from_pretrained(
            directory, dtype=getattr(torch, dtype)).eval()
        self.vocab = self.model.config.text_config.vocab_size

    def seconds(self, function, repeats):
        function()
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    def ids(self, batch, length):
        return self.torch.randint(0, self.vocab // 2, (batch, length))

    def generate(self, ids, tokens):
        self.model.generate(input_ids=ids, attention_mask=self.torch.ones_like(ids), do_sample=False,
                            min_new_tokens=tokens, max_new_tokens=tokens)

    def measure(self):
        with self.torch.inference_mode():
            ids = self.ids(1, PREFILL)
            mask = self.torch.ones_like(ids)
            prefill = self.seconds(lambda: self.model(input_ids=ids, attention_mask=mask, logits_to_keep=1), 3)
            out = {"prefill_tokens_per_s": PREFILL / prefill}
            for batch in (1, 16):
                prompt = self.ids(batch, PROMPT)
                first = self.seconds(lambda: self.generate(prompt, 1), 2)
                whole = self.seconds(lambda: self.generate(prompt, OUTPUT), 2)
                out[f"decode_{batch}_tokens_per_s"] = batch * (OUTPUT - 1) / (whole - first)
        return out


def medians(runs):
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def ceiling_line(name, result):
    """What batch 16 gains over one sequence, beside what the multiply-add units would allow."""
    ceiling = 1e9 * result["multiply_add_gflops"] / result["decode_flops_per_token"]
    one, sixteen = result["decode_1_tokens_per_s"], result["decode_16_tokens_per_s"]
    return (f"{name}: batch 16 over 1: {sixteen / one:.1f}x; the machine's multiply-add ceiling "
            f"({result['multiply_add_gflops']:.0f} GFLOP/s, {result['decode_flops_per_token'] / 1e6:.1f} MFLOP a token, "
            f"{ceiling:.0f} tok/s) allows {ceiling / one:.1f}x, of which {sixteen / ceiling:.2f} is reached")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "datasets/models/qwen3-vl-tiny")
    parser.add_argument("--quantized", type=pathlib.Path, default=ROOT / "datasets/models/qwen3-vl-tiny-w4a16")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/cpu")
    parser.add_argument("--binary", type=pathlib.Path, help="an engine_bench that is built already")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    binary = args.binary or args.build / "bin/engine_bench"
    if args.binary is None:
        subprocess.run(["cmake", "--build", args.build, "--target", "engine_bench"], check=True, stdout=subprocess.DEVNULL)
    import torch
    torch.set_num_threads(args.threads)
    import transformers
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    references = {f"HF {dtype}": HuggingFace(args.model, dtype) for dtype in ("float32", "bfloat16")}
    checkpoints = {"qwenbench bf16": args.model, "qwenbench 4-bit": args.quantized}

    runs = {name: [] for name in [*checkpoints, *references]}
    for _ in range(args.rounds):
        for name, directory in checkpoints.items():
            runs[name].append(engine(binary, directory, args.threads))
        for name, reference in references.items():
            runs[name].append(reference.measure())
    results = {name: medians(its_runs) for name, its_runs in runs.items()}

    print(f"{args.model.name}, {args.threads} threads, torch {torch.__version__}, transformers {transformers.__version__}")
    print(f"{'tokens per second':24}{'prefill':>12}{'decode x1':>12}{'decode x16':>12}{'x16 / x1':>12}")
    for name, result in results.items():
        row = [result[metric] for metric in METRICS]
        print(f"{name:24}" + "".join(f"{value:12.0f}" for value in row) + f"{row[2] / row[1]:12.1f}")
    for name in checkpoints:
        print(ceiling_line(name, results[name]))
    for ours in checkpoints:
        for name in references:
            ratios = [results[ours][metric] / results[name][metric] for metric in METRICS]
            print(f"{ours + ' / ' + name:48}" + "".join(f"{ratio:9.2f}x" for ratio in ratios))
    for name, directory in checkpoints.items():
        starts = [engine(binary, directory, args.threads, "first-token") for _ in range(7)]
        print(f"{name}: process start to first token {statistics.median(s['process_s'] for s in starts):.3f} s (warm page cache)")


if __name__ == "__main__":
    main()
