"""Small layers that every backbone shares, for any number of spatial axes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def convolution(axes: int, c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> nn.Module:
    """A same-size (stride 1) convolution over 1 axis (sound), 2 (pictures) or 3 (clips, volumes)."""
    return CONVOLUTIONS[axes](c_in, c_out, kernel, stride, padding=kernel // 2)


def zeroed(layer: nn.Module) -> nn.Module:
    """The same layer with all its weights zero: a residual branch that starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def broadcast(values: Tensor, x: Tensor) -> Tensor:
    """(b,) or anything that already broadcasts -> values with trailing unit axes, ready to multiply x (b, ...)."""
    return values.reshape(*values.shape, *[1] * (x.ndim - values.ndim))


def fold(x: Tensor, patch: int) -> Tensor:
    """(b, c, *spatial) -> (b, c * patch ** axes, *spatial / patch): neighbouring pixels become channels."""
    for axis in range(2, x.ndim):
        x = rearrange(x.movedim(axis, 2), "b c (n p) ... -> b (c p) n ...", p=patch).movedim(2, axis)
    return x


def unfold(x: Tensor, patch: int) -> Tensor:
    """The inverse of `fold`."""
    for axis in reversed(range(2, x.ndim)):
        x = rearrange(x.movedim(axis, 2), "b (c p) n ... -> b c (n p) ...", p=patch).movedim(2, axis)
    return x


def silent(n: int, width: int) -> nn.Embedding:
    """n vectors that say nothing until learned; and a normal draw on the meta device would import half of torch's compiler."""
    return nn.Embedding.from_pretrained(torch.zeros(n, width), freeze=False)


class GroupNorm(nn.GroupNorm):
    """Group normalisation (Wu & He 2018), 32 groups or as many as leave at least 8 channels in each."""

    def __init__(self, channels: int, affine: bool = True):
        groups = next(g for g in (32, 16, 8, 4, 2, 1) if (channels % g == 0 and channels // g >= 8) or g == 1)
        super().__init__(groups, channels, affine=affine)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of every place by itself, (b, c, *spatial)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class LevelEmbedding(nn.Module):
    """Fourier features of the noise input (Vaswani et al. 2017) and a small MLP: c_noise (b,) -> (b, width).

    `scale` brings the range of c_noise (about 1 for a flow's time) to the range the frequencies resolve.
    """

    def __init__(self, width: int, features: int = 128, scale: float = 1000.0):
        super().__init__()
        self.features, self.scale = features, scale
        self.mlp = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, c_noise: Tensor) -> Tensor:
        half = self.features // 2
        frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, device=c_noise.device) / half)
        angles = self.scale * c_noise.float()[:, None] * frequencies
        return self.mlp(torch.cat([angles.cos(), angles.sin()], -1))


class Downsample(nn.Module):
    """Half the size along every axis by a strided convolution."""

    def __init__(self, axes: int, c_in: int, c_out: int):
        super().__init__()
        self.convolution = convolution(axes, c_in, c_out, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x)


class Upsample(nn.Module):
    """Twice the size along every axis by nearest neighbours, then a convolution (no checkerboard: Odena et al. 2016)."""

    def __init__(self, axes: int, c_in: int, c_out: int):
        super().__init__()
        self.convolution = convolution(axes, c_in, c_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(doubled(x))


class GatedMLP(nn.Module):
    """Two layers, half of the first a gate on the other half (GEGLU, Shazeer 2020)."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.inlet, self.out = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.inlet(x).chunk(2, -1)
        return self.out(x * F.gelu(gate))


def halved(x: Tensor) -> Tensor:
    """Averages of neighbours along every axis, (b, c, *spatial) -> (b, c, *spatial / 2)."""
    return {3: F.avg_pool1d, 4: F.avg_pool2d, 5: F.avg_pool3d}[x.ndim](x, 2)


def doubled(x: Tensor) -> Tensor:
    """Every place repeated along every axis, (b, c, *spatial) -> (b, c, 2 * spatial)."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


class ResidualBlock(nn.Module):
    """Two convolutions beside a skip; the embedding scales and shifts between them (AdaGN, Dhariwal & Nichol 2021, eq. 3).

    Without `scales` it only shifts (Ho et al. 2020). `resample` changes the size of both ways (BigGAN's block, Brock et al. 2019).
    """

    def __init__(
        self,
        axes: int,
        c_in: int,
        c_out: int,
        embedding: int | None = None,
        dropout: float = 0.0,
        *,
        scales: bool = True,
        resample: Callable[[Tensor], Tensor] | None = None,
    ):
        super().__init__()
        self.resample = resample
        self.norm1 = GroupNorm(c_in)
        self.conv1 = convolution(axes, c_in, c_out)
        self.norm2 = GroupNorm(c_out)
        self.modulation = zeroed(nn.Linear(embedding, 2 * c_out if scales else c_out)) if embedding else None
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zeroed(convolution(axes, c_out, c_out))
        self.skip = nn.Identity() if c_in == c_out else convolution(axes, c_in, c_out, kernel=1)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        h = F.silu(self.norm1(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.norm2(self.conv1(h))
        if self.modulation is not None and embedding is not None:
            *scale, shift = broadcast(self.modulation(F.silu(embedding)), x).split(h.shape[1], 1)
            h = h * (1 + scale[0]) + shift if scale else h + shift
        return self.skip(x) + self.conv2(self.dropout(F.silu(h)))
