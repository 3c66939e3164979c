"""CLIP in miniature: pictures and sentences in one space, by telling which sentence goes with which picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from diorama import cards
from diorama.conditions.caption import CaptionEncoder
from diorama.conditions.text import SentenceEncoder, TextTower
from diorama.critics.contrastive import info_nce, same
from diorama.data.augment import augment, soften
from diorama.errors import UserError
from diorama.networks.layers import broadcast
from diorama.networks.towers import Heads, HeadsConfig, ImageTower, StyleConfig, StyleTower, TowerConfig
from diorama.processes.levels import LogNormal
from diorama.processes.scalings import seen
from diorama.systems.base import System, TakePart
from diorama.types import NO_LABEL, Batch, Noise, TextEmbedding

_NANO = TowerConfig(patch=2, widths=(32, 64, 128), heads=0, dropout=0.0)
PRESETS = {"nano": _NANO, "noisy": replace(_NANO, embedding=128), "mini": TowerConfig()}


@dataclass(eq=False)
class Clip(System):
    """Pictures and sentences to unit vectors of one space (Radford et al. 2021), and a picture's style beside.

    The sentence tower is a frozen pretrained one with a small network on top (a few thousand captions teach no English), or, in the
    `nano` preset, one that learns its words with the rest. `noisy` is `nano` at any level of noise: it can lead a diffusion
    (Nichol et al. 2022, sec. 2.4).
    """

    image: ImageTower
    text: TextTower
    heads: Heads
    style: StyleTower
    styles: tuple[str, ...] = ()

    card: ClassVar[cards.Card] = cards.CLIP
    law: ClassVar[LogNormal] = LogNormal(0.0, 2.0)  # of the noise, where it knows of any: as wide as a sampler's way from 80 down

    @classmethod
    def build(cls, text: TextTower, styles: Sequence[str], tower: TowerConfig | None = None) -> Clip:
        """A new, untrained system around a trained sentence encoder."""
        image = ImageTower(tower or TowerConfig())
        heads = Heads(HeadsConfig(image_width=image.width, text_width=text.config.width))
        return cls(image, text, heads, StyleTower(StyleConfig(styles=max(1, len(styles)))), tuple(styles))

    @classmethod
    def new(cls, *, preset: str, size: int, labels: Sequence[str], part: TakePart) -> Clip:
        if preset not in PRESETS:
            raise UserError(f"preset {preset!r} is not known: use {', '.join(PRESETS)}")
        text = part("text", SentenceEncoder if preset == "mini" else CaptionEncoder)
        return cls.build(text, labels, replace(PRESETS[preset], size=size))

    # --- training ---------------------------------------------------------------------------------

    def look(self, batch: Batch, noise: Noise) -> Tensor:
        """For each caption the picture of the batch that fits it best: the batch itself, once everything is learned."""
        best = (self.encode_text(batch.text) @ self.encode_image(batch.image).T).argmax(1)
        return batch.image[best.cpu()]

    @property
    def known_labels(self) -> tuple[str, ...]:
        return self.styles

    def encode(self, batch: Batch) -> Batch:
        """The batch with what never changes while training: its pictures at the tower's size and, from a frozen tower, its sentences."""
        latent = self.fit(batch.image) if batch.latent is None else batch.latent
        embedding = self.text(list(batch.text)) if batch.embedding is None and self.text.frozen else batch.embedding
        return replace(batch, latent=latent, embedding=embedding)

    @property
    def cacheable(self) -> bool:
        return self.text.frozen

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        terms = self.terms(batch, noise)
        return terms["contrast"] + terms["style"]

    def terms(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """`contrast` and `style`, each (b,) in nats. They share no weights."""
        with torch.no_grad():
            batch = self.encode(batch)
        assert batch.latent is not None
        image = batch.latent.to(self.device).float()
        text = self.text(list(batch.text)) if batch.embedding is None else batch.embedding
        embedding = TextEmbedding(*(part.to(self.device) for part in text))
        moved, softened = (augment(image, noise), soften(image, noise)) if self.training else (image, image)
        similarity = self.heads.picture(self._features(*self._noised(moved, noise))) @ self.heads.text(embedding).T
        contrast = info_nce(self.heads.scale * similarity, same(embedding.pooled.detach()))
        return {"contrast": contrast, "style": self._style_loss(softened, batch.label)}

    def _noised(self, x: Tensor, noise: Noise) -> tuple[Tensor, Tensor | None]:
        """x + sigma noise and sigma (b,), where the tower knows of noise."""
        if not self.knows_noise:
            return x, None
        sigma = self.law(noise)
        return x + broadcast(sigma, x) * noise.normal(*x.shape[1:]), sigma

    def _style_loss(self, image: Tensor, label: Tensor | None) -> Tensor:
        if not self.styles or label is None:
            return image.new_zeros(len(image))
        return F.cross_entropy(self.style(image), label.to(image.device), ignore_index=NO_LABEL, reduction="none")

    @property
    def knows_noise(self) -> bool:
        """Whether the image tower reads pictures at any level of noise."""
        return self.image.config.embedding > 0

    # --- use --------------------------------------------------------------------------------------

    def fit(self, image: Tensor) -> Tensor:
        """(b, c >= 3, h, w) in [-1, 1], the picture on white first -> (b, 3, size, size) by averages over areas."""
        return self.image.fit(image.to(self.device))

    def features(self, image: Tensor, sigma: Tensor | None = None) -> Tensor:
        """What the tower sees, before either head: (b, d), differentiable in the picture. Distances are taken here."""
        return self._features(self.fit(image), sigma)

    def _features(self, x: Tensor, sigma: Tensor | None) -> Tensor:
        return self.image(*seen(x, sigma) if self.knows_noise else (x,)).float()

    def encode_image(self, image: Tensor, sigma: Tensor | None = None) -> Tensor:
        """(b, c >= 3, h, w) -> (b, d) of length 1, differentiable in the picture; one that knows noise reads x0 + sigma noise too."""
        return self.heads.picture(self.features(image, sigma))

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Sentences -> (b, d) of length 1."""
        return self.heads.text(self.text(texts))

    def style_of(self, image: Tensor) -> Tensor:
        """Which of `styles` each picture (b, c >= 3, h, w) has, (b,) int64."""
        if not self.styles:
            raise UserError("this scorer was trained without styles: train it on data with a style or label column")
        return self.style(self.fit(image)).argmax(-1)
