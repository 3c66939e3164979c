"""Pictures changed a little, so that a network does not learn them by heart; all draws from `Noise`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diorama.types import Noise


def augment(image: Tensor, noise: Noise) -> Tensor:
    """Pictures on white (b, 3, h, w) moved, scaled and tinted a little. Not mirrored: letters, flags and arrows have a side."""
    u = 2 * noise.uniform(6) - 1  # (b, 6)
    theta = image.new_zeros(len(image), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = (0.15 * u[:, 0]).exp()
    theta[:, :, 2] = 0.12 * u[:, 1:3]
    grid = F.affine_grid(theta, list(image.shape), align_corners=False)
    ink = F.grid_sample(1 - image, grid, align_corners=False)  # ink on white: what comes in from outside is white
    return (1 - ink * (1 + 0.1 * u[:, 3:, None, None])).clamp(-1, 1)


def soften(image: Tensor, noise: Noise, most: float = 0.5) -> Tensor:
    """Pictures blurred by up to `most`, as a codec may blur them; not moved, since resampling would smear what tells styles apart."""
    strength = most * noise.uniform()[:, None, None, None]
    blurred = F.avg_pool2d(F.pad(image, (1, 1, 1, 1), value=1.0), 3, 1)
    return torch.lerp(image, blurred, strength)


def roughen(image: Tensor, noise: Noise, most: float = 0.06) -> Tensor:
    """Pictures with normal noise of up to `most` on them, as a generator may leave some."""
    strength = most * noise.uniform()[:, None, None, None]
    return (image + strength * noise.normal(*image.shape[1:])).clamp(-1, 1)


def glimpse(image: Tensor, size: int, noise: Noise, tries: int = 4) -> Tensor:
    """A square of `size` pixels from each picture on white: of a few at random, the one with the most ink."""
    corners = noise.integers(image.shape[-1] - size + 1, tries, 2).tolist()
    squares = [[x[:, i : i + size, j : j + size] for i, j in places] for x, places in zip(image, corners, strict=True)]
    return torch.stack([min(some, key=lambda square: float(square.mean())) for some in squares])
