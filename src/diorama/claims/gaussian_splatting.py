"""What makes Gaussians good: that they need not be round, and that they come where they are missing; and what they save.

Kerbl et al. 2023, sec. 7.3 (isotropy, densification) and table 1 (speed against fields that are walked through). Scenes of the
miniature world in space, 64 pixels, seen by 24 cameras and judged by eight others. On balls alone, roundness should cost nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median
from typing import ClassVar

import torch
from torch import Tensor, nn

from diorama.claims.claim import Claim, Effect, Part
from diorama.critics.fidelity import psnr
from diorama.scenes.cameras import Camera, orbit
from diorama.scenes.capture import Capture
from diorama.scenes.fields import VoxelConfig, VoxelField
from diorama.scenes.gaussians import Gaussians
from diorama.systems.scenes.gaussian_splatting import GaussianSplatting, Growth, Views, plan
from diorama.training.loop import Phase, fit
from diorama.types import Batch, Noise, mix
from diorama.worlds.scene import Rules, scene
from diorama.worlds.views import shoot

SHAPES = ("square", "cross", "star", "ring")
TEXTURED = Rules(shapes=SHAPES, textures=("striped", "dotted", "checked"), grounds=("clear",), least=2, most=3, subjects=0.0)
BALLS = Rules(shapes=("circle",), textures=("plain",), grounds=("clear",), least=2, most=3, subjects=0.0)
SIZE, STEPS, FIRST, MOST = 64, 800, 300, 3000
GROWTH = Growth(first=100, last=500, every=50, reset=0, degree=200, steps=STEPS)
FIXED = replace(GROWTH, first=STEPS, last=0)
LOOKS = 9  # pictures of which the median time is taken


class Round(GaussianSplatting):
    """The same with balls for Gaussians."""

    def gaussians(self) -> Gaussians:
        now = super().gaussians()
        return now._replace(scales=now.scales.mean(1, keepdim=True).expand(-1, 3))


def views(seed: int, rules: Rules) -> tuple[Capture, Capture]:
    """A scene as 24 cameras see it, at three heights around it, and as eight others do."""
    rings = [orbit(8, height, 1.6, start=start, size=SIZE) for height, start in ((10, 0), (35, 15), (60, 30), (22, 22))]
    camera = Camera(torch.cat([r.K for r in rings]), torch.cat([r.world_to_camera for r in rings]), SIZE, SIZE)
    whole = Capture(shoot([scene(seed, 0, rules)], camera).image[0], camera)
    return whole.rows(slice(24)), whole.rows(slice(24, None))


def grown(seed: int, seen: Capture, steps: int) -> GaussianSplatting:
    """From few, where they are missing."""
    return fitted(GaussianSplatting, seed, seen, steps, FIRST, GROWTH)


def fitted(
    kind: type[GaussianSplatting], seed: int, seen: Capture, steps: int, first: int, growth: Growth = FIXED
) -> GaussianSplatting:
    system = kind.over(seen, first=first, places=MOST, degree=1, growth=growth, noise=Noise([mix(seed, 1)]))
    fit(system, Views(seen, seed), plan(steps, seed))
    return system


class Walked(nn.Module):
    """A field of voxels in the loop that fits Gaussians."""

    def __init__(self, camera: Camera):
        super().__init__()
        self.field, self.camera = VoxelField(VoxelConfig()), camera

    def phases(self) -> Sequence[Phase]:
        return [Phase("loss", list(self.parameters()), lambda batch, noise: self(0, batch, noise))]

    def forward(self, phase: int, batch: Batch, noise: Noise) -> Tensor:
        assert batch.label is not None
        found = torch.stack([on_white(self.field, self.camera.rows(view)) for view in batch.label])
        return (found - (batch.image[:, :3] + 1) / 2).square().flatten(1).mean(1)

    def after_backward(self, step: int, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        pass


def voxels(seed: int, seen: Capture, steps: int) -> VoxelField:
    """As many views, looked at as often, with the rate that dense grids take."""
    model = Walked(seen.camera)
    fit(model, Views(seen, seed), replace(plan(steps, seed), lr=0.1))
    return model.field


def on_white(field: VoxelField, camera: Camera) -> Tensor:
    out = field.render(camera)
    return (out[:, :3] + out[:, 3:]).T.unflatten(1, (camera.height, camera.width))


@dataclass(frozen=True, kw_only=True)
class GaussianSplattingClaim(Claim):
    """Gaussians that grow, as many from the start, as many balls, and a field of voxels; the same views, as many steps."""

    grow: Callable[[int, Capture, int], GaussianSplatting] = grown
    free: type[GaussianSplatting] = GaussianSplatting
    steps: int = STEPS

    slug: ClassVar[str] = "gaussian-splatting"
    title: ClassVar[str] = "3D Gaussian Splatting"
    parts: ClassVar[tuple[Part, ...]] = (
        Part(letter="A1", statement="free in shape, as many Gaussians show unseen views 1 dB better than balls", unit="dB", margin=1.0),
        Part(letter="A2", statement="of a scene of balls, by less than 0.3 dB", unit="dB below 0.3", margin=0.0),
        Part(letter="B", statement="grown where they are missing, at least 1 dB better than as many from the start", unit="dB", margin=1.0),
        Part(letter="C1", statement="at most 0.5 dB below a voxel field after as many steps", unit="dB above -0.5", margin=0.0),
        Part(letter="C2", statement="a picture takes at most a fifth of the voxel field's time", unit="share below 0.2", margin=0.0),
    )  # fmt: skip

    def run(self, seed: int) -> Mapping[str, Effect]:
        return Experiment(self, seed).effects()


@dataclass
class Experiment:
    """One scene, and one of balls."""

    claim: GaussianSplattingClaim
    seed: int

    def effects(self) -> dict[str, Effect]:
        field = voxels(self.seed, self.seen, self.claim.steps)
        many = len(self.grown.cloud)
        free, balls = (self.judged(self.fitted(kind, self.seen, many), self.unseen) for kind in (self.claim.free, Round))
        grown, walked = self.judged(self.grown, self.unseen), self.judged(field, self.unseen)
        around, others = views(self.seed, BALLS)
        control = [self.judged(self.fitted(kind, around, FIRST), others) for kind in (self.claim.free, Round)]
        ours, theirs = self.seconds(self.grown), self.seconds(field)
        return {
            "A1": Effect(free - balls, {"free": free, "balls": balls, "Gaussians": many}),
            "A2": Effect(0.3 - (control[0] - control[1]), {"free": control[0], "balls": control[1]}),
            "B": Effect(grown - free, {"grown": grown, "from the start": free}),
            "C1": Effect(grown - walked + 0.5, {"grown": grown, "voxels": walked}),
            "C2": Effect(0.2 - ours / theirs, {"milliseconds": 1000 * ours, "of voxels": 1000 * theirs}),
        }

    @cached_property
    def scene(self) -> tuple[Capture, Capture]:
        return views(self.seed, TEXTURED)

    @property
    def seen(self) -> Capture:
        return self.scene[0]

    @property
    def unseen(self) -> Capture:
        return self.scene[1]

    @cached_property
    def grown(self) -> GaussianSplatting:
        return self.claim.grow(self.seed, self.seen, self.claim.steps)

    def fitted(self, kind: type[GaussianSplatting], seen: Capture, many: int) -> GaussianSplatting:
        return fitted(kind, self.seed, seen, self.claim.steps, many)

    @torch.no_grad()
    def picture(self, model: nn.Module, camera: Camera) -> Tensor:
        """(3, h, w) in [-1, 1]."""
        if isinstance(model, GaussianSplatting):
            return model.render(camera).image[:3].clamp(-1, 1)
        assert isinstance(model, VoxelField)
        return 2 * on_white(model, camera) - 1

    def judged(self, model: nn.Module, unseen: Capture) -> float:
        """Mean PSNR of unseen views."""
        pictures = torch.stack([self.picture(model, unseen.camera.rows(i)) for i in range(len(unseen))])
        return float(psnr(pictures, unseen.images[:, :3]).mean())

    def seconds(self, model: nn.Module) -> float:
        """Of one picture."""
        times: list[float] = []
        for i in range(LOOKS + 1):
            start = time.perf_counter()
            self.picture(model, self.unseen.camera.rows(i % len(self.unseen)))
            times.append(time.perf_counter() - start)
        return median(times[1:])


CLAIM = GaussianSplattingClaim()
