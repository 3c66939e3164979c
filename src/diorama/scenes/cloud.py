"""Gaussians as a scene that is trained: they come and go, and can be looked at like any other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from diorama.scenes.cameras import Camera
from diorama.scenes.gaussians import Gaussians, rotations, splats
from diorama.scenes.volume import Paint, Scene, Seen


@dataclass(frozen=True, kw_only=True)
class CloudConfig:
    """How many Gaussians there may ever be, and the degree of their harmonics."""

    places: int = 60_000
    degree: int = 3


class Cloud(Scene):
    """Gaussians that come and go while they are trained: the first `used` places are taken, the others wait.

    So no parameter ever changes its shape, and whatever holds on to one (an optimizer, an average, a checkpoint) need not know.
    """

    Config: ClassVar[type] = CloudConfig
    NAMES: ClassVar[tuple[str, ...]] = ("means", "scales", "turns", "opacities", "first", "rest")

    means: nn.Parameter
    scales: nn.Parameter
    turns: nn.Parameter
    opacities: nn.Parameter
    first: nn.Parameter  # of the harmonics: what is the same from everywhere
    rest: nn.Parameter
    used: Tensor

    def __init__(self, config: CloudConfig):
        super().__init__()
        self.config, n, k = config, config.places, (config.degree + 1) ** 2
        shapes = ((n, 3), (n, 3), (n, 4), (n,), (n, 1, 3), (n, k - 1, 3))
        for name, shape in zip(self.NAMES, shapes, strict=True):
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        self.register_buffer("used", torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        return int(self.used)

    def gaussians(self) -> Gaussians:
        """Those in use."""
        means, scales, turns, opacities, first, rest = (getattr(self, name)[: len(self)] for name in self.NAMES)
        return Gaussians(means, scales, turns, opacities, torch.cat([first, rest], 1))

    def look(self, camera: Camera, paint: Paint, jitter: Tensor | None = None) -> Seen:
        """There are no rays to jitter; each Gaussian's normal is its shortest axis, towards the camera."""
        from diorama.scenes.splat import rasterise  # Numba, only where it is looked at so

        now = self.gaussians()
        found = splats(now, camera)
        towards = camera.centre.to(now.means) - now.means
        normals = rotations(now.turns)[torch.arange(len(self)), :, now.scales.argmin(1)]
        normals = normals * torch.where((normals * towards).sum(1, keepdim=True) < 0, -1.0, 1.0)
        painted = torch.cat([paint(found.features[:, :3], normals), found.features[:, 3:]], 1)
        out = rasterise(found._replace(features=painted), camera.height, camera.width).flatten(0, 1)
        return Seen(out[:, :3], out[:, 4], torch.zeros_like(out[:, 4]))

    @torch.no_grad()
    def become(self, gaussians: Gaussians) -> None:
        """These, and no others."""
        n, degrees = len(gaussians.means), (gaussians.harmonics[:, :1], gaussians.harmonics[:, 1:])
        assert n <= self.config.places, f"{n} Gaussians do not fit {self.config.places} places"
        for name, rows in zip(self.NAMES, (*gaussians[:4], *degrees), strict=True):
            getattr(self, name)[:n] = rows
        self.used.fill_(n)
