"""A picture to one of twice its size: a diffusion of what enlarging leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from diorama import cards
from diorama.codecs.conv import ConvCodec
from diorama.errors import UserError
from diorama.networks.layers import broadcast, halved
from diorama.networks.unet import UNet, UNetConfig
from diorama.processes.cascade import follow, resized
from diorama.processes.diffusion import Diffusion
from diorama.processes.levels import LogNormal, karras
from diorama.processes.scalings import X0, NetworkDenoiser
from diorama.processes.solvers import dpmpp_2m
from diorama.systems.base import System, TakePart
from diorama.types import Batch, Condition, Noise, OnStep, ignore

_OURS = UNetConfig(channels=4, given=4, augmented=True, patch=2, attention=(False, False), bottom=False, levels=100.0)
PRESETS = {
    "nano": replace(_OURS, widths=(32, 64), depth=1, embedding=64),
    "mini": replace(_OURS, widths=(48, 96), depth=1, embedding=128),
}


@dataclass(eq=False)
class Upsampler(System):
    """RGBA pictures to ones of twice their size; convolutions alone, so of any size (after Saharia et al. 2022, sec. 2.4).

    What is diffused is the detail: the picture less the smaller one as it was shown, enlarged. One step is regression, the mean of all
    details there might be; a few more choose among them.
    """

    network: UNet
    size: int = 128  # pixels along a side of the larger pictures it was trained on
    spread: float = 0.15  # of the detail, so that the diffusion sees numbers about 1

    card: ClassVar[cards.Card] = cards.UPSAMPLER
    # the detail itself is predicted, not the noise: where there is none, no step leaves any noise behind
    process: ClassVar[Diffusion] = Diffusion(scaling=X0(), law=LogNormal(0.0, 1.5), sigma_max=20.0, solver=dpmpp_2m)
    most: ClassVar[float] = 0.1  # noise on the smaller picture while training
    blurred: ClassVar[float] = 0.5  # share of them that went through a painter's codec, as what it paints did

    def __post_init__(self) -> None:
        self.codec: ConvCodec | None = None  # only while training, and so never saved with it

    @classmethod
    def new(cls, *, preset: str, size: int, labels: Sequence[str], part: TakePart) -> Upsampler:
        cls.card.check_preset(preset)
        return cls(UNet(PRESETS[preset]), size)

    def begin(self, part: TakePart) -> None:
        codec = part("codec", ConvCodec)
        if self.size % (whole := 4 * codec.config.stride):  # three quarters of it go through the codec
            raise UserError(f"size {self.size} is not a multiple of {whole}: use {max(1, self.size // whole) * whole}")
        self.codec = codec.requires_grad_(False).eval()

    @property
    def denoiser(self) -> NetworkDenoiser:
        return NetworkDenoiser(self.network, self.process.scaling)

    def shrunk(self, image: Tensor, noise: Noise) -> Tensor:
        """Half the size, (b, 4, h / 2, w / 2): some as they are, some, while training, as the codec would have painted them."""
        small, through = halved(image), broadcast(noise.uniform() < self.blurred, image)
        return small if self.codec is None else torch.where(through, painted(image, self.codec), small)

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        image = batch.image.to(self.device)
        small = self.shrunk(image, noise)
        condition = follow(Condition(), small, image.shape[2:], self.most * noise.uniform(), noise)
        detail = (image - _shown(condition)) / self.spread
        return self.process.loss(self.denoiser, detail, condition, noise)

    def look(self, batch: Batch, noise: Noise) -> Tensor:
        return self.sample(self.shrunk(batch.image.to(self.device), noise), noise=noise)

    @torch.no_grad()
    def sample(
        self, small: Tensor, *, steps: int = 1, augmentation: float = 0.0, noise: Noise, on_step: OnStep = ignore
    ) -> Tensor:
        """(b, 4, h, w) in [-1, 1], h and w even, -> (b, 4, 2 h, 2 w); `augmentation`, at best 0 to `most`, is noise that hides its flaws.

        One step starts from the middle of the noise: a regression has nothing to choose, and what noise leaves behind shows as specks.
        """
        size = [2 * side for side in small.shape[2:]]
        condition = follow(Condition(), small, size, small.new_full((len(small),), augmentation), noise)
        start = self.process.prior((small.shape[1], *size), noise) * (steps > 1)
        levels = karras(steps, 0.1, self.process.sigma_max)
        detail = self.process.sample(self.denoiser, start, condition, levels=levels, noise=noise, on_step=on_step)
        return (_shown(condition) + self.spread * detail).clamp(-1, 1)


def _shown(condition: Condition) -> Tensor:
    """The enlarged picture as the network saw it, noise and all: what the noise hides must not come back beside it."""
    assert condition.image is not None
    return condition.image / (1 - broadcast(condition.extra["augmentation"], condition.image))


@torch.no_grad()
def painted(image: Tensor, codec: ConvCodec) -> Tensor:
    """Pictures (b, 4, h, w) at half the size as a painter in this codec's latents might have left them.

    It sees them at three quarters of their size, after which they are about as soft, pixel for pixel, as what it paints.
    """
    between = resized(image, [side * 3 // 4 for side in image.shape[2:]])
    return resized(codec.decode(codec.encode(between)).float(), [side // 2 for side in image.shape[2:]]).clamp(-1, 1)
