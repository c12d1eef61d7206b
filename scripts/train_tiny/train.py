#!/usr/bin/env python3
"""Trains the tiny model; resumes from its own checkpoint.

    python3 train.py --work DIR --checkpoint DIR2 [--minutes 9] [--steps N] ...

--work is make_corpus.py's directory (corpus.jsonl or corpus.jsonl.gz, tokenizer.json). The data of step i depend on
the seed and i alone, so a resumed run continues the same sequence. Stops by itself after --minutes (0: no limit).
"""
import argparse, json, os, pathlib, random, time

import torch

import model as M
import pictures
import world

TOKENS, PICTURE_ROWS, PICTURE_LENGTH = 32768, 128, 256


class Steps(torch.utils.data.IterableDataset):
    """Step after step of data; worker w of n makes steps first+w, first+w+n, ..."""

    def __init__(self, work, first, seed, tokens, picture_rows):
        self.work, self.first, self.seed, self.tokens, self.picture_rows = work, first, seed, tokens, picture_rows

    def __iter__(self):
        torch.set_num_threads(1)
        tok, corpus = load(self.work)
        info = torch.utils.data.get_worker_info()
        step, stride = (self.first + info.id, info.num_workers) if info else (self.first, 1)
        while True:
            ids, kinds = world.text_batch(tok, corpus, self.seed, step, self.tokens)
            images, pids, pkinds, grid = pictures.picture_batch(tok, self.seed, step, self.picture_rows, PICTURE_LENGTH)
            t = torch.from_numpy
            yield step, t(ids), t(kinds), t(images), t(pids), t(pkinds), grid
            step += stride


def load(work, split="train", sources=None):
    from tokenizers import Tokenizer
    tok = Tokenizer.from_file(f"{work}/tokenizer.json")
    path = pathlib.Path(work) / "corpus.jsonl"
    return tok, world.Corpus(path if path.exists() else f"{path}.gz", split, sources)


class Muon:
    """Momentum orthogonalised by five Newton-Schulz steps, for matrices; those of one shape are done together."""

    def __init__(self, params, lr=0.02, momentum=0.95, decay=0.01):
        self.lr, self.momentum, self.decay, self.groups = lr, momentum, decay, {}
        for name, p in params:
            self.groups.setdefault((p.shape[0], p[0].numel()), []).append((name, p))
        self.state = {name: torch.zeros_like(p) for g in self.groups.values() for name, p in g}

    @torch.no_grad()
    def step(self, scale):
        for (rows, cols), group in self.groups.items():
            params, grads = [p for _, p in group], [p.grad for _, p in group]
            bufs = [self.state[n] for n, _ in group]
            torch._foreach_mul_(bufs, self.momentum)
            torch._foreach_add_(bufs, grads)
            x = torch.stack([(g + self.momentum * b).view(rows, cols) for g, b in zip(grads, bufs)])
            x = x.bfloat16() if x.is_cuda else x  # bf16 products are slow on most CPUs
            x = orthogonal(x) * (max(1.0, rows / cols) ** 0.5 * self.lr * scale)
            torch._foreach_mul_(params, 1 - self.lr * scale * self.decay)
            torch._foreach_sub_(params, [u.view_as(p).to(p.dtype) for u, p in zip(x, params)])


def orthogonal(x):
    transposed = x.shape[1] > x.shape[2]
    x = x.mT if transposed else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x.mT @ x
        x = 3.4445 * x + x @ (-4.7750 * a + 2.0315 * (a @ a))
    return x.mT if transposed else x


def optimizers(model):
    matrices, rest = [], []
    for name, p in model.named_parameters():
        is_matrix = p.ndim >= 2 and "embed_tokens" not in name and "pos_embed" not in name
        (matrices if is_matrix else rest).append((name, p))
    adam = torch.optim.AdamW([p for _, p in rest], lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=rest[0][1].is_cuda)
    return Muon(matrices), adam


def save(path, model, step, muon, adam, extra=None):
    """Weights in fp32, in parts below 16 MiB (the optimizers' moments in a file of their own, which may be dropped)."""
    from safetensors.torch import save_file
    path.mkdir(parents=True, exist_ok=True)
    parts, size = [{}], 0
    for name, p in model.named_parameters():
        if size + p.numel() * 4 > 15e6:
            parts.append({})
            size = 0
        parts[-1][name] = p.detach().cpu().contiguous()
        size += p.numel() * 4
    for i, part in enumerate(parts):
        save_file(part, path / f"weights-{i}.safetensors")
    (path / "step.json").write_text(json.dumps({"step": step}))
    target = pathlib.Path(extra) if extra else path
    target.mkdir(parents=True, exist_ok=True)
    torch.save({"step": step, "muon": muon.state, "adam": adam.state_dict()}, target / "moments.pt")


def resume(path, model, muon, adam, extra=None):
    from safetensors.torch import load_file
    if not (path / "step.json").exists():
        return 0, False
    step = json.loads((path / "step.json").read_text())["step"]
    weights = {k: v for f in sorted(path.glob("weights-*.safetensors")) for k, v in load_file(f).items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and all("lm_head" in m for m in missing), (missing, unexpected)
    moments = (pathlib.Path(extra) if extra else path) / "moments.pt"
    if moments.exists():
        state = torch.load(moments, map_location=next(model.parameters()).device)
        if state["step"] == step:
            muon.state = state["muon"]
            adam.load_state_dict(state["adam"])
            return step, False
    return step, True


class Held:
    """Small held-out sets looked at while training: recall by prompt length, pictures by kind."""

    def __init__(self, work, device, n=128, lengths=(128, 256, 512, 1024, 2048, 3072)):
        tok, corpus = load(work, "calibration")
        self.pad, self.device = tok.token_to_id("<|image_pad|>"), device
        rng = random.Random(99)
        self.recall, self.pictures = [], []
        for length in lengths:
            rows = []
            for _ in range(n):
                context, q, code, _ = world.recall_prompt(rng, corpus, length - 40)
                rows.append([(world.USER + context + "\n\n" + q + world.ASSISTANT, 0), (code + "<|im_end|>", 2)])
            width = max(len(tok.encode("".join(t for t, _ in r)).ids) for r in rows)
            a = [world.tokenise(tok, r, width) for r in rows]
            self.recall.append((length, *(torch.stack([torch.from_numpy(x[i]) for x in a]) for i in (0, 1))))
        for kind in pictures.KINDS:
            images, rows = [], []
            while len(rows) < n:
                scene = pictures.Scene(rng, kind if kind in ("word", "digit") else None)
                qa = pictures.question(scene, rng, kind)
                if qa:
                    images.append(torch.from_numpy(pictures.np.array(pictures.resized(pictures.render(scene, rng, 135, 120), 128, 128))))
                    image = "<|vision_start|>" + "<|image_pad|>" * 16 + "<|vision_end|>"
                    rows.append(world.tokenise(tok, [(world.USER + image + qa[0] + world.ASSISTANT, 0), (qa[1] + "<|im_end|>", 2)], 64))
            self.pictures.append((kind, torch.stack(images), *(torch.stack([torch.from_numpy(x[i]) for x in rows]) for i in (0, 1))))
        text = [world.tokenise(tok, world.text_sample(rng, corpus, 1024), 1024) for _ in range(32)]
        self.text = [torch.stack([torch.from_numpy(x[i]) for x in text]) for i in (0, 1)]

    def report(self, fast, quant=False):
        """One line; never the end of a training run."""
        try:
            return self.measure(fast, quant)
        except Exception as e:
            return f"no report: {type(e).__name__}: {e}"

    @torch.no_grad()
    def measure(self, fast, quant):
        def exact(ids, kinds, *args):
            right = []
            for part in range(0, len(ids), 32):
                cut = slice(part, part + 32)
                more = (args[0][cut].to(self.device), args[1], self.pad) if args else ()
                _, hit, kind = fast.forward(ids[cut].to(self.device), kinds[cut].to(self.device), *more, quant=quant)
                right.append((hit | (kind != 2)).all(1))
            return torch.cat(right).float().mean().item()
        recall = {length: exact(a, b) for length, a, b in self.recall}
        seen = {kind: exact(a, b, images, (4, 4)) for kind, images, a, b in self.pictures}
        loss, _, kind = fast.forward(*(t.to(self.device) for t in self.text), quant=quant)
        ppl = loss[kind == 1].mean().exp().item()
        mean = sum(seen.values()) / len(seen)
        return (f"ppl {ppl:.1f} recall " + " ".join(f"{k}:{v:.2f}" for k, v in recall.items())
                + f" pictures {mean:.3f} " + " ".join(f"{k}:{v:.2f}" for k, v in seen.items()))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--work", required=True)
    ap.add_argument("--checkpoint", type=pathlib.Path, required=True)
    ap.add_argument("--moments", help="folder for the optimizers' moments (default: the checkpoint's)")
    ap.add_argument("--resume-from", type=pathlib.Path, help="default: the checkpoint itself")
    ap.add_argument("--steps", type=int, default=9200)
    ap.add_argument("--decay-start", type=int, default=6200)
    ap.add_argument("--qat-start", type=int, default=6400, help="from here on most steps run with 4-bit weights")
    ap.add_argument("--minutes", type=float, default=0)
    ap.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--tokens", type=int, default=TOKENS)
    ap.add_argument("--picture-rows", type=int, default=PICTURE_ROWS)
    ap.add_argument("--eval-every", type=int, default=1000)
    ap.add_argument("--held", type=int, default=128)
    a = ap.parse_args()
    start, device = time.time(), "cuda" if torch.cuda.is_available() else "cpu"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    say = lambda s: print(f"[{time.time() - start:6.1f}s] {s}", flush=True)
    torch.set_float32_matmul_precision("high")

    tok, _ = load(a.work)
    model = M.build(tok, a.seed).to(device)
    muon, adam = optimizers(model)
    first, rewarm = resume(a.resume_from or a.checkpoint, model, muon, adam, a.moments)
    warm_from = first if rewarm else 0
    data = iter(torch.utils.data.DataLoader(Steps(a.work, first, a.seed, a.tokens, a.picture_rows), batch_size=None,
                                            num_workers=a.workers, prefetch_factor=4 if a.workers else None,
                                            pin_memory=device == "cuda"))
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    fast = M.Fast(model, compiled=device == "cuda", dtype=dtype)
    slow = M.Fast(model, compiled=False, dtype=dtype)  # the held-out sets come in many shapes
    held = Held(a.work, device, a.held)
    pad = tok.token_to_id("<|image_pad|>")
    say(f"{device}, {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, from step {first}")

    mean = lambda loss, where, least: (loss * where).sum() / where.sum().clamp(min=least)
    seen = torch.zeros(5, device=device)
    mark, since, done = time.time(), first, first
    for step in range(first, a.steps):
        number, ids, kinds, images, pids, pkinds, grid = next(data)
        assert number == step
        ids, kinds, images, pids, pkinds = (t.to(device, non_blocking=True) for t in (ids, kinds, images, pids, pkinds))
        quant = step >= a.qat_start and random.Random(f"quant {step}").random() < 0.75
        loss, hit, kind = fast.forward(ids, kinds, quant=quant)
        text, answers = mean(loss, kind == 1, 500), mean(loss, kind == 2, 150)
        (text + answers).backward()
        ploss, phit, pkind = fast.forward(pids, pkinds, images, grid, pad, quant=quant)
        seeing = mean(ploss, pkind == 2, 500)
        seeing.backward()
        scale = min(1.0, (step - warm_from + 1) / 100)
        if step >= a.decay_start:
            scale *= max(0.01, (a.steps - step) / (a.steps - a.decay_start))
        muon.step(scale)
        for g in adam.param_groups:
            g["lr"] = 3e-3 * scale
        adam.step()
        model.zero_grad(set_to_none=True)
        with torch.no_grad():
            seen += torch.stack([text.detach(), answers.detach(), mean(hit.float(), kind == 2, 1), seeing.detach(),
                                 mean(phit.float(), pkind == 2, 1)])
        done = step + 1
        if done % 100 == 0 or done - first in (1, 10, 30):
            text_loss, recall_loss, recall_right, picture_loss, picture_right = (seen / (done - since)).tolist()
            say(f"step {done} {(time.time() - mark) / (done - since) * 1e3:.0f} ms/step row {ids.shape[1]} text {text_loss:.3f} "
                f"recall {recall_loss:.3f} ({recall_right:.3f}) pictures {picture_loss:.3f} ({picture_right:.3f})")
            seen.zero_()
            mark, since = time.time(), done
        if done % a.eval_every == 0:
            say(("4-bit " if done > a.qat_start else "") + held.report(slow, done > a.qat_start))
            save(a.checkpoint, model, done, muon, adam, a.moments)
            mark = time.time()
        if a.minutes and time.time() - start > a.minutes * 60:
            break
    if done > first:
        save(a.checkpoint, model, done, muon, adam, a.moments)
    say("bf16 " + held.report(slow))
    say("4-bit " + held.report(slow, True))
    say(f"stopped at step {done}")
    os._exit(0)  # the data workers need no farewell


if __name__ == "__main__":
    main()
