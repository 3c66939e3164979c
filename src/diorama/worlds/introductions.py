"""Sentences about figures, and back: "a person in a red striped shirt and blue shorts waves", with a parser."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

from diorama.errors import UserError
from diorama.types import mix
from diorama.worlds.actions import ACTIONS
from diorama.worlds.captions import SYNONYMS
from diorama.worlds.figures import BOTTOMS, TOPS, Figure, Garment

VERBS = {
    "walk": ("walks", "is walking"),
    "wave": ("waves", "is waving"),
    "jump": ("jumps", "is jumping"),
    "sit": ("sits down", "is sitting down"),
    "turn": ("turns around", "is turning around"),
}
SIDES = {"front": ("front view of",), "left": ("left side view of",), "back": ("back view of",), "right": ("right side view of",)}
GARMENTS = {
    "shirt": ("shirt",),
    "t-shirt": ("t-shirt", "tee"),
    "vest": ("vest",),
    "trousers": ("trousers", "pants"),
    "shorts": ("shorts",),
}
WORDS: dict[str, Mapping[str, tuple[str, ...]]] = {
    "verb": VERBS,
    "side": SIDES,
    "kind": GARMENTS,
    "colour": SYNONYMS["colour"],
    "texture": SYNONYMS["texture"],
}
WHO = ("person", "figure")


@dataclass(frozen=True)
class Worn:
    """A garment as a sentence tells it. None is not said."""

    kind: str
    colour: str | None = None
    texture: str | None = None

    def fits(self, garment: Garment) -> bool:
        return all(said in (None, getattr(garment, word)) for word, said in vars(self).items())


@dataclass(frozen=True)
class Introduction:
    """What a sentence claims of a figure. None is not said."""

    top: Worn | None = None
    bottom: Worn | None = None
    action: str | None = None
    side: str | None = None

    def true_of(self, figure: Figure, action: str | None = None, azimuth: float = 0.0) -> bool:
        """Whether all of it holds of the figure, doing this, seen from there."""
        worn = [(self.top, figure.top), (self.bottom, figure.bottom)]
        holds = all(said is None or said.fits(garment) for said, garment in worn)
        return holds and self.action in (None, action) and self.side in (None, side_of(azimuth))


def side_of(azimuth: float) -> str:
    """Which side of a figure is seen from there: the nearest of front, left, back and right."""
    return tuple(SIDES)[round(azimuth / 90) % 4]


def introduce(figure: Figure, action: str | None = None, azimuth: float | None = None, seed: int = 0) -> str:
    """One true sentence about the figure, the same for the same arguments; what it does and whence it is seen, if they are given.

    Raises UserError for an unknown action.
    """
    if action is not None and action not in ACTIONS:
        raise UserError(f"action {action!r} is not known: use {', '.join(ACTIONS)}")
    rng = random.Random(mix(figure.seed, figure.index, seed, 0x1D))
    top, bottom = (_garment(garment, rng) for garment in figure.garments)
    words = [f"a {_pick(WHO, rng)} in {top} and {bottom}"]
    if azimuth is not None:
        words.insert(0, SIDES[side_of(azimuth)][0])
    return " ".join([*words, _pick(VERBS[action], rng)] if action else words)


def _pick(options: tuple[str, ...], rng: random.Random) -> str:
    return options[int(rng.random() * len(options))]


def _garment(garment: Garment, rng: random.Random) -> str:
    said = [garment.colour, *([garment.texture] if garment.texture != "plain" else [])]
    words = [_pick(WORDS[word][name], rng) for word, name in zip(("colour", "texture"), said, strict=False)]
    phrase = " ".join([*words, _pick(GARMENTS[garment.kind], rng)])
    return phrase if garment.kind in BOTTOMS else f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


# --- words to introduction ------------------------------------------------------------------------

_NAMES = {word: {said: name for name, synonyms in table.items() for said in synonyms} for word, table in WORDS.items()}


def _one_of(word: str) -> str:
    return f"(?P<{word}>{'|'.join(sorted(map(re.escape, _NAMES[word]), key=len, reverse=True))})"


_GARMENT = re.compile(rf"(?:an? )?(?:{_one_of('colour')} )?(?:{_one_of('texture')} )?{_one_of('kind')}")
_SENTENCE = re.compile(rf"(?:{_one_of('side')} )?an? (?:{'|'.join(WHO)})(?: in (?P<worn>.+?))?(?: {_one_of('verb')})?[.]?")


def meet(words: str) -> Introduction:
    """What the sentence claims. Raises UserError where it is none of this grammar's."""
    sentence = _SENTENCE.fullmatch(" ".join(words.lower().split()))
    garments = [_GARMENT.fullmatch(phrase) for phrase in sentence["worn"].split(" and ")] if sentence and sentence["worn"] else []
    if sentence is None or None in garments:
        raise UserError(
            f"cannot read {words[:60]!r} as a figure: write as in 'a person in a red striped shirt and blue shorts waves'"
        )
    worn = [Worn(_NAMES["kind"][found["kind"]], _read(found, "colour"), _read(found, "texture")) for found in garments if found]
    tops, bottoms = [w for w in worn if w.kind in TOPS], [w for w in worn if w.kind in BOTTOMS]
    if len(tops) > 1 or len(bottoms) > 1:
        raise UserError(f"{words[:60]!r} has two of one garment: name one for above and one for below")
    return Introduction(next(iter(tops), None), next(iter(bottoms), None), _read(sentence, "verb"), _read(sentence, "side"))


def _read(found: re.Match[str], word: str) -> str | None:
    return _NAMES[word].get(found[word] or "")
