"""True captions from known alpha: the same objects recoloured, paired, small, many or on a coloured ground, and said so.

A few thousand captioned cut-outs become an endless set of pictures whose sentences are new and still exact.
"""

from __future__ import annotations

import random
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
from PIL import Image

from diorama.data import colours, phrases
from diorama.data.batches import resize
from diorama.data.order import index_at
from diorama.data.source import Item, Source
from diorama.types import mix

# How often each way is tried. What does not lend itself (no clear colour, no clear pixels) stays plain, so the way that
# fails most is tried more often than it is meant to be seen.
WAYS = {"plain": 0.30, "keyword": 0.08, "recoloured": 0.30, "pair": 0.12, "placed": 0.06, "several": 0.04, "ground": 0.10}
_ENDS = tuple(accumulate(WAYS.values()))

NEVER_RECOLOURED = ("People & Body", "Flags", "Symbols", "Component")
PEOPLE = re.compile(
    r"\b(?:person|people|man|men|woman|women|boy|girl|baby|child|hand|hands|finger|fist|palm|face|skin|hair|foot|leg|ear|nose|arm|thumbs?|"
    r"family|couple|flag|prince|princess|king|queen|worker|player)\b"
)
SIDES = {"on the left": (0.0, 0.5), "on the right": (1.0, 0.5), "at the top": (0.5, 0.0), "at the bottom": (0.5, 1.0)}
CORNERS = {
    f"in the {v} {h} corner": (x, y) for v, y in (("top", 0.0), ("bottom", 1.0)) for h, x in (("left", 0.0), ("right", 1.0))
}


class Composed:
    """n virtual items over a source of captioned cut-outs, item i a function of (seed, i) alone; see the module's first line.

    `fields` gains `base_key` (the item it was made of), `way` and, for a pair, `other_key`; the label stays the base's.
    A picture without usable alpha, or without a caption, comes as it is.
    """

    layout = "composed"

    def __init__(self, source: Source, n: int, seed: int):
        self.source, self.n, self.seed = source, n, seed

    @property
    def labels(self) -> tuple[str, ...]:
        return self.source.labels

    def __len__(self) -> int:
        return self.n

    def record(self, i: int) -> Mapping[str, Any]:
        """As `read(i)` says it. What depends on the pixels (is there a colour to change?) costs a look at them."""
        rng, base, way = self._draw(i)
        said = self.source.record(base)
        if way not in WORDS_ONLY or not said["text"]:
            return _record(self.read(i))
        return {**said, "text": WORDS_ONLY[way](said, rng), "key": f"{said['key']}#{i}", "base_key": said["key"], "way": way}

    def read(self, i: int) -> Item:
        rng, base, way = self._draw(i)
        item = self.source.read(base)
        made = self._compose(item, way, rng) if item.text else None
        if made is None:
            way, made = "plain", replace(item, text=plain_words(_record(item), rng) if item.text else "")
        return replace(made, key=f"{item.key}#{i}", fields={**made.fields, "base_key": item.key, "way": way})

    def _draw(self, i: int) -> tuple[random.Random, int, str]:
        if not 0 <= i < self.n:
            raise IndexError(i)
        rng = random.Random(mix(self.seed, i))
        way = tuple(WAYS)[bisect_right(_ENDS, rng.random() * _ENDS[-1])]
        able = self._able.get(way)
        return rng, pick(able, rng) if able else index_at(i, len(self.source), self.seed), way

    def _compose(self, item: Item, way: str, rng: random.Random) -> Item | None:
        """The item made this way, or None where it does not lend itself to it."""
        if way in WORDS_ONLY:
            return replace(item, text=WORDS_ONLY[way](_record(item), rng))
        if not usable_alpha(item.image):
            return None
        if way == "pair":
            others = self._styles.get(item.label)
            return pair(item, self.source.read(pick(others, rng)), rng) if others else None
        return WITH_PIXELS[way](item, rng)

    @cached_property
    def _able(self) -> dict[str, list[int]]:
        """For each way that few words lend themselves to, the items that do: they are drawn from directly."""
        records = [self.source.record(i) for i in range(len(self.source))]
        return {way: [i for i, said in enumerate(records) if said["text"] and able(said)] for way, able in ABLE.items()}

    @cached_property
    def _styles(self) -> dict[str | None, list[int]]:
        """What may stand beside another thing, by style: two things side by side are drawn by one hand."""
        found: dict[str | None, list[int]] = defaultdict(list)
        for i in self._able["pair"]:
            found[self.source.record(i)["label"]].append(i)
        return found


def pick(options: Sequence[Any], rng: random.Random) -> Any:
    """One of these. Only `random()` is used here: its stream is promised to stay the same from Python to Python."""
    return options[int(rng.random() * len(options))]


def _between(low: float, high: float, rng: random.Random) -> float:
    return low + (high - low) * rng.random()


def _record(item: Item) -> dict[str, Any]:
    return {**item.fields, "key": item.key, "text": item.text, "label": item.label}


# --- words only -----------------------------------------------------------------------------------


def plain_words(said: Mapping[str, Any], rng: random.Random) -> str:
    """The caption as people would type it."""
    caption = said["text"]
    variants = (caption, caption, phrases.noun_phrase(caption), caption.lower(), f"a picture of {phrases.noun_phrase(caption)}")
    return pick(variants, rng)


def keyword_words(said: Mapping[str, Any], rng: random.Random) -> str:
    """The caption joined with one or two of the item's keywords, or now and then keywords alone."""
    caption = said["text"]
    words = [str(w).replace("\xa0", " ") for w in said.get("keywords") or ()]
    words = [w for w in words if w.lower() not in caption.lower() and not colours.COLOUR_WORDS.search(w.lower())]
    if not words:
        return plain_words(said, rng)
    first, second = pick(words, rng), pick(words, rng)
    both = first if first == second else f"{first}, {second}"
    return pick((f"{caption}, {first}", f"{caption}, {both}", f"{first} {caption}", f"{caption} {first}", both), rng)


# --- pixels ---------------------------------------------------------------------------------------


def usable_alpha(image: Image.Image) -> bool:
    """Whether alpha cuts an object out: some of the picture clear, some of it solid."""
    counts = image.getchannel("A").histogram()
    n = image.width * image.height
    return sum(counts[:8]) >= 0.04 * n and sum(counts[200:]) >= 0.03 * n


def cut(image: Image.Image) -> Image.Image:
    """The object alone, its clear margins gone."""
    return image.crop(image.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox())


def scaled(image: Image.Image, width: float, height: float) -> Image.Image:
    """As large as fits in width x height pixels, aspect kept."""
    scale = min(width / image.width, height / image.height)
    return resize(image, (max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def canvas_of(image: Image.Image) -> Image.Image:
    """A clear square that the picture fits in."""
    side = max(image.size)
    return Image.new("RGBA", (side, side), (255, 255, 255, 0))


def put(canvas: Image.Image, image: Image.Image, x: float, y: float) -> None:
    """Lay the image over the canvas, its centre at (x, y) pixels, moved as little as needed to stay whole."""
    left = min(max(round(x - image.width / 2), 0), canvas.width - image.width)
    top = min(max(round(y - image.height / 2), 0), canvas.height - image.height)
    canvas.alpha_composite(image, (left, top))


# --- the ways -------------------------------------------------------------------------------------


def may_be_recoloured(said: Mapping[str, Any]) -> bool:
    """Not people (a skin is no coat of paint), not flags, nothing whose words already name a colour."""
    text = said["text"].lower()
    category = said.get("category")
    unknown = not category  # no category told: go by the words
    return not (
        colours.COLOUR_WORDS.search(text)
        or category in NEVER_RECOLOURED
        or said.get("skin_tone")
        or said.get("gender")
        or (unknown and PEOPLE.search(text))
    )


def short(said: Mapping[str, Any]) -> bool:
    """Whether there is room for a second thing in the sentence."""
    return len(said["text"].split()) <= 4 and not re.search(r"[,:]", said["text"])


def may_be_several(said: Mapping[str, Any]) -> bool:
    return said.get("category") not in ("Symbols", "Flags") and phrases.plural(said["text"]) is not None


def recoloured(item: Item, rng: random.Random) -> Item | None:
    """ "apple" -> "a purple apple": only where most of what is seen has one clear colour."""
    name = pick(tuple(colours.COLOURS), rng)
    old = colours.dominant(item.image)
    if not may_be_recoloured(_record(item)) or old is None or old.share < 0.55 or old.between > 0.12:
        return None
    if name == "black" and "face" in item.text:  # its eyes and mouth would be lost
        name = "blue"
    image = colours.recolour(item.image, old, colours.COLOURS[name])
    return replace(item, image=image, text=phrases.described(item.text, name))


def pair(item: Item, other: Item, rng: random.Random) -> Item | None:
    """ "a cat and a dog": left and right as they are said."""
    if other.key == item.key or not other.text or not usable_alpha(other.image):
        return None
    canvas = canvas_of(item.image)
    side, width = canvas.width, _between(0.43, 0.49, rng) * canvas.width
    y = _between(0.45, 0.55, rng) * side
    for part, x in ((item, 0.25), (other, 0.75)):
        put(canvas, scaled(cut(part.image), width, 0.62 * side), x * side, y)
    left, right = phrases.noun_phrase(item.text), phrases.noun_phrase(other.text)
    link = pick(("and", "and", "and", "next to"), rng)
    return replace(item, image=canvas, text=f"{left} {link} {right}", fields={**item.fields, "other_key": other.key})


def placed(item: Item, rng: random.Random) -> Item:
    """ "a small cat on the left", or a large one that fills the picture."""
    canvas = canvas_of(item.image)
    side, large, where = canvas.width, rng.random() < 0.2, rng.random()
    if large:
        put(canvas, scaled(cut(item.image), side, side), side / 2, side / 2)
        return replace(item, image=canvas, text=phrases.described(item.text, pick(("large", "big"), rng)))
    scale = _between(0.3, 0.46, rng)
    words, (x, y) = ("", (0.5, 0.5)) if where < 0.5 else pick(tuple({**SIDES, **CORNERS}.items()), rng)
    put(canvas, scaled(cut(item.image), scale * side, scale * side), (0.25 + 0.5 * x) * side, (0.25 + 0.5 * y) * side)
    text = phrases.described(item.text, pick(("small", "tiny", "little"), rng))
    return replace(item, image=canvas, text=f"{text} {words}".strip())


def several(item: Item, rng: random.Random) -> Item | None:
    """ "two apples", "three apples"."""
    many = phrases.plural(item.text)
    if many is None:
        return None
    three = rng.random() < 0.4
    canvas = canvas_of(item.image)
    side = canvas.width
    one = scaled(cut(item.image), (0.46 if three else 0.48) * side, (0.46 if three else 0.6) * side)
    places = ((0.5, 0.25), (0.25, 0.75), (0.75, 0.75)) if three else ((0.25, 0.5), (0.75, 0.5))
    for x, y in places:
        put(canvas, one, x * side, y * side)
    return replace(item, image=canvas, text=f"{'three' if three else 'two'} {many}")


def ground(item: Item, rng: random.Random) -> Item:
    """ "a cat on a blue background": an opaque colour that the object stands out from."""
    mean = _mean(item.image)
    names = sorted(colours.GROUNDS, key=lambda _: rng.random())
    rgb = {name: np.array(colours.GROUNDS[name].rgb()) for name in names}
    name = next((n for n in names if np.abs(rgb[n] - mean).sum() > 150), names[0])
    shade = np.clip(rgb[name] * _between(0.96, 1.03, rng), 0, 255).astype(int)
    canvas = Image.new("RGBA", item.image.size, (*(int(v) for v in shade), 255))
    canvas.alpha_composite(item.image)
    said = phrases.noun_phrase(item.text)
    text = pick((f"{said} on {phrases.article(name)} {name} background", f"{said} on {name}", f"{said}, {name} background"), rng)
    return replace(item, image=canvas, text=text)


def _mean(image: Image.Image) -> np.ndarray:
    """The mean colour (3,) of what is visible."""
    pixels = np.asarray(image)
    return pixels[pixels[..., 3] > 128][:, :3].mean(0)


WORDS_ONLY: dict[str, Callable[[Mapping[str, Any], random.Random], str]] = {"plain": plain_words, "keyword": keyword_words}
WITH_PIXELS: dict[str, Callable[[Item, random.Random], Item | None]] = {
    "recoloured": recoloured,
    "placed": placed,
    "several": several,
    "ground": ground,
}
ABLE: dict[str, Callable[[Mapping[str, Any]], bool]] = {"recoloured": may_be_recoloured, "pair": short, "several": may_be_several}
