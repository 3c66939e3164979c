"""A person who points at things, simulated: where they click first, what box they draw, and where they click when it was wrong."""

from __future__ import annotations

import torch
from torch import Tensor

from diorama.networks.prompts import AWAY, MEANT

SHAKE, MOST = 0.1, 20 / 1024  # of a box's side, and at most of the picture's (Kirillov et al. 2023, app. A)


def somewhere(mask: Tensor, u: Tensor) -> Tensor:
    """The middle of a pixel of each mask (b, h, w), which one by u (b,) uniform on [0, 1): (b, 2), x and y.

    The last pixel of the picture where a mask is empty.
    """
    until = mask.flatten(1).float().cumsum(1)
    index = torch.searchsorted(until, (u * until[:, -1])[:, None], right=True)[:, 0].clamp_max(until.shape[1] - 1)
    wide = mask.shape[-1]
    return torch.stack([index % wide, index // wide], 1) + 0.5


def middle(mask: Tensor) -> Tensor:
    """The middle of the pixel farthest from what is not of the mask (b, h, w): where a person clicks to be understood. (b, 2)."""
    left, depth = mask.float()[:, None], torch.zeros_like(mask, dtype=torch.float32)
    while left.any():
        depth += left[:, 0]
        left = -torch.nn.functional.max_pool2d(-torch.nn.functional.pad(left, (1, 1, 1, 1)), 3, 1)
    deepest = depth == depth.flatten(1).amax(1)[:, None, None]
    return somewhere(deepest & mask.bool(), torch.full((len(mask),), 0.5, device=mask.device))


def drawn(boxes: Tensor, normal: Tensor, size: int) -> Tensor:
    """Boxes (b, 4) in a picture of `size` pixels as a hand draws them, shaken by normal (b, 4)."""
    sides = (boxes[:, 2:] - boxes[:, :2]).float()
    shake = (SHAKE * sides.repeat(1, 2) * normal).clamp(-MOST * size, MOST * size)
    return (boxes + shake).clamp(0, size)


def correction(mask: Tensor, truth: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """A click (b, 2) where the masks (b, h, w) differ, and what it says (b,); in the truth where they do not."""
    wrong = mask.bool() != truth.bool()
    point = somewhere(torch.where(wrong.flatten(1).any(1)[:, None, None], wrong, truth.bool()), u)
    x, y = point.long().unbind(1)
    meant = truth.bool()[torch.arange(len(truth), device=truth.device), y, x]
    return point, torch.where(meant, MEANT, AWAY)
