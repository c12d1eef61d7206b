"""Rendered pictures and questions about them. Everything follows from a Scene and a seeded random.Random."""
import functools, glob, math, os, random

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from world import ANSWER, ASSISTANT, TEXT, USER, tokenise

COLORS = {"red": (220, 30, 30), "green": (30, 150, 50), "blue": (40, 70, 220), "yellow": (240, 210, 20),
          "orange": (245, 130, 20), "purple": (130, 40, 160), "pink": (250, 130, 190), "black": (15, 15, 15)}
BACKGROUNDS = {"white": (255, 255, 255), "gray": (190, 190, 190), "cyan": (180, 240, 240)}
SHAPES = ["circle", "square", "triangle", "star", "cross", "diamond", "ring"]
PLURAL = {s: s + ("es" if s == "cross" else "s") for s in SHAPES}
CELLS = ["top left", "top center", "top right", "middle left", "center", "middle right", "bottom left",
         "bottom center", "bottom right"]
WORDS = """apple bread chair cloud dance eagle earth field flame glass grape green heart horse house juice lemon light
money mouse music night ocean paper peace piano plant queen radio river robot salad sheep smile snake space spoon
storm sugar table tiger tower train truth water whale world zebra""".split()
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six"]
DESCRIBE, OBJECTS, ACTION = ("Describe this image in detail.", "What objects do you see in this picture?",
                             "Explain the main action happening in this scene.")


def tokenizer_text():
    s = " ".join(f" a {c} {s}, the {c} {PLURAL[s]}" for c in COLORS for s in SHAPES)
    s += " " + " ".join(f" in the {c}." for c in CELLS) + " ".join(f" {w} {w}" for w in WORDS) + " ".join(f"\n{c} {c}" for c in COLORS)
    s += "\n".join(SHAPES + CELLS + WORDS)
    s += " The image shows one shape on a gray background. I see a word. How many shapes are there? nothing yes no\nyes\nno\nnothing "
    return [s] * 150


class Scene:
    """Objects on a 3x3 grid: cells[i] = (colour, shape) or None; perhaps a word over one row, or a digit in one cell."""

    def __init__(self, rng, kind=None):
        self.background = rng.choice(list(BACKGROUNDS))
        kind = kind or rng.choices(["plain", "word", "digit"], [0.56, 0.27, 0.17])[0]
        free = list(range(9))
        self.word = self.digit = self.word_row = self.digit_cell = None
        if kind == "word":
            self.word, self.word_row = rng.choice(WORDS), rng.randrange(3)
            free = [c for c in free if c // 3 != self.word_row]
        elif kind == "digit":
            self.digit, self.digit_cell = rng.randrange(10), rng.randrange(9)
            free.remove(self.digit_cell)
        n = rng.randint(1, 6) if kind == "plain" else rng.randint(0 if kind == "word" else 1, 4)
        colors, shapes = list(COLORS), list(SHAPES)
        if rng.random() < 0.4:  # few kinds, so that counting by kind has something to count
            colors, shapes = rng.sample(colors, 2), rng.sample(shapes, 2)
        self.cells = [None] * 9
        for c in rng.sample(free, n):
            self.cells[c] = (rng.choice(colors), rng.choice(shapes))
        self.ink = rng.choice([c for c in COLORS if c != "yellow"])

    def objects(self):
        return [(i, *o) for i, o in enumerate(self.cells) if o]


@functools.lru_cache(maxsize=None)
def font(size):
    import sysconfig
    site = sysconfig.get_paths()["purelib"]
    for d in ("/usr/share/fonts/truetype/dejavu", os.path.join(site, "matplotlib/mpl-data/fonts/ttf")):
        if os.path.exists(f"{d}/DejaVuSans-Bold.ttf"):
            return ImageFont.truetype(f"{d}/DejaVuSans-Bold.ttf", size)
    found = glob.glob("/usr/**/DejaVuSans-Bold.ttf", recursive=True) + glob.glob("/opt/**/DejaVuSans-Bold.ttf", recursive=True)
    if not found:
        raise SystemExit("DejaVuSans-Bold.ttf not found: install fonts-dejavu-core")
    return ImageFont.truetype(found[0], size)


def polygon(shape, x, y, r):
    def at(radius, degrees):
        return (x + radius * math.cos(math.radians(degrees)), y + radius * math.sin(math.radians(degrees)))
    if shape == "triangle":
        return [at(r * 1.1, a) for a in (-90, 30, 150)]
    if shape == "diamond":
        return [(x, y - r * 1.1), (x + r * 0.75, y), (x, y + r * 1.1), (x - r * 0.75, y)]
    if shape == "star":
        return [at(r * 1.1 if i % 2 == 0 else r * 0.45, -90 + 36 * i) for i in range(10)]
    t = r * 0.33  # cross
    return [(x - t, y - r), (x + t, y - r), (x + t, y - t), (x + r, y - t), (x + r, y + t), (x + t, y + t),
            (x + t, y + r), (x - t, y + r), (x - t, y + t), (x - r, y + t), (x - r, y - t), (x - t, y - t)]


def render(scene, rng, width, height):
    image = Image.new("RGB", (width, height), BACKGROUNDS[scene.background])
    draw = ImageDraw.Draw(image)
    draw.fontmode = "1"  # no anti-aliasing: few colours, small files
    cw, ch = width / 3, height / 3
    for i, color, shape in scene.objects():
        r = min(cw, ch) * rng.uniform(0.33, 0.43)
        x = cw * (i % 3 + 0.5) + rng.uniform(-1, 1) * max(0, cw / 2 - r * 1.12)
        y = ch * (i // 3 + 0.5) + rng.uniform(-1, 1) * max(0, ch / 2 - r * 1.12)
        fill = COLORS[color]
        if shape == "circle":
            draw.ellipse([x - r, y - r, x + r, y + r], fill=fill)
        elif shape == "ring":
            draw.ellipse([x - r, y - r, x + r, y + r], outline=fill, width=max(3, int(r * 0.4)))
        elif shape == "square":
            draw.rectangle([x - r * 0.88, y - r * 0.88, x + r * 0.88, y + r * 0.88], fill=fill)
        else:
            draw.polygon(polygon(shape, x, y, r), fill=fill)
    if scene.word:
        size = int(min(ch * 0.85, width / 3.6) * rng.uniform(0.85, 1.0))
        f = font(size)
        box = draw.textbbox((0, 0), scene.word, font=f)
        while box[2] - box[0] > width * 0.96:
            size -= 1
            f = font(size)
            box = draw.textbbox((0, 0), scene.word, font=f)
        x = rng.uniform(0.02 * width, 0.98 * width - (box[2] - box[0])) - box[0]
        y = ch * scene.word_row + (ch - (box[3] - box[1])) * rng.uniform(0.3, 0.7) - box[1]
        draw.text((x, y), scene.word, font=f, fill=COLORS[scene.ink])
    if scene.digit is not None:
        f = font(int(min(cw, ch) * rng.uniform(0.85, 1.0)))
        box = draw.textbbox((0, 0), str(scene.digit), font=f)
        x = cw * (scene.digit_cell % 3) + (cw - (box[2] - box[0])) * rng.uniform(0.2, 0.8) - box[0]
        y = ch * (scene.digit_cell // 3) + (ch - (box[3] - box[1])) * rng.uniform(0.2, 0.8) - box[1]
        draw.text((x, y), str(scene.digit), font=f, fill=COLORS[scene.ink])
    return image


def article(word):
    return ("an " if word[0] in "aeiou" else "a ") + word


def listing(items):
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def caption(scene, prompt):
    objects = scene.objects()
    names = [article(f"{c} {s}") for _, c, s in objects]
    written = f'The word "{scene.word}" is written in {scene.ink}.' if scene.word else \
        f"The digit {scene.digit} is written in {scene.ink} in the {CELLS[scene.digit_cell]}." if scene.digit is not None else ""
    if prompt == DESCRIBE:
        n = len(objects)
        out = f"The image shows {NUMBERS[n] if n else 'no'} shape{'' if n == 1 else 's'} on a {scene.background} background."
        if objects:
            out += " There is " + listing([f"{name} in the {CELLS[i]}" for name, (i, _, _) in zip(names, objects)]) + "."
    elif prompt == OBJECTS:
        out = f"I see {listing(names)}." if objects else "I see no shapes."
    else:
        out = "Nothing is moving in this scene."
        if len(objects) > 1:
            (i, c, s), (j, d, t) = objects[0], objects[-1]
            out += f" The {c} {s} in the {CELLS[i]} faces the {d} {t} in the {CELLS[j]}."
        elif objects:
            i, c, s = objects[0]
            out += f" The {c} {s} rests in the {CELLS[i]}."
    return (out + " " + written).strip()


KINDS = ["count", "count_shape", "count_color", "color", "shape", "position", "cell", "word", "digit", "background", "yes_no"]


def question(scene, rng, kind):
    """(question, answer), or None where the scene has no question of that kind with one right answer."""
    objects = scene.objects()
    colors, shapes = [c for _, c, _ in objects], [s for _, _, s in objects]
    if kind == "count":
        return "How many shapes are there?", str(len(objects))
    if kind == "count_shape":
        s = rng.choice(shapes) if shapes and rng.random() < 0.8 else rng.choice(SHAPES)
        return f"How many {PLURAL[s]} are there?", str(shapes.count(s))
    if kind == "count_color":
        c = rng.choice(colors) if colors and rng.random() < 0.8 else rng.choice(list(COLORS))
        return f"How many {c} shapes are there?", str(colors.count(c))
    if kind == "color":
        single = [(c, s) for _, c, s in objects if shapes.count(s) == 1]
        return (lambda o: (f"What color is the {o[1]}?", o[0]))(rng.choice(single)) if single else None
    if kind == "shape":
        single = [(c, s) for _, c, s in objects if colors.count(c) == 1]
        return (lambda o: (f"What shape is {o[0]}?", o[1]))(rng.choice(single)) if single else None
    if kind == "position":
        pairs = list(zip(colors, shapes))
        single = [o for o in objects if pairs.count(o[1:]) == 1]
        return (lambda o: (f"Where is the {o[1]} {o[2]}?", CELLS[o[0]]))(rng.choice(single)) if single else None
    if kind == "cell":
        allowed = [i for i in range(9) if i != scene.digit_cell and (scene.word is None or i // 3 != scene.word_row)]
        full = [i for i in allowed if scene.cells[i]]
        i = rng.choice(full) if full and rng.random() < 0.75 else rng.choice(allowed)
        return f"What is in the {CELLS[i]}?", " ".join(scene.cells[i]) if scene.cells[i] else "nothing"
    if kind == "word":
        return ("What word is written?", scene.word) if scene.word else None
    if kind == "digit":
        return ("What digit is written?", str(scene.digit)) if scene.digit is not None else None
    if kind == "background":
        return "What color is the background?", scene.background
    if objects and rng.random() < 0.5:
        _, c, s = rng.choice(objects)
    else:
        c, s = rng.choice(colors or list(COLORS)), rng.choice(shapes or list(SHAPES))
    return f"Is there a {c} {s}?", "yes" if (c, s) in list(zip(colors, shapes)) else "no"


def resized(image, width, height):
    return image if image.size == (width, height) else image.resize((width, height), Image.BICUBIC)


def image_tokens(width, height):
    """Of a picture already resized to multiples of 32."""
    return (width // 32) * (height // 32)


def conversation(scene, rng, pads):
    """One picture, many questions: one turn each, the picture in the first."""
    turns = []
    kinds = KINDS[:]
    rng.shuffle(kinds)
    for kind in kinds + rng.choices(["position", "cell", "color", "shape", "count", "count_color", "count_shape"], k=4):
        qa = question(scene, rng, kind)
        if qa and qa not in turns:
            turns.append(qa)
    turns = turns[:10]
    for prompt in (DESCRIBE, OBJECTS, ACTION):
        if rng.random() < 0.16:
            turns.insert(rng.randrange(min(len(turns), 4) + 1), (prompt, caption(scene, prompt)))
    image = "<|vision_start|>" + "<|image_pad|>" * pads + "<|vision_end|>"
    pieces = []
    for i, (q, a) in enumerate(turns):
        q = q if i else (image + q if rng.random() < 0.85 else q + image)
        pieces += [(USER + q + ASSISTANT, 0), (a + "<|im_end|>", ANSWER), ("\n", 0)]
    return pieces


SIZES = [96, 128, 160, 192]


def picture_batch(tok, seed, step, rows, length):
    """One step's pictures, all of one size after the resize: (uint8 images, ids, kinds, (gh, gw))."""
    rng = random.Random(f"pictures {seed} {step}")
    width, height = rng.choice(SIZES), rng.choice(SIZES)
    images, ids, kinds = [], [], []
    for _ in range(rows):
        scene = Scene(rng)
        w, h = (width, height) if rng.random() < 0.5 else (width + rng.randint(-12, 15), height + rng.randint(-12, 15))
        images.append(np.asarray(resized(render(scene, rng, max(w, 92), max(h, 92)), width, height)))
        a, b = tokenise(tok, conversation(scene, rng, image_tokens(width, height)), length)
        ids.append(a)
        kinds.append(b)
    return np.stack(images), np.stack(ids), np.stack(kinds), (height // 32, width // 32)
