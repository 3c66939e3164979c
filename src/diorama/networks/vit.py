"""The vision transformer (Dosovitskiy et al. 2021), and the small one that paints what it did not see (He et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
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
    window: int = 0  # patches along a side of the window that a block looks at; 0 is the whole picture
    whole: int = 4  # where there are windows: blocks, evenly spread, that look at the whole picture (Li et al. 2022, sec. 3)

    @property
    def side(self) -> int:
        return self.size // self.patch

    @property
    def places(self) -> int:
        return self.side**2


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
        if seen is not None or not self.config.window:  # a few patches have no windows
            return self.transformer(x)
        every = self.config.depth // self.config.whole
        for i, block in enumerate(self.transformer.blocks, 1):
            x = block(x) if i % every == 0 else self._within(block, x)
        return self.transformer.norm(x)

    def _within(self, block: nn.Module, x: Tensor) -> Tensor:
        """One block, of whose tokens each looks at its own window alone; what windows reach beyond the picture is not seen."""
        side, window = self.config.side, self.config.window
        beyond = -side % window
        x = F.pad(x.unflatten(1, (side, side)), (0, 0, 0, beyond, 0, beyond))
        there = F.pad(x.new_ones(len(x), side, side, 1, dtype=torch.bool), (0, 0, 0, beyond, 0, beyond))
        cut = "b (y v) (x u) d -> (b y x) (v u) d"
        x, there = (rearrange(part, cut, v=window, u=window) for part in (x, there))
        n = (side + beyond) // window
        x = rearrange(block(x, there[..., 0]), "(b y x) (v u) d -> b (y v) (x u) d", y=n, x=n, v=window)
        return x[:, :side, :side].flatten(1, 2)


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
