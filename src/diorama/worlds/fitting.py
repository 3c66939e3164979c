"""Shapes fitted to patches: place, radius and turn by damped least squares, from many starts at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from diorama.worlds.render import window
from diorama.worlds.shapes import DISTANCES, SHAPES, TURNS, distance

KEPT = 3  # shapes of each patch that are painted


@cache
def _measures() -> tuple[Tensor, Tensor]:
    """Area (in radii squared) and centre of mass (2,) of every shape, unturned."""
    line = torch.linspace(-1.2, 1.2, 241)
    v, u = torch.meshgrid(line, line, indexing="ij")
    inside = torch.stack([(DISTANCES[shape](u, v) < 0).float() for shape in SHAPES])
    area = inside.sum((1, 2))
    centre = torch.stack([(inside * u).sum((1, 2)) / area, (inside * v).sum((1, 2)) / area], -1)
    return area * (2.4 / 240) ** 2, centre


@cache
def _starts() -> tuple[Tensor, Tensor]:
    """(g,) shapes and (g,) turns in radians that the fits begin from."""
    found = []
    for kind, shape in enumerate(SHAPES):
        turns = TURNS[shape]
        n = {0: 1, 1: 10}.get(turns, 4)
        found += [(kind, 2 * math.pi * i / n / max(1, turns)) for i in range(n)]
    kinds, angles = zip(*found, strict=True)
    return torch.tensor(kinds), torch.tensor(angles)


def _begin(masks: Tensor) -> tuple[Tensor, Tensor]:
    """For patches (m, s, s): kinds (m * g,) and pose (m * g, 4) of every start: x, y, radius in pixels and turn."""
    kinds, angles = _starts()
    line = torch.arange(masks.shape[-1]) + 0.5
    area = masks.sum((1, 2))
    x, y = (masks.sum(1) * line).sum(1) / area, (masks.sum(2) * line).sum(1) / area
    factors, centres = _measures()
    radius = (area[:, None] / factors[kinds]).sqrt()
    cos, sin = angles.cos(), angles.sin()
    u, v = centres[kinds].T
    x, y = x[:, None] - radius * (cos * u - sin * v), y[:, None] - radius * (sin * u + cos * v)
    pose = torch.stack([x, y, radius, angles.expand_as(radius)], -1)
    return kinds.repeat(len(masks)), pose.flatten(0, 1)


def cut(pictures: Tensor, which: Tensor, left: Tensor, top: Tensor, wide: int, outside: float) -> Tensor:
    """Windows (m, c, w, w) of pictures (p, c, s, s) at their corners; `outside` where a window leaves its picture."""
    side = pictures.shape[-1] + 2 * wide
    padded = torch.nn.functional.pad(pictures, (wide,) * 4, value=outside).flatten(2)
    steps = torch.arange(wide)
    top, left = (top + wide).clamp(0, side - wide), (left + wide).clamp(0, side - wide)
    spot = ((top[:, None, None] + steps[:, None]) * side + left[:, None, None] + steps).flatten(1)
    return padded[which].gather(2, spot[:, None].expand(-1, pictures.shape[1], -1)).unflatten(2, (wide, wide))


def levenberg(pose: Tensor, residual: Callable[[Tensor], Tensor], steps: int) -> tuple[Tensor, Tensor]:
    """Poses (m, 4) that lessen the squares of residual(pose) (m, r), and those squares (m,): damped Gauss-Newton."""
    change = torch.tensor([0.2, 0.2, 0.2, 0.06])
    now = residual(pose)
    loss, damping = now.square().sum(1), torch.full((len(pose),), 0.1)
    for _ in range(steps):
        slope = torch.stack([(residual(pose + change * axis) - now) / change[i] for i, axis in enumerate(torch.eye(4))], -1)
        square = slope.transpose(1, 2) @ slope
        ridge = torch.diag_embed(damping[:, None] * square.diagonal(dim1=1, dim2=2) + 1e-3)
        step = torch.linalg.solve(square + ridge, (slope.transpose(1, 2) @ now[..., None]))[..., 0]
        limit = torch.tensor([2.0, 2.0, 1.5, 0.4])
        new = pose - step.clamp(-limit, limit)
        new[:, 2].clamp_(min=1.5)
        then = residual(new)
        better = then.square().sum(1) < loss
        pose, now = torch.where(better[:, None], new, pose), torch.where(better[:, None], then, now)
        loss, damping = now.square().sum(1), torch.where(better, damping * 0.3, damping * 6).clamp(1e-4, 1e4)
    return pose, loss


def _outline(kinds: Tensor, x: Tensor, y: Tensor, target: Tensor, weight: Tensor) -> Callable[[Tensor], Tensor]:
    """The residual of a shape's coverage against a patch; a patch's rim is a third of a pixel too wide (see HUED)."""

    def residual(pose: Tensor) -> Tensor:
        px, py, radius, angle = (n[:, None, None] for n in pose.unbind(1))
        across, down, cos, sin = (x[:, None, :] - px) / radius, (y[:, :, None] - py) / radius, angle.cos(), angle.sin()
        d = distance(kinds, cos * across + sin * down, cos * down - sin * across) * radius
        return ((0.5 + (0.3 - d) / 1.5).clamp(0, 1) - target).mul(weight).flatten(1)

    return residual


def fit(masks: Tensor, free: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The KEPT best shapes (m, j) of each patch and their poses (m, j, 4); `free` is 0 where another thing covers it."""
    wide, m = window(size), len(masks)
    kinds, pose = _begin(masks.float())
    g = len(kinds) // m
    row = torch.arange(m).repeat_interleave(g)
    line = torch.arange(size) + 0.5
    middle = [((masks.any(axis) * line).amax(1) + torch.where(masks.any(axis), line, size).amin(1)) / 2 for axis in (1, 2)]
    left, top = (torch.floor(c).long() - wide // 2 for c in middle)
    both = cut(torch.stack([masks.float(), free.float()], 1), torch.arange(m), left, top, wide, 0.0)
    x, y = (first[:, None] + torch.arange(wide) + 0.5 for first in (left, top))

    def run(chosen: Tensor, pose: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        at = row[chosen]
        return levenberg(pose, _outline(kinds[chosen], x[at], y[at], both[at, 0], both[at, 1]), steps)

    pose, loss = run(torch.arange(len(kinds)), pose, 2)
    keep = _survivors(kinds[:g], loss.reshape(m, g)).flatten()
    better, less = run(keep, pose[keep], 5)
    best = torch.full((m, len(SHAPES)), torch.inf).index_put((row[keep], kinds[keep]), torch.tensor(torch.inf))
    place = torch.zeros(m, len(SHAPES), dtype=torch.int64)
    for i, (r, k, value) in enumerate(zip(row[keep].tolist(), kinds[keep].tolist(), less.tolist(), strict=True)):
        if value < best[r, k]:
            best[r, k], place[r, k] = value, i
    shapes = best.topk(KEPT, largest=False)[1]
    shapes = torch.where(best.gather(1, shapes).isfinite(), shapes, shapes[:, :1])
    return shapes, better[place.gather(1, shapes)]


def _survivors(kinds: Tensor, loss: Tensor) -> Tensor:
    """Rows of the starts worth going on with, of losses (m, g): the best of every shape, and the four best of the others."""
    first = torch.zeros_like(loss, dtype=torch.bool)
    for kind in range(len(SHAPES)):
        own = torch.where(kinds == kind, loss, torch.inf)
        first.scatter_(1, own.argmin(1, keepdim=True), True)
    chosen = torch.where(first, -1.0, loss).topk(len(SHAPES) + 4, largest=False)[1]
    return chosen + torch.arange(len(loss))[:, None] * loss.shape[1]
