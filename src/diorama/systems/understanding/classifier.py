"""What a picture or a clip shows, as one of a few labels; its features are where distances are taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from diorama import cards
from diorama.errors import UserError
from diorama.networks.classifier import ClassifierConfig, ClassifierNetwork
from diorama.networks.layers import broadcast
from diorama.processes.levels import LogNormal
from diorama.processes.scalings import LEAST, seen
from diorama.systems.base import System, TakePart
from diorama.types import NO_LABEL, Batch, Noise

PRESETS = {
    "mini": ClassifierConfig(),
    "noisy": ClassifierConfig(embedding=128),
    "clip": ClassifierConfig(widths=(24, 48, 96), axes=3),
}


@dataclass(eq=False)
class Classifier(System):
    """Pictures (b, c, h, w) or clips (b, c, t, h, w) to labels; where the network knows of noise, at any level of it.

    Such a one gives classifier guidance its gradient (Dhariwal & Nichol 2021, sec. 4). It reads its first `channels` channels.
    """

    network: ClassifierNetwork
    labels: tuple[str, ...] = ()

    card: ClassVar[cards.Card] = cards.CLASSIFIER
    law: ClassVar[LogNormal] = LogNormal(0.0, 2.0)  # as wide as a sampler's way from 80 down
    needs_labels: ClassVar[bool] = True

    @classmethod
    def new(cls, *, preset: str, size: int, labels: Sequence[str], part: TakePart) -> Classifier:
        cls.card.check_preset(preset)
        if len(labels) < 2:
            raise UserError(f"a classifier needs two labels or more, not {len(labels)}: give labels or class folders")
        return cls(ClassifierNetwork(replace(PRESETS[preset], labels=len(labels))), tuple(labels))

    # --- training ---------------------------------------------------------------------------------

    @property
    def known_labels(self) -> tuple[str, ...]:
        return self.labels

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        """Cross-entropy (b,) in nats; 0 where a sample has no label."""
        if batch.label is None:
            raise UserError("a classifier learns from labels and this batch has none: give labels or class folders")
        x, sigma = batch.image.to(self.device), None
        if self.network.config.embedding:
            sigma = self.law(noise).clamp_min(LEAST)
            x = x + broadcast(sigma, x) * noise.normal(*x.shape[1:])
        return F.cross_entropy(self.logits(x, sigma), batch.label.to(self.device), ignore_index=NO_LABEL, reduction="none")

    @torch.no_grad()
    def look(self, batch: Batch, noise: Noise) -> Tensor:
        """The pictures, or the middles of the clips, sorted by what they are taken for."""
        order = self.label_of(batch.image).argsort(stable=True).cpu()
        return (batch.image if batch.image.ndim == 4 else batch.image[:, :, batch.image.shape[2] // 2])[order]

    # --- use --------------------------------------------------------------------------------------

    def logits(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        """x0 + sigma noise (b, c, *spatial), sigma (b,), none for clean data -> (b, labels)."""
        return self.network(*self._seen(x, sigma)).float()

    def features(self, image: Tensor) -> Tensor:
        """What the network sees before its last layer: (b, d), differentiable. Distances are taken here."""
        return self.network.features(*self._seen(image)).float()

    def maps(self, image: Tensor) -> list[Tensor]:
        """What the network sees at every place, one map for each of its blocks: `perceptual` distances are taken here."""
        return self.network.maps(*self._seen(image))

    def log_prob(self, x: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
        """log p(label | x; sigma), (b,) in nats, differentiable in x."""
        return -F.cross_entropy(self.logits(x, sigma), label, reduction="none")

    def label_of(self, image: Tensor) -> Tensor:
        """Which of `labels` each picture shows, (b,) int64."""
        return self.logits(image).argmax(-1)

    def _seen(self, x: Tensor, sigma: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """x scaled to unit variance and its c_noise, or x as it is where the network knows of no noise."""
        config = self.network.config
        if x.ndim != config.axes + 2 or x.shape[1] < config.channels or any(side % config.patch for side in x.shape[2:]):
            sides = f"{config.axes} sides that are multiples of {config.patch}"
            raise UserError(f"data of shape {tuple(x.shape)}: give (b, {config.channels} or more channels, *{sides})")
        x = x[:, : config.channels].to(self.device)
        return seen(x, sigma) if config.embedding else (x, None)
