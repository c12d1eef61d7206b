#!/usr/bin/env python3
"""How long `qwenbench compare` takes over many result files. Python's standard library only.

    scripts/bench_compare.py [--files 1000] [--from results/cpu/tiny-vl-full.json]

Copies one result file many times, each copy with other times and a benchmark_id of its own, and compares one half with
the other: once with all files of a side as repeats, once as a grid of one pair of files a row.
"""
import argparse
import json
import pathlib
import random
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def scaled(result, factor, number):
    result["benchmark_id"] = f"bench-{number}"
    for variant in result["variants"]:
        for holder in [variant, *variant["trials"]]:
            for key, value in holder.items():
                if isinstance(value, float) and (key.endswith("_ms") or key in ("duration", "decode_seconds")):
                    holder[key] = value * factor
                elif isinstance(value, float) and key.endswith("_throughput"):
                    holder[key] = value / factor
    return result


def write_files(source, count, folder):
    text, draw = source.read_text(), random.Random(1)
    sides = {"base": [], "new": []}
    for i in range(count):
        result = scaled(json.loads(text), draw.lognormvariate(0, 0.02), i)
        result["profile"]["workload"]["seed"] = i // 2
        side = "base" if i % 2 == 0 else "new"
        path = folder / f"{side}{i}.json"
        path.write_text(json.dumps(result))
        sides[side].append(str(path))
    return sides


def timed(program, sides, extra):
    start = time.perf_counter()
    done = subprocess.run([program, "--base", *sides["base"], "--new", *sides["new"], *extra], capture_output=True)
    seconds = time.perf_counter() - start
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr.decode())
    return seconds, done.stdout.decode().rstrip().splitlines()[-1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--from", dest="source", type=pathlib.Path, default=ROOT / "results/cpu/tiny-vl-full.json")
    parser.add_argument("--program", default=str(ROOT / "build/cpu/bin/qwenbench-compare"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        sides = write_files(options.source, options.files, pathlib.Path(name))
        size = sum(pathlib.Path(p).stat().st_size for side in sides.values() for p in side)
        print(f"{options.files} files, {size / 1e6:.0f} MB")
        for label, extra in (("repeats", []), ("a grid of pairs", ["--row", "workload.seed,variant"])):
            seconds, last = timed(options.program, sides, extra)
            print(f"{label}: {seconds:.1f} s ({last})")


if __name__ == "__main__":
    main()
