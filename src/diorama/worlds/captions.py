"""Sentences about scenes: a small grammar with synonyms, counts, relations, negation and alt-text.

Whatever `caption` says of a scene, `parse` reads as a `Description` that is true of it; `Description` is also what the oracle is
asked about a picture.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from diorama.errors import UserError
from diorama.types import mix
from diorama.worlds.descriptions import CLEARLY, Description, Said, parse
from diorama.worlds.scene import COLOURS, Scene
from diorama.worlds.shapes import SHAPES
from diorama.worlds.words import ANYTHING, NUMBERS, SYNONYMS, plural

__all__ = ["FORMS", "SYNONYMS", "Description", "Said", "caption", "parse"]

FORMS = ("short", "long", "relation", "negation", "alt")
NOISE = ("IMG_{}", "untitled {}", "clipart {}", "stock vector {}", "free download {}", "icon {}")


def caption(scene: Scene, seed: int = 0, form: str | None = None) -> str:
    """One true sentence about the scene, the same for the same (scene, seed). Raises UserError for an unknown form.

    "short" names things, "long" says everything, "relation" how two stand, "negation" what is missing, "alt" is what a web page
    might hold. Without a form one is drawn; a relation or a negation that the scene does not offer becomes a short one.
    """
    if form is not None and form not in FORMS:
        raise UserError(f"form {form!r} is not known: use {', '.join(FORMS)}")
    rng = random.Random(mix(scene.seed, scene.index, seed, 0xCA97))
    chosen = form or FORMS[_bisect(rng.random())]
    if not scene.named:
        return f"nothing on {_article(_word('tone', scene.tone, rng))} background"
    return _FORMS[chosen](scene, rng)


def _bisect(u: float) -> int:
    return sum(u > end for end in (0.30, 0.60, 0.80, 0.90))


def _pick(options: Sequence[Any], rng: random.Random) -> Any:
    return options[int(rng.random() * len(options))]


def _word(kind: str, name: str, rng: random.Random) -> str:
    """The word itself, or now and then a synonym of it."""
    words = SYNONYMS[kind][name]
    return words[0] if rng.random() < 0.6 else _pick(words, rng)


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _phrase(said: Said, rng: random.Random) -> str:
    """ "two small striped red stars", "a circle"."""
    adjectives = [_word(kind, name, rng) for kind in ("size", "texture", "colour") if (name := getattr(said, kind))]
    noun = _word("shape", said.shape, rng) if said.shape else _pick(ANYTHING, rng)
    many = said.count is not None and said.count > 1
    words = " ".join([*adjectives, plural(noun) if many else noun])
    return _article(words) if said.count is None else f"{NUMBERS[said.count]} {words}"


def _join(phrases: Sequence[str]) -> str:
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def _of(thing: Any, rng: random.Random, detail: float) -> Said:
    """Shape and colour of a thing, and each further attribute with this chance ("plain" is seldom worth saying)."""
    size = thing.size if rng.random() < detail else None
    bare = thing.texture == "plain"
    return Said(thing.shape, thing.colour, size, thing.texture if rng.random() < detail * (0.3 if bare else 1) else None)


def _counted(saids: Sequence[Said], scene: Scene) -> list[Said]:
    """Each phrase once; where several things fit it, how many."""
    out = []
    for said in dict.fromkeys(saids):
        count = sum(said.fits(thing) for thing in scene.named)
        out.append(replace(said, count=count) if count > 1 else said)
    return out


def _short(scene: Scene, rng: random.Random) -> str:
    things, n = list(scene.named), len(scene.named)
    if n > 1 and rng.random() < 0.15:
        return _phrase(Said(count=n), rng)
    return _join([_phrase(said, rng) for said in _counted([_of(thing, rng, 0.25) for thing in things], scene)])


def _long(scene: Scene, rng: random.Random) -> str:
    saids = _counted([_of(thing, rng, 1.0) for thing in scene.named], scene)
    start = _word("style", scene.style, rng)
    end = f"on {_article(_word('tone', scene.tone, rng))} background"
    related = _relation_of(scene, rng)
    words = f"{start} {_join([_phrase(said, rng) for said in saids])} {end}"
    return f"{words}. {related[0].upper()}{related[1:]}." if related else f"{words}."


def _relation_of(scene: Scene, rng: random.Random) -> str | None:
    """How two of the things stand to each other, where a word is clearly true of them."""
    options = [(a, word, b) for a in range(len(scene.named)) for b in range(len(scene.named)) for word in _words(scene, a, b)]
    depth = [option for option in options if option[1] in ("behind", "front")]
    if not options:
        return None
    a, word, b = _pick(depth if depth and rng.random() < 0.7 else options, rng)
    first, second = _of(scene.named[a], rng, 0.2), _of(scene.named[b], rng, 0.2)
    return f"{_phrase(first, rng)} {_word('relation', word, rng)} {_phrase(second, rng)}"


def _words(scene: Scene, a: int, b: int) -> list[str]:
    if a == b:
        return []
    across, down = scene.named[b].x - scene.named[a].x, scene.named[b].y - scene.named[a].y
    pairs = {"left": across, "right": -across, "above": down, "below": -down}
    words = [word for word, by in pairs.items() if by > CLEARLY and by > 0.5 * math.hypot(across, down)]
    return words + (["behind"] if (a, b) in scene.behind_named else []) + (["front"] if (b, a) in scene.behind_named else [])


def _related(scene: Scene, rng: random.Random) -> str:
    return _relation_of(scene, rng) or _short(scene, rng)


def _negated(scene: Scene, rng: random.Random) -> str:
    colours = [c for c in COLOURS if all(thing.colour != c for thing in scene.named)]
    shapes = [s for s in SHAPES if all(thing.shape != s for thing in scene.named)]
    colour, shape = _pick(colours, rng), _pick(shapes, rng)
    missing = _pick((Said(shape), Said(shape, colour), Said(None, colour)), rng)
    words = _phrase(replace(missing, count=2), rng).removeprefix("two ")
    link = _pick(("but no", "without any", "and no"), rng)
    return f"{_short(scene, rng)} {link} {words}"


def _alt(scene: Scene, rng: random.Random) -> str:
    """As found on the web: attributes left out, hyphens, file names, junk around it. Never false."""
    saids = [replace(_of(t, rng, 0.15), colour=t.colour if rng.random() < 0.6 else None) for t in scene.named]
    keep = max(1, round(len(saids) * (0.4 + 0.6 * rng.random())))
    words = ", ".join(_phrase(replace(said, count=None), rng).split(" ", 1)[1] for said in saids[:keep])
    junk = _pick(NOISE, rng).format(int(rng.random() * 9000) + 1000)
    file = re.sub(r"[ ,-]+", "-", words)
    return _pick((words, f"{junk} | {words}", f"{words} {junk}", f"{file}.png", f"{file}.jpg", words.upper()), rng)


_FORMS = {"short": _short, "long": _long, "relation": _related, "negation": _negated, "alt": _alt}
