"""Articulated figures as plain frozen data, a function of (seed, index) alone, and their skeleton by forward kinematics.

The world is right-handed with z up, in metres. A figure at rest stands on z = 0 with hanging arms and faces -y, so its left is +x.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diorama.errors import UserError
from diorama.types import mix
from diorama.worlds.scene import COLOURS, TEXTURES
from diorama.worlds.shapes import SHAPES

JOINTS = {  # name: its parent, parents first; the order of Human3.6M
    "pelvis": None,
    "right hip": "pelvis",
    "right knee": "right hip",
    "right ankle": "right knee",
    "left hip": "pelvis",
    "left knee": "left hip",
    "left ankle": "left knee",
    "spine": "pelvis",
    "chest": "spine",
    "neck": "chest",
    "crown": "neck",
    "left shoulder": "chest",
    "left elbow": "left shoulder",
    "left wrist": "left elbow",
    "right shoulder": "chest",
    "right elbow": "right shoulder",
    "right wrist": "right elbow",
}
NUMBER = {name: number for number, name in enumerate(JOINTS)}
PARENTS = tuple(-1 if parent is None else NUMBER[parent] for parent in JOINTS.values())

SKINS = {"pale": (0.98, 0.84, 0.74), "tan": (0.86, 0.66, 0.50), "brown": (0.62, 0.42, 0.29), "dark": (0.38, 0.25, 0.18)}
HAIRS = {"black": (0.10, 0.09, 0.09), "brown": (0.36, 0.22, 0.12), "blond": (0.90, 0.75, 0.40), "grey": (0.62, 0.62, 0.64)}
SHOES = {"black": (0.12, 0.12, 0.13), "white": (0.93, 0.93, 0.93), "brown": (0.40, 0.26, 0.15)}
TOPS, BOTTOMS = ("shirt", "t-shirt", "vest"), ("trousers", "shorts")


@dataclass(frozen=True, kw_only=True)
class Garment:
    """One garment; which parts it covers and how it lies flat, `wardrobe` knows."""

    kind: str
    colour: str
    texture: str
    mark: str | None = None  # a shape printed on the chest


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One person. Proportions multiply those of a body of this height; 1 is usual."""

    seed: int
    index: int
    height: float  # metres
    legs: float
    shoulders: float
    girth: float
    skin: str
    hair: str
    long_hair: bool
    shoes: str
    top: Garment
    bottom: Garment

    @property
    def garments(self) -> tuple[Garment, Garment]:
        return self.top, self.bottom


def figure(seed: int, index: int) -> Figure:
    """Figure `index` of the world `seed`. Raises UserError for an index below 0."""
    if index < 0:
        raise UserError(f"figure {index} does not exist: count from 0")
    rng = random.Random(mix(seed, index, 0xF16))
    top, bottom = _pick(tuple(COLOURS), rng), _pick(tuple(COLOURS), rng)
    return Figure(
        seed=seed,
        index=index,
        height=_between(1.5, 1.9, rng),
        legs=_between(0.94, 1.06, rng),
        shoulders=_between(0.9, 1.12, rng),
        girth=_between(0.85, 1.2, rng),
        skin=_pick(tuple(SKINS), rng),
        hair=_pick(tuple(HAIRS), rng),
        long_hair=rng.random() < 0.5,
        shoes=_pick(tuple(SHOES), rng),
        top=Garment(kind=_pick(TOPS, rng), colour=top, texture=_pick(TEXTURES, rng), mark=_pick((None, None, *SHAPES), rng)),
        bottom=Garment(kind=_pick(BOTTOMS, rng), colour=bottom, texture=_pick(TEXTURES, rng)),
    )


def _pick(options: Sequence[Any], rng: random.Random) -> Any:
    return options[int(rng.random() * len(options))]


def _between(low: float, high: float, rng: random.Random) -> float:
    return low + (high - low) * rng.random()


# --- the skeleton ---------------------------------------------------------------------------------

ANKLE, THIGH, SHIN, NECK, HEAD = 0.05, 0.245, 0.235, 0.04, 0.165  # lengths upwards, in heights; the trunk is what is left
UPPER_ARM, FOREARM = 0.17, 0.15


class Posed(NamedTuple):
    """Skeletons in the world."""

    joints: Tensor  # (..., 17, 3) metres
    turns: Tensor  # (..., 17, 3, 3): how each joint's own axes are turned, columns being its x, y and z


def offsets(figures: Sequence[Figure]) -> Tensor:
    """(b, 17, 3) metres: where each joint is at rest, seen from its parent; the pelvis, seen from the ground below it."""
    return torch.tensor([_offsets(f) for f in figures])


def _offsets(figure: Figure) -> list[tuple[float, float, float]]:
    leg = figure.legs * (THIGH + SHIN)
    trunk = 1 - ANKLE - leg - NECK - HEAD
    hip, shoulder = 0.052 * figure.girth, 0.105 * figure.shoulders
    arm = [(0, 0, -0.03 * trunk), (0, 0, -UPPER_ARM), (0, 0, -FOREARM)]
    limb = [(0, 0, 0), (0, 0, -figure.legs * THIGH), (0, 0, -figure.legs * SHIN)]

    def aside(chain: list[Any], x: float) -> list[Any]:
        return [(x, *chain[0][1:]), *chain[1:]]

    spine = [(0, 0, 0.4 * trunk), (0, 0, 0.6 * trunk), (0, 0, NECK), (0, 0, HEAD)]
    places = [(0, 0, ANKLE + leg), *aside(limb, -hip), *aside(limb, hip), *spine, *aside(arm, shoulder), *aside(arm, -shoulder)]
    return [(figure.height * x, figure.height * y, figure.height * z) for x, y, z in places]


def rotation(vectors: Tensor) -> Tensor:
    """(..., 3) an axis times radians -> (..., 3, 3); Rodrigues' formula, smooth at 0."""
    angle = vectors.norm(dim=-1)[..., None, None]
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    first, second = torch.sinc(angle / torch.pi), torch.sinc(angle / (2 * torch.pi)) ** 2 / 2  # sin a / a, (1 - cos a) / a^2
    return torch.eye(3) + first * cross + second * cross @ cross


def forward(lengths: Tensor, angles: Tensor, root: Tensor) -> Posed:
    """Skeletons of `offsets` (..., 17, 3) with each joint turned by angles (..., 17, 3), rotation vectors in its parent's axes.

    root (..., 3) is where the pelvis is, in metres. A joint carries all that hangs on it along.
    """
    local = rotation(angles)
    joints, turns = [root], [local[..., 0, :, :]]
    for k, parent in enumerate(PARENTS[1:], 1):
        joints.append(joints[parent] + (turns[parent] @ lengths[..., k, :, None])[..., 0])
        turns.append(turns[parent] @ local[..., k, :, :])
    return Posed(torch.stack(torch.broadcast_tensors(*joints), -2), torch.stack(turns, -3))


def standing(figures: Sequence[Figure]) -> Posed:
    """Every figure (b) at rest on the ground above the origin."""
    lengths = offsets(figures)
    return forward(lengths, torch.zeros_like(lengths), lengths[:, 0])
