#!/usr/bin/env python3
"""Rewrites a checkpoint into one that computes the same function with other ranges of K or V.

K: k_norm x 2^a and q_norm x 2^-a. The weight is shared by all heads, so K cannot be moved by head.
V: rows of v_proj x 2^a, the matching columns of o_proj x 2^-a, of all KV heads or of some.
Powers of two move exponents and nothing else: with a BF16 cache the outputs stay the same bits, while FP8 at scale 1
saturates (a > 0) or underflows (a < 0). In 4-bit checkpoints the scales are moved; codes and zero points stay.

The result is a folder of links to the untouched files, one small safetensors with what was rewritten, and an index.
Python's standard library is enough.

    rewrite_kv_ranges.py datasets/models/qwen3-vl-tiny-w4a16 OUT --k-exponent 10
    rewrite_kv_ranges.py datasets/models/qwen3-vl-tiny OUT --v-exponent 16 --v-heads 1 --layers 2,3
"""
import argparse
import array
import json
import os
import pathlib
import struct
import sys

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
SINGLE_LINK = "model-00001-of-00001.safetensors"  # loaders that find SINGLE pass over the index
REWRITTEN = "rewritten.safetensors"


def fail(message):
    sys.exit(f"rewrite_kv_ranges: {message}")


class Tensor:
    def __init__(self, name, dtype, shape, data):
        self.name, self.dtype, self.shape, self.data = name, dtype, shape, data

    def scale(self, exponent, chosen):
        """Multiplies the elements whose flat index is in `chosen` by 2^exponent, exactly."""
        forms = {"BF16": ("H", 7, 0xFF), "F32": ("I", 23, 0xFF)}
        if self.dtype not in forms:
            fail(f"{self.name} has dtype {self.dtype}: only BF16 and F32 have the range for it")
        code, shift, mask = forms[self.dtype]
        values = array.array(code, self.data)
        for i in chosen:
            bits = values[i]
            old = bits >> shift & mask
            if old == 0 and bits & ((1 << shift) - 1) == 0:
                continue  # zero
            new = old + exponent
            if old in (0, mask) or not 0 < new < mask:
                fail(f"{self.name}: element {i} times 2^{exponent} is not exact")
            values[i] = bits & ~(mask << shift) | new << shift
        self.data = values.tobytes()


class Checkpoint:
    def __init__(self, folder):
        self.folder = folder
        config = json.loads((folder / "config.json").read_text())
        self.text = config.get("text_config", config)
        self.files = {}  # name -> file
        if (folder / INDEX).exists():
            self.files = json.loads((folder / INDEX).read_text())["weight_map"]
        elif (folder / SINGLE).exists():
            self.files = dict.fromkeys(self.header(SINGLE)[0], SINGLE)
        else:
            fail(f"{folder} has neither {INDEX} nor {SINGLE}")
        self.changed = {}

    def header(self, file):
        with open(self.folder / file, "rb") as f:
            (length,) = struct.unpack("<Q", f.read(8))
            header = json.loads(f.read(length))
        header.pop("__metadata__", None)
        return header, 8 + length

    def has(self, name):
        return name in self.files

    def tensor(self, name):
        if name not in self.changed:
            if name not in self.files:
                fail(f"{self.folder} has no {name}")
            header, start = self.header(self.files[name])
            entry = header[name]
            begin, end = entry["data_offsets"]
            with open(self.folder / self.files[name], "rb") as f:
                f.seek(start + begin)
                self.changed[name] = Tensor(name, entry["dtype"], entry["shape"], f.read(end - begin))
        return self.changed[name]


def move_k(checkpoint, prefix, exponent, channels):
    half = checkpoint.text["head_dim"] // 2
    chosen = sorted({j % half for j in channels} | {j % half + half for j in channels})  # RoPE turns j with j + half
    checkpoint.tensor(prefix + "k_norm.weight").scale(exponent, chosen)
    checkpoint.tensor(prefix + "q_norm.weight").scale(-exponent, chosen)


def columns_of(rows, width, begin, end):
    return [row * width + column for row in range(rows) for column in range(begin, end)]


def move_v(checkpoint, prefix, exponent, kv_heads):
    text = checkpoint.text
    d, group = text["head_dim"], text["num_attention_heads"] // text["num_key_value_heads"]
    packed = checkpoint.has(prefix + "v_proj.weight_packed")
    for linear in ("v_proj", "o_proj"):
        if checkpoint.has(f"{prefix}{linear}.weight_g_idx"):
            fail(f"{prefix}{linear} has a weight_g_idx: its groups are no runs of channels")
        if packed != checkpoint.has(f"{prefix}{linear}.weight_packed") or checkpoint.has(f"{prefix}{linear}.qweight"):
            fail(f"{prefix}{linear}: only BF16, F32 and compressed-tensors' pack-quantized weights are rewritten")
    suffix = "weight_scale" if packed else "weight"
    v, o = checkpoint.tensor(f"{prefix}v_proj.{suffix}"), checkpoint.tensor(f"{prefix}o_proj.{suffix}")
    for head in kv_heads:
        rows = range(head * d * v.shape[1], (head + 1) * d * v.shape[1])
        v.scale(exponent, rows)
        if checkpoint.has(prefix + "v_proj.bias"):
            checkpoint.tensor(prefix + "v_proj.bias").scale(exponent, range(head * d, (head + 1) * d))
        size = text["num_attention_heads"] * d // o.shape[1]  # channels that share one value: a group, or 1
        if d % size != 0:
            fail(f"{prefix}o_proj: groups of {size} channels do not end with a head of {d}")
        for query_head in range(head * group, (head + 1) * group):
            o.scale(-exponent, columns_of(o.shape[0], o.shape[1], query_head * d // size, (query_head + 1) * d // size))


def write(checkpoint, target):
    target.mkdir(parents=True, exist_ok=True)
    for entry in checkpoint.folder.iterdir():
        if entry.name in (INDEX, REWRITTEN):
            continue
        link = target / (SINGLE_LINK if entry.name == SINGLE else entry.name)
        if link.is_symlink() or link.exists():
            link.unlink()
        link.symlink_to(os.path.relpath(entry, target.resolve()))
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, tensor in sorted(checkpoint.changed.items()):
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape,
                        "data_offsets": [len(data), len(data) + len(tensor.data)]}
        data += tensor.data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    (target / REWRITTEN).write_bytes(struct.pack("<Q", len(text)) + text + data)
    weight_map = {name: SINGLE_LINK if file == SINGLE else file for name, file in checkpoint.files.items()}
    weight_map.update(dict.fromkeys(checkpoint.changed, REWRITTEN))
    (target / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}, indent=0) + "\n")


def numbers(text, count, what):
    if text == "all":
        return list(range(count))
    try:
        chosen = [int(part) for part in text.split(",")]
    except ValueError:
        fail(f"{what} {text}: give numbers separated by commas, or all")
    if not all(0 <= n < count for n in chosen):
        fail(f"{what} {text}: there are {count}, from 0")
    return chosen


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=pathlib.Path, help="a checkpoint's folder")
    parser.add_argument("target", type=pathlib.Path, help="the folder to write")
    parser.add_argument("--k-exponent", type=int, default=0, metavar="A", help="K times 2^A")
    parser.add_argument("--k-channels", default="all", metavar="J,...", help="channels of K (j and j + head_dim / 2 go together)")
    parser.add_argument("--v-exponent", type=int, default=0, metavar="A", help="V times 2^A")
    parser.add_argument("--v-heads", default="all", metavar="H,...", help="KV heads whose V is moved")
    parser.add_argument("--layers", default="all", metavar="N,...")
    options = parser.parse_args()
    checkpoint = Checkpoint(options.source)
    if options.target.exists() and options.target.samefile(options.source):
        fail("source and target are the same folder")
    text = checkpoint.text
    channels = numbers(options.k_channels, text["head_dim"], "--k-channels")
    heads = numbers(options.v_heads, text["num_key_value_heads"], "--v-heads")
    for layer in numbers(options.layers, text["num_hidden_layers"], "--layers"):
        prefix = f"model.language_model.layers.{layer}.self_attn."
        if options.k_exponent:
            move_k(checkpoint, prefix, options.k_exponent, channels)
        if options.v_exponent:
            move_v(checkpoint, prefix, options.v_exponent, heads)
    if not checkpoint.changed:
        fail("nothing to do: give --k-exponent or --v-exponent")
    write(checkpoint, options.target)


if __name__ == "__main__":
    main()
