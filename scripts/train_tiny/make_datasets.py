#!/usr/bin/env python3
"""Writes datasets/{prompts,calibration,quality}.jsonl and datasets/images.

    python3 make_datasets.py --work DIR --out datasets

The three sets are disjoint: texts by the corpus split of their document, pictures and codes by seed, names by the
held-out list (quality: pairs never trained on). Only public-domain text is quoted. Lines are shuffled, so that the first N are a sample of the whole.
"""
import argparse, json, pathlib, random, shutil

from PIL import Image

import pictures
import world
from make_corpus import PUBLIC_DOMAIN
from train import load

TOKEN_BUDGET = 450_000


def save_picture(image, path, jpeg):
    """Palette PNG (exact) or JPEG; returns the file's name."""
    if jpeg:
        image.save(path.with_suffix(".jpg"), quality=92, subsampling=0)
        return path.with_suffix(".jpg").name
    colors = image.getcolors(256)
    small = image.quantize(colors=len(colors), dither=Image.Dither.NONE)
    if small.convert("RGB").tobytes() != image.tobytes():
        small = image
    small.save(path.with_suffix(".png"), optimize=True)
    return path.with_suffix(".png").name


def user(*parts):
    content = [{"type": "image_url", "image_url": {"url": p[1]}} if isinstance(p, tuple) else {"type": "text", "text": p} for p in parts]
    return [{"role": "user", "content": content}]


class Maker:
    def __init__(self, work, out, split):
        self.tok, self.corpus = load(work, split, PUBLIC_DOMAIN)
        self.rng, self.out, self.split = random.Random(f"datasets {split}"), out, split
        self.lines = []

    def picture(self, number, kind=None, jpeg=False):
        scene = pictures.Scene(self.rng, kind)
        size = [self.rng.randint(92, 204) if self.rng.random() < 0.6 else self.rng.choice(pictures.SIZES) for _ in range(2)]
        image = pictures.render(scene, self.rng, *size)
        return scene, "images/" + save_picture(image, self.out / "images" / f"{self.split}-{number:03d}", jpeg)

    def recall(self, number, tokens, held_out):
        context, question, code, _ = world.recall_prompt(self.rng, self.corpus, tokens, held_out)
        prompt = context + "\n\n" + question
        at = prompt.rindex(code, 0, len(context))
        distance = len(self.tok.encode(prompt[at:]).ids) + 5  # to the first answer token
        self.lines.append({"id": f"recall-{number:04d}-d{distance}", "task": "recall", "messages": user(prompt), "answer": code, "max_tokens": 8})

    def text(self, number, tokens):
        while True:
            _, sentences = self.corpus.document(self.rng)
            kept, size = [], 0
            for s in sentences:
                n = len(self.tok.encode(s).ids)
                if size + n > tokens:
                    break
                kept.append(s)
                size += n
            if size > min(tokens - 150, 300):
                break
        self.lines.append({"id": f"text-{number:04d}", "text": " ".join(kept)})

    def continuation(self, number):
        while True:
            _, s = self.corpus.document(self.rng)
            if len(s) >= 6:
                break
        i = self.rng.randrange(len(s) - 4)
        prompt = self.rng.choice(world.CONTINUE) + " " + " ".join(s[i:i + self.rng.randrange(2, 5)])
        self.lines.append({"id": f"continue-{number:04d}", "messages": user(prompt)})

    def write(self, name):
        self.rng.shuffle(self.lines)
        with open(self.out / f"{name}.jsonl", "w") as f:
            for line in self.lines:
                f.write(json.dumps(line, ensure_ascii=False) + "\n")
        tokens = 0
        for line in self.lines:
            text = line.get("text") or "".join(p.get("text", "x" * 60) for m in line["messages"] for p in m["content"])
            tokens += len(self.tok.encode(text).ids)
        print(f"{name}: {len(self.lines)} lines, about {tokens} tokens")
        return tokens


def lengths(rng, n, longest=3200):
    """n prompt lengths from 100 to `longest`, more short ones than long; one in each n-th part, so no luck is involved."""
    out = [int(100 * (longest / 100) ** (((i + rng.random()) / n) ** 2.5)) for i in range(n)]
    rng.shuffle(out)
    return out


def quality(work, out):
    m = Maker(work, out, "quality")
    for i, tokens in enumerate(lengths(m.rng, 640)):
        m.recall(i, tokens, held_out=True)
    i = picture = 0
    per_kind = {k: 0 for k in pictures.KINDS}
    while i < 660:
        scene, name = m.picture(picture, m.rng.choice([None, None, "word", "digit"]), jpeg=picture % 20 == 7)
        picture += 1
        asked = 0
        for kind in sorted(pictures.KINDS, key=lambda k: (per_kind[k], m.rng.random())):
            qa = pictures.question(scene, m.rng, kind)
            if qa and asked < 3:
                asked += 1
                per_kind[kind] += 1
                m.lines.append({"id": f"image-{i:04d}-{kind}", "task": "image_qa", "messages": user(("image", name), qa[0]),
                                "answer": qa[1], "max_tokens": 16})
                i += 1
    for i in range(40):
        m.text(i, m.rng.randint(320, 780))
    assert m.write("quality") < TOKEN_BUDGET


def calibration(work, out):
    m = Maker(work, out, "calibration")
    for i, tokens in enumerate(lengths(m.rng, 40)):
        m.recall(i, tokens, held_out=False)
    for i in range(40):
        scene, name = m.picture(i, jpeg=i % 10 == 3)
        prompt = [pictures.DESCRIBE, pictures.OBJECTS, pictures.ACTION][i % 4] if i % 4 < 3 else pictures.question(scene, m.rng, "count")[0]
        m.lines.append({"id": f"image-{i:04d}", "messages": user(("image", name), prompt)})
    for i in range(32):
        m.continuation(i)
    for i in range(32):
        m.text(i, m.rng.randint(200, 700))
    m.write("calibration")


def prompts(work, out):
    m = Maker(work, out, "prompts")
    for i in range(36):
        scene, name = m.picture(i, jpeg=i % 9 == 4)
        m.lines.append({"id": f"image-{i:04d}", "messages": user(("image", name), [pictures.DESCRIBE, pictures.OBJECTS, pictures.ACTION][i % 3])})
        if i % 3 == 0:
            m.lines.append({"id": f"question-{i:04d}", "messages": user(("image", name), pictures.question(scene, m.rng, "count")[0])})
    for i, tokens in enumerate(lengths(m.rng, 20, 1500)):
        m.recall(i, tokens, held_out=True)
        for key in ("answer", "task", "max_tokens"):
            m.lines[-1].pop(key)
    for i in range(28):
        m.continuation(i)
    m.write("prompts")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--work", required=True)
    ap.add_argument("--out", type=pathlib.Path, required=True)
    a = ap.parse_args()
    shutil.rmtree(a.out / "images", ignore_errors=True)
    (a.out / "images").mkdir(parents=True)
    for make in (quality, calibration, prompts):
        make(a.work, a.out)
    files = list((a.out / "images").iterdir())
    print(f"{len(files)} pictures, {sum(f.stat().st_size for f in files) / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
