"""Signed distances of the shapes, in radii of the thing and along its own axes: u to its right, v downwards; negative inside.

The renderer, the oracle and the placing of things read the same lines. All take and give tensors of one shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "crescent")
SUBJECT = "subject"  # the shape of a thing that no caption names; which one, its `subject` number says
KINDS = (*SHAPES, SUBJECT)  # a shape's number is its place here
REACH = 1.1  # the farthest any shape reaches from its centre


def circle(u: Tensor, v: Tensor) -> Tensor:
    return torch.hypot(u, v) - 0.92


def square(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) - 0.76


def triangle(u: Tensor, v: Tensor) -> Tensor:
    """Point up, circumradius 1.1."""
    return torch.maximum(v, 0.8660254 * u.abs() - 0.5 * v) - 0.55


def star(u: Tensor, v: Tensor) -> Tensor:
    """Five points of radius 1.1 and five notches of radius 0.44, folded into one half of one point."""
    turn = (torch.remainder(torch.atan2(u, -v) + math.pi / 5, 2 * math.pi / 5) - math.pi / 5).abs()
    radius = torch.hypot(u, v)
    x, y = radius * turn.sin(), radius * turn.cos()
    notch_x, notch_y = 0.44 * math.sin(math.pi / 5), 0.44 * math.cos(math.pi / 5)
    a, b = 1.1 - notch_y, notch_x  # normal of the line from the point (0, 1.1) to the notch
    return (a * x + b * (y - 1.1)) / math.hypot(a, b)


def heart(u: Tensor, v: Tensor) -> Tensor:
    """Two round lobes on a point, as Quilez draws it, 1.9 radii high."""
    x, y = u.abs() / 1.65, (0.95 - v) / 1.65
    lobe = torch.hypot(x - 0.25, y - 0.75) - math.sqrt(2) / 4
    tip = torch.clamp(x + y, min=0) / 2
    side = torch.minimum(torch.hypot(x, y - 1), torch.hypot(x - tip, y - tip)) * torch.sign(x - y)
    return 1.65 * torch.where(x + y > 1, lobe, side)


def cross(u: Tensor, v: Tensor) -> Tensor:
    x, y = u.abs(), v.abs()
    return torch.maximum(torch.maximum(x, y) - 1.0, torch.minimum(x, y) - 0.34)


def ring(u: Tensor, v: Tensor) -> Tensor:
    return (torch.hypot(u, v) - 0.76).abs() - 0.22


def crescent(u: Tensor, v: Tensor) -> Tensor:
    """A disc with a bite of another disc at its right."""
    return torch.maximum(torch.hypot(u, v) - 1.0, 0.78 - torch.hypot(u - 0.55, v))


def subject(u: Tensor, v: Tensor, waves: Tensor) -> Tensor:
    """A blob whose outline is a sum of waves (m, 2, k), amplitude and phase of k = 2 .. 5 turns: no two are alike."""
    turn = torch.atan2(u, v)
    outline = torch.full_like(turn, 0.72)
    for k in range(waves.shape[-1]):
        amplitude, phase = (waves[:, i, k].reshape(-1, *[1] * (u.ndim - 1)) for i in (0, 1))
        outline = outline + amplitude * torch.cos((k + 2) * turn + phase)
    return torch.hypot(u, v) - outline


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "circle": circle,
    "square": square,
    "triangle": triangle,
    "star": star,
    "heart": heart,
    "cross": cross,
    "ring": ring,
    "crescent": crescent,
}
TURNS = {"circle": 0, "square": 4, "triangle": 3, "star": 5, "heart": 1, "cross": 4, "ring": 0, "crescent": 1}
"""Into how many equal turns a shape falls; 0 looks the same from every side."""


def distance(kinds: Tensor, u: Tensor, v: Tensor, waves: Tensor | None = None) -> Tensor:
    """(m, *) signed distances of m things of these kinds (m,) at their own coordinates (m, *); each kind is computed once."""
    out = torch.empty_like(u)
    for kind in torch.unique(kinds).tolist():
        rows = (kinds == kind).nonzero()[:, 0]
        if KINDS[kind] == SUBJECT:
            assert waves is not None
            out[rows] = subject(u[rows], v[rows], waves[rows])
        else:
            out[rows] = DISTANCES[KINDS[kind]](u[rows], v[rows])
    return out
