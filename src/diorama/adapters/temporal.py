"""Temporal layers after the blocks of a picture network: frames that it paints alone learn to belong together.

Blattmann et al. 2023, Align your Latents (arXiv 2304.08818), sec. 3.1. The picture network keeps its weights and knows nothing
of them: it sees frames (b t) c h w, they see clips b c t h w.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from diorama.networks.attention import Attention
from diorama.networks.layers import Downsample, GroupNorm, LevelEmbedding, ResidualBlock, convolution, fold, zeroed
from diorama.networks.unet import Block, UNet
from diorama.parts import Part
from diorama.types import Condition, Network

KERNEL = (3, 1, 1)  # over time: space is the picture network's
KNOWN = 32  # channels of what the layers are shown of known frames


@dataclass(frozen=True, kw_only=True)
class TemporalConfig:
    """After which blocks of a network, by their names, and what each layer is like: one entry per block."""

    blocks: tuple[str, ...]
    widths: tuple[int, ...]
    heads: tuple[int, ...]  # of attention over all of time; 0 is none: such a layer sees neighbouring frames alone
    embedding: int = 0  # width of what modulates the network's blocks, 0 where nothing does
    known: int = 0  # channels of the frames that may be known; 0 where none is shown
    patch: int = 1  # of the network: how its finest blocks stand to these frames
    levels: int = 1  # resolutions among the blocks, each half as fine as the one before


class TemporalLayer(nn.Module):
    """A residual block of 3-D convolutions, attention over the frames of each place, and a share of both (sec. 3.1, fig. 4).

    What it adds begins at zero, and alpha = 1 leaves it out: then, and at first, frames are what the picture network makes of them.
    """

    def __init__(self, width: int, heads: int, config: TemporalConfig):
        super().__init__()
        self.known = zeroed(convolution(3, KNOWN, width, 1)) if config.known else None
        self.residual = ResidualBlock(3, width, width, config.embedding or None, kernel=KERNEL)
        self.attention = OverTime(width, heads) if heads else None
        self.alpha = nn.Parameter(torch.full((), 0.5))

    def forward(self, z: Tensor, embedding: Tensor | None = None, known: Tensor | None = None) -> Tensor:
        """z (b, c, t, h, w), embedding (b, d), known (b, KNOWN, t, h, w)."""
        x = z if self.known is None or known is None else z + self.known(known)
        x = self.residual(x, embedding)
        x = x if self.attention is None else self.attention(x)
        return z + (1 - self.alpha.clamp(0, 1)) * (x - z)  # alpha z + (1 - alpha) x, and z to the bit where x is z or alpha is 1


class OverTime(nn.Module):
    """Attention of every place over its frames, which know where they stand by a sinusoid; a residual branch."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm, self.place, self.attention = GroupNorm(width), LevelEmbedding(width, scale=1.0), Attention(width, heads)
        zeroed(self.attention.out)

    def forward(self, x: Tensor) -> Tensor:
        b, _, t, h, _ = x.shape
        tokens = rearrange(self.norm(x), "b c t h w -> (b h w) t c")
        seen = self.attention(tokens, at=self.place(torch.arange(t, device=x.device)))
        return x + rearrange(seen, "(b h w) t c -> b c t h w", b=b, h=h)


class KnownFrames(nn.Module):
    """Known frames beside a mask, made smaller step by step by what is learned: one picture for each resolution."""

    def __init__(self, config: TemporalConfig):
        super().__init__()
        self.patch = config.patch
        self.inlet = convolution(2, (config.known + 1) * config.patch**2, KNOWN)
        self.down = nn.ModuleList(Downsample(2, KNOWN, KNOWN) for _ in range(config.levels - 1))

    def forward(self, frames: Tensor, mask: Tensor) -> dict[int, Tensor]:
        """frames (b, c, t, h, w), mask (b, 1, t, h, w), 0 where known -> clips (b, KNOWN, t, ...) by their height."""
        t, known = frames.shape[2], 1 - mask
        x = self.inlet(fold(apart(torch.cat([frames * known, known], 1)), self.patch))
        found = [x, *(x := layer(x) for layer in self.down)]
        return {x.shape[-2]: together(x, t) for x in found}


class Temporal(Part):
    """The temporal layers of one network, apart from it. `inflate` makes them, `between` puts them in."""

    Config = TemporalConfig

    def __init__(self, config: TemporalConfig):
        super().__init__()
        self.config = config
        pairs = zip(config.widths, config.heads, strict=True)
        self.layers = nn.ModuleList(TemporalLayer(width, heads, config) for width, heads in pairs)
        self.known = KnownFrames(config) if config.known else None

    @contextmanager
    def between(self, network: nn.Module, t: int, frames: Tensor | None = None, mask: Tensor | None = None) -> Iterator[None]:
        """Inside, the network sees t frames of each clip in a row (b t), and after each block a layer sees the clips."""
        shown = {} if self.known is None or frames is None or mask is None else self.known(frames, mask)
        with ExitStack() as stack:
            for name, layer in zip(self.config.blocks, self.layers, strict=True):
                hook = network.get_submodule(name).register_forward_hook(_after(layer, t, shown))
                stack.callback(hook.remove)
            yield


def _after(layer: nn.Module, t: int, shown: dict[int, Tensor]) -> Any:
    def hook(block: nn.Module, given: tuple[Any, ...], z: Tensor) -> Tensor:
        embedding = given[1] if len(given) > 1 else None
        embedding = None if embedding is None else embedding[::t]  # of each clip: its frames share one level of noise
        return apart(layer(together(z, t), embedding, shown.get(z.shape[-2])))

    return hook


def inflate(network: nn.Module, *, attends: bool | None = None, known: int = 0) -> Temporal:
    """Temporal layers after every block of a picture network, which change nothing until they are trained.

    `attends`: whether all layers look over all of time, or none; None is those whose block attends. `known`: channels of frames
    that may be known, 0 for none.
    """
    blocks = dict(_blocks(network))
    residuals = [block.residual if isinstance(block, Block) else block for block in blocks.values()]
    widths = tuple(int(residual.conv2.out_channels) for residual in residuals)  # type: ignore[arg-type, union-attr]
    look = [isinstance(b, Block) and b.attention is not None if attends is None else attends for b in blocks.values()]
    shape = TemporalConfig(blocks=tuple(blocks), widths=widths, heads=tuple(4 * one for one in look), known=known)
    if isinstance(network, UNet):
        config = network.config
        heads = tuple(one * config.heads_of(width) for one, width in zip(look, widths, strict=True))
        shape = replace(shape, heads=heads, embedding=config.embedding, patch=config.patch, levels=len(config.widths))
    return Temporal(shape)


def _blocks(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The outermost blocks within, by their names."""
    for name, child in module.named_children():
        if isinstance(child, (Block, ResidualBlock)):
            yield prefix + name, child
        else:
            yield from _blocks(child, f"{prefix}{name}.")


@dataclass(frozen=True, eq=False)
class Inflated:
    """A picture network and its temporal layers as one network: pictures as ever, clips (b, c, t, h, w) with what links their frames.

    Of the condition, `frames` (b, c, t, h, w) are known clean ones and `known` (b, 1, t, h, w) is 0 where they are.
    """

    network: Network
    temporal: Temporal

    def __call__(self, x: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        if x.ndim == 4:
            return self.network(x, c_noise, condition)
        assert isinstance(self.network, nn.Module)
        t, still = x.shape[2], replace(condition, frames=None, known=None)
        with self.temporal.between(self.network, t, condition.frames, condition.known):
            return together(self.network(apart(x), c_noise.repeat_interleave(t), still.repeat(t)), t)


def apart(clip: Tensor) -> Tensor:
    """(b, c, t, h, w) -> ((b t), c, h, w): every frame a picture."""
    return rearrange(clip, "b c t h w -> (b t) c h w")


def together(frames: Tensor, t: int) -> Tensor:
    """The inverse of `apart`."""
    return rearrange(frames, "(b t) c h w -> b c t h w", t=t)
