"""CLIP in miniature: pictures and sentences in one space, by telling which sentence goes with which picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diorama import cards
from diorama.conditions.text import SentenceEncoder
from diorama.errors import UserError
from diorama.networks.attention import Attention
from diorama.networks.layers import Downsample, GroupNorm, ResidualBlock, convolution
from diorama.parts import Part
from diorama.systems.base import System, TakePart
from diorama.types import NO_LABEL, Batch, Noise, TextEmbedding

SAME = 1e-2  # sentences whose unit vectors are nearer than this are one sentence (half-precision caches move them by 1e-4)
SCALE = math.log(1 / 0.07)  # where the logarithm of the inverse temperature starts (Radford et al. 2021, sec. 2.5)
LARGEST = math.log(100)


@dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """Shape of the image tower: `patch` pixels along each axis enter as channels, then one level per width."""

    size: int = 64  # pixels along a side
    patch: int = 4
    widths: tuple[int, ...] = (48, 96, 192)
    depth: int = 1  # residual blocks per level
    heads: int = 4
    dropout: float = 0.1

    @property
    def stride(self) -> int:
        return self.patch * 2 ** (len(self.widths) - 1)


class ImageTower(Part):
    """A convolutional tower and CLIP's attention pool: pictures (b, 3, size, size) in [-1, 1] -> features (b, d)."""

    Config = TowerConfig

    def __init__(self, config: TowerConfig):
        super().__init__()
        if config.size % config.stride:
            whole = -(-config.size // config.stride) * config.stride
            raise UserError(f"size {config.size} is not a multiple of {config.stride}: use {whole}")
        self.config, widths = config, config.widths
        layers: list[nn.Module] = [nn.PixelUnshuffle(config.patch), convolution(2, 3 * config.patch**2, widths[0])]
        for level, width in enumerate(widths):
            if level:
                layers.append(Downsample(2, widths[level - 1], width))
            layers += [ResidualBlock(2, width, width) for _ in range(config.depth)]
        self.trunk = nn.Sequential(*layers, GroupNorm(widths[-1]), nn.SiLU())
        self.pool = AttentionPool(widths[-1], (config.size // config.stride) ** 2, config.heads)
        self.dropout = nn.Dropout(config.dropout)

    @property
    def width(self) -> int:
        return self.config.widths[-1]

    def forward(self, image: Tensor) -> Tensor:
        return self.dropout(self.pool(self.trunk(image).flatten(2).transpose(1, 2)))


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


@dataclass(eq=False)
class Clip(System):
    """Pictures and sentences to unit vectors of one space (Radford et al. 2021), and a picture's style beside.

    The sentence tower is a frozen pretrained one with a small network on top: a few thousand captions teach no English.
    """

    image: ImageTower
    text: SentenceEncoder
    heads: Heads
    style: StyleTower
    styles: tuple[str, ...] = ()

    card: ClassVar[cards.Card] = cards.CLIP

    def __post_init__(self) -> None:
        self.text.requires_grad_(False).eval()

    @classmethod
    def build(cls, text: SentenceEncoder, styles: Sequence[str], tower: TowerConfig | None = None) -> Clip:
        """A new, untrained system around a trained sentence encoder."""
        image = ImageTower(tower or TowerConfig())
        heads = Heads(HeadsConfig(image_width=image.width, text_width=text.config.width))
        return cls(image, text, heads, StyleTower(StyleConfig(styles=max(1, len(styles)))), tuple(styles))

    @classmethod
    def new(cls, *, preset: str, size: int, labels: Sequence[str], part: TakePart) -> Clip:
        return cls.build(part("text", SentenceEncoder), labels, TowerConfig(size=size))

    # --- training ---------------------------------------------------------------------------------

    def look(self, batch: Batch, noise: Noise) -> Tensor:
        """For each caption the picture of the batch that fits it best: the batch itself, once everything is learned."""
        best = (self.encode_text(batch.text) @ self.encode_image(batch.image).T).argmax(1)
        return batch.image[best.cpu()]

    def encode(self, batch: Batch) -> Batch:
        """The batch with what never changes while training: its pictures at the tower's size and its sentences."""
        latent = self.fit(batch.image) if batch.latent is None else batch.latent
        embedding = self.text(list(batch.text)) if batch.embedding is None else batch.embedding
        return replace(batch, latent=latent, embedding=embedding)

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        terms = self.terms(batch, noise)
        return terms["contrast"] + terms["style"]

    def terms(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """`contrast` and `style`, each (b,) in nats. They share no weights."""
        with torch.no_grad():
            batch = self.encode(batch)
        assert batch.latent is not None
        assert batch.embedding is not None
        image = batch.latent.to(self.device).float()
        embedding = TextEmbedding(*(part.to(self.device) for part in batch.embedding))
        moved, softened = (augment(image, noise), soften(image, noise)) if self.training else (image, image)
        similarity = self.heads.picture(self.image(moved)) @ self.heads.text(embedding).T
        contrast = info_nce(self.heads.scale * similarity, same(embedding.pooled))
        return {"contrast": contrast, "style": self._style_loss(softened, batch.label)}

    def _style_loss(self, image: Tensor, label: Tensor | None) -> Tensor:
        if not self.styles or label is None:
            return image.new_zeros(len(image))
        return F.cross_entropy(self.style(image), label.to(image.device), ignore_index=NO_LABEL, reduction="none")

    # --- use --------------------------------------------------------------------------------------

    def fit(self, image: Tensor) -> Tensor:
        """(b, c >= 3, h, w) in [-1, 1], the picture on white first -> (b, 3, size, size) by averages over areas."""
        size = self.image.config.size
        return F.interpolate(image[:, :3].to(self.device), (size, size), mode="area")

    def features(self, image: Tensor) -> Tensor:
        """What the tower sees, before either head: (b, d), differentiable in the picture. Distances are taken here."""
        return self.image(self.fit(image)).float()

    def encode_image(self, image: Tensor) -> Tensor:
        """(b, c >= 3, h, w) -> (b, d) of length 1, differentiable in the picture."""
        return self.heads.picture(self.features(image))

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Sentences -> (b, d) of length 1."""
        return self.heads.text(self.text(texts))

    def style_of(self, image: Tensor) -> Tensor:
        """Which of `styles` each picture (b, c >= 3, h, w) has, (b,) int64."""
        if not self.styles:
            raise UserError("this scorer was trained without styles: train it on data with a style or label column")
        return self.style(self.fit(image)).argmax(-1)


def same(pooled: Tensor) -> Tensor:
    """Which sentences of a batch are one sentence: (b, d) unit vectors -> (b, b) bool."""
    p = pooled.float()
    return torch.cdist(p, p, compute_mode="donot_use_mm_for_euclid_dist") < SAME


def info_nce(logits: Tensor, same: Tensor) -> Tensor:
    """Symmetric cross-entropy of the diagonal (van den Oord et al. 2018; Radford et al. 2021, fig. 3): (b, b) -> (b,).

    Pairs with the same sentence as the row's own are no negatives, so they stand in neither denominator.
    """
    diagonal = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    logits = logits.float().masked_fill(same & ~diagonal, -math.inf)
    right = torch.arange(len(logits), device=logits.device)
    of_pictures = F.cross_entropy(logits, right, reduction="none")
    of_sentences = F.cross_entropy(logits.T, right, reduction="none")
    return (of_pictures + of_sentences) / 2


def augment(image: Tensor, noise: Noise) -> Tensor:
    """Pictures on white (b, 3, h, w) moved, scaled and tinted a little. Not mirrored: letters, flags and arrows have a side."""
    u = 2 * noise.uniform(6) - 1  # (b, 6)
    theta = image.new_zeros(len(image), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = (0.15 * u[:, 0]).exp()
    theta[:, :, 2] = 0.12 * u[:, 1:3]
    grid = F.affine_grid(theta, list(image.shape), align_corners=False)
    ink = F.grid_sample(1 - image, grid, align_corners=False)  # ink on white: what comes in from outside is white
    return (1 - ink * (1 + 0.1 * u[:, 3:, None, None])).clamp(-1, 1)


def soften(image: Tensor, noise: Noise) -> Tensor:
    """Pictures blurred by up to half, as a codec may blur them; not moved, since resampling would smear what tells styles apart."""
    strength = 0.5 * noise.uniform()[:, None, None, None]
    blurred = F.avg_pool2d(F.pad(image, (1, 1, 1, 1), value=1.0), 3, 1)
    return torch.lerp(image, blurred, strength)
