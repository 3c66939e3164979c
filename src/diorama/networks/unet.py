"""The U-Net of diffusion models (Ho et al. 2020; Dhariwal & Nichol 2021), for sound, pictures and volumes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diorama.networks.attention import Attention
from diorama.networks.layers import (
    Downsample,
    GroupNorm,
    LevelEmbedding,
    ResidualBlock,
    Upsample,
    convolution,
    fold,
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
    depth: int = 2  # blocks per level on the way down, and on the way up
    attention: tuple[bool, ...] = (False, True)
    heads: int = 4
    text_width: int = 0  # of the text tokens and the pooled vector; 0 means no text
    labels: int = 0  # classes or styles; 0 means none
    embedding: int = 512  # width of what modulates every block
    dropout: float = 0.0
    axes: int = 2
    levels: float = 1000.0  # scale of c_noise: what a flow's time, 0 to 1, asks for; a tenth does for the logarithm of EDM
    patch: int = 1  # pixels along each axis that enter and leave as channels, where no layer need work at full size


class AttentionBlock(nn.Module):
    """Attention over all positions and the text beside them, as a residual branch."""

    def __init__(self, width: int, heads: int, context_width: int | None):
        super().__init__()
        self.norm = GroupNorm(width)
        self.attention = Attention(width, heads, context_width)
        zeroed(self.attention.out)

    def forward(self, x: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        return x + self.attention(tokens, context, mask).transpose(1, 2).reshape(x.shape)


class Block(nn.Module):
    """A residual block and, where the level has it, attention."""

    def __init__(self, config: UNetConfig, c_in: int, c_out: int, attention: bool):
        super().__init__()
        self.residual = ResidualBlock(config.axes, c_in, c_out, config.embedding, config.dropout)
        self.attention = AttentionBlock(c_out, config.heads, config.text_width or None) if attention else None

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        x = self.residual(x, embedding)
        return x if self.attention is None else self.attention(x, context, mask)


class ConditionEmbedding(nn.Module):
    """Noise level, pooled text and label, added into the one vector that modulates every block: (b, embedding)."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.level = LevelEmbedding(config.embedding, scale=config.levels)
        self.text = nn.Linear(config.text_width, config.embedding) if config.text_width else None
        self.label = silent(config.labels + 1, config.embedding) if config.labels else None  # row 0 is NO_LABEL

    def forward(self, c_noise: Tensor, condition: Condition) -> Tensor:
        embedding = self.level(c_noise)
        if self.text is not None and condition.text is not None:
            pooled = condition.text.pooled  # unit vectors: brought to unit variance per dimension
            embedding = embedding + self.text(pooled * pooled.shape[-1] ** 0.5)
        if self.label is not None and condition.label is not None:
            embedding = embedding + self.label(condition.label + 1)
        return embedding


class UNet(Part):
    """x (b, channels, *spatial), c_noise (b,), condition -> (b, channels, *spatial).

    Every spatial size must divide by patch * 2 ** (levels - 1). One level makes it a flat stack with long skips.
    """

    Config = UNetConfig

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        first, last = config.widths[0], config.widths[-1]
        self.condition = ConditionEmbedding(config)
        inside = config.channels * config.patch**config.axes
        self.inlet = convolution(config.axes, inside, first)
        self.down, skips = self._down(config, first)
        self.middle = Block(config, last, last, True)
        self.up = self._up(config, last, skips)
        self.outlet = nn.Sequential(GroupNorm(first), nn.SiLU(), zeroed(convolution(config.axes, first, inside)))

    @staticmethod
    def _down(config: UNetConfig, width: int) -> tuple[nn.ModuleList, list[int]]:
        layers, skips = nn.ModuleList(), [width]
        for level, (wide, attends) in enumerate(zip(config.widths, config.attention, strict=True)):
            if level:
                layers.append(Downsample(config.axes, width, wide))
                width = wide
                skips.append(width)
            for _ in range(config.depth):
                layers.append(Block(config, width, wide, attends))
                width = wide
                skips.append(width)
        return layers, skips

    @staticmethod
    def _up(config: UNetConfig, width: int, skips: list[int]) -> nn.ModuleList:
        layers, skips = nn.ModuleList(), list(skips)
        for level, (wide, attends) in reversed(list(enumerate(zip(config.widths, config.attention, strict=True)))):
            for _ in range(config.depth + 1):
                layers.append(Block(config, width + skips.pop(), wide, attends))
                width = wide
            if level:
                layers.append(Upsample(config.axes, width, config.widths[level - 1]))
                width = config.widths[level - 1]
        return layers

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        embedding = self.condition(c_noise, condition)
        text: tuple[Tensor | None, Tensor | None] = (None, None)
        if self.config.text_width and condition.text is not None:
            text = (condition.text.tokens, condition.text.mask)
        x = self.inlet(fold(x, self.config.patch))
        skips = [x]
        for layer in self.down:
            x = layer(x, embedding, *text) if isinstance(layer, Block) else layer(x)
            skips.append(x)
        x = self.middle(x, embedding, *text)
        for layer in self.up:
            x = layer(torch.cat([x, skips.pop()], 1), embedding, *text) if isinstance(layer, Block) else layer(x)
        return unfold(self.outlet(x), self.config.patch)
