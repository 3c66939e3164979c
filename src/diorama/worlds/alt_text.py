"""Captions as people leave them on web pages: much is left out, some is wrong, some says nothing (Betker et al. 2023, sec. 1)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from diorama.types import mix
from diorama.worlds.captions import NOISE, caption
from diorama.worlds.scene import ANY, Rules, Scene, Thing

WRONG, JUNK = 0.2, 0.1  # of the things, and of the captions


def alt_text(scene: Scene, seed: int = 0, *, wrong: float = WRONG, junk: float = JUNK, rules: Rules = ANY) -> str:
    """The form "alt" of a scene in which some things have another colour or shape that `rules` allow, or nothing but junk."""
    rng = random.Random(mix(scene.seed, scene.index, seed, 0xA17))
    if rng.random() < junk:
        return _pick(NOISE, rng).format(int(rng.random() * 9000) + 1000)
    things = tuple(_mistaken(thing, rng, rules) if rng.random() < wrong else thing for thing in scene.things)
    return caption(replace(scene, things=things), seed, "alt")


def _pick(options: Sequence[str], rng: random.Random) -> str:
    return options[int(rng.random() * len(options))]


def _mistaken(thing: Thing, rng: random.Random, rules: Rules) -> Thing:
    """The same thing with the colour or the shape of another; a subject, which no caption names, stays."""
    kinds = {"colour": rules.colours, "shape": rules.shapes}
    others = {word: [other for other in known if other != getattr(thing, word)] for word, known in kinds.items()}
    words = [word for word in others if others[word] and thing.subject is None]
    if not words:
        return thing
    word = _pick(words, rng)
    said: dict[str, Any] = {word: _pick(others[word], rng)}
    return replace(thing, **said)
