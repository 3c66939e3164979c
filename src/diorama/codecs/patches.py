"""Pixels as they are: neighbouring ones become channels, and nothing is learned or lost."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diorama.codecs.conv import ConvCodec
from diorama.networks.layers import fold, unfold
from diorama.types import Noise


@dataclass(frozen=True, kw_only=True)
class PatchCodecConfig:
    """How many pixels along each axis become one position."""

    channels: int = 4
    patch: int = 2
    axes: int = 2
    mean: float = 0.0  # of the pixels, and
    std: float = 1.0  # their spread, until `normalise` has measured both

    @property
    def latent(self) -> int:
        return self.channels * self.patch**self.axes

    @property
    def stride(self) -> int:
        return self.patch


class PatchCodec(ConvCodec):
    """The codec that a diffusion of pixels has: (b, c, *spatial) to (b, c * patch ** axes, *spatial / patch), and back exactly."""

    Config = PatchCodecConfig  # type: ignore[assignment]

    def __init__(self, config: PatchCodecConfig):
        nn.Module.__init__(self)
        self.config = config
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.full((config.latent,), config.mean))
        self.register_buffer("scale", torch.full((config.latent,), config.std))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = fold(x, self.config.patch)
        return mean, torch.full_like(mean, -20.0)

    def encode(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        return super().encode(x)

    def decode(self, z: Tensor) -> Tensor:
        return unfold(z * self._per_channel(self.scale, z) + self._per_channel(self.shift, z), self.config.patch)
