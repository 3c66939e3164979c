"""Guided diffusion: a class-conditional pixel U-Net, and a sampler that any classifier of noisy pictures can steer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from diorama import cards
from diorama.guidance.classifier import LogProb, classifier
from diorama.guidance.classifier_free import classifier_free
from diorama.guidance.scale import Scale
from diorama.networks.unet import UNet, UNetConfig
from diorama.processes.diffusion import Diffusion, as_velocity
from diorama.processes.levels import LogNormal, karras
from diorama.processes.scalings import X0, NetworkDenoiser
from diorama.processes.solvers import SOLVERS
from diorama.systems.base import System, TakePart
from diorama.types import NO_LABEL, Batch, Condition, Denoiser, Noise, OnStep, ignore

PRESETS = {
    "nano": UNetConfig(channels=3, patch=4, widths=(128, 128), depth=1, attention=(True, True), embedding=128, levels=100.0),
    "mini": UNetConfig(channels=3, widths=(64, 128, 192), depth=2, attention=(False, True, True), embedding=256, levels=100.0),
    # 554 M for ImageNet at 256 px (Dhariwal & Nichol 2021, app. I): attention at 32, 16 and 8 px, BigGAN's blocks between sizes
    "paper": UNetConfig(
        channels=3,
        widths=(256, 256, 512, 512, 1024, 1024),
        attention=(False, False, False, True, True, True),
        head_width=64,
        embedding=1024,
        levels=100.0,
        resample="block",
        closing=True,
    ),
}


@dataclass(eq=False)
class GuidedDiffusion(System):
    """Classes to pictures (b, 3, size, size) on white (Dhariwal & Nichol 2021, on the levels and the scaling of Karras et al. 2022).

    Half of its training sees no class, so one network is the conditional and the unconditional model of the paper.
    """

    network: UNet
    labels: tuple[str, ...] = ()
    size: int = 32  # pixels along a side

    card: ClassVar[cards.Card] = cards.GUIDED_DIFFUSION
    # higher levels than Karras et al. look at, where it is decided what small plain pictures show; and the clean picture is asked
    # for (Li & He 2025): of four pixels by four, noise is far more to learn than what lies under it
    process: ClassVar[Diffusion] = Diffusion(X0(), LogNormal(0.0, 1.5), sigma_max=80.0, weight=as_velocity)
    dropped: ClassVar[dict[str, float]] = {"label": 0.5}

    @classmethod
    def new(cls, *, preset: str, size: int, labels: Sequence[str], part: TakePart) -> GuidedDiffusion:
        cls.card.check_preset(preset)
        network = UNet(replace(PRESETS[preset], labels=len(labels)))
        network.check_size(size)
        return cls(network, tuple(labels), size)

    @property
    def denoiser(self) -> Denoiser:
        return NetworkDenoiser(self.network, self.process.scaling)

    @property
    def known_labels(self) -> tuple[str, ...]:
        return self.labels

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        label = None if batch.label is None else batch.label.to(self.device)
        condition = Condition(label=label).drop(self.dropped, noise)
        return self.process.loss(self.denoiser, batch.image[:, :3].to(self.device), condition, noise)

    def look(self, batch: Batch, noise: Noise) -> Tensor:
        pictures = self.sample(torch.full((len(batch),), NO_LABEL) if batch.label is None else batch.label, noise=noise)
        return torch.cat([pictures, torch.ones_like(pictures[:, :1])], 1)

    @torch.no_grad()
    def sample(
        self,
        label: Tensor,
        *,
        steps: int = 16,
        guidance: Scale = 1.0,
        guide: LogProb | None = None,
        scale: Scale = 1.0,
        solver: str = "dpmpp_2m",
        noise: Noise,
        on_step: OnStep = ignore,
    ) -> Tensor:
        """(b, 3, size, size) in [-1, 1], one per label (b,) int64, NO_LABEL for any. `noise` has a seed for each.

        With a `guide` the network itself is asked for nothing and the guide's gradient, times `scale`, leads to the label;
        without one the network knows the label and `guidance` presses it (1 is none).
        """
        label = label.to(self.device)
        nothing = Condition(label=torch.full_like(label, NO_LABEL))
        if guide is None:
            condition, denoiser = Condition(label=label), classifier_free(self.denoiser, guidance)
        else:
            condition, denoiser = nothing, classifier(self.denoiser, guide, label, scale)
        process = replace(self.process, solver=SOLVERS[solver])
        start = process.prior((self.network.config.channels, self.size, self.size), noise)
        return process.sample(denoiser, start, condition, levels=karras(steps), noise=noise, on_step=on_step).clamp(-1, 1)
