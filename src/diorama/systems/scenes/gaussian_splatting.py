"""3D Gaussian Splatting (Kerbl et al. 2023): a few posed photographs become Gaussians in space, which any camera sees at once.

No network and no process: the parameters are the scene. Their number is fitted too (sec. 5.2): where places in a picture pull hard, a
small Gaussian is cloned and a large one split; those one can look through go; now and then all become nearly clear, and must earn it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diorama import cards
from diorama.cards import Card
from diorama.critics.fidelity import ssim
from diorama.data.order import index_at
from diorama.scenes.cameras import Camera
from diorama.scenes.capture import Capture, first_points, spacing
from diorama.scenes.cloud import Cloud, CloudConfig
from diorama.scenes.gaussians import FLAT, Gaussians, axes, splats
from diorama.scenes.splat import Render, rasterise, render
from diorama.systems.base import System
from diorama.training.loop import Phase
from diorama.training.plan import Plan
from diorama.types import Batch, Noise

RATES = {"means": 1.6e-4, "scales": 5e-3, "turns": 1e-3, "opacities": 0.05, "first": 2.5e-3, "rest": 2.5e-3 / 20}
FAR = 0.01  # by how much the rate of the means falls until the end
STRUCTURE = 0.2  # the share of structure in the loss (Kerbl et al. 2023, eq. 7)
BEGIN = 0.1  # opacity of a new scene
CLEAR = 0.01  # and after a reset


@dataclass(frozen=True, kw_only=True)
class Growth:
    """When and how Gaussians come and go; steps are the paper's (sec. 5.2 and 7), made for 30,000 of them."""

    first: int = 500  # step
    last: int = 15_000
    every: int = 100  # steps
    pull: float = 2e-4  # of a place, over half pictures: above, there are too few Gaussians
    small: float = 0.01  # of the cameras' extent: below, one is cloned, above, it is split
    large: float = 0.1  # of the cameras' extent: above, it goes, once there was a reset
    least: float = 0.005  # opacity: below, it goes
    reset: int = 3000  # steps between resets of opacity; 0 never
    degree: int = 1000  # steps until the next degree of the harmonics
    steps: int = 30_000

    @classmethod
    def within(cls, steps: int) -> Growth:
        """The same in fewer steps. What needs its time keeps it: means over many views, and the way back from a reset."""
        short = min(1.0, steps / cls.steps)
        last = round(short * cls.last)
        rests = {"reset": max(1000, round(short * cls.reset)), "degree": max(300, round(short * cls.degree))}
        return cls(first=min(cls.first, last // 4), last=last, steps=steps, **rests)


def plan(steps: int, seed: int = 0, device: str = "cpu") -> Plan:
    """The shared loop's settings for a scene: one view a step, Adam without decay, averaging or clipping."""
    rates = {"lr": 1.0, "warmup": 0, "decay": 0.0, "weight_decay": 0.0, "betas": (0.9, 0.999), "clip": 0.0, "ema": 0.0}
    return Plan(steps=steps, batch=1, seed=seed, sample_every=steps, log_every=100, device=device, dtype="float32", **rates)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Views:
    """One view of a capture a step, all in turn, as batches; the label is its number."""

    capture: Capture
    seed: int = 0

    def __call__(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        view = [index_at(step * world + rank, len(self.capture), self.seed)]
        return Batch(self.capture.images[view], label=torch.tensor(view))


@dataclass(eq=False)
class GaussianSplatting(System):
    """A scene of Gaussians, fitted to what is seen of it."""

    cloud: Cloud
    extent: float = 1.0  # metres within which the cameras stood

    card: ClassVar[Card] = cards.GAUSSIAN_SPLATTING

    def __post_init__(self) -> None:
        self.growth = Growth()
        self.camera: Camera | None = None  # (v,) of the views it is fitted to
        self.places: list[Tensor] = []  # in the pictures of this step, whose gradients say where there are too few
        self.pulls: Tensor
        self.looks: Tensor
        self.degree: Tensor
        n = self.cloud.config.places
        self.register_buffer("pulls", torch.zeros(n))  # summed since the last change
        self.register_buffer("looks", torch.zeros(n))
        self.register_buffer("degree", torch.zeros((), dtype=torch.int64))  # of the harmonics that are fitted so far

    @classmethod
    def over(cls, capture: Capture, *, first: int, places: int, degree: int, growth: Growth, noise: Noise) -> GaussianSplatting:
        """An untrained scene, from `first` points where these views may show something. `noise` is of one seed."""
        points, paint = first_points(capture, first, noise)
        n = len(points)
        harmonics = torch.zeros(n, (degree + 1) ** 2, 3)
        harmonics[:, 0] = (paint - 0.5) / FLAT
        system = cls(Cloud(CloudConfig(places=max(places, n), degree=degree)), capture.extent)
        turns = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(n, 4)
        scales = spacing(points).clamp_min(1e-7).log()[:, None].expand(n, 3)
        system.cloud.become(Gaussians(points, scales, turns, torch.full((n,), math.log(BEGIN / (1 - BEGIN))), harmonics))
        system.growth, system.camera = growth, capture.camera
        return system

    def gaussians(self) -> Gaussians:
        return self.cloud.gaussians()

    @torch.no_grad()
    def render(self, camera: Camera) -> Render:
        """What one camera sees."""
        return render(self.gaussians(), camera)

    # --- fitting ----------------------------------------------------------------------------------

    def phases(self) -> Sequence[Phase]:
        """Adam with a rate for each kind of parameter, and an epsilon for gradients as small as these."""
        rates = {**RATES, "means": RATES["means"] * self.extent}
        parameters = [getattr(self.cloud, name) for name in rates]
        return [Phase("loss", parameters, self.loss, [{"scale": rate, "eps": 1e-15} for rate in rates.values()])]

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        """0.8 L1 + 0.2 (1 - SSIM) of each view, on a ground of a colour drawn anew, which no Gaussian can learn."""
        assert self.camera is not None and batch.label is not None
        grounds, found, wanted = noise.uniform(3)[..., None, None], [], []
        gaussians = self.gaussians()
        for image, view, ground in zip(batch.image.to(self.device), batch.label, grounds, strict=True):
            seen = splats(gaussians, self.camera.rows(view), int(self.degree))
            if seen.places.requires_grad:
                seen.places.retain_grad()
                self.places.append(seen.places)
            out = rasterise(seen, *image.shape[1:]).permute(2, 0, 1)
            found.append((out[:3] + out[4] * ground).clamp_max(1))
            wanted.append((image[:3] + 1) / 2 - (1 - image[3]) / 2 * (1 - ground))
        x, y = torch.stack(found), torch.stack(wanted)
        similar = ssim(2 * x - 1, 2 * y - 1, exact=False)
        return (1 - STRUCTURE) * (x - y).abs().flatten(1).mean(1) + STRUCTURE * (1 - similar)

    def after_backward(self, step: int, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        growth, done = self.growth, step + 1
        self._look()
        optimizers[0].param_groups[0]["scale"] = RATES["means"] * self.extent * FAR ** (done / growth.steps)
        self.degree.fill_(done // growth.degree)
        if growth.first <= done <= growth.last:
            if done % growth.every == 0:
                self._grow(optimizers[0], math.inf if done <= (growth.reset or done) else growth.large * self.extent)
            if growth.reset and done % growth.reset == 0 and done < growth.last:
                self._fade(optimizers[0])

    @torch.no_grad()
    def _look(self) -> None:
        """Adds how hard each place was pulled, over half pictures. Who was not pulled at all was not seen."""
        assert self.camera is not None
        half = self.pulls.new_tensor([self.camera.width, self.camera.height]) / 2
        for places in self.places:
            if places.grad is not None:
                pull = (places.grad * half).norm(dim=1)
                self.pulls[: len(pull)] += pull
                self.looks[: len(pull)] += pull > 0
        self.places.clear()

    @torch.no_grad()
    def _grow(self, optimizer: torch.optim.Optimizer, largest: float) -> None:
        growth, now = self.growth, self.cloud.gaussians()
        n, size = len(self.cloud), now.scales.exp().amax(1)
        stays = (now.opacities.sigmoid() >= growth.least) & (size <= largest)
        pull = torch.where(stays, self.pulls[:n] / self.looks[:n].clamp_min(1), 0)
        room = self.cloud.config.places - int(stays.sum())
        wanted = torch.zeros_like(stays)
        wanted[pull.topk(min(n, room)).indices] = True  # where they do not all fit, those that are pulled most
        wanted &= pull > growth.pull
        large = wanted & (size > growth.small * self.extent)
        self._keep(stays & ~large, [now.rows(wanted & ~large), *(_half(now.rows(large)) for _ in range(2))], optimizer)
        self.pulls.zero_()
        self.looks.zero_()

    @torch.no_grad()
    def _keep(self, kept: Tensor, new: Sequence[Gaussians], optimizer: torch.optim.Optimizer) -> None:
        """Only these stay, and new ones come; what the optimizer and the gradient know of each moves along, of the new ones nothing."""
        n, k = len(kept), int(kept.sum())
        now = self.cloud.gaussians().rows(kept)
        self.cloud.become(Gaussians(*(torch.cat(parts) for parts in zip(now, *new, strict=True))))
        for parameter in self.cloud.parameters():
            slots = (slot for slot in optimizer.state[parameter].values() if slot.shape == parameter.shape)
            for known in (*slots, parameter.grad):
                if known is not None:
                    moved = known[:n][kept]
                    known.zero_()
                    known[:k] = moved

    @torch.no_grad()
    def _fade(self, optimizer: torch.optim.Optimizer) -> None:
        opacities = self.cloud.opacities
        opacities.clamp_(max=math.log(CLEAR / (1 - CLEAR)))
        for name in ("exp_avg", "exp_avg_sq"):
            if name in optimizer.state[opacities]:
                optimizer.state[opacities][name].zero_()


def _half(gaussians: Gaussians) -> Gaussians:
    """One of two smaller Gaussians in the place of each, somewhere within it."""
    half = axes(gaussians)
    somewhere = gaussians.means + (half @ torch.randn(len(half), 3, 1, device=half.device))[..., 0]
    return gaussians._replace(means=somewhere, scales=gaussians.scales - math.log(1.6))
