"""The oracle of single solids: colour, shape and whether a face shows, read from the pixels of a view.

A shape is what its outline is most like, held against outlines of the true solids from many sides; a face is what has not the solid's
colour and yet lies amid it, or is darker than any. So solids with holes are not for it, nor are dark grounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from diorama.scenes.cameras import NARROW, around, look_at, pixel_centres
from diorama.worlds.patches import HUED, hues
from diorama.worlds.render import PALETTE
from diorama.worlds.scene import COLOURS, Ground, Scene, Thing
from diorama.worlds.view_source import middle
from diorama.worlds.views import shoot

AZIMUTHS = tuple(22.5 * k for k in range(9))  # the solids are their own mirror images
ELEVATIONS = (-5.0, 15.0, 35.0, 55.0, 75.0, 90.0)
SIDE, WIDE = 24, 2.4  # of the pictures that outlines are compared in: pixels, and root mean square radii to each edge
DARK = 0.34  # of the lightest channel: below is the spot of a face, wherever it lies; green in the shade is 0.37
SPOT = 0.04  # of the solid's pixels: fewer of another colour are no face; a true one falls below at 65 degrees from the front
LEAST = 0.01  # of the picture's pixels: fewer of a hue are no solid


class Seen(NamedTuple):
    """What each of b pictures shows."""

    kinds: list[tuple[str, str] | None]  # colour and shape, None where nothing has a hue
    likeness: Tensor  # (b, shapes) in 0 .. 1, as `likeness` has it
    face: Tensor  # (b,) bool


def gaze(image: Tensor, shapes: Sequence[str]) -> Seen:
    """What pictures (b, 3 or 4, h, w) in [-1, 1] of single solids on grounds without a hue show, among these shapes."""
    rgb = (image[:, :3].detach().float().cpu() + 1) / 2
    hue, chroma = hues(rgb.permute(0, 2, 3, 1))
    off = (hue[..., None] - hues(PALETTE[: len(COLOURS)])[0] + 0.5) % 1 - 0.5
    names = F.one_hot(off.abs().argmin(-1), len(COLOURS)) * (chroma > HUED)[..., None]  # (b, h, w, 8)
    area, colour = names.sum((1, 2)).max(1)
    named = names[torch.arange(len(rgb)), :, :, colour]
    other = (_between(named, 1) & _between(named, 2) & (named == 0)) | (rgb.amax(1) < DARK)
    body = chroma * named
    strong = body.flatten(1).sum(1) / area.clamp_min(1)
    body = (body / strong.clamp_min(1e-6)[:, None, None]).clamp_max(1)  # rims count by their share
    found, alike = area >= LEAST * hue[0].numel(), likeness(body, shapes, "body")
    kinds = [
        (tuple(COLOURS)[c], shapes[k]) if ok else None
        for ok, c, k in zip(found.tolist(), colour.tolist(), alike.argmax(1).tolist(), strict=True)
    ]
    return Seen(kinds, alike, found & (other.flatten(1).sum(1) > SPOT * area))


def _between(mask: Tensor, axis: int) -> Tensor:
    """Where some of the mask (b, h, w) lies before and behind along this axis."""
    return (mask.cummax(axis).values & mask.flip(axis).cummax(axis).values.flip(axis)) > 0


def likeness(masks: Tensor, shapes: Sequence[str], part: str = "whole") -> Tensor:
    """(b, shapes): how like outlines (b, h, w) in 0 .. 1 are to the most similar view of each shape, wherever and however large.

    `part` is "whole", or "body" for what is not the face.
    """
    known = _outlines(tuple(shapes), part)  # (shapes, views, side²)
    found = _levelled(masks).flatten(1)[:, None, None]
    return (torch.minimum(found, known).sum(-1) / torch.maximum(found, known).sum(-1)).amax(2)


@lru_cache(4)
def _outlines(shapes: tuple[str, ...], part: str) -> Tensor:
    azimuth, elevation = torch.cartesian_prod(torch.tensor(AZIMUTHS), torch.tensor(ELEVATIONS)).T
    scenes = [statue(shape) for shape in shapes]
    place = middle(scenes)[:, None]
    shots = shoot(scenes, look_at(place + 1.35 * around(azimuth, elevation), place, 32, NARROW))
    masks = shots.masks[:, :, 0] - (shots.marks[:, :, 0] if part == "body" else 0)
    masks = torch.cat([masks, masks.flip(-1)], 1)
    return _levelled(masks.flatten(0, 1)).unflatten(0, masks.shape[:2]).flatten(2)


def statue(shape: str, colour: str = "red") -> Scene:
    """The scene of one solid and nothing else, facing azimuth 0."""
    thing = Thing(shape=shape, colour=colour, size="large", texture="plain", x=0.5, y=0.5, radius=0.205, angle=0.0, depth=0.5)
    return Scene(seed=0, index=0, things=(thing,), ground=Ground(kind="clear", tone="white"), style="flat")


def _levelled(masks: Tensor) -> Tensor:
    """(b, SIDE, SIDE): masks (b, h, w) moved to the middle and made equally large, by their first and second moments."""
    h, w = masks.shape[1:]
    weight = masks.flatten(1) / masks.flatten(1).sum(1, keepdim=True).clamp_min(1e-6)
    points = pixel_centres(h, w)
    centre = weight @ points  # (b, 2)
    spread = (weight * (points - centre[:, None]).square().sum(-1)).sum(1).sqrt().clamp_min(0.5)
    grid = (pixel_centres(SIDE, SIDE) / SIDE * 2 - 1) * WIDE
    at = (centre[:, None] + grid * spread[:, None, None]) / torch.tensor([w, h]) * 2 - 1
    return F.grid_sample(masks[:, None], at.unflatten(1, (SIDE, SIDE)), align_corners=False)[:, 0]
