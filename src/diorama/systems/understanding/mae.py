"""A picture encoder that teaches itself: paint the three quarters of a picture that it did not see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from diorama import cards
from diorama.errors import UserError
from diorama.networks.layers import unfold
from diorama.networks.vit import Painter, PainterConfig, ViT, ViTConfig, patches
from diorama.systems.base import System, TakePart
from diorama.types import Batch, Noise

PRESETS = {
    "nano": (ViTConfig(width=64, depth=4), PainterConfig(width=48, depth=1, given=64)),
    "mini": (ViTConfig(), PainterConfig()),
}


@dataclass(eq=False)
class MaskedAutoencoder(System):
    """A ViT sees a quarter of the patches, a small decoder paints the rest (He et al. 2022, fig. 1). It looks at RGB on white."""

    encoder: ViT
    decoder: Painter
    hidden: float = 0.75  # share of the patches that are not seen

    card: ClassVar[cards.Card] = cards.MAE

    def __post_init__(self) -> None:
        if not 0 < self.hidden < 1:
            raise UserError(f"hidden {self.hidden:g} is not a share: use more than 0 and less than 1")

    @classmethod
    def new(cls, *, preset: str, size: int, labels: Sequence[str], part: TakePart) -> MaskedAutoencoder:
        cls.card.check_preset(preset)
        vit, painter = PRESETS[preset]
        if size < vit.patch or size % vit.patch:
            raise UserError(f"size {size} is not a multiple of {vit.patch}: use {max(1, size // vit.patch) * vit.patch}")
        vit = replace(vit, size=size)
        painter = replace(painter, given=vit.width, places=vit.places, values=vit.channels * vit.patch**2)
        return cls(ViT(vit), Painter(painter))

    # --- training ---------------------------------------------------------------------------------

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        """Squared error of the hidden patches, each target of zero mean and unit variance: (b,) (He et al. 2022, sec. 3)."""
        image = self._seen(batch.image)
        painted, hidden = self._paint(image, noise)
        target, _, _ = _normalised(patches(image, self.encoder.config.patch))
        return ((painted - target).square().mean(-1) * hidden).sum(1) / hidden.sum(1)

    @torch.no_grad()
    def look(self, batch: Batch, noise: Noise) -> Tensor:
        """The pictures with their hidden patches painted; each takes its mean and contrast from the truth, as its loss does."""
        image, patch = self._seen(batch.image), self.encoder.config.patch
        painted, hidden = self._paint(image, noise)
        truth = patches(image, patch)
        _, mean, std = _normalised(truth)
        whole = torch.where(hidden[..., None], painted * std + mean, truth)
        side = image.shape[-1] // patch
        return F.pad(unfold(whole.mT.unflatten(-1, (side, side)), patch), (0, 0, 0, 0, 0, 1), value=1.0)

    def _paint(self, image: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """All patches as the decoder paints them from a few (b, n, values), and which of them were hidden (b, n)."""
        order = noise.uniform(self.encoder.config.places).argsort(1)
        seen = order[:, : max(1, round(order.shape[1] * (1 - self.hidden)))]
        hidden = torch.ones_like(order, dtype=torch.bool).scatter(1, seen, False)
        return self.decoder(self.encoder(image, seen), seen).float(), hidden

    # --- use --------------------------------------------------------------------------------------

    def tokens(self, image: Tensor) -> Tensor:
        """(b, c >= 3, size, size) in [-1, 1], the picture on white first -> (b, n, d) row by row, differentiable."""
        return self.encoder(self._seen(image)).float()

    def _seen(self, image: Tensor) -> Tensor:
        size, channels = self.encoder.config.size, self.encoder.config.channels
        if image.shape[-2:] != (size, size):
            raise UserError(f"pictures of {image.shape[-1]} x {image.shape[-2]}: this encoder looks at {size} x {size}")
        return image[:, :channels].to(self.device)


def _normalised(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each patch (b, n, values) with zero mean and unit variance, and what it had."""
    mean, std = values.mean(-1, keepdim=True), (values.var(-1, keepdim=True) + 1e-6).sqrt()
    return (values - mean) / std, mean, std
