"""Sentences about scenes, and back: a small grammar with synonyms, counts, relations, negation and alt-text, and its parser.

Whatever `caption` says of a scene, `parse` reads as a `Description` that is true of it; `Description` is also what the oracle is
asked about a picture.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from diorama.errors import UserError
from diorama.types import mix
from diorama.worlds.scene import COLOURS, Scene
from diorama.worlds.shapes import SHAPES

FORMS = ("short", "long", "relation", "negation", "alt")
CLEARLY = 0.1  # by how much of the picture's side one thing must be left of another before a caption says so


class Seen(Protocol):
    """One thing as a scene or an oracle tells it. None is "could not be read" and agrees with nothing that is said."""

    @property
    def shape(self) -> str | None: ...
    @property
    def colour(self) -> str | None: ...
    @property
    def size(self) -> str | None: ...
    @property
    def texture(self) -> str | None: ...
    @property
    def x(self) -> float: ...
    @property
    def y(self) -> float: ...


class Account(Protocol):
    """A scene, or what an oracle read of a picture."""

    @property
    def named(self) -> Sequence[Seen]: ...
    @property
    def behind_named(self) -> Sequence[tuple[int, int]]: ...
    @property
    def style(self) -> str | None: ...
    @property
    def tone(self) -> str | None: ...


@dataclass(frozen=True)
class Said:
    """One noun phrase. None is not said; count None is "a", one or more, a number is exactly that many."""

    shape: str | None = None  # None: a thing of any shape
    colour: str | None = None
    size: str | None = None
    texture: str | None = None
    count: int | None = None

    def fits(self, thing: Seen) -> bool:
        """Whether the thing is one of these."""
        words = ("shape", "colour", "size", "texture")
        return all(getattr(self, word) in (None, getattr(thing, word)) for word in words)


@dataclass(frozen=True)
class Description:
    """What a caption claims."""

    things: tuple[Said, ...] = ()
    relations: tuple[tuple[int, str, int], ...] = ()  # (i, word, j): things[i] is `word` things[j]
    absent: tuple[Said, ...] = ()
    style: str | None = None
    tone: str | None = None  # of the ground

    def claims(self, account: Account) -> list[bool]:
        """Each single claim, true or not of this account."""
        named = account.named
        fits = [[i for i, thing in enumerate(named) if said.fits(thing)] for said in self.things]
        found = [len(f) == s.count if s.count is not None else bool(f) for s, f in zip(self.things, fits, strict=True)]
        found += [any(_holds(word, a, b, account) for a in fits[i] for b in fits[j]) for i, word, j in self.relations]
        found += [not any(said.fits(thing) for thing in named) for said in self.absent]
        found += [self.style == account.style] if self.style else []
        found += [self.tone == account.tone] if self.tone else []
        return found

    def true_of(self, account: Account) -> bool:
        """Whether every claim holds."""
        return all(self.claims(account))


def _holds(word: str, a: int, b: int, account: Account) -> bool:
    if a == b:
        return False
    first, second = account.named[a], account.named[b]
    across, down = second.x - first.x, second.y - first.y
    return {
        "left": across > CLEARLY / 2,
        "right": across < -CLEARLY / 2,
        "above": down > CLEARLY / 2,
        "below": down < -CLEARLY / 2,
        "behind": (a, b) in account.behind_named,
        "front": (b, a) in account.behind_named,
    }[word]


# --- words ----------------------------------------------------------------------------------------

SYNONYMS: dict[str, dict[str, tuple[str, ...]]] = {
    "shape": {
        "circle": ("circle", "disc", "dot"),
        "square": ("square", "box"),
        "triangle": ("triangle",),
        "star": ("star",),
        "heart": ("heart",),
        "cross": ("cross", "plus"),
        "ring": ("ring", "hoop"),
        "crescent": ("crescent", "moon"),
    },
    "colour": {**{name: (name,) for name in COLOURS}, "cyan": ("cyan", "turquoise"), "purple": ("purple", "violet")},
    "size": {"small": ("small", "little", "tiny"), "medium": ("medium", "medium-sized"), "large": ("large", "big")},
    "texture": {
        "plain": ("plain",),
        "striped": ("striped", "stripy"),
        "dotted": ("dotted", "spotted"),
        "checked": ("checked", "chequered"),
    },
    "style": {
        "flat": ("a flat picture of", "flat art of"),
        "outlined": ("an outlined drawing of", "a cartoon of"),
        "shaded": ("a shaded picture of", "a glossy rendering of"),
        "pixel": ("pixel art of", "a pixelated picture of"),
        "sketch": ("a sketch of", "a pencil sketch of"),
    },
    "relation": {
        "left": ("left of", "to the left of"),
        "right": ("right of", "to the right of"),
        "above": ("above", "over"),
        "below": ("below", "under"),
        "behind": ("behind", "partly hidden by"),
        "front": ("in front of",),
    },
    "tone": {"white": ("white",), "grey": ("grey", "gray"), "black": ("black",), "cream": ("cream", "beige")},
}
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}
ANYTHING = ("object", "thing")
PLURALS = {"box": "boxes", "cross": "crosses", "plus": "pluses"}
NOISE = ("IMG_{}", "untitled {}", "clipart {}", "stock vector {}", "free download {}", "icon {}")


def _plural(noun: str) -> str:
    return PLURALS.get(noun, noun + "s")


# --- scene to words -------------------------------------------------------------------------------


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
    words = " ".join([*adjectives, _plural(noun) if many else noun])
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


# --- words to description -------------------------------------------------------------------------


def _any(words: Sequence[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def _table(kind: str) -> dict[str, str]:
    return {word: name for name, words in SYNONYMS[kind].items() for word in words}


_TABLES = {kind: _table(kind) for kind in SYNONYMS}
_NOUNS: dict[str, str | None] = {**_TABLES["shape"], **dict.fromkeys(ANYTHING)}
_NOUNS |= {_plural(noun): shape for noun, shape in _NOUNS.items()}
_COUNTS: dict[str, int | None] = {word: n for n, word in NUMBERS.items()} | {str(n): n for n in NUMBERS} | {"a": None, "an": None}
_PHRASE = re.compile(
    rf"(?:(?P<count>{_any(list(_COUNTS))}|the|any) )?(?:(?P<size>{_any(list(_TABLES['size']))}) )?"
    rf"(?:(?P<texture>{_any(list(_TABLES['texture']))}) )?(?:(?P<colour>{_any(list(_TABLES['colour']))}) )?"
    rf"(?P<noun>{_any(list(_NOUNS))})\b"
)
_RELATION = re.compile(rf"(?:is |are )?(?P<word>{_any(list(_TABLES['relation']))})\b")
_STYLE = re.compile(rf"(?P<word>{_any(list(_TABLES['style']))})\b")
_TONE = re.compile(rf"(?:on|against) an? (?P<word>{_any(list(_TABLES['tone']))}) (?:background|backdrop)\b")
_NOT = re.compile(r"(?:but |and )?(?:no|without)\b")
_FILLER = re.compile(
    r"\.(?:png|jpg)$|[\s,.;:|]+|(?:and|there is|there are|a picture of|a photo of|a drawing of|with|nothing)\b"
    r"|(?:img_|untitled |clipart |stock vector |free download |icon )\d+"
)


def parse(words: str) -> Description:
    """What the caption claims. Raises UserError, in one line, where a word is none of the grammar's."""
    text = re.sub(r"(?<=\w)-(?=\w)", " ", " ".join(words.lower().split())).replace("medium sized", "medium")
    things: list[Said] = []
    relations: list[tuple[int, str, int]] = []
    absent: list[Said] = []
    found: dict[str, str] = {}
    waiting: str | None = None  # a relation or a "no" whose noun phrase is still to come
    at = 0
    while at < len(text):
        if match := _STYLE.match(text, at) or _TONE.match(text, at):
            kind = "style" if match.re is _STYLE else "tone"
            found[kind] = _TABLES[kind][match["word"]]
        elif match := _NOT.match(text, at):
            waiting = "no"
        elif things and (match := _RELATION.match(text, at)):
            waiting = _TABLES["relation"][match["word"]]
        elif match := _PHRASE.match(text, at):
            said = _said(match)
            (absent if waiting == "no" else things).append(said)
            if waiting not in (None, "no"):
                relations.append((len(things) - 2, str(waiting), len(things) - 1))
            waiting = None
        elif not (match := _FILLER.match(text, at)):
            raise UserError(
                f"cannot read {text[at : at + 30]!r} in this caption: use words of the world, as in 'a small red star'"
            )
        at = match.end()
    if waiting is not None or not text.strip(" ,.;:|"):
        raise UserError(f"the caption {text[:60]!r} has no end: name a thing, as in 'a small red star'")
    if not (things or absent or found):
        raise UserError(f"the caption {text[:60]!r} says nothing that can be seen: name a thing, as in 'a small red star'")
    return Description(tuple(things), tuple(relations), tuple(absent), found.get("style"), found.get("tone"))


def _said(match: re.Match[str]) -> Said:
    adjectives = {kind: _TABLES[kind][word] for kind in ("colour", "size", "texture") if (word := match[kind])}
    return Said(shape=_NOUNS[match["noun"]], count=_COUNTS.get(match["count"] or ""), **adjectives)
