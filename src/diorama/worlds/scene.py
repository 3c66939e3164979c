"""What a scene is, before anyone draws it: plain frozen data, a function of (seed, index) alone.

Lengths are shares of the picture's side: x to the right, y downwards, both 0 .. 1; angles are turns in degrees, clockwise as seen.
A later mode (views, clips, figures) adds fields with defaults here and reads the same scene; there is no second description.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from diorama.errors import UserError
from diorama.types import mix
from diorama.worlds.shapes import DISTANCES, REACH, SHAPES, SUBJECT

COLOURS = {  # straight RGB in 0 .. 1; hues at least 25 degrees apart, so that a tint or a shade keeps its name
    "red": (0.90, 0.12, 0.12),
    "orange": (1.00, 0.53, 0.08),
    "yellow": (0.98, 0.88, 0.10),
    "green": (0.13, 0.68, 0.20),
    "cyan": (0.10, 0.80, 0.82),
    "blue": (0.12, 0.32, 0.92),
    "purple": (0.55, 0.16, 0.85),
    "pink": (0.98, 0.28, 0.70),
}
SIZES = {"small": (0.115, 0.125), "medium": (0.152, 0.165), "large": (0.198, 0.213)}  # radii
TEXTURES = ("plain", "striped", "dotted", "checked")
STYLES = ("flat", "outlined", "shaded", "pixel", "sketch")
# held out: these come only where rules name them, so that no model of the library's own has seen one
RARE_TEXTURES = ("diagonal", "zigzag", "wavy", "bricked", "concentric", "toothed", "spiral", "halved")
RARE_STYLES = ("hatched", "dithered", "neon", "pointillist")
ALL_TEXTURES, ALL_STYLES = (*TEXTURES, *RARE_TEXTURES), (*STYLES, *RARE_STYLES)
GROUNDS = ("plain", "gradient", "noise", "striped", "clear")
MATERIALS = ("matte", "glossy", "metal")  # of the solids in the 3D mode
TONES = {"white": (0.96, 0.96, 0.96), "grey": (0.66, 0.66, 0.67), "black": (0.13, 0.13, 0.14), "cream": (0.96, 0.92, 0.85)}

GAP = 0.075  # between two things that do not touch: 2.4 px at 32, so that one colour never runs into itself
EDGE = 0.015  # kept free around the picture
LEAST_SEEN = 0.6  # of every thing
TRIES = 40  # places tried for one thing before the whole scene falls back to its four slots


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One object. `depth` orders what is drawn: the lowest is nearest and covers the others."""

    shape: str
    colour: str
    size: str
    texture: str
    x: float
    y: float
    radius: float
    angle: float  # degrees, clockwise
    depth: float
    grain: float = 0.0  # degrees, clockwise, of the texture by itself: a thing that turns turns both
    subject: int | None = None  # a unique object's number; no caption names it
    material: str = "matte"


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What is behind everything; "clear" is transparent, white where there is no alpha."""

    kind: str
    tone: str
    angle: float = 0.0  # degrees, of a gradient or of stripes
    seed: int = 0  # of the noise


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A whole picture's content. `behind` holds (i, j) where thing i is partly covered by thing j."""

    seed: int
    index: int
    things: tuple[Thing, ...]
    ground: Ground
    style: str
    behind: tuple[tuple[int, int], ...] = ()
    light: tuple[float, float] = (-40.0, 50.0)  # degrees around and above the scene, as a camera's azimuth and elevation

    @cached_property
    def named(self) -> tuple[Thing, ...]:
        """The things a caption may speak of."""
        return tuple(thing for thing in self.things if thing.subject is None)

    @cached_property
    def behind_named(self) -> tuple[tuple[int, int], ...]:
        """`behind`, counted in `named`."""
        place = {id(thing): i for i, thing in enumerate(self.named)}
        pairs = ((id(self.things[i]), id(self.things[j])) for i, j in self.behind)
        return tuple((place[i], place[j]) for i, j in pairs if i in place and j in place)

    @property
    def tone(self) -> str:
        return self.ground.tone

    def without(self, k: int) -> Scene:
        """The same scene with thing k removed: what its hole truly shows."""
        if not 0 <= k < len(self.things):
            raise UserError(f"there is no thing {k} in this scene: use 0 to {len(self.things) - 1}")
        keep = [i for i in range(len(self.things)) if i != k]
        new = {i: position for position, i in enumerate(keep)}
        behind = tuple((new[i], new[j]) for i, j in self.behind if k not in (i, j))
        return replace(self, things=tuple(self.things[i] for i in keep), behind=behind)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Which scenes may come. `held_out` names (colour, shape) pairs that never do, for tests of unseen combinations.

    Textures and styles are the common ones unless they are named: `textures=RARE_TEXTURES` gives what is never shown otherwise.
    """

    shapes: tuple[str, ...] = SHAPES
    colours: tuple[str, ...] = tuple(COLOURS)
    sizes: tuple[str, ...] = tuple(SIZES)
    textures: tuple[str, ...] = TEXTURES
    styles: tuple[str, ...] = STYLES
    grounds: tuple[str, ...] = GROUNDS
    tones: tuple[str, ...] = tuple(TONES)
    materials: tuple[str, ...] = MATERIALS
    least: int = 1  # things in a scene
    most: int = 4
    overlap: float = 0.35  # how often one thing is partly behind another, where there are two
    subjects: float = 0.02  # how often one thing is a subject
    turn: float = 360.0  # degrees that a thing is turned by at most
    held_out: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for name, known in _KNOWN.items():
            check_words(name, getattr(self, name), known)
        if wrong := [pair for pair in self.held_out if pair not in _PAIRS]:
            raise UserError(f"{wrong[0]!r} cannot be held out: use pairs of a colour and a shape, as in (('red', 'star'),)")
        if not 1 <= self.least <= self.most <= 4:
            raise UserError(f"{self.least} to {self.most} things are not possible: a scene holds 1 to 4")
        for name in ("overlap", "subjects"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} {getattr(self, name)} is no chance: use 0 to 1")
        if not 0 <= self.turn <= 360:
            raise UserError(f"turn {self.turn} is not possible: use 0 (upright) to 360 degrees")
        if not self.pairs:
            raise UserError("every colour and shape is held out: leave at least one pair")

    @cached_property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The (colour, shape) pairs that may come."""
        out = set(self.held_out)
        return tuple((colour, shape) for colour in self.colours for shape in self.shapes if (colour, shape) not in out)


_KNOWN = {
    "shapes": SHAPES,
    "colours": tuple(COLOURS),
    "sizes": tuple(SIZES),
    "textures": ALL_TEXTURES,
    "styles": ALL_STYLES,
    "grounds": GROUNDS,
    "tones": tuple(TONES),
    "materials": MATERIALS,
}
_PAIRS = tuple(itertools.product(COLOURS, SHAPES))


def check_words(name: str, words: Sequence[str], known: Sequence[str]) -> None:
    """Raises UserError where no words are given, or one that is not known."""
    if not words:
        raise UserError(f"no {name} are left to choose from: use some of {', '.join(known)}")
    if unknown := [word for word in words if word not in known]:
        raise UserError(f"{unknown[0]!r} is none of the {name}: use {', '.join(known)}")


ANY = Rules()


def scene(seed: int, index: int, rules: Rules = ANY) -> Scene:
    """Scene `index` of the world `seed`: the same alone or among others, today or later.

    Every thing shows at least 60 % of itself and is at least 6 px wide in a picture of 32 px.
    """
    if index < 0:
        raise UserError(f"scene {index} does not exist: count from 0")
    rng = random.Random(mix(seed, index))
    n = rules.least + int(rng.random() * (rules.most - rules.least + 1))
    style = _pick(rules.styles, rng)
    ground = Ground(
        kind=_pick(rules.grounds, rng), tone=_pick(rules.tones, rng), angle=rng.random() * 360, seed=int(rng.random() * 2**31)
    )
    if ground.kind == "clear":
        ground = replace(ground, tone="white")
    things = sorted((_thing(rng, rules) for _ in range(n)), key=lambda thing: -thing.radius)
    if rng.random() < rules.subjects:
        k = int(rng.random() * n)
        things[k] = replace(things[k], shape=SUBJECT, texture="plain", subject=int(rng.random() * 2**31))
    placed, behind = _place(things, rng.random() < rules.overlap, rng)
    solid = random.Random(mix(seed, index, 3))  # the 3D mode has a stream of its own: flat pictures do not know of it
    light = (solid.random() * 360, 35 + 30 * solid.random())
    made = tuple(replace(thing, material=_pick(rules.materials, solid)) for thing in placed)
    return Scene(seed=seed, index=index, things=made, ground=ground, style=style, behind=behind, light=light)


def _pick(options: Sequence[Any], rng: random.Random) -> Any:
    return options[int(rng.random() * len(options))]  # only random(): its stream stays the same from Python to Python


def _thing(rng: random.Random, rules: Rules) -> Thing:
    colour, shape = _pick(rules.pairs, rng)
    size = _pick(rules.sizes, rng)
    low, high = SIZES[size]
    return Thing(
        shape=shape,
        colour=colour,
        size=size,
        texture=_pick(rules.textures, rng),
        x=0.5,
        y=0.5,
        radius=low + (high - low) * rng.random(),
        angle=rng.random() * rules.turn,
        depth=rng.random(),
    )


# --- where things stand ---------------------------------------------------------------------------


def _place(things: list[Thing], overlap: bool, rng: random.Random) -> tuple[list[Thing], tuple[tuple[int, int], ...]]:
    """Things with places: apart, but for the first two where one is to be behind the other."""
    pair = _pair(things, rng) if overlap else None
    placed, behind = pair if pair is not None else ([], ())
    for thing in things[len(placed) :]:
        there = _apart(thing, placed, rng)
        if there is None:
            return _slots(things, rng), ()
        placed = [*placed, there]
    return placed, behind


def _somewhere(thing: Thing, rng: random.Random) -> Thing:
    margin = thing.radius * REACH + EDGE
    x, y = (margin + (1 - 2 * margin) * rng.random() for _ in "xy")
    return replace(thing, x=x, y=y)


def _apart(thing: Thing, placed: Sequence[Thing], rng: random.Random) -> Thing | None:
    """The thing at a place where it touches nothing, or None where none was found."""
    margin = thing.radius * REACH + EDGE
    for _ in range(TRIES):
        x, y = margin + (1 - 2 * margin) * rng.random(), margin + (1 - 2 * margin) * rng.random()
        if all(math.hypot(x - o.x, y - o.y) > REACH * (thing.radius + o.radius) + GAP for o in placed):
            return replace(thing, x=x, y=y)
    return None


def _slots(things: Sequence[Thing], rng: random.Random) -> list[Thing]:
    """One thing to each quarter of the picture, as far from its neighbours as a large one allows: this always fits."""
    order = sorted(range(4), key=lambda _: rng.random())
    corner = EDGE + REACH * SIZES["large"][1]
    places = [(corner if slot % 2 else 1 - corner, corner if slot // 2 else 1 - corner) for slot in order]
    return [replace(thing, x=x, y=y) for thing, (x, y) in zip(things, places, strict=False)]


def _pair(things: Sequence[Thing], rng: random.Random) -> tuple[list[Thing], tuple[tuple[int, int], ...]] | None:
    """The first two things, the farther one partly covered by the nearer; None where they do not lend themselves to it."""
    named = [thing for thing in things[:2] if thing.subject is None]
    if len(named) < 2 or named[0].colour == named[1].colour:  # of one colour they would be one patch
        return None
    far, near = (0, 1) if things[0].depth > things[1].depth else (1, 0)
    for _ in range(TRIES // 5):
        first = _somewhere(things[0], rng)
        apart, turn = (0.62 + 0.3 * rng.random()) * (first.radius + things[1].radius), 2 * math.pi * rng.random()
        second = replace(things[1], x=first.x + apart * math.cos(turn), y=first.y + apart * math.sin(turn))
        margin = second.radius * REACH + EDGE
        inside = margin <= second.x <= 1 - margin and margin <= second.y <= 1 - margin
        placed = [first, second]
        if inside and 0.06 < _covered(placed[far], placed[near]) < 1 - LEAST_SEEN - 0.08:
            return placed, ((far, near),)
    return None


def _covered(far: Thing, near: Thing) -> float:
    """The share of `far` that lies under `near`, on a grid of points (both as they are drawn, without their style)."""
    x, y = GRID[0] * far.radius + far.x, GRID[1] * far.radius + far.y
    own = _inside(far, x, y)
    return int((own & _inside(near, x, y)).sum()) / max(1, int(own.sum()))


GRID = torch.stack(torch.meshgrid(*[torch.linspace(-REACH, REACH, 20)] * 2, indexing="xy")).flatten(1)  # (2, 400)


def _inside(thing: Thing, x: Tensor, y: Tensor) -> Tensor:
    """Which of the places (p,) lie inside the thing."""
    cos, sin = math.cos(math.radians(thing.angle)), math.sin(math.radians(thing.angle))
    x, y = (x - thing.x) / thing.radius, (y - thing.y) / thing.radius
    return DISTANCES[thing.shape](cos * x + sin * y, cos * y - sin * x) < 0


def as_plain(scene: Scene) -> dict[str, Any]:
    """The scene as JSON can hold it."""
    things = [{f.name: getattr(thing, f.name) for f in fields(thing)} for thing in scene.things]
    ground = {f.name: getattr(scene.ground, f.name) for f in fields(scene.ground)}
    return {
        "seed": scene.seed,
        "index": scene.index,
        "style": scene.style,
        "ground": ground,
        "things": things,
        "behind": [list(pair) for pair in scene.behind],
        "light": list(scene.light),
    }
