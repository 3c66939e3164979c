"""The U-Net of diffusion models (Ho et al. 2020; Dhariwal & Nichol 2021), for sound, pictures and volumes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from diorama.errors import UserError
from diorama.networks.attention import Attention
from diorama.networks.layers import (
    BottleneckBlock,
    Downsample,
    GatedMLP,
    GroupNorm,
    LevelEmbedding,
    ModulatedNorm,
    ResidualBlock,
    Upsample,
    convolution,
    doubled,
    fold,
    halved,
    normed,
    silent,
    unfold,
    zeroed,
)
from diorama.parts import Part
from diorama.types import Condition


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """A U-Net's shape. One entry per level in `widths` and `attention`, from the finest to the coarsest."""

    channels: int  # of the input and the output
    widths: tuple[int, ...] = (128, 256)
    depth: int | tuple[int, ...] = 2  # blocks per level on the way down, and on the way up; or a number for each level
    attention: tuple[bool, ...] = (False, True)
    heads: int = 4
    text_width: int = 0  # of the text tokens and the pooled vector; 0 means no text
    labels: int = 0  # classes or styles; 0 means none
    embedding: int = 512  # width of what modulates every block
    dropout: float = 0.0
    axes: int = 2
    levels: float = 1000.0  # scale of c_noise: what a flow's time, 0 to 1, asks for; a tenth does for the logarithm of EDM
    patch: int = 1  # pixels along each axis that enter and leave as channels, where no layer need work at full size
    given: int = 0  # channels of the condition's picture, which enters beside x; 0 means none
    augmented: bool = False  # that picture is noised, and `augmentation` of the condition says how much
    bottom: bool = True  # attention at the bottom; without any, pictures of all sizes are alike
    # what the published networks have and ours do without
    head_width: int = 0  # of each attention head; 0 is `heads` of them at every level
    scales: bool = True  # the embedding scales as well as shifts; Ho et al. 2020 only shift
    resample: str = "widening"  # the convolution widens too; "keeping": it does not; "block": a residual block instead
    closing: bool = False  # a second block, without attention, at the bottom
    transformer: bool = False  # attention comes with cross-attention and a gated network (Rombach et al. 2022, sec. 3.3)
    own: bool = True  # attention looks at the picture's own places too; else only at the text
    skip: float = 1.0  # what a long skip is multiplied by (1 / sqrt(2) in Saharia et al. 2022, app. B)
    reads: int = 0  # width of the words as the network itself reads and pools them; 0 where it takes both as they come
    # levels of bottlenecks around attention, one long skip each (Arkhipkin et al. 2023, sec. 2); what is said above of dropout,
    # bottom, scales, resample, closing, transformer and own then says nothing
    bottleneck: bool = False
    # levels of blocks with one long skip, and attention once at their end, twice as wide inside (Saharia et al. 2022, fig. A.28 and A.29);
    # each halves first and doubles last, the finest too; what is said above of bottom, resample, closing and transformer says nothing
    grouped: bool = False

    @property
    def first(self) -> int:
        """Channels at the inlet and the outlet."""
        return self.widths[0] // 2 if self.bottleneck else self.widths[0]

    @property
    def context_width(self) -> int | None:
        """Of the words that attention sees."""
        return self.reads or self.text_width or None

    @property
    def depths(self) -> tuple[int, ...]:
        return (self.depth,) * len(self.widths) if isinstance(self.depth, int) else self.depth

    def heads_of(self, width: int) -> int:
        return width // self.head_width if self.head_width else self.heads


def _tokens(x: Tensor) -> Tensor:
    """(b, c, *spatial) -> (b, n, c)."""
    return x.flatten(2).transpose(1, 2)


def _placed(tokens: Tensor, x: Tensor) -> Tensor:
    """(b, n, c) back to the places of x."""
    return tokens.transpose(1, 2).reshape(x.shape)


class AttentionBlock(nn.Module):
    """Attention over all positions and the text beside them, as a residual branch."""

    def __init__(
        self,
        width: int,
        heads: int,
        context_width: int | None = None,
        own: bool = True,
        norm: Callable[[int], nn.Module] = GroupNorm,
        *,
        head_width: int | None = None,  # None is width / heads
    ):
        super().__init__()
        self.norm = norm(width)
        self.attention = Attention(width, heads, context_width, own=own, head_width=head_width)
        zeroed(self.attention.out)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None, *, z: Tensor | None = None) -> Tensor:
        return x + _placed(self.attention(_tokens(normed(self.norm, x, z)), context, mask), x)


class SpatialTransformer(nn.Module):
    """Attention over all positions, then over the text, then a gated network, as a residual branch (Rombach et al. 2022, sec. 3.3)."""

    def __init__(self, width: int, heads: int, context_width: int | None):
        super().__init__()
        self.norm, self.inlet, self.outlet = GroupNorm(width), nn.Linear(width, width), zeroed(nn.Linear(width, width))
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.cross = nn.LayerNorm(width), Attention(width, heads, context_width, own=False)
        self.norm3, self.mlp = nn.LayerNorm(width), GatedMLP(width, 4 * width)

    def forward(self, x: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        tokens = self.inlet(_tokens(self.norm(x)))
        tokens = tokens + self.attention(self.norm1(tokens))
        tokens = tokens + self.cross(self.norm2(tokens), context, mask)
        tokens = tokens + self.mlp(self.norm3(tokens))
        return x + _placed(self.outlet(tokens), x)


class Block(nn.Module):
    """A residual block and, where the level has it, attention."""

    def __init__(self, config: UNetConfig, c_in: int, c_out: int, attention: bool):
        super().__init__()
        self.residual = _residual(config, c_in, c_out)
        self.attention = _attention(config, c_out) if attention else None

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        x = self.residual(x, embedding)
        return x if self.attention is None else self.attention(x, context, mask)


def _attention(config: UNetConfig, width: int) -> nn.Module:
    heads, context = config.heads_of(width), config.context_width
    if config.grouped:
        return AttentionBlock(width, heads, context, config.own, head_width=2 * width // heads)
    return SpatialTransformer(width, heads, context) if config.transformer else AttentionBlock(width, heads, context, config.own)


def _residual(config: UNetConfig, c_in: int, c_out: int, resample: Callable[[Tensor], Tensor] | None = None) -> ResidualBlock:
    return ResidualBlock(config.axes, c_in, c_out, config.embedding, config.dropout, scales=config.scales, resample=resample)


class ModulatedAttention(nn.Module):
    """Attention over all positions, or over the text alone, then a small network, each a residual branch after a modulated norm."""

    def __init__(self, config: UNetConfig, width: int, context_width: int | None = None):
        super().__init__()
        self.norm1, self.norm2 = (ModulatedNorm(width, config.embedding) for _ in range(2))
        self.attention = Attention(width, config.heads_of(width), context_width, bias=False, own=context_width is None)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width, bias=False), nn.SiLU(), nn.Linear(4 * width, width, bias=False))
        zeroed(self.attention.out)
        zeroed(self.mlp[-1])

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        words = (None, None) if self.attention.own else (context, mask)
        x = x + _placed(self.attention(_tokens(self.norm1(x, embedding)), *words), x)
        return x + _placed(self.mlp(_tokens(self.norm2(x, embedding))), x)


class BottleneckPair(nn.Module):
    """Two bottlenecks with attention to the text, where the level has it, between them."""

    def __init__(
        self, config: UNetConfig, c_in: int, width: int, c_out: int, attends: bool, *, doubles: bool = False, halves: bool = False
    ):
        super().__init__()
        self.before = BottleneckBlock(config.axes, c_in, width, config.embedding, doubles=doubles)
        self.attention = ModulatedAttention(config, width, config.context_width) if attends and config.context_width else None
        self.after = BottleneckBlock(config.axes, width, c_out, config.embedding, halves=halves)

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        x = self.before(x, embedding)
        x = x if self.attention is None else self.attention(x, embedding, context, mask)
        return self.after(x, embedding)


class Level(nn.ModuleList):
    """What one level does, one layer after the other; only what comes out of the last goes along a long skip."""

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        for layer in self:
            x = layer(x) if isinstance(layer, Downsample | Upsample) else layer(x, embedding, context, mask)
        return x


def _levels(config: UNetConfig) -> tuple[list[Level], list[Level]]:
    """The way down from the finest level, and the way up to it: mirror images, but for the skip that enters where places double."""
    down, up = [], []
    for level, (narrow, wide) in enumerate(pairwise((config.first, *config.widths))):
        attends, depth, resamples = config.attention[level], config.depths[level], level < len(config.widths) - 1
        there: list[nn.Module] = [ModulatedAttention(config, narrow)] if attends else []
        for i, (a, b) in enumerate(pairwise([narrow] + [wide] * depth)):
            there.append(BottleneckPair(config, a, b, b, attends, halves=resamples and i == depth - 1))
        back: list[nn.Module] = []
        for i, (a, b) in enumerate(pairwise([(1 + resamples) * wide] + [wide] * (depth - 1) + [narrow])):
            back.append(BottleneckPair(config, a, a, b, attends, doubles=resamples and i == 0))
        back += [ModulatedAttention(config, narrow)] if attends else []
        down.append(Level(there))
        up.append(Level(back))
    return down, up


def _groups(config: UNetConfig) -> tuple[list[Level], list[Level]]:
    """The same two ways of plain blocks, of each level's only the last with attention."""
    down, up = [], []
    for level, (narrow, wide) in enumerate(pairwise((config.first, *config.widths))):
        attends, depth, skipped = config.attention[level], config.depths[level], level < len(config.widths) - 1
        there, back = (
            [Block(config, first if i == 0 else wide, wide, attends and i == depth - 1) for i in range(depth)]
            for first in (wide, (1 + skipped) * wide)
        )
        down.append(Level([Downsample(config.axes, narrow, wide), *there]))
        up.append(Level([*back, Upsample(config.axes, wide, narrow)]))
    return down, up


class WordPool(nn.Module):
    """What words say together, their mean asking them all: (b, n, width), mask (b, n) -> (b, out), zeros where there is no word."""

    def __init__(self, width: int, out: int, heads: int):
        super().__init__()
        self.attention = Attention(width, heads, width, bias=False, head_width=out // heads, own=False, out_width=out)

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        there = mask[..., None]
        mean = (words * there).sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp_min(1)
        return self.attention(mean, words, mask)[:, 0]


class ConditionEmbedding(nn.Module):
    """Noise level, pooled text, label and augmentation, added into the one vector that modulates every block: (b, embedding)."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.level = LevelEmbedding(config.embedding, scale=config.levels)
        self.text = nn.Linear(config.text_width, config.embedding) if config.text_width and not config.reads else None
        self.pool = WordPool(config.reads, config.embedding, config.heads_of(config.embedding)) if config.reads else None
        self.label = silent(config.labels + 1, config.embedding) if config.labels else None  # row 0 is NO_LABEL
        self.augmentation = LevelEmbedding(config.embedding) if config.augmented else None

    def forward(self, c_noise: Tensor, condition: Condition) -> Tensor:
        embedding = self.level(c_noise)
        if self.text is not None and condition.text is not None:
            pooled = condition.text.pooled  # unit vectors: brought to unit variance per dimension
            embedding = embedding + self.text(pooled * pooled.shape[-1] ** 0.5)
        if self.pool is not None and condition.text is not None:
            embedding = embedding + self.pool(condition.text.tokens, condition.text.mask)
        if self.label is not None and condition.label is not None:
            embedding = embedding + self.label(condition.label + 1)
        if self.augmentation is not None:
            embedding = embedding + self.augmentation(condition.extra["augmentation"])
        return embedding


class UNet(Part):
    """x (b, channels, *spatial), c_noise (b,), condition -> (b, channels, *spatial).

    Every spatial size must divide by patch * 2 ** (levels - 1). One level makes it a flat stack with long skips.
    """

    Config = UNetConfig

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        first, last = config.first, config.widths[-1]
        self.condition = ConditionEmbedding(config)
        self.words = None
        if config.reads:
            self.words = nn.Sequential(nn.Linear(config.text_width, config.reads, bias=False), nn.LayerNorm(config.reads))
        pixels = config.patch**config.axes
        self.inlet = convolution(config.axes, (config.channels + config.given) * pixels, first)
        self.middle: Block | Level
        self.closing: Block | Level | None
        if config.bottleneck or config.grouped:
            (*down, self.middle), (*up, self.closing) = _groups(config) if config.grouped else _levels(config)
            self.down, self.up = nn.ModuleList(down), nn.ModuleList(reversed(up))
        else:
            self.down, skips = self._down(config, first)
            self.middle = Block(config, last, last, config.bottom)
            self.closing = Block(config, last, last, False) if config.closing else None
            self.up = self._up(config, last, skips)
        outlet = zeroed(convolution(config.axes, first, config.channels * pixels))
        self.outlet = nn.Sequential(GroupNorm(first), nn.SiLU(), outlet)

    def check_size(self, size: int, stride: int = 1) -> None:
        """Raises UserError where pictures of this size, `stride` times smaller here, do not divide down to the coarsest level."""
        if size % (whole := stride * self.config.patch * 2 ** (len(self.config.widths) - (not self.config.grouped))):
            raise UserError(f"size {size} is not a multiple of {whole}: use {max(1, size // whole) * whole}")

    @staticmethod
    def _down(config: UNetConfig, width: int) -> tuple[nn.ModuleList, list[int]]:
        layers, skips, block = nn.ModuleList(), [width], config.resample == "block"
        for level, (wide, attends) in enumerate(zip(config.widths, config.attention, strict=True)):
            if level:
                half = wide if config.resample == "widening" else width
                layers.append(_residual(config, width, half, halved) if block else Downsample(config.axes, width, half))
                width = half
                skips.append(width)
            for _ in range(config.depths[level]):
                layers.append(Block(config, width, wide, attends))
                width = wide
                skips.append(width)
        return layers, skips

    @staticmethod
    def _up(config: UNetConfig, width: int, skips: list[int]) -> nn.ModuleList:
        layers, skips, block = nn.ModuleList(), list(skips), config.resample == "block"
        for level, (wide, attends) in reversed(list(enumerate(zip(config.widths, config.attention, strict=True)))):
            for _ in range(config.depths[level] + 1):
                layers.append(Block(config, width + skips.pop(), wide, attends))
                width = wide
            if level:
                finer = config.widths[level - 1] if config.resample == "widening" else width
                layers.append(_residual(config, width, finer, doubled) if block else Upsample(config.axes, width, finer))
                width = finer
        return layers

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        if self.words is not None and condition.text is not None:
            condition = replace(condition, text=condition.text._replace(tokens=self.words(condition.text.tokens)))
        embedding = self.condition(c_noise, condition)
        text: tuple[Tensor | None, Tensor | None] = (None, None)
        if self.config.text_width and condition.text is not None:
            text = (condition.text.tokens, condition.text.mask)

        def through(layer: nn.Module, x: Tensor) -> Tensor:
            if isinstance(layer, Block | Level):
                return layer(x, embedding, *text)
            return layer(x, embedding) if isinstance(layer, ResidualBlock) else layer(x)

        if self.config.given:
            assert condition.image is not None, "this network follows a picture"
            x = torch.cat([x, condition.image], 1)
        x = self.inlet(fold(x, self.config.patch))
        skips = [x]
        for layer in self.down:
            x = through(layer, x)
            skips.append(x)
        x = through(self.middle, x)
        x = x if self.closing is None else through(self.closing, x)
        for layer in self.up:
            x = through(layer, torch.cat([x, self.config.skip * skips.pop()], 1) if isinstance(layer, Block | Level) else x)
        return unfold(self.outlet(x), self.config.patch)


def widened(network: UNet, given: int) -> UNet:
    """The same network with `given` channels beside its input, which change nothing until they are trained (Nichol et al. 2022, sec. 2.5)."""
    wide, state = UNet(replace(network.config, given=given)), network.state_dict()
    weight = torch.zeros_like(wide.state_dict()["inlet.weight"])  # x's own channels come first, folded or not
    weight[:, : state["inlet.weight"].shape[1]] = state["inlet.weight"]
    state["inlet.weight"] = weight
    wide.load_state_dict(state)
    return wide
