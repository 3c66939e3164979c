"""Holes to be filled in again: masks for training to inpaint."""

from __future__ import annotations

import torch
from torch import Tensor

from diorama.types import Noise

WHOLE = 0.1  # share of pictures of which nothing is left


def boxes(size: int, noise: Noise) -> Tensor:
    """One box a picture, a quarter to three quarters of each side long, anywhere; now and then all of it: (b, 1, size, size), 1 inside."""
    side = 0.25 + 0.5 * noise.uniform(2)
    low = noise.uniform(2) * (1 - side)
    whole = (noise.uniform() < WHOLE)[:, None]
    low, high = torch.where(whole, 0.0, low), torch.where(whole, 1.0, low + side)
    middle = (torch.arange(size, device=side.device) + 0.5) / size
    down, across = ((middle > low[:, axis, None]) & (middle < high[:, axis, None]) for axis in (0, 1))  # (b, size) each
    return (down[:, None, :, None] & across[:, None, None, :]).float()
