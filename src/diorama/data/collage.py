"""Cut-out pictures laid over made-up grounds and over each other, so that every one's true mask is known."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diorama.types import Noise

SMALL, LARGE = 0.3, 0.9  # of the picture's side
COARSE = 4  # places along a side between which a ground fades


def collage(image: Tensor, noise: Noise, things: int = 3) -> tuple[Tensor, Tensor]:
    """Pictures on white with their alpha (b, 4, h, w) in [-1, 1] -> (b, 3, h, w) in [-1, 1], and what is seen of each (b, things, h, w).

    The first thing of picture i is picture i, which lies undermost; the next are its neighbours in the batch.
    """
    ground = F.interpolate(2 * noise.uniform(3, COARSE, COARSE) - 1, image.shape[-2:], mode="bilinear", align_corners=False)
    speckle = 0.1 * noise.normal(1, *image.shape[-2:]) * noise.uniform(1, 1, 1)
    canvas = (ground * noise.uniform(1, 1, 1) + speckle).clamp(-1, 1)
    seen: list[Tensor] = []
    for i in range(things):
        rgb, alpha = _placed(image.roll(-i, 0), noise)
        canvas = rgb + (1 - alpha) * canvas
        seen = [mask * (1 - alpha) for mask in seen] + [alpha]
    return canvas, torch.cat(seen, 1)


def _placed(image: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    """Each picture smaller, somewhere and perhaps mirrored: its colour times alpha (b, 3, h, w), and alpha (b, 1, h, w)."""
    u = noise.uniform(4)
    share = SMALL + (LARGE - SMALL) * u[:, 0]
    theta = image.new_zeros(len(image), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = (1 - 2 * (u[:, 1] < 0.5)) / share, 1 / share
    theta[:, :, 2] = (2 * u[:, 2:] - 1) * (1 / share - 1)[:, None]
    alpha = (image[:, 3:] + 1) / 2
    ink = torch.cat([image[:, :3] - (1 - alpha), alpha], 1)  # colour times alpha: what is on white, less its share of white
    ink = F.grid_sample(ink, F.affine_grid(theta, list(image.shape), align_corners=False), align_corners=False)
    return ink[:, :3], ink[:, 3:]
