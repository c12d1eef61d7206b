"""The recall task and the text examples: strings with marked spans, and their tokens.

A sample is a list of (text, kind); kind says what the training loss does with the tokens of that
piece: IGNORE (random, cannot be predicted), TEXT (ordinary language modelling) or ANSWER.
"""
import bisect, gzip, json, random, re, zlib

import numpy as np

IGNORE, TEXT, ANSWER = 0, 1, 2

ADJECTIVES = """blue red green yellow purple orange black white brown golden silver pink small large tiny giant
old young quick slow bright dark quiet loud brave calm clever gentle happy sad proud lazy wild tame hungry sleepy
warm cold frozen dusty rusty shiny smooth rough sharp round flat tall short long wide narrow heavy light soft hard
wooden stone iron copper glass paper silent noisy early late northern southern eastern western lonely friendly
hidden secret ancient modern broken simple fancy plain royal noble polite rude honest curious nervous patient
careful rapid steady hollow solid empty full fresh sweet bitter salty spicy humble mighty fearless graceful
crooked striped spotted velvet crimson amber scarlet pale misty stormy sunny rainy snowy windy cloudy foggy""".split()
NOUNS = """fox dog cat horse bear wolf lion tiger rabbit mouse eagle owl hawk crow raven swan duck goose hen
robin sparrow whale shark dolphin salmon trout crab turtle frog snake lizard spider beetle ant bee moth
butterfly camel donkey goat sheep lamb cow pig deer moose otter beaver badger hedgehog squirrel monkey panda
koala zebra giraffe elephant rhino hippo penguin parrot falcon heron pigeon turkey peacock ostrich
river mountain valley forest meadow island harbor desert canyon glacier volcano lake pond ocean beach cliff cave
castle tower bridge temple palace cottage village city garden market station library museum theater hospital
school factory windmill lighthouse barn cabin tent boat ship train wagon bicycle rocket balloon kite drum flute
violin guitar piano trumpet bell clock lamp lantern candle mirror window door chair table basket bottle kettle
spoon hammer anvil ladder wheel anchor compass map key lock coin ring crown sword shield helmet banner
baker farmer sailor soldier doctor painter singer dancer poet teacher judge pilot miner weaver hunter tailor
apple pear plum cherry lemon melon grape onion carrot potato pepper pumpkin""".split()
assert len(set(ADJECTIVES)) == len(ADJECTIVES) and len(set(NOUNS)) == len(NOUNS)

FACTS = ["The code of {} is {}.", "The code of the {} is {}.", "Remember that the code of {} is {}."]
MENTIONS = ["The code of {} is {}.", "The code of the {} is {}."]
QUESTIONS = ["What is the code of {}?", "What is the code of the {}?", "Tell me the code of {}."]
INTRODUCTIONS = ["", "Read the following text. ", "Here are some notes. ", "Remember these codes. "]
CONTINUE = ["Continue this text:", "Write the next sentences of this text:"]

USER, ASSISTANT, END = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>\n"


def is_held_out(adjective, noun):
    """One name pair in ten is never seen in training."""
    return zlib.crc32(f"{adjective} {noun}".encode()) % 10 == 0


def tokenizer_text():
    words = ADJECTIVES + NOUNS
    out = [" " + " ".join([w] * 500) for w in words]
    out += [" ".join(FACTS + QUESTIONS + CONTINUE + INTRODUCTIONS).replace("{}", "")] * 300
    return out


def pick_names(rng, n, held_out=False, lookalike=0.3):
    """n different names; some share an adjective or a noun with another, as distractors."""
    names, seen = [], set()
    while len(names) < n:
        a, b = rng.choice(ADJECTIVES), rng.choice(NOUNS)
        if names and rng.random() < lookalike:
            other = rng.choice(names)
            a, b = (other[0], b) if rng.random() < 0.5 else (a, other[1])
        if (a, b) in seen or is_held_out(a, b) != held_out:
            continue
        seen.add((a, b))
        names.append((a, b))
    return [f"{a} {b}" for a, b in names]


def pick_code(rng):
    return f"{rng.randrange(10000):04d}"


def fact(rng, name, code, template=None):
    head, middle, tail = (template or rng.choice(FACTS)).split("{}")
    return [(head, TEXT), (name, IGNORE), (middle, TEXT), (code, IGNORE), (tail, TEXT)]


def mention(rng, name, code, template=None):
    head, middle, tail = (template or rng.choice(MENTIONS)).split("{}")
    return [(head, TEXT), (name, IGNORE), (middle, TEXT), (code, ANSWER), (tail, TEXT)]


class Corpus:
    """The documents of one split (of some sources) as sentences, for fillers and plain text."""

    def __init__(self, path, split, sources=None):
        self.documents = []
        cut = re.compile(r"(?<=[.!?]) (?=[A-Z\"“(])")
        for line in gzip.open(path, "rt") if str(path).endswith(".gz") else open(path):
            d = json.loads(line)
            if d["split"] == split and (sources is None or d["source"] in sources):
                self.documents.append((d["text"], cut.split(d["text"].replace("\n", " "))))
        self.cumulative, total = [], 0
        for text, _ in self.documents:
            total += len(text)
            self.cumulative.append(total)

    def document(self, rng):
        return self.documents[bisect.bisect_right(self.cumulative, rng.randrange(self.cumulative[-1]))]

    def sentences(self, rng, characters):
        """Consecutive sentences of about so many characters."""
        _, sentences = self.document(rng)
        i = rng.randrange(len(sentences))
        out, size = [], 0
        while size < characters and i < len(sentences):
            out.append(sentences[i])
            size += len(sentences[i])
            i += 1
        return " ".join(out)


def recall_context(rng, corpus, characters, density, names, repeats):
    """Facts among filler text. `density` is the share of facts; earlier facts return with probability `repeats`."""
    pieces, known, size = [], [], 0
    names = list(names)
    sep = "\n" if rng.random() < 0.15 else " "
    n_known = 0
    while size < characters:
        r = rng.random()
        if known and r < repeats:
            part = mention(rng, *rng.choice(known))
        elif names and r < repeats + density * (1 - repeats):
            known.append((names.pop(), pick_code(rng)))
            part = fact(rng, *known[-1])
        else:
            if not names and density >= 1:
                break
            part = [(corpus.sentences(rng, rng.choice((60, 120, 250, 500))), TEXT)]
        if pieces:
            pieces.append((sep, TEXT))
        pieces += part
        size += sum(len(t) for t, _ in part)
    if not known and names:
        known.append((names.pop(), pick_code(rng)))
        pieces += [(sep, TEXT)] + fact(rng, *known[-1])
    return pieces, known


def recall_sample(rng, corpus, tokens, max_density=1.0):
    """One row of about so many tokens: a context of facts, then many questions about it, as chat or plain text."""
    characters = int(tokens * 3.1)
    chat = rng.random() < 0.65
    density = min(max_density, rng.choice((1.0, 0.6, 0.3, 0.12, 0.05)) if tokens > 300 else rng.choice((1.0, 0.8, 0.5, 0.25)))
    share = rng.uniform(0.45, 0.85)
    n = max(1, min(int(characters * share / 34), 260))
    if density < 1:
        n = max(2, int(n * density))
    names = pick_names(rng, n, lookalike=rng.choice((0.0, 0.3, 0.6)))
    repeats = 0.0 if chat and rng.random() < 0.7 else rng.choice((0.1, 0.3))
    pieces, known = recall_context(rng, corpus, characters * share, density, names, repeats)
    budget = characters - sum(len(t) for t, _ in pieces)
    if chat:
        queue = [(k, rng.choice(QUESTIONS)) for k in rng.sample(known, len(known))]
        if rng.random() < 0.12:  # the question before the text
            (name, code), q = queue[0]
            pieces = [(q.format(name) + "\n\n", TEXT)] + pieces + [(ASSISTANT, TEXT), (code + "<|im_end|>", ANSWER), ("\n", TEXT)]
        else:
            (name, code), q = queue[0]
            head, tail = q.split("{}")
            pieces = [(rng.choice(INTRODUCTIONS), TEXT)] + pieces + [
                (rng.choice(("\n\n", "\n\n", "\n", " ")) + head, TEXT), (name, IGNORE), (tail + ASSISTANT, TEXT),
                (code + "<|im_end|>", ANSWER), ("\n", TEXT)]
        pieces = [(USER, TEXT)] + pieces
        for (name, code), q in queue[1:]:
            if budget < 40:
                break
            head, tail = q.split("{}")
            pieces += [(USER + head, TEXT), (name, IGNORE), (tail + ASSISTANT, TEXT), (code + "<|im_end|>", ANSWER), ("\n", TEXT)]
            budget -= 55
    else:
        for name, code in rng.sample(known, len(known)):
            if budget < 30:
                break
            if rng.random() < 0.1:
                filler = corpus.sentences(rng, 60)
                pieces += [(" " + filler, TEXT)]
                budget -= len(filler)
            pieces += [(" ", TEXT)] + mention(rng, name, code)
            budget -= 34
    return pieces


def recall_prompt(rng, corpus, tokens, held_out=True):
    """One question about one fact in a context of about so many tokens: (context, question, answer, name)."""
    characters = max(150, int((tokens - 30) * 3.7))
    n = max(2, min(60, int(characters * rng.choice((0.04, 0.1, 0.25)) / 34)))
    names = pick_names(rng, n, held_out)
    known = [(name, pick_code(rng)) for name in names]
    target = rng.randrange(n)
    filler, size = [], n * 34
    while size < characters:
        s = corpus.sentences(rng, rng.choice((60, 120, 250, 500)))
        s = s if len(s) <= characters - size + 80 else s[:max(40, characters - size)].rsplit(" ", 1)[0] + "."
        filler.append(s)
        size += len(s) + 1
    segments = [(s, False) for s in filler]
    for i, (name, code) in enumerate(known):
        at = int(rng.random() * (0.7 if i == target else 1.0) * (len(segments) + 1))
        segments.insert(at, (rng.choice(FACTS).format(name, code), i == target))
    text = rng.choice(INTRODUCTIONS) + " ".join(s for s, _ in segments)
    name, code = known[target]
    return text, rng.choice(QUESTIONS).format(name), code, name


def text_sample(rng, corpus, tokens):
    """Plain documents, or (sometimes) a request to continue a text."""
    pieces, size = [], 0
    while size < tokens * 3.6:
        text, sentences = corpus.document(rng)
        if rng.random() < 0.15 and len(sentences) >= 6:
            i = rng.randrange(len(sentences) - 5)
            k = rng.randrange(2, 5)
            given, rest = " ".join(sentences[i:i + k]), " ".join(sentences[i + k:i + k + rng.randrange(2, 4)])
            pieces += [(USER + rng.choice(CONTINUE) + " " + given + ASSISTANT + rest + END, TEXT)]
            size += len(given) + len(rest)
        else:
            pieces += [(text, TEXT), ("<|endoftext|>", TEXT)]
            size += len(text)
    return pieces


def tokenise(tok, pieces, length):
    """Pieces -> (ids, kinds), cut to `length` and padded with <|endoftext|>/IGNORE. The text is tokenised as a whole."""
    text = "".join(t for t, _ in pieces)
    ends = np.cumsum([len(t) for t, _ in pieces])
    kinds = np.array([k for _, k in pieces], dtype=np.uint8)
    e = tok.encode(text, add_special_tokens=False)
    ids = np.array(e.ids[:length], dtype=np.int64)
    last = np.array([b for _, b in e.offsets[:length]], dtype=np.int64) - 1
    kind = kinds[np.minimum(np.searchsorted(ends, last, side="right"), len(kinds) - 1)]
    if len(ids) < length:
        pad = length - len(ids)
        ids = np.concatenate([ids, np.full(pad, tok.token_to_id("<|endoftext|>"))])
        kind = np.concatenate([kind, np.zeros(pad, np.uint8)])
    return ids, kind


# what a step trains on: (first step, {row length: probability}); short dense rows first, so that copying forms early
LENGTHS = [(0, {256: 1.0}), (500, {256: 0.5, 512: 0.5}), (1200, {256: 0.15, 512: 0.4, 1024: 0.45}),
           (2200, {512: 0.25, 1024: 0.35, 2048: 0.4}), (4000, {512: 0.2, 1024: 0.25, 2048: 0.3, 4096: 0.25})]


def text_batch(tok, corpus, seed, step, tokens):
    """One step's text rows: (ids, kinds), tokens / L rows of one length L."""
    rng = random.Random(f"text {seed} {step}")
    table = [t for first, t in LENGTHS if step >= first][-1]
    length = rng.choices(list(table), list(table.values()))[0]
    ids, kinds = [], []
    for _ in range(tokens // length):
        if rng.random() < (0.25 if length <= 512 else 0.15):
            pieces = text_sample(rng, corpus, length)
        else:
            pieces = recall_sample(rng, corpus, length)
        a, b = tokenise(tok, pieces, length)
        ids.append(a)
        kinds.append(b)
    return np.stack(ids), np.stack(kinds)
