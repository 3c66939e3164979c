"""Convolutional autoencoders: data to latents and back (Kingma & Welling 2013; Rombach et al. 2022, sec. 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diorama.errors import UserError
from diorama.networks.layers import (
    Downsample,
    GroupNorm,
    ResidualBlock,
    SpatialNorm,
    Upsample,
    broadcast,
    convolution,
    fold,
    unfold,
)
from diorama.networks.unet import AttentionBlock
from diorama.parts import Part
from diorama.types import Noise


@dataclass(frozen=True, kw_only=True)
class ConvCodecConfig:
    """Shape of a codec: f = patch * 2 ** (levels - 1) pixels become one latent position along every axis."""

    channels: int = 4  # RGBA: the picture on white, and its alpha
    latent: int = 16
    patch: int = 4  # pixels along each axis that enter and leave as channels, so that no layer works at full size
    widths: tuple[int, ...] = (64, 128, 160)
    depth: int = 1  # residual blocks per level in the encoder; the decoder has `decoder_depth`
    decoder_depth: int = 2
    axes: int = 2
    variational: bool = True  # else the latents have no variance: a quantiser or another bottleneck follows
    attention: bool = False  # after each block of the coarsest level, and between two more blocks (Esser et al. 2021)
    spatial: bool = False  # the decoder's norms take the latent at every place (Zheng et al. 2022, MoVQ)

    @property
    def stride(self) -> int:
        return self.patch * 2 ** (len(self.widths) - 1)


PRESETS = {
    "mini": ConvCodecConfig(),  # 128 px and more
    # for 32 to 64 px; each stride has half the latent numbers of the one before
    "f2": ConvCodecConfig(latent=4, patch=2, widths=(48,)),
    "f4": ConvCodecConfig(latent=8, patch=2, widths=(48, 64)),
    "f8": ConvCodecConfig(latent=16, patch=2, widths=(32, 64, 80)),
    "f16": ConvCodecConfig(latent=32, patch=4, widths=(48, 64, 80)),
    # eight pixels along each side become four numbers, for a quantiser
    "movq": ConvCodecConfig(latent=4, patch=2, widths=(48, 64, 96), variational=False, attention=True, spatial=True),
    # 0.27 B with its codes (Arkhipkin et al. 2023, sec. 2); theirs has no alpha
    "movq-paper": ConvCodecConfig(
        latent=4,
        patch=1,
        widths=(256, 512, 512, 1024),
        depth=2,
        decoder_depth=3,
        variational=False,
        attention=True,
        spatial=True,
    ),
}


Norm = Callable[[int], nn.Module]


def _level(config: ConvCodecConfig, level: int, depth: int, norm: Norm = GroupNorm) -> Iterator[nn.Module]:
    """Residual blocks, with attention after each at the coarsest level of those that have it."""
    width, attends = config.widths[level], config.attention and level == len(config.widths) - 1
    for _ in range(depth):
        yield ResidualBlock(config.axes, width, width, norm=norm)
        if attends:
            yield AttentionBlock(width, 1, norm=norm)


def _bottom(config: ConvCodecConfig, norm: Norm = GroupNorm) -> list[nn.Module]:
    """Where there is attention, what stands between the encoder's last level and the latents, and again before the decoder's."""
    return [*_level(config, len(config.widths) - 1, 2, norm)][:-1] if config.attention else []


class Encoder(nn.Sequential):
    """Pixels to mean and, where the codec is variational, log variance: latent channels each."""

    def __init__(self, config: ConvCodecConfig):
        axes, widths = config.axes, config.widths
        layers: list[nn.Module] = [convolution(axes, config.channels * config.patch**axes, widths[0])]
        for level, width in enumerate(widths):
            if level:
                layers.append(Downsample(axes, widths[level - 1], width))
            layers += _level(config, level, config.depth)
        layers += _bottom(config)
        layers += [GroupNorm(widths[-1]), nn.SiLU(), convolution(axes, widths[-1], config.latent * (1 + config.variational))]
        super().__init__(*layers)


class Decoder(nn.Sequential):
    """Latents to folded pixels."""

    def __init__(self, config: ConvCodecConfig):
        axes, widths = config.axes, config.widths
        norm: Norm = partial(SpatialNorm, axes, latent=config.latent) if config.spatial else GroupNorm
        layers: list[nn.Module] = [convolution(axes, config.latent, widths[-1]), *_bottom(config, norm)]
        for level, width in reversed(list(enumerate(widths))):
            layers += _level(config, level, config.decoder_depth, norm)
            if level:
                layers.append(Upsample(axes, width, widths[level - 1]))
        layers += [norm(widths[0]), nn.SiLU(), convolution(axes, widths[0], config.channels * config.patch**axes)]
        super().__init__(*layers)
        self.told = (ResidualBlock, AttentionBlock, SpatialNorm) if config.spatial else ()  # what takes the latent too

    def forward(self, z: Tensor) -> Tensor:
        x = z
        for layer in self:
            x = layer(x, z=z) if isinstance(layer, self.told) else layer(x)
        return x


class ConvCodec(Part):
    """A convolutional variational autoencoder over any number of spatial axes.

    `encode` gives the posterior mean, or with `noise` a sample of it; `shift` and `scale` (measured after
    training by `normalise`) bring the latents to zero mean and unit variance per channel.
    """

    Config = ConvCodecConfig

    def __init__(self, config: ConvCodecConfig):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.zeros(config.latent))
        self.register_buffer("scale", torch.ones(config.latent))

    def check_size(self, size: int) -> None:
        """Raises UserError where pictures of this size have no whole number of latent positions."""
        if size % (stride := self.config.stride):
            raise UserError(f"size {size} is not a multiple of {stride}: use {max(1, size // stride) * stride}")

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (b, c, *spatial) in [-1, 1] -> mean and log variance, each (b, latent, *spatial / stride), not normalised."""
        found = self.encoder(fold(x, self.config.patch))
        mean, log_variance = found.chunk(2, 1) if self.config.variational else (found, torch.full_like(found, -20.0))
        return mean, log_variance.clamp(-20, 10)

    def encode(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        mean, log_variance = self.posterior(x)
        if noise is not None:
            mean = mean + (log_variance / 2).exp() * noise.normal(*mean.shape[1:]).to(mean)
        return self.normal(mean)

    def normal(self, z: Tensor) -> Tensor:
        """What the encoder gave (b, c, *places), of unit variance: as it is until `normalise` has measured."""
        return (z - self._per_channel(self.shift, z)) / self._per_channel(self.scale, z)

    def decode(self, z: Tensor) -> Tensor:
        z = z * self._per_channel(self.scale, z) + self._per_channel(self.shift, z)
        return unfold(self.decoder(z), self.config.patch)

    @torch.no_grad()
    def normalise(self, x: Tensor) -> None:
        """Measure `shift` and `scale` on these pictures (a few hundred are enough)."""
        mean, log_variance = self.posterior(x)
        dims = [0, *range(2, mean.ndim)]
        self.shift.copy_(mean.mean(dims))
        self.scale.copy_((mean.var(dims) + log_variance.exp().mean(dims)).sqrt())

    @staticmethod
    def _per_channel(values: Tensor, z: Tensor) -> Tensor:
        return broadcast(values[None], z).to(z.dtype)


def kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(q(z|x) || N(0, I)) per sample, averaged over latent entries: (b,) nats per entry."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).mean(1)


def reconstruction(x: Tensor, target: Tensor, scales: int = 4) -> Tensor:
    """L1 of pixels and of their differences along each axis, over a pyramid of averages: (b,).

    The differences ask for crisp edges, the coarse levels for right colours, and neither needs an adversary.
    """
    total, pool = x.new_zeros(len(x)), {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[x.ndim - 2]
    for level in range(scales):
        if level:
            x, target = pool(x, 2), pool(target, 2)
        error = x - target
        total = total + error.abs().flatten(1).mean(1)
        if level < 2:
            total = total + sum(error.diff(dim=axis).abs().flatten(1).mean(1) for axis in range(2, x.ndim))
    return total
