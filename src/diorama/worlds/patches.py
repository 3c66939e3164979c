"""Patches of one hue: what of a picture may be a thing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diorama.worlds.render import PALETTE
from diorama.worlds.scene import COLOURS

HUED = 0.135  # chroma above which a pixel belongs to a thing; the grounds stay below 0.12
SPECK = 0.0045  # of the picture: a smaller patch is the rim where two colours mix


def hues(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """Hue in turns and chroma of (..., 3)."""
    high, place = rgb.max(-1)
    chroma = high - rgb.amin(-1)
    r, g, b = rgb.unbind(-1)
    six = torch.stack([g - b, b - r, r - g], -1).gather(-1, place[..., None])[..., 0] / chroma.clamp(min=1e-6) + 2 * place
    return (six / 6) % 1, chroma


def patches(rgb: Tensor) -> list[tuple[int, Tensor]]:
    """The colour and the mask (s, s) of what may be a thing in a picture (3, s, s): connected pixels of one colour, specks left out."""
    hue, chroma = hues(rgb.permute(1, 2, 0))
    known = hues(PALETTE[: len(COLOURS)])[0]
    off = (hue[..., None] - known + 0.5) % 1 - 0.5
    names = torch.where(chroma > HUED, off.abs().argmin(-1), -1)
    size = rgb.shape[-1]
    found = [(c, mask) for c, mask in _connected(names.tolist(), size) if int(mask.sum()) >= SPECK * size * size]
    return [(c, mask) for c, mask in found if not _is_rim(mask, [other for _, other in found])]


def _is_rim(mask: Tensor, masks: Sequence[Tensor]) -> bool:
    """Whether a small patch touches a larger one: two colours mix where things overlap."""
    area, around = int(mask.sum()), spread(mask[None])[0]
    return area < 2 * SPECK * mask.numel() and any(bool((around & other).any()) for other in masks if int(other.sum()) > area)


def _connected(names: list[list[int]], size: int) -> list[tuple[int, Tensor]]:
    """Each patch of equal names other than -1, pixels joined by sides or corners."""
    left = {(r, c) for r in range(size) for c in range(size) if names[r][c] >= 0}
    out = []
    while left:
        row, column = start = left.pop()
        name, todo, patch = names[row][column], [start], [start]
        while todo:
            r, c = todo.pop()
            near = ((r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1))
            new = [p for p in near if p in left and names[p[0]][p[1]] == name]
            left.difference_update(new)
            todo += new
            patch += new
        mask = torch.zeros(size, size, dtype=torch.bool)
        mask[tuple(torch.tensor(patch).T)] = True
        out.append((name, mask))
    return out


def spread(masks: Tensor) -> Tensor:
    """Masks (m, s, s) grown by a pixel all round."""
    return torch.nn.functional.max_pool2d(masks[:, None].float(), 3, 1, 1)[:, 0] > 0
