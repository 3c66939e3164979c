"""Towers that look at pictures, and the heads that bring them into one space with sentences (Radford et al. 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diorama.errors import UserError
from diorama.networks.attention import Attention
from diorama.networks.layers import Downsample, GroupNorm, LevelEmbedding, ResidualBlock, convolution
from diorama.parts import Part
from diorama.types import TextEmbedding

SCALE = math.log(1 / 0.07)  # where the logarithm of the inverse temperature starts (Radford et al. 2021, sec. 2.5)
LARGEST = math.log(100)


@dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """Shape of the image tower: `patch` pixels along each axis enter as channels, then one level per width."""

    size: int = 64  # pixels along a side
    patch: int = 4
    widths: tuple[int, ...] = (48, 96, 192)
    depth: int = 1  # residual blocks per level
    heads: int = 4  # of the attention that pools; 0 takes each feature where it is strongest, which finds small things sooner
    dropout: float = 0.1
    embedding: int = 0  # width of the noise level's embedding; 0 where it only ever sees clean pictures

    @property
    def stride(self) -> int:
        return self.patch * 2 ** (len(self.widths) - 1)


class ImageTower(Part):
    """A convolutional tower and a pool over its places: pictures (b, 3, size, size) in [-1, 1] -> features (b, d).

    One that knows of noise takes noisy pictures of unit variance and their c_noise (b,).
    """

    Config = TowerConfig

    def __init__(self, config: TowerConfig):
        super().__init__()
        if config.size % config.stride:
            whole = -(-config.size // config.stride) * config.stride
            raise UserError(f"size {config.size} is not a multiple of {config.stride}: use {whole}")
        self.config, widths = config, config.widths
        self.level = LevelEmbedding(config.embedding, scale=100.0) if config.embedding else None
        layers: list[nn.Module] = [nn.PixelUnshuffle(config.patch), convolution(2, 3 * config.patch**2, widths[0])]
        for level, width in enumerate(widths):
            if level:
                layers.append(Downsample(2, widths[level - 1], width))
            layers += [ResidualBlock(2, width, width, config.embedding or None) for _ in range(config.depth)]
        self.trunk = nn.Sequential(*layers, GroupNorm(widths[-1]), nn.SiLU())
        places = (config.size // config.stride) ** 2
        self.pool = AttentionPool(widths[-1], places, config.heads) if config.heads else StrongestPool(widths[-1])
        self.dropout = nn.Dropout(config.dropout)

    @property
    def width(self) -> int:
        return self.config.widths[-1]

    def fit(self, image: Tensor) -> Tensor:
        """(b, c >= 3, h, w) in [-1, 1], the picture on white first -> (b, 3, size, size) by averages over areas."""
        return F.interpolate(image[:, :3], (self.config.size, self.config.size), mode="area")

    def forward(self, image: Tensor, c_noise: Tensor | None = None) -> Tensor:
        x, embedding = image, None if self.level is None or c_noise is None else self.level(c_noise)
        for layer in self.trunk:
            x = layer(x, embedding) if isinstance(layer, ResidualBlock) else layer(x)
        return self.dropout(self.pool(x.flatten(2).transpose(1, 2)))


class StrongestPool(nn.Module):
    """Each feature from the place where it is largest: (b, n, d) -> (b, d)."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.amax(1))


class AttentionPool(nn.Module):
    """The mean token asks all places, itself included (Radford et al. 2021, sec. 2.4): (b, n, d) -> (b, d)."""

    def __init__(self, width: int, places: int, heads: int):
        super().__init__()
        self.places = nn.Parameter(torch.randn(places + 1, width) * width**-0.5)
        self.attention = Attention(width, heads)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        asked = self.attention(torch.cat([mean, x], 1) + self.places)[:, 0]
        return self.norm(asked + mean[:, 0])


@dataclass(frozen=True, kw_only=True)
class HeadsConfig:
    """What stands on the two towers: the shared space."""

    image_width: int = 192
    text_width: int = 384
    hidden: int = 384
    width: int = 192  # of the shared space
    dropout: float = 0.1


class Heads(Part):
    """Features of pictures and of sentences into the shared space, and the temperature between them."""

    Config = HeadsConfig

    def __init__(self, config: HeadsConfig):
        super().__init__()
        self.config = config
        self.image = nn.Linear(config.image_width, config.width, bias=False)
        self.tokens = nn.Linear(config.text_width, config.hidden)
        self.pooled = nn.Linear(config.text_width, config.hidden)
        self.sentence = nn.Linear(2 * config.hidden, config.width, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.warmer = nn.Parameter(torch.zeros(()))  # from the start's temperature on: weight decay pulls back to it, not to 1

    def picture(self, features: Tensor) -> Tensor:
        """(b, image_width) -> (b, width) of length 1."""
        return F.normalize(self.image(features).float(), dim=-1)

    def text(self, embedding: TextEmbedding) -> Tensor:
        """What a sentence means as a whole beside what its words mean one by one: (b, width) of length 1."""
        tokens, mask, pooled = embedding
        words = (F.gelu(self.tokens(tokens)) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp_min(1)
        whole = F.gelu(self.pooled(pooled * pooled.shape[-1] ** 0.5))  # entries of size 1, as the tokens have
        return F.normalize(self.sentence(self.dropout(torch.cat([words, whole], -1))).float(), dim=-1)

    @property
    def scale(self) -> Tensor:
        """The inverse temperature, at most 100."""
        return (SCALE + self.warmer).clamp_max(LARGEST).exp()


@dataclass(frozen=True, kw_only=True)
class StyleConfig:
    """Shape of the style tower: it works at 1 / patch of the size, where texture and edges are."""

    styles: int
    patch: int = 2
    width: int = 32
    depth: int = 1
    hidden: int = 128
    dropout: float = 0.2


class StyleTower(Part):
    """How a picture is drawn, whatever it shows: statistics of fine features over all places (Gatys et al. 2016) -> (b, styles).

    A tower of its own. On CLIP's features the logits learn which styles each concept was trained in, and so are wrong exactly
    where a concept was held out in one; measured on the emoji, 0.52 of the held-out pictures right.
    """

    Config = StyleConfig

    def __init__(self, config: StyleConfig):
        super().__init__()
        self.config, width = config, config.width
        blocks = [ResidualBlock(2, width, width) for _ in range(config.depth)]
        self.trunk = nn.Sequential(nn.PixelUnshuffle(config.patch), convolution(2, 3 * config.patch**2, width), *blocks)
        self.head = nn.Sequential(
            nn.LayerNorm(2 * width),
            nn.Linear(2 * width, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.styles),
        )

    def forward(self, image: Tensor) -> Tensor:
        features = self.trunk(image).float().flatten(2)
        return self.head(torch.cat([features.mean(-1), features.std(-1)], -1)).float()
