"""The vision transformer (Dosovitskiy et al. 2021), and the small one that paints what it did not see (He et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diorama.networks.layers import fold
from diorama.networks.transformer import Transformer, TransformerConfig
from diorama.parts import Part


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """Sizes of the stack, and of the pictures it looks at."""

    channels: int = 3
    size: int = 64  # pixels along a side
    patch: int = 4
    width: int = 128
    depth: int = 6
    heads: int = 4

    @property
    def places(self) -> int:
        return (self.size // self.patch) ** 2


def patches(image: Tensor, patch: int) -> Tensor:
    """(b, c, *spatial) -> (b, n, c * patch ** axes), row by row."""
    return fold(image, patch).flatten(2).mT


class ViT(Part):
    """Pictures (b, channels, size, size) in [-1, 1] -> tokens (b, n, d), one per patch, or of the patches `seen` (b, m) alone."""

    Config = ViTConfig

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.config, width = config, config.width
        self.inlet = nn.Linear(config.channels * config.patch**2, width)
        self.places = nn.Parameter(0.02 * torch.randn(config.places, width))
        self.transformer = Transformer(TransformerConfig(width=width, depth=config.depth, heads=config.heads))

    def forward(self, image: Tensor, seen: Tensor | None = None) -> Tensor:
        x = self.inlet(patches(image, self.config.patch)) + self.places
        if seen is not None:
            x = x.gather(1, seen[..., None].expand(-1, -1, x.shape[-1]))
        return self.transformer(x)


@dataclass(frozen=True, kw_only=True)
class PainterConfig:
    """Sizes of the small stack; the last three are those of the encoder before it."""

    width: int = 64
    depth: int = 2
    heads: int = 4
    given: int = 128  # width of the tokens it is given
    places: int = 256
    values: int = 48  # numbers of a patch


class Painter(Part):
    """Tokens (b, m, given) of the patches `seen` (b, m) -> all patches (b, places, values) (He et al. 2022, sec. 3)."""

    Config = PainterConfig

    def __init__(self, config: PainterConfig):
        super().__init__()
        self.config, width = config, config.width
        self.inlet = nn.Linear(config.given, width)
        self.unseen = nn.Parameter(torch.zeros(width))
        self.places = nn.Parameter(0.02 * torch.randn(config.places, width))
        self.transformer = Transformer(TransformerConfig(width=width, depth=config.depth, heads=config.heads))
        self.head = nn.Linear(width, config.values)

    def forward(self, tokens: Tensor, seen: Tensor) -> Tensor:
        tokens = self.inlet(tokens)
        x = self.unseen.to(tokens).expand(len(tokens), *self.places.shape)
        x = x.scatter(1, seen[..., None].expand_as(tokens), tokens) + self.places
        return self.head(self.transformer(x))
