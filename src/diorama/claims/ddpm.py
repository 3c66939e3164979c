"""Telling the noise at every level with the same weight gives better pictures than the variational bound does, and a worse bound.

Ho, Jain & Abbeel 2020, sec. 3.4 and table 2. Part A trains one network twice, by either loss, on pictures of 16 px; part B needs no
network: it walks the thousand steps on a mixture of Gaussians, whose denoiser is known exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from diorama.claims.claim import Claim, Effect, Part, model_folder
from diorama.claims.samplers import toy
from diorama.critics.frechet import kernel_distance
from diorama.data.order import index_at
from diorama.errors import UserError
from diorama.foundations.registry import find
from diorama.foundations.world import world_of
from diorama.networks.layers import doubled, halved
from diorama.networks.unet import UNet
from diorama.processes.diffusion import even
from diorama.processes.levels import respaced
from diorama.processes.solvers import Solver, ancestral
from diorama.systems.images.ddpm import DDPM, PRESETS
from diorama.systems.understanding.classifier import Classifier
from diorama.training.loop import BatchAt, fit
from diorama.training.plan import Plan
from diorama.types import Batch, Condition, Noise, mix

WORLD, JUDGE = "world-classes", "world-features"
SIZE = 16  # pixels along a side
SEEN, HELD_OUT, DRAWN = 4096, 256, 256  # pictures
STEPS = 250
POINTS, FLOORS = 512, 8  # of the mixture, and how often it is drawn twice to see how far apart two draws are
CHUNK = 64
PLAN = Plan(steps=1000, batch=32, lr=1e-3, warmup=50, decay=0.4, ema=0.995, device="cpu", dtype="float32")

Weight = Callable[[Tensor], Tensor]  # of each level (b,) in the loss


def of_bound(sigma: Tensor) -> Tensor:
    """What the variational bound gives each level, a thousand of them weighing 1 on average, so that clipping is fair."""
    return DDPM.bound.weight(sigma) / DDPM.bound.weight(DDPM.bound.sigmas).mean()


@dataclass(eq=False)
class Weighed(DDPM):
    """DDPM with another weight for each level."""

    weight: Weight = even

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        process = replace(self.process, weight=self.weight)
        return process.loss(self.denoiser, batch.image, Condition(), noise)


@dataclass(frozen=True, kw_only=True)
class DDPMClaim(Claim):
    """Two weights, and the sampler."""

    simple: Weight = even
    bound: Weight = of_bound
    solver: Solver = ancestral
    plan: Plan = PLAN
    steps: int = STEPS
    drawn: int = DRAWN

    slug: ClassVar[str] = "ddpm"
    title: ClassVar[str] = "DDPM"
    assets: ClassVar[tuple[str, ...]] = (JUDGE,)
    parts: ClassVar[tuple[Part, ...]] = (
        Part(
            letter="A1",
            statement="trained with every level weighing alike, pictures stand at most 0.8 times as far from real ones as by the bound",
            unit="squared kernel distance, 0.8 bound - simple",
            margin=0.0,
        ),
        Part(
            letter="A2",
            statement="trained by the bound, held-out pictures need fewer bits",
            unit="bits a number, simple - bound",
            margin=0.0,
        ),
        Part(
            letter="B",
            statement="given the exact denoiser, the thousand steps end at most twice as far from the truth as another draw of it is",
            unit="energy distance, 2 draw - sampled",
            margin=0.0,
        ),
    )

    def run(self, seed: int) -> Mapping[str, Effect]:
        return {**self._trained(seed), "B": self._analytic(seed)}

    def _trained(self, seed: int) -> dict[str, Effect]:
        try:
            judge = Classifier.from_pretrained(model_folder(JUDGE))
        except UserError as error:
            return dict.fromkeys(("A1", "A2"), Effect.missing(str(error)))
        arms = {"simple": self._taught(seed, self.simple), "bound": self._taught(seed, self.bound)}
        real = seen(judge, pictures(mix(seed, 2), self.drawn))
        distances = {name: kernel_distance(seen(judge, self._drawn(seed, arm)), real).value for name, arm in arms.items()}
        bits = {name: self._bits(seed, arm) for name, arm in arms.items()}
        floor = kernel_distance(seen(judge, pictures(mix(seed, 3), self.drawn)), real).value
        return {
            "A1": Effect(0.8 * distances["bound"] - distances["simple"], {**distances, "real": floor}),
            "A2": Effect(bits["simple"] - bits["bound"], bits),
        }

    def _taught(self, seed: int, weight: Weight) -> Weighed:
        """Both arms begin with the same weights and see the same pictures and the same noise."""
        torch.manual_seed(mix(seed, 4))
        system = Weighed(UNet(PRESETS["nano"]), SIZE, weight)
        fit(system, shuffled(pictures(mix(seed, 1), SEEN), self.plan.batch), replace(self.plan, seed=seed))
        return system.eval()

    def _drawn(self, seed: int, system: DDPM) -> Tensor:
        seeds = [mix(seed, 5, i) for i in range(self.drawn)]
        chunks = (Noise(seeds[first : first + CHUNK]) for first in range(0, self.drawn, CHUNK))
        return torch.cat([system.sample(steps=self.steps, solver=self.solver, noise=noise) for noise in chunks]).clamp(-1, 1)

    def _bits(self, seed: int, system: DDPM) -> float:
        parts = pictures(mix(seed, 6), HELD_OUT).split(CHUNK)
        found = [system.bits(part, Noise([mix(seed, 7, k, i) for i in range(len(part))])) for k, part in enumerate(parts)]
        return torch.cat(found).mean().item()

    def _analytic(self, seed: int) -> Effect:
        mixture, _ = toy(seed, 2)

        def drawn(k: int) -> Tensor:
            noise = Noise([mix(seed, 8, k, i) for i in range(POINTS)])
            return mixture.means[noise.integers(len(mixture.means))] + mixture.std * noise.normal(2)

        noise = Noise([mix(seed, 9, i) for i in range(POINTS)])
        start = DDPM.process.prior((2,), noise).double()
        x = self.solver(mixture, start, Condition(), respaced(DDPM.bound.sigmas, 1000), noise)
        truth = drawn(0)
        floor = sum(energy_distance(drawn(k), truth) for k in range(1, FLOORS + 1)) / FLOORS
        found = energy_distance(x, truth)
        return Effect(2 * floor - found, {"sampled": found, "another draw": floor})


def energy_distance(x: Tensor, y: Tensor) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| (Székely & Rizzo 2004) of two sets (n, d), each point its own neighbour too: above 0."""
    return float(2 * torch.cdist(x, y).mean() - torch.cdist(x, x).mean() - torch.cdist(y, y).mean())


@cache
def pictures(seed: int, n: int) -> Tensor:
    """n pictures (n, 3, SIZE, SIZE) of one large plain thing each, of 256 values."""
    world = world_of(find(WORLD), seed)
    found = torch.cat([halved(world.batch(first, CHUNK).image[:, :3]) for first in range(0, n, CHUNK)])[:n]
    return ((found + 1) * 127.5).round() / 127.5 - 1


def shuffled(image: Tensor, n: int) -> BatchAt:
    """n of these a step, all once before one comes twice."""

    def batch(step: int, rank: int = 0, world: int = 1) -> Batch:
        first = (step * world + rank) * n
        return Batch(image[[index_at(p, len(image), 0) for p in range(first, first + n)]])

    return batch


@torch.no_grad()
def seen(judge: Classifier, image: Tensor) -> Tensor:
    """The judge knows pictures twice as large."""
    return torch.cat([judge.features(doubled(part)) for part in image.split(CHUNK)])


CLAIM = DDPMClaim()
