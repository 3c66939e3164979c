"""DDPM: pictures out of noise, by a network that learned to tell the noise in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from diorama import cards
from diorama.guidance.threshold import clipped
from diorama.networks.unet import UNet, UNetConfig
from diorama.processes.bound import Bound
from diorama.processes.diffusion import Diffusion
from diorama.processes.levels import linear_abar, respaced
from diorama.processes.scalings import Epsilon, NetworkDenoiser
from diorama.processes.solvers import Solver, ancestral
from diorama.systems.base import System, TakePart
from diorama.types import Batch, Condition, Denoiser, Noise, OnStep, ignore

_OURS = UNetConfig(channels=3, levels=1.0)  # c_noise is an index of the table
PRESETS = {
    "nano": replace(_OURS, patch=2, widths=(48, 64), depth=1, attention=(False, True), embedding=128),
    "mini": replace(_OURS, widths=(64, 128, 192), attention=(False, True, True), embedding=256),
    # 35.7 M for CIFAR-10 at 32 px (Ho et al. 2020, app. B): attention at 16 px, the embedding only shifts
    "paper": replace(
        _OURS,
        widths=(128, 256, 256, 256),
        attention=(False, True, False, False),
        heads=1,
        dropout=0.1,
        scales=False,
        resample="keeping",
        closing=True,
    ),
}


@dataclass(eq=False)
class DDPM(System):
    """Noise to pictures (b, 3, size, size) on white, asked for nothing (Ho et al. 2020)."""

    network: UNet
    size: int = 32  # pixels along a side

    card: ClassVar[cards.Card] = cards.DDPM
    process: ClassVar[Diffusion] = Diffusion.of_table(Epsilon, linear_abar(), ancestral)
    bound: ClassVar[Bound] = Bound(linear_abar())

    @classmethod
    def new(cls, *, preset: str, size: int, labels: Sequence[str], part: TakePart) -> DDPM:
        cls.card.check_preset(preset)
        network = UNet(PRESETS[preset])
        network.check_size(size)
        return cls(network, size)

    @property
    def denoiser(self) -> Denoiser:
        return NetworkDenoiser(self.network, self.process.scaling)

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        """The squared error of the noise, every level counting as much (Ho et al. 2020, eq. 14)."""
        return self.process.loss(self.denoiser, batch.image[:, :3].to(self.device), Condition(), noise)

    def look(self, batch: Batch, noise: Noise) -> Tensor:
        pictures = self.sample(steps=50, noise=noise)
        return torch.cat([pictures, torch.ones_like(pictures[:, :1])], 1)

    @torch.no_grad()
    def sample(self, *, steps: int = 250, solver: Solver | None = None, noise: Noise, on_step: OnStep = ignore) -> Tensor:
        """(b, 3, size, size) in [-1, 1], one per seed of `noise`; 1000 steps are the paper's, in which each draws fresh noise."""
        process = self.process if solver is None else replace(self.process, solver=solver)
        start = process.prior((self.network.config.channels, self.size, self.size), noise)
        levels = respaced(Epsilon(linear_abar()).sigmas, steps)
        return process.sample(clipped(self.denoiser), start, Condition(), levels=levels, noise=noise, on_step=on_step)

    def bits(self, image: Tensor, noise: Noise, draws: int = 20) -> Tensor:
        """At most this many bits a number of these pictures (b, 3, size, size), whose numbers are of 256 values: (b,)."""
        return self.bound.bits(self.denoiser, image.to(self.device), Condition(), noise, draws)
