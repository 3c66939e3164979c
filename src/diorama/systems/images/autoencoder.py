"""The picture codec on its own: a variational autoencoder trained by reconstruction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diorama import cards
from diorama.codecs.conv import PRESETS, ConvCodec, kl, reconstruction
from diorama.systems.base import System, TakePart
from diorama.types import Batch, Noise


@dataclass(eq=False)
class Autoencoder(System):
    """RGBA pictures to latents of unit variance and back (Rombach et al. 2022, sec. 3.1, without the adversary)."""

    codec: ConvCodec
    kl_weight: float = 1e-3

    card: ClassVar[cards.Card] = cards.AUTOENCODER

    def __post_init__(self) -> None:
        self.codec.requires_grad_(True)

    @classmethod
    def new(cls, *, preset: str, size: int, labels: Sequence[str], part: TakePart) -> Autoencoder:
        cls.card.check_preset(preset)
        system = cls(ConvCodec(PRESETS[preset]))
        system.codec.check_size(size)
        return system

    def look(self, batch: Batch, noise: Noise) -> Tensor:
        return self.reconstruct(batch.image)

    def finish(self, batch: Batch) -> None:
        self.codec.normalise(batch.image.to(self.device))

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        image = batch.image.to(self.device)
        mean, log_variance = self.codec.posterior(image)
        x = self.codec.decode(self.codec.normal(mean + (log_variance / 2).exp() * noise.normal(*mean.shape[1:])))
        return reconstruction(x.float(), image) + self.kl_weight * kl(mean.float(), log_variance.float())

    @torch.no_grad()
    def reconstruct(self, image: Tensor) -> Tensor:
        """(b, 4, h, w) in [-1, 1] -> the same, through the latents."""
        return self.codec.decode(self.codec.encode(image.to(self.device))).clamp(-1, 1)
