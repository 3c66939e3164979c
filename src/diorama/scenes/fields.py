"""Fields of light: at every place of space a density and a colour, summed along rays (Mildenhall et al. 2020, eq. 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diorama.parts import Part
from diorama.scenes.cameras import Camera, rays


def composite(density: Tensor, colours: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Colours (*, c) and the share of light that is left (*,) of densities (*, n), colours (*, n, c) and lengths (*, n), front first."""
    clear = torch.exp(-density * steps)
    left = clear.cumprod(-1)
    weight = F.pad(left[..., :-1], (1, 0), value=1.0) * (1 - clear)
    return (weight[..., None] * colours).sum(-2), left[..., -1]


@dataclass(frozen=True, kw_only=True)
class VoxelConfig:
    """A cube around a middle, in metres, and how finely it is cut and walked through."""

    side: int = 48  # voxels
    middle: tuple[float, float, float] = (0.0, 0.0, 0.15)
    half: float = 0.75  # metres from the middle to a face
    samples: int = 64  # along a ray


class VoxelField(Part):
    """Density and colour at the corners of voxels, linear between them; nothing outside."""

    Config: ClassVar[type] = VoxelConfig

    def __init__(self, config: VoxelConfig):
        super().__init__()
        self.config = config
        self.grid = nn.Parameter(torch.zeros(1, 4, *[config.side] * 3))

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Densities (n,) per metre and colours (n, 3) in 0 .. 1 of points (n, 3)."""
        inside = (points - points.new_tensor(self.config.middle)) / self.config.half
        found = F.grid_sample(self.grid, inside[None, :, None, None], align_corners=True)[0, :, :, 0, 0].T
        within = (inside.abs() <= 1).all(1)
        return F.softplus(found[:, 0] - 1) * within / self.config.half * 10, found[:, 1:].sigmoid()

    def render(self, camera: Camera, at: Tensor | None = None) -> Tensor:
        """(p, 4): red, green, blue and the share of light that is left at places (p, 2) of one camera's picture, all pixels without them."""
        origin, direction = rays(camera, at)
        direction = F.normalize(direction, dim=-1)
        reach, n = 3**0.5 * self.config.half, self.config.samples
        near = (torch.tensor(self.config.middle) - origin).norm() - reach
        length = 2 * reach / n
        depths = near.clamp_min(0) + length * (torch.arange(n) + 0.5)
        points = origin + depths[:, None] * direction[:, None]  # (p, n, 3)
        density, colours = (part.unflatten(0, points.shape[:2]) for part in self(points.flatten(0, 1)))
        colour, left = composite(density, colours, torch.full_like(density, length))
        return torch.cat([colour, left[:, None]], 1)
