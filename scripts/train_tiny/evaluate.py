#!/usr/bin/env python3
"""Prints the held-out table of datasets/quality.jsonl, by Hugging Face's own model in fp32.

    python3 evaluate.py --model datasets/models/qwen3-vl-tiny [--limit N] [--work DIR]

An answer is exact if every one of its tokens and the closing <|im_end|> is the model's first choice given the ones
before it, which is the same as greedy decoding giving that answer. With --work (make_corpus.py's folder) the unigram
baseline is counted from the training text, else from the quality texts themselves (a stronger baseline).
"""
import argparse, collections, json, math, pathlib, re, time

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

BUCKETS = [0, 128, 256, 512, 1024, 2048, 4096]


def load_model(path):
    from transformers import AutoConfig, Qwen3VLForConditionalGeneration
    config = AutoConfig.from_pretrained(path)
    scheme = getattr(config, "quantization_config", None)
    if scheme is not None:
        del config.quantization_config
    model = Qwen3VLForConditionalGeneration(config).float().eval()
    tensors = {k: v for f in sorted(path.glob("*.safetensors")) for k, v in load_file(f).items()}
    if scheme is not None:
        from compressed_tensors.compressors import PackedQuantizationCompressor
        from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
        group = json.loads((path / "config.json").read_text())["quantization_config"]["config_groups"]["group_0"]
        scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**group["weights"]))
        for name in [k.removesuffix(".weight_packed") for k in tensors if k.endswith(".weight_packed")]:
            parts = {k: tensors.pop(f"{name}.{k}") for k in ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape")}
            tensors[f"{name}.weight"] = PackedQuantizationCompressor.decompress(parts, scheme)["weight"]
    missing, unexpected = model.load_state_dict({k: v.float() for k, v in tensors.items()}, strict=False)
    assert not unexpected and all("lm_head" in m for m in missing), (missing, unexpected)
    return model


class Evaluator:
    def __init__(self, path, datasets):
        from tokenizers import Tokenizer
        from transformers import Qwen2VLImageProcessor
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model, self.datasets = load_model(path).to(self.device), datasets
        self.tok = Tokenizer.from_file(str(path / "tokenizer.json"))
        self.images = Qwen2VLImageProcessor.from_pretrained(path)
        self.pad = self.tok.token_to_id("<|image_pad|>")

    def ids(self, text):
        return self.tok.encode(text, add_special_tokens=False).ids

    def prepare(self, line):
        """(prompt ids, answer ids, pixel values, grid) of a request: no system prompt, one user turn, generation prompt."""
        text, pixels, grid = "", None, None
        for part in line["messages"][0]["content"]:
            if part["type"] == "text":
                text += part["text"]
            else:
                out = self.images(images=[Image.open(self.datasets / part["image_url"]["url"])], return_tensors="pt")
                pixels, grid = out["pixel_values"], out["image_grid_thw"]
                text += "<|vision_start|>" + "<|image_pad|>" * (int(grid.prod()) // 4) + "<|vision_end|>"
        prompt = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
        return self.ids(prompt), self.ids(line["answer"] + "<|im_end|>"), pixels, grid

    @torch.no_grad()
    def exact(self, items):
        """Whether each of a few (prompt, answer, pixels, grid) of like length is answered exactly; padded on the right."""
        width = max(len(p) + len(a) for p, a, _, _ in items)
        eot = self.tok.token_to_id("<|endoftext|>")
        ids = torch.tensor([p + a + [eot] * (width - len(p) - len(a)) for p, a, _, _ in items])
        mask = torch.tensor([[1] * (len(p) + len(a)) + [0] * (width - len(p) - len(a)) for p, a, _, _ in items])
        more = {}
        if items[0][2] is not None:
            more = {"pixel_values": torch.cat([x[2] for x in items]), "image_grid_thw": torch.cat([x[3] for x in items]),
                    "mm_token_type_ids": (ids == self.pad).long()}
        if len(items) > 1 or more:
            more["attention_mask"] = mask
        more = {k: v.to(self.device) for k, v in more.items()}
        first = min(len(p) for p, _, _, _ in items) - 1
        best = self.model(input_ids=ids.to(self.device), logits_to_keep=torch.arange(first, width, device=self.device), **more).logits.argmax(-1).cpu()
        out = []
        for row, (p, a, _, _) in zip(best, items):
            at = len(p) - 1 - first
            out.append(row[at:at + len(a)].tolist() == a)
        return out

    def all_exact(self, prepared, batch_tokens=4096):
        order = sorted(range(len(prepared)), key=lambda i: len(prepared[i][0]))
        results, batch = [None] * len(prepared), []

        def flush():
            for i, r in zip(batch, self.exact([prepared[i] for i in batch])):
                results[i] = r
            batch.clear()
        for i in order:
            if batch and (len(batch) + 1) * len(prepared[i][0]) > batch_tokens:
                flush()
            batch.append(i)
        flush()
        return results

    @torch.no_grad()
    def text_loss(self, ids):
        t = torch.tensor([ids], device=self.device)
        logits = self.model(input_ids=t).logits[0, :-1]
        return F.cross_entropy(logits.float(), t[0, 1:], reduction="sum").item()


def long_recall(e, work, n):
    """More questions of the same kind, all in long contexts: quality.jsonl has few of them, to stay quick on a CPU."""
    import random
    import world
    from make_corpus import PUBLIC_DOMAIN
    from train import load
    rng, (_, corpus), out = random.Random("long"), load(work, "quality", PUBLIC_DOMAIN), []
    for i in range(n):
        context, question, code, _ = world.recall_prompt(rng, corpus, 3200)
        distance = len(e.ids(context[context.rindex(code):] + "\n\n" + question)) + 5
        out.append({"id": f"long-{i}-d{distance}", "answer": code, "messages": [{"content": [{"type": "text", "text": context + "\n\n" + question}]}]})
    return out


def table(title, groups):
    print(f"\n| {title} | n | exact |\n|---|---|---|")
    for name, values in groups.items():
        print(f"| {name} | {len(values)} | {100 * sum(values) / len(values):.1f} % |")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", type=pathlib.Path, required=True)
    ap.add_argument("--datasets", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[2] / "datasets")
    ap.add_argument("--work", type=pathlib.Path)
    ap.add_argument("--limit", type=int, default=0)
    ap.add_argument("--long", type=int, default=0, help="ask so many further questions in contexts of 3,200 tokens (needs --work)")
    a = ap.parse_args()
    start = time.time()
    e = Evaluator(a.model, a.datasets)
    lines = [json.loads(s) for s in open(a.datasets / "quality.jsonl")][:a.limit or None]

    recall = [x for x in lines if x.get("task") == "recall"] + (long_recall(e, a.work, a.long) if a.long else [])
    hits, by = e.all_exact([e.prepare(x) for x in recall]), collections.defaultdict(list)
    for x, hit in zip(recall, hits):
        d = int(x["id"].rsplit("-d", 1)[1])
        low = max(b for b in BUCKETS if b <= d)
        by[f"{low} to {BUCKETS[BUCKETS.index(low) + 1] - 1} tokens"].append(hit)
    groups = dict(sorted(by.items(), key=lambda kv: int(kv[0].split()[0])))
    groups["all"] = hits
    plain = []
    for x in recall[::4]:  # the same as plain text, without the chat form
        context, question = x["messages"][0]["content"][0]["text"].rsplit("\n\n", 1)
        name = re.search(r"code of (?:the )?(\w+ \w+)", question)[1]
        plain.append((e.ids(f"{context} The code of {name} is "), e.ids(x["answer"] + "."), None, None))
    groups["every fourth, as plain text"] = e.all_exact(plain)
    print(a.model.name)
    table("recall at a distance of", groups)

    pictures = [x for x in lines if x.get("task") == "image_qa"]
    prepared = [e.prepare(x) for x in pictures]
    hits, by = e.all_exact(prepared), collections.defaultdict(list)
    for x, hit in zip(pictures, hits):
        by[x["id"].rsplit("-", 1)[1]].append(hit)
    for x, hit in zip(pictures, hits):
        if x["messages"][0]["content"][0]["image_url"]["url"].endswith(".jpg"):
            by["(of them JPEG)"].append(hit)
    table("question about a picture", {**by, "all": hits})

    texts = [e.ids(x["text"]) for x in lines if "text" in x]
    counted = texts
    if a.work:
        import numpy as np
        counted = [np.fromfile(a.work / "train.u16", dtype=np.uint16).tolist()]
    counts = collections.Counter(t for ids in counted for t in ids)
    total = sum(counts.values())
    n = sum(len(t) - 1 for t in texts)
    unigram = -sum(math.log((counts[t] + 1) / (total + e.tok.get_vocab_size())) for ids in texts for t in ids[1:]) / n
    print(f"\nheld-out English text, {n} tokens: perplexity {math.exp(sum(e.text_loss(t) for t in texts) / n):.1f}, unigram {math.exp(unigram):.0f}")
    print(f"({time.time() - start:.0f} s)")


if __name__ == "__main__":
    main()
