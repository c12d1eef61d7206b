#!/usr/bin/env python3
"""Writes the two checkpoints from the trained weights.

    python3 export.py --work DIR --checkpoint DIR2 --out datasets/models

qwen3-vl-tiny:        BF16, two shards, config.json as Transformers 5 writes it
qwen3-vl-tiny-w4a16:  the text model's Linear layers as compressed-tensors pack-quantized (4 bits, asymmetric, groups
                      of 32, bf16 scales), packed by compressed-tensors itself; config.json as the released Qwen3-VL
                      checkpoints write it (rope_theta beside rope_scaling)
"""
import argparse, json, os, pathlib, shutil

import torch
from safetensors.torch import load_file, save_file

import model as M

SHARD = 9_500_000
TEMPLATE = """{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type in ['image', 'image_url'] or 'image' in part or 'image_url' in part -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif 'text' in part -%}
{{- part.text -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}"""


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def common_files(out, tok, tokenizer_json):
    shutil.copyfile(tokenizer_json, out / "tokenizer.json")
    added = {str(i): {"content": t.content, "lstrip": False, "normalized": t.normalized, "rstrip": False,
                      "single_word": False, "special": t.special} for i, t in sorted(tok.get_added_tokens_decoder().items())}
    write_json(out / "tokenizer_config.json", {
        "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": added, "bos_token": None,
        "chat_template": TEMPLATE, "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>", "errors": "replace",
        "model_max_length": 4096, "pad_token": "<|endoftext|>", "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer", "unk_token": None})
    write_json(out / "generation_config.json", {
        "bos_token_id": tok.token_to_id("<|endoftext|>"), "pad_token_id": tok.token_to_id("<|endoftext|>"), "do_sample": False,
        "eos_token_id": [tok.token_to_id("<|im_end|>"), tok.token_to_id("<|endoftext|>")]})
    write_json(out / "preprocessor_config.json", {
        "size": {"longest_edge": 1048576, "shortest_edge": 4096}, "patch_size": 16, "temporal_patch_size": 2, "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "image_processor_type": "Qwen2VLImageProcessorFast"})


def write_shards(out, tensors):
    shards, size = [{}], 0
    for name in sorted(tensors):
        n = tensors[name].numel() * tensors[name].element_size()
        if size + n > SHARD:
            shards.append({})
            size = 0
        shards[-1][name] = tensors[name].contiguous()
        size += n
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    if len(shards) == 1:
        save_file(shards[0], out / "model.safetensors", metadata={"format": "pt"})
        return total
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for name, shard in zip(names, shards):
        save_file(shard, out / name, metadata={"format": "pt"})
    write_json(out / "model.safetensors.index.json", {"metadata": {"total_size": total},
               "weight_map": {k: name for name, shard in zip(names, shards) for k in shard}})
    return total


def pack(name, weight, scheme):
    """One Linear as compressed-tensors stores it, from the codes that training rounded to."""
    from compressed_tensors.compressors import PackedQuantizationCompressor
    code, scale, zero = M.quantize(weight)
    exact = ((code.view(code.shape[0], -1, M.GROUP) - zero.unsqueeze(-1)) * scale.float().unsqueeze(-1)).view_as(code)
    packed = PackedQuantizationCompressor.compress(
        {"weight": exact, "weight_scale": scale.float(), "weight_zero_point": (zero - 8).to(torch.int8)}, scheme)
    packed["weight_scale"] = scale
    back = PackedQuantizationCompressor.decompress(packed, scheme)["weight"]
    assert torch.equal(back.float(), M.dequantize(code, scale, zero)), name
    packed["weight_shape"] = packed["weight_shape"].to(torch.int64)
    return {f"{name}.{k}": v for k, v in packed.items()}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--work", type=pathlib.Path, required=True)
    ap.add_argument("--checkpoint", type=pathlib.Path, required=True)
    ap.add_argument("--out", type=pathlib.Path, required=True)
    a = ap.parse_args()
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from tokenizers import Tokenizer
    tok = Tokenizer.from_file(str(a.work / "tokenizer.json"))
    weights = {k: v for f in sorted(a.checkpoint.glob("weights-*.safetensors")) for k, v in load_file(f).items()}
    weights.pop("lm_head.weight", None)
    config = M.config(tok)
    config.architectures = ["Qwen3VLForConditionalGeneration"]
    config = json.loads(config.to_json_string(use_diff=False))
    for c in (config, config["text_config"], config["vision_config"]):
        for key in ("transformers_version", "_name_or_path", "chunk_size_feed_forward", "id2label", "label2id", "problem_type",
                    "output_attentions", "output_hidden_states", "return_dict", "is_encoder_decoder"):
            c.pop(key, None)
        c["dtype"] = "bfloat16"
    config["text_config"].pop("architectures")
    config["vision_config"].pop("architectures")
    config["vision_config"].pop("rope_parameters", None)  # the class default; not every version reads it

    os.umask(0o022)
    out = a.out / "qwen3-vl-tiny"
    out.mkdir(parents=True, exist_ok=True)
    common_files(out, tok, a.work / "tokenizer.json")
    write_json(out / "config.json", config)
    print(out, write_shards(out, {k: v.to(torch.bfloat16) for k, v in weights.items()}))

    out = a.out / "qwen3-vl-tiny-w4a16"
    out.mkdir(parents=True, exist_ok=True)
    common_files(out, tok, a.work / "tokenizer.json")
    (out / "tokenizer.json").unlink()  # the same file, once in the repository
    (out / "tokenizer.json").symlink_to("../qwen3-vl-tiny/tokenizer.json")
    args = QuantizationArgs(num_bits=4, symmetric=False, strategy="group", group_size=M.GROUP, type="int")
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    rope = config["text_config"].pop("rope_parameters")
    config["text_config"]["rope_theta"] = rope.pop("rope_theta")
    config["text_config"]["rope_scaling"] = rope
    config["quantization_config"] = {
        "config_groups": {"group_0": {"format": "pack-quantized", "input_activations": None, "output_activations": None,
                                      "targets": ["Linear"], "weights": args.model_dump(mode="json")}},
        "format": "pack-quantized", "global_compression_ratio": None, "ignore": ["re:.*visual.*", "lm_head"],
        "kv_cache_scheme": None, "quant_method": "compressed-tensors", "quantization_status": "compressed"}
    write_json(out / "config.json", config)
    tensors = {}
    for k, v in weights.items():
        if k.startswith("model.language_model.layers.") and k.endswith("_proj.weight"):
            tensors.update(pack(k.removesuffix(".weight"), v, scheme))
        else:
            tensors[k] = v.to(torch.bfloat16)
    global SHARD
    SHARD = 15_000_000
    print(out, write_shards(out, tensors))
    for f in a.out.rglob("*.safetensors"):
        f.chmod(0o644)


if __name__ == "__main__":
    main()
