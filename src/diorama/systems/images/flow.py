"""Our own text-to-image system: rectified flow in the latents of a frozen codec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from diorama import cards
from diorama.codecs.conv import ConvCodec
from diorama.conditions.text import SentenceEncoder
from diorama.guidance.classifier_free import classifier_free
from diorama.networks.unet import UNet, UNetConfig
from diorama.processes.diffusion import Diffusion
from diorama.processes.levels import flow
from diorama.processes.scalings import NetworkDenoiser
from diorama.processes.solvers import SOLVERS
from diorama.systems.base import System
from diorama.types import NO_LABEL, Batch, Condition, Denoiser, Noise, OnStep, ignore

PRESETS = {
    "nano": UNetConfig(channels=16, widths=(96,), depth=1, attention=(True,), text_width=384, embedding=192),
    "mini": UNetConfig(channels=16, widths=(192,), depth=2, attention=(True,), text_width=384, embedding=256),
    "base": UNetConfig(channels=16, widths=(384,), depth=4, attention=(True,), heads=6, text_width=384, embedding=512),
}


@dataclass(eq=False)
class Flow(System):
    """Sentences and styles to RGBA pictures (Esser et al. 2024 on the latents of Rombach et al. 2022)."""

    codec: ConvCodec
    text: SentenceEncoder
    network: UNet
    styles: tuple[str, ...] = ()
    size: int = 128  # pixels along a side

    card: ClassVar[cards.Card] = cards.FLOW
    process: ClassVar[Diffusion] = Diffusion()
    dropped: ClassVar[dict[str, float]] = {"text": 0.1, "label": 0.2}

    def __post_init__(self) -> None:
        for frozen in (self.codec, self.text):
            frozen.requires_grad_(False).eval()

    @classmethod
    def build(cls, preset: str, codec: ConvCodec, text: SentenceEncoder, styles: Sequence[str], size: int) -> Flow:
        """A new, untrained system around a trained codec and text encoder."""
        config = replace(PRESETS[preset], channels=codec.config.latent, text_width=text.config.width, labels=len(styles))
        return cls(codec, text, UNet(config), tuple(styles), size)

    @property
    def denoiser(self) -> Denoiser:
        return NetworkDenoiser(self.network, self.process.scaling)

    def encode(self, batch: Batch) -> Batch:
        """The batch with what never changes while training: its latents and its sentences."""
        latent = self.codec.encode(batch.image.to(self.device)) if batch.latent is None else batch.latent
        embedding = self.text(list(batch.text)) if batch.embedding is None else batch.embedding
        return replace(batch, latent=latent, embedding=embedding)

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        with torch.no_grad():
            batch = self.encode(batch)
        condition = Condition(text=batch.embedding, label=batch.label).to(self.device).drop(self.dropped, noise)
        return self.process.loss(self.denoiser, batch.latent.to(self.device).float(), condition, noise)

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        styles: Sequence[str | None] | None = None,
        *,
        negative: Sequence[str] | None = None,
        steps: int = 20,
        guidance: float | Tensor = 4.0,
        solver: str = "euler",
        noise: Noise,
        on_step: OnStep = ignore,
    ) -> Tensor:
        """One picture (4, size, size) in [-1, 1] per prompt: on white in channels 0-2, alpha in 3. `Noise` has a seed for each."""
        condition = self.condition(prompts, styles)
        unasked = None if negative is None else self.condition(negative, styles)
        process = replace(self.process, solver=SOLVERS[solver])
        side = self.size // self.codec.config.stride
        start = process.prior((self.codec.config.latent, side, side), noise)
        guided = classifier_free(self.denoiser, guidance, unasked)
        z = process.sample(guided, start, condition, levels=flow(steps, shift=1.5), noise=noise, on_step=on_step)
        return self.codec.decode(z).float().clamp(-1, 1)

    def condition(self, prompts: Sequence[str], styles: Sequence[str | None] | None = None) -> Condition:
        names = styles or [None] * len(prompts)
        label = torch.tensor([NO_LABEL if name is None else self.styles.index(name) for name in names], device=self.device)
        return Condition(text=self.text(prompts), label=label if self.styles else None)

    def preview(self, x0: Tensor) -> Tensor:
        """What an estimate of the latents looks like: (b, 4, size, size) in [-1, 1]."""
        return self.codec.decode(x0).float().clamp(-1, 1)
