#!/usr/bin/env python3
"""Makes the text corpus from Debian packages, trains the tokenizer, and tokenises.

    python3 make_corpus.py --work DIR            (DIR is scratch: ~400 MB, not committed)

Only packages whose text is in the public domain or under a permissive licence are used; the table
SOURCES is the one copied into datasets/README.md. Output in DIR:
    corpus.jsonl      {"source", "split": train|calibration|prompts|quality, "text"}: documents of prose paragraphs
    tokenizer.json    byte-level BPE of exactly VOCAB entries, with Qwen's pattern and special tokens
    train.u16         the training documents as ids, <|endoftext|> between documents
"""
import argparse, gzip, hashlib, html.parser, json, pathlib, random, re, subprocess

SOURCES = {  # package: (what, licence of the text)
    "bible-kjv-text": ("King James Bible", "public domain"),
    "jargon-text": ("The Jargon File 4.4.7", "public domain"),
    "sqlite3-doc": ("SQLite documentation", "public domain"),
    "rust-doc": ("The Rust books", "MIT or Apache-2.0"),
    "postgresql-doc-15": ("PostgreSQL 15 documentation", "PostgreSQL License"),
    "python3.11-doc": ("Python 3.11 documentation", "PSF License"),
    "apache2-doc": ("Apache HTTP Server documentation", "Apache-2.0"),
}
PUBLIC_DOMAIN = {"bible-kjv-text", "jargon-text", "sqlite3-doc"}  # only these are quoted in datasets/*.jsonl
HTML = {
    "sqlite3-doc": "usr/share/doc/sqlite3/*.html",
    "rust-doc": "usr/share/doc/rust-doc/html/{book,reference,nomicon,embedded-book,rust-by-example,edition-guide,rustc}/**/*.html",
    "postgresql-doc-15": "usr/share/doc/postgresql-doc-15/html/*.html",
    "python3.11-doc": "usr/share/doc/python3.11/html/**/*.html",
    "apache2-doc": "usr/share/doc/apache2-doc/manual/en/**/*.html*",
}
VOCAB = 4096
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
           "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>",
           "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]
ADDED = ["<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
         "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>"]


def fetch(work, package):
    """Downloads and unpacks one package without installing it."""
    root = work / "packages" / package
    if not root.exists():
        debs = work / "debs"
        debs.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", package], cwd=debs, check=True, stdout=subprocess.DEVNULL)
        deb = next(debs.glob(package + "_*.deb"))
        subprocess.run(["dpkg", "-x", deb, root], check=True)
    return root


class Paragraphs(html.parser.HTMLParser):
    """The text of <p> elements; code blocks are left out."""

    def __init__(self):
        super().__init__()
        self.out, self.buf, self.skip = [], None, 0

    def flush(self):
        if self.buf is not None:
            self.out.append("".join(self.buf))
        self.buf = None

    def handle_starttag(self, tag, attrs):
        if tag in ("script", "style", "pre", "table"):
            self.flush()
            self.skip += 1
        elif tag == "p":
            self.flush()
            self.buf = []
        elif tag in ("div", "ul", "ol", "h1", "h2", "h3", "h4", "dl"):
            self.flush()

    def handle_endtag(self, tag):
        if tag in ("script", "style", "pre", "table"):
            self.skip = max(0, self.skip - 1)
        elif tag == "p":
            self.flush()

    def handle_data(self, data):
        if self.buf is not None and not self.skip:
            self.buf.append(data)


def clean(text):
    text = re.sub(r"\s+", " ", text.replace("¶", "").replace(" ", " ")).strip()
    if "(source:" in text or "matrix:" in text:  # SQLite's lists of requirements
        return None
    letters = sum(c.isalpha() or c == " " for c in text)
    return text if len(text) >= 60 and letters >= 0.88 * len(text) and text.isprintable() else None


def documents(work):
    root, reader = fetch(work, "bible-kjv-text"), fetch(work, "bible-kjv")
    verses = subprocess.run([reader / "usr/bin/bible", "-p", root / "usr/lib", "-f", "gen1:1-rev22:21"],
                            capture_output=True, check=True).stdout.decode("latin-1").splitlines()
    for i in range(0, len(verses), 12):
        yield "bible-kjv-text", " ".join(v.split(" ", 1)[1].strip() for v in verses[i:i + 12] if " " in v)
    text = gzip.open(fetch(work, "jargon-text") / "usr/share/doc/jargon-text/jargon.txt.gz").read().decode("utf-8", "replace")
    paragraphs = [p for p in map(clean, re.split(r"\n\s*\n", text)) if p and "�" not in p and " | " not in p]
    for i in range(0, len(paragraphs), 4):
        yield "jargon-text", "\n".join(paragraphs[i:i + 4])
    for package, pattern in HTML.items():
        root, seen = fetch(work, package), set()
        m = re.match(r"(.*)\{(.*)\}(.*)", pattern)
        patterns = [m[1] + alt + m[3] for alt in m[2].split(",")] if m else [pattern]
        for path in sorted({f for p in patterns for f in root.glob(p)}):
            if "2018-edition" in path.parts or path.name == "print.html" or re.search(r"\.html\.(?!en)", path.name):
                continue
            parser = Paragraphs()
            parser.feed(path.read_text("utf-8", "replace"))
            parser.flush()
            keep = []
            for p in map(clean, parser.out):
                if p and p not in seen:
                    seen.add(p)
                    keep.append(p)
            doc, size = [], 0
            for p in keep:
                doc.append(p)
                size += len(p)
                if size > 2500:
                    yield package, "\n".join(doc)
                    doc, size = [], 0
            if size > 300:
                yield package, "\n".join(doc)


def split_of(text):
    h = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little") % 1000
    return "quality" if h < 20 else "calibration" if h < 35 else "prompts" if h < 50 else "train"


def train_tokenizer(texts, extra):
    from tokenizers import Tokenizer, Regex, AddedToken, decoders, models, normalizers, pre_tokenizers, trainers, processors
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tok.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    trainer = trainers.BpeTrainer(vocab_size=VOCAB - len(SPECIAL) - len(ADDED), show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tok.train_from_iterator(list(texts) + extra, trainer)
    tok.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIAL])
    tok.add_tokens([AddedToken(s, special=False, normalized=False) for s in ADDED])
    assert tok.get_vocab_size() == VOCAB
    return tok


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--work", type=pathlib.Path, required=True)
    work = ap.parse_args().work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    docs = [{"source": s, "split": split_of(t), "text": t} for s, t in documents(work) if len(t) > 200]
    random.Random(0).shuffle(docs)
    with open(work / "corpus.jsonl", "w") as f:
        for d in docs:
            f.write(json.dumps(d, ensure_ascii=False) + "\n")
    for s in SOURCES:
        print(f"{s:20s} {sum(len(d['text']) for d in docs if d['source'] == s) / 1e6:6.2f} MB")
    train = [d["text"] for d in docs if d["split"] == "train"]
    import world, pictures  # their sentences belong to the tokenizer's training text
    extra = world.tokenizer_text() + pictures.tokenizer_text()
    tok = train_tokenizer(train, extra)
    tok.save(str(work / "tokenizer.json"))
    import numpy as np
    eot = tok.token_to_id("<|endoftext|>")
    ids = []
    for e in tok.encode_batch(train):
        ids.extend(e.ids)
        ids.append(eot)
    np.array(ids, dtype=np.uint16).tofile(work / "train.u16")
    print(f"{len(ids)} training tokens, {sum(map(len, train)) / len(ids):.2f} characters a token")


if __name__ == "__main__":
    main()
