"""Garments laid flat: which parts of a body they cover, where each point of the cloth lies in the flat picture, and that picture.

A part is seen as a tube: v runs along it, u around it, both 0 .. 1. It is cut open along its sides, and its front and its back lie in
two halves of the picture, each as one sees it: fronts at the top (or the left), backs at the bottom (or the right).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from diorama.worlds.figures import Garment
from diorama.worlds.render import TINT, WAVES
from diorama.worlds.scene import COLOURS
from diorama.worlds.shapes import DISTANCES

PARTS = (
    "head",
    "neck",
    "torso",
    "hips",
    "right upper arm",
    "right forearm",
    "right hand",
    "right thigh",
    "right shin",
    "right foot",
    "left upper arm",
    "left forearm",
    "left hand",
    "left thigh",
    "left shin",
    "left foot",
)
PART = {name: number for number, name in enumerate(PARTS)}
SLOTS = ("top", "bottom")
COVERS = {
    "shirt": ("torso", "upper arm", "forearm"),
    "t-shirt": ("torso", "upper arm"),
    "vest": ("torso",),
    "trousers": ("hips", "thigh", "shin"),
    "shorts": ("hips", "thigh"),
}
FLAT = 64  # texels along a side of a flat picture
PERIOD = 0.13  # of a texture, in sides of the flat picture
MARKED = (0.5, 0.2, 0.1)  # where a mark is printed on the chest: middle and radius


def covers(garment: Garment) -> tuple[int, ...]:
    """The numbers of the parts that the garment covers."""
    return tuple(PART[name] for name in _covered(garment.kind))


def _covered(kind: str) -> tuple[str, ...]:
    return tuple(name for name in PARTS if name.removeprefix("right ").removeprefix("left ") in COVERS[kind])


# --- where cloth lies -----------------------------------------------------------------------------

ACROSS = {"torso": (0.3, 0.7), "upper arm": (0.165, 0.3), "forearm": (0.03, 0.165)}  # of a top, its right side
DOWN = {"hips": (0.03, 0.22), "thigh": (0.22, 0.6), "shin": (0.6, 0.97)}  # of a bottom
Rectangle = tuple[float, float, float, float]  # left, top, right, bottom in sides of the picture


def _rectangles(name: str) -> tuple[Rectangle, Rectangle]:
    """Where a part's front and its back lie. The figure's right is at the left of its front and at the right of its back."""
    word, right = name.split(" ", 1)[-1], not name.startswith("left")
    if word in ACROSS:
        (low, high), bottom = ACROSS[word], 0.45 if word == "torso" else 0.22
        here, there = (low, 0.03, high, bottom), (1 - high, 0.03, 1 - low, bottom)
        return (here, _moved(there, 0, 0.5)) if right else (there, _moved(here, 0, 0.5))
    top, bottom = DOWN[word]
    here, there = ((0.06, top, 0.44, bottom),) * 2 if word == "hips" else ((0.06, top, 0.235, bottom), (0.265, top, 0.44, bottom))
    return (here, _moved(there, 0.5, 0)) if right else (there, _moved(here, 0.5, 0))


def _moved(rectangle: Rectangle, x: float, y: float) -> Rectangle:
    left, top, right, bottom = rectangle
    return left + x, top + y, right + x, bottom + y


def _corners(name: str, rectangle: Rectangle) -> tuple[tuple[float, float], ...]:
    """Where (w, v) = (0, 0), (1, 0) and (0, 1) lie: w runs across the half seen, from left to right as one sees it."""
    left, top, right, bottom = rectangle
    if name in ("torso", "hips"):  # v leads upwards
        return (left, bottom), (right, bottom), (left, top)
    if "arm" not in name:
        return (left, top), (right, top), (left, bottom)
    if right < 0.5:  # an arm spread aside: v leads outwards, and the side that is outside when it hangs lies on top
        return (right, top), (right, bottom), (left, top)
    return (left, bottom), (left, top), (right, bottom)


@cache
def panels() -> Tensor:
    """(16, 2, 3, 2): of each part's front and back, the place of (w, v) = (0, 0), and what w and v add; 0 where nothing covers it."""
    table = torch.zeros(len(PARTS), 2, 3, 2)
    for name in (*_covered("shirt"), *_covered("trousers")):
        table[PART[name]] = torch.tensor([_corners(name, rectangle) for rectangle in _rectangles(name)])
    table[:, :, 1:] -= table[:, :, :1]
    return table


def lie(part: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Places (*, 2) in the flat picture of the cloth at (u, v) of a part, all (*): -1 .. 1, x then y, as `grid_sample` wants them
    with align_corners=False."""
    front = (u >= 0.25) & (u < 0.75)
    w = 2 * torch.remainder(torch.where(front, u - 0.25, u - 0.75), 1.0)
    start, across, along = panels()[part, (~front).long()].unbind(-2)
    return 2 * (start + w[..., None] * across + v[..., None] * along) - 1


# --- how it looks ---------------------------------------------------------------------------------


@cache
def _lattice() -> tuple[Tensor, Tensor]:
    line = (torch.arange(FLAT) + 0.5) / FLAT
    return line.expand(FLAT, FLAT), line[:, None].expand(FLAT, FLAT)


@cache
def _cut(kind: str) -> Tensor:
    """(h, w) in 0 .. 1: where the cloth is. It reaches a texel beyond its panels, so that what is sampled on them is all cloth."""
    x, y = _lattice()
    cloth = torch.zeros(FLAT, FLAT)
    for name in _covered(kind):
        for left, top, right, bottom in _rectangles(name):
            beyond = torch.maximum(torch.maximum(left - x, x - right), torch.maximum(top - y, y - bottom)) * FLAT
            cloth = torch.maximum(cloth, (2 - beyond).clamp(0, 1))
    return cloth


@cache
def _woven(texture: str) -> Tensor:
    """(h, w) in 0 .. 1: the lighter half of a texture."""
    if texture not in WAVES:
        return torch.zeros(FLAT, FLAT)
    x, y = (2 * torch.pi / PERIOD * place for place in _lattice())
    return (0.5 + WAVES[texture](x, y)).clamp(0, 1)


@cache
def _printed(mark: str | None) -> Tensor:
    """(h, w) in 0 .. 1: where a mark is."""
    if mark is None:
        return torch.zeros(FLAT, FLAT)
    x, y = _lattice()
    middle, high, radius = MARKED
    return (0.5 - DISTANCES[mark]((x - middle) / radius, (y - high) / radius) * radius * FLAT).clamp(0, 1)


def flat(garments: Sequence[Garment]) -> Tensor:
    """Flat pictures (g, 4, 64, 64) in [-1, 1], on white and with their alpha: fully lit, front and back."""
    colour = torch.tensor([COLOURS[g.colour] for g in garments])[:, :, None, None]
    light = TINT * torch.stack([_woven(g.texture) for g in garments])[:, None]
    mark, cut = (
        torch.stack(layers)[:, None] for layers in ([_printed(g.mark) for g in garments], [_cut(g.kind) for g in garments])
    )
    rgb = torch.lerp(colour, torch.ones(()), light)
    rgb = torch.lerp(rgb, torch.full((), 0.1), mark)
    return 2 * torch.cat([torch.lerp(torch.ones(()), rgb, cut), cut], 1) - 1
