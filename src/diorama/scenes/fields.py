"""Fields of light: at every place of space a density and a colour, summed along rays (Mildenhall et al. 2020, eq. 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diorama.scenes.cameras import Camera, rays
from diorama.scenes.surface import Mesh, marching
from diorama.scenes.volume import Paint, Scene, Seen, composite, crossing, sampled

DENSEST = 10.0  # per half a cube, of one unit


@dataclass(frozen=True, kw_only=True)
class VoxelConfig:
    """A cube around a middle, in metres, and how finely it is cut and walked through."""

    side: int = 48  # voxels
    middle: tuple[float, float, float] = (0.0, 0.0, 0.15)
    half: float = 0.75  # metres from the middle to a face
    samples: int = 64  # along a ray


class VoxelField(Scene):
    """Density and colour at the corners of voxels, linear between them; nothing outside."""

    Config: ClassVar[type] = VoxelConfig

    def __init__(self, config: VoxelConfig):
        super().__init__()
        self.config = config
        self.grid = nn.Parameter(torch.zeros(1, 4, *[config.side] * 3))

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Densities (*,) per metre and colours (*, 3) in 0 .. 1 of points (*, 3)."""
        return self._shown(self._read(self.grid, points), points)

    def surfaces(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same, and unit vectors (*, 3) from dense to thin: differences between neighbouring voxels, linear between them."""
        slopes = torch.gradient(self.grid[:, :1], dim=(4, 3, 2))  # along x, y, z
        found = self._read(torch.cat([self.grid, *slopes], 1), points)
        return *self._shown(found[..., :4], points), F.normalize(-found[..., 4:], dim=-1, eps=1e-6)

    def _shown(self, found: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        within = (self._inside(points).abs() <= 1).all(-1)
        return F.softplus(found[..., 0] - 1) * within * DENSEST / self.config.half, found[..., 1:].sigmoid()

    def _inside(self, points: Tensor) -> Tensor:
        return (points - points.new_tensor(self.config.middle)) / self.config.half

    def _read(self, grid: Tensor, points: Tensor) -> Tensor:
        """(*, c) of a grid (1, c, z, y, x)."""
        at = self._inside(points).reshape(1, -1, 1, 1, 3)
        return F.grid_sample(grid, at, align_corners=True).reshape(len(grid[0]), -1).T.reshape(*points.shape[:-1], -1)

    def blob(self, height: float, radius: float) -> None:
        """What is empty gets a cloud in its middle, this much denser than its rim, before the softplus (Poole et al. 2022, A.2)."""
        line = torch.linspace(-1, 1, self.config.side, device=self.grid.device)
        away = torch.stack(torch.meshgrid(line, line, line, indexing="ij")).norm(dim=0)
        with torch.no_grad():
            self.grid[0, 0] = height * (1 - away / radius)

    def roughness(self) -> Tensor:
        """How much neighbouring voxels differ: mean squared difference along the three axes."""
        return sum(((self.grid.diff(dim=axis)).square().mean() for axis in (2, 3, 4)), start=self.grid.new_zeros(()))

    @property
    def samples(self) -> int:
        return int(self.config.samples)

    def look(self, camera: Camera, paint: Paint, jitter: Tensor | None = None) -> Seen:
        points, steps, direction = self._walk(camera, None, jitter)
        density, colours, normals = self.surfaces(points)
        light = composite(density, paint(colours, normals), steps)
        away = (normals * direction[:, None]).sum(-1).clamp_min(0).square()
        return Seen(light.features, light.left, (light.weights.detach() * away).sum(-1))

    def mesh(self) -> tuple[Mesh, Tensor]:
        """The surface where one voxel swallows half of the light, in metres, and its colours (v, 3)."""
        config = self.config
        swallows = math.log(2) * (config.side - 1) / (2 * config.half)  # per metre
        level = math.log(math.expm1(swallows * config.half / DENSEST)) + 1  # the inverse of `forward`
        found = marching(self.grid[0, 0], level)
        places = found.vertices * (2 * config.half / (config.side - 1)) - config.half + torch.tensor(config.middle)
        with torch.no_grad():
            return Mesh(places, found.faces), self(places.to(self.grid))[1]

    def render(self, camera: Camera, at: Tensor | None = None) -> Tensor:
        """(p, 4): red, green, blue and the share of light that is left at places (p, 2) of one camera's picture, all pixels without them."""
        points, steps, _ = self._walk(camera, at)
        density, colours = self(points)
        light = composite(density, colours, steps)
        return torch.cat([light.features, light.left[..., None]], -1)

    def _walk(self, camera: Camera, at: Tensor | None, jitter: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Places (p, n, 3) along one camera's rays, the lengths (p, n) they stand for, and unit directions (p, 3)."""
        origin, direction = (part.to(self.grid) for part in rays(camera, at))
        direction = F.normalize(direction, dim=-1)
        near, far = crossing(origin, direction, self.config.middle, self.config.half)
        depths, steps = sampled(near, far, self.config.samples, jitter)
        return origin + depths[..., None] * direction[:, None], steps, direction
