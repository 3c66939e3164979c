"""Small layers that every backbone shares, for any number of spatial axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


Kernel = int | tuple[int, ...]  # along every axis, or along each


def convolution(axes: int, c_in: int, c_out: int, kernel: Kernel = 3, stride: int = 1) -> nn.Module:
    """A same-size (stride 1) convolution over 1 axis (sound), 2 (pictures) or 3 (clips, volumes)."""
    kind: Any = CONVOLUTIONS[axes]  # one kernel for every axis, or a tuple of as many: torch's hints cannot say which
    return kind(c_in, c_out, kernel, stride, padding=kernel // 2 if isinstance(kernel, int) else tuple(k // 2 for k in kernel))


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


class ModulatedNorm(nn.Module):
    """Group normalisation whose gain, less 1, and offset are made of the embedding (b, d), both nothing at first."""

    def __init__(self, channels: int, embedding: int):
        super().__init__()
        self.norm = GroupNorm(channels, affine=False)
        self.modulation = zeroed(nn.Linear(embedding, 2 * channels))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        gain, offset = broadcast(self.modulation(F.silu(embedding)), x).chunk(2, 1)
        return self.norm(x) * (1 + gain) + offset


class SpatialNorm(nn.Module):
    """Group normalisation whose gain and offset at every place are made of the latent there (Zheng et al. 2022, MoVQ).

    GN(x) gain(z) + offset(z), z (b, latent, *smaller) repeated up to the places of x. The gain is not added to 1.
    """

    def __init__(self, axes: int, channels: int, latent: int):
        super().__init__()
        self.norm = GroupNorm(channels)
        self.gain, self.offset = (convolution(axes, latent, channels, kernel=1) for _ in range(2))
        nn.init.ones_(self.gain.get_parameter("bias"))  # a new one is nearly plain

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        # both see each place by itself, and so may come before z is repeated, where they cost less
        gain, offset = (F.interpolate(layer(z), x.shape[2:], mode="nearest") for layer in (self.gain, self.offset))
        return self.norm(x) * gain + offset


def normed(norm: nn.Module, x: Tensor, z: Tensor | None) -> Tensor:
    """x after a norm that is plain, or spatial where there is a z."""
    return norm(x) if z is None else norm(x, z)


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
    """Twice the size along every axis by nearest neighbours, then a convolution (no checkerboard: Odena et al. 2016).

    In training the two are one, `doubled_convolution`, but of so few places that making its kernel is too dear.
    """

    FEW = 32  # places of one sample, whatever the batch

    def __init__(self, axes: int, c_in: int, c_out: int):
        super().__init__()
        self.convolution = convolution(axes, c_in, c_out)

    def forward(self, x: Tensor) -> Tensor:
        layer: Any = self.convolution
        alone = isinstance(layer, tuple(CONVOLUTIONS.values()))  # and no LoRA around one
        if alone and torch.is_grad_enabled() and x[0, 0].numel() > self.FEW:
            return doubled_convolution(x, layer.weight, layer.bias)
        return layer(doubled(x))


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
    return AVERAGE[x.ndim - 2](x, 2)


def doubled(x: Tensor) -> Tensor:
    """Every place repeated along every axis, (b, c, *spatial) -> (b, c, 2 * spatial)."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def doubled_convolution(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of `doubled(x)` with a kernel of 3: a transposed one of x, in a picture with 16 products where that has 36.

    Weights that meet the same place are summed first: w0, w1, w2 become w2, w1 + w2, w0 + w1, w0 along every axis.
    """
    axes = x.ndim - 2
    kernel = 2**axes * AVERAGE[axes](weight, 2, stride=1, padding=1)
    return TRANSPOSE[axes](x, kernel.flip(*range(2, x.ndim)).transpose(0, 1), bias, stride=2, padding=1)


class ResidualBlock(nn.Module):
    """Two convolutions beside a skip; the embedding scales and shifts between them (AdaGN, Dhariwal & Nichol 2021, eq. 3).

    Without `scales` it only shifts (Ho et al. 2020). `resample` changes the size of both ways (BigGAN's block, Brock et al. 2019).
    With norms that are spatial there is a z (b, latent, *smaller) too.
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
        norm: Callable[[int], nn.Module] = GroupNorm,
        kernel: Kernel = 3,
    ):
        super().__init__()
        self.resample = resample
        self.norm1 = norm(c_in)
        self.conv1 = convolution(axes, c_in, c_out, kernel)
        self.norm2 = norm(c_out)
        self.modulation = zeroed(nn.Linear(embedding, 2 * c_out if scales else c_out)) if embedding else None
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zeroed(convolution(axes, c_out, c_out, kernel))
        self.skip = nn.Identity() if c_in == c_out else convolution(axes, c_in, c_out, kernel=1)

    def forward(self, x: Tensor, embedding: Tensor | None = None, *, z: Tensor | None = None) -> Tensor:
        h = F.silu(normed(self.norm1, x, z))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = normed(self.norm2, self.conv1(h), z)
        if self.modulation is not None and embedding is not None:
            *scale, shift = broadcast(self.modulation(F.silu(embedding)), x).split(h.shape[1], 1)
            h = h * (1 + scale[0]) + shift if scale else h + shift
        return self.skip(x) + self.conv2(self.dropout(F.silu(h)))


class BottleneckBlock(nn.Module):
    """Four convolutions beside a skip, two narrow ones between two of single places, each after a norm that the embedding modulates.

    BigGAN-deep's block (Brock et al. 2019, app. B) as Arkhipkin et al. 2023 have it: a learned convolution doubles the size before
    the narrow ones, or halves it after them, and another does so along the skip.
    """

    def __init__(self, axes: int, c_in: int, c_out: int, embedding: int, *, doubles: bool = False, halves: bool = False):
        super().__init__()
        narrow = max(c_in, c_out) // 2
        widths = (c_in, narrow, narrow, narrow, c_out)
        self.norms = nn.ModuleList(ModulatedNorm(width, embedding) for width in widths[:-1])
        first, second, third, last = (
            convolution(axes, a, b, k) for (a, b), k in zip(pairwise(widths), (1, 3, 3, 1), strict=True)
        )
        second = nn.Sequential(_doubling(axes, narrow), second) if doubles else second
        third = nn.Sequential(third, _halving(axes, narrow)) if halves else third
        self.convs = nn.ModuleList([first, second, third, zeroed(last)])
        skip = [_doubling(axes, c_in)] * doubles
        skip += [convolution(axes, c_in, c_out, kernel=1)] * (c_in != c_out)
        skip += [_halving(axes, c_out)] * halves
        self.skip = nn.Sequential(*skip)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            h = conv(F.silu(norm(h, embedding)))
        return self.skip(x) + h


def _halving(axes: int, channels: int) -> nn.Module:
    """Half the size along every axis: each place is made of its own two, or two by two."""
    return CONVOLUTIONS[axes](channels, channels, 2, 2)


def _doubling(axes: int, channels: int) -> nn.Module:
    """Its transpose: twice the size along every axis."""
    return TRANSPOSED[axes](channels, channels, 2, 2)
