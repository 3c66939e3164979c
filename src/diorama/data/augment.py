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


def soften(image: Tensor, noise: Noise) -> Tensor:
    """Pictures blurred by up to half, as a codec may blur them; not moved, since resampling would smear what tells styles apart."""
    strength = 0.5 * noise.uniform()[:, None, None, None]
    blurred = F.avg_pool2d(F.pad(image, (1, 1, 1, 1), value=1.0), 3, 1)
    return torch.lerp(image, blurred, strength)
