"""RCG: first what a picture is to show, drawn as a vector that no label taught, then the picture that shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from diorama import cards
from diorama.codecs.conv import ConvCodec
from diorama.codecs.quantise import QuantisedCodec, VectorQuantiser
from diorama.conditions.picture import Standard, StandardConfig, word
from diorama.guidance.classifier_free import classifier_free_logits
from diorama.networks.mage import Mage, MageConfig
from diorama.networks.mlp import VectorMLP, VectorMLPConfig
from diorama.networks.vit import ViT
from diorama.processes.diffusion import Diffusion
from diorama.processes.levels import OfTable, respaced, scaled_linear
from diorama.processes.masked import MaskedParallel, cosine_inverse, normal
from diorama.processes.scalings import X0, Epsilon, NetworkDenoiser
from diorama.processes.solvers import ancestral
from diorama.systems.base import System, TakePart
from diorama.types import Batch, Condition, Noise, OnStep, ignore

PRESETS = {
    "nano": (VectorMLPConfig(), MageConfig(width=64, depth=3, decoder_depth=2, heads=4)),
    "mini": (VectorMLPConfig(width=512, depth=6), MageConfig()),
    # 63 M, and 407 of MAGE-L's 439 M: nearly all the rest is its frozen tokenizer's decoder (Li et al. 2023, table 2 and app. A)
    "paper": (VectorMLPConfig(width=1536, depth=12), MageConfig(width=1024, depth=24, decoder_depth=8, heads=16)),
}
TABLE = Epsilon(scaled_linear()).sigmas


@dataclass(eq=False)
class Rcg(System):
    """Noise to pictures by way of what a self-supervised encoder would see in them (Li et al. 2023, fig. 2).

    The tokenizer and the encoder, its first three parts, are frozen.
    """

    codec: ConvCodec
    quantiser: VectorQuantiser
    encoder: ViT
    standard: Standard
    rdm: VectorMLP
    network: Mage

    card: ClassVar[cards.Card] = cards.RCG
    rdm_process: ClassVar[Diffusion] = Diffusion(X0(), OfTable(tuple(TABLE.tolist())), TABLE[-1].item(), ancestral)
    process: ClassVar[MaskedParallel] = MaskedParallel(law=normal(0.75, 0.25), temperature=6.0)
    dropped: ClassVar[dict[str, float]] = {"text": 0.1}  # the vector

    def __post_init__(self) -> None:
        for frozen in (self.codec, self.quantiser, self.encoder):
            frozen.requires_grad_(False).eval()

    @classmethod
    def new(cls, *, preset: str, size: int, labels: Sequence[str], part: TakePart) -> Rcg:
        cls.card.check_preset(preset)
        return cls.on(part("codec", ConvCodec), part("quantiser", VectorQuantiser), part("encoder", ViT), preset, size)

    @classmethod
    def on(cls, codec: ConvCodec, quantiser: VectorQuantiser, encoder: ViT, preset: str, size: int) -> Self:
        """An untrained one for pictures of this size, as wide at its ends as what it stands on."""
        codec.check_size(size)
        (rdm, mage), d, side = PRESETS[preset], encoder.config.width, size // codec.config.stride
        network = Mage(replace(mage, codes=quantiser.config.codes, places=(side, side), told=d))
        return cls(codec, quantiser, encoder, Standard(StandardConfig(channels=d)), VectorMLP(replace(rdm, channels=d)), network)

    @property
    def size(self) -> int:
        """Pixels along a side of its pictures."""
        return self.network.config.places[0] * self.codec.config.stride

    @property
    def tokenizer(self) -> QuantisedCodec:
        return QuantisedCodec(self.codec, self.quantiser)

    def vector(self, image: Tensor) -> Tensor:
        """What the encoder sees in whole pictures (b, c >= 3, h, w), on white first: (b, d), entries of size 1."""
        return self.standard(self.features(image))

    @torch.no_grad()
    def features(self, image: Tensor) -> Tensor:
        """The mean of the encoder's tokens, (b, d)."""
        seen, side = image[:, : self.encoder.config.channels].to(self.device), self.encoder.config.size
        return self.encoder(F.interpolate(seen, (side, side), mode="area")).mean(1).float()

    # --- training: the two beside each other, neither knows of the other ---------------------------

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        """Of both, which share no parameter, (b,)."""
        r, tokens = self.vector(batch.image), self.tokenizer.tokenise(batch.image.to(self.device))
        return self.rdm_loss(r, noise) + self.picture_loss(tokens, r, noise)

    def rdm_loss(self, r: Tensor, noise: Noise) -> Tensor:
        """Squared error of the clean vector, (b,)."""
        return self.rdm_process.loss(self.rdm_denoiser, r, Condition(), noise)

    def picture_loss(self, tokens: Tensor, r: Tensor, noise: Noise) -> Tensor:
        """Cross-entropy of the masked tokens of pictures that show r, (b,) in nats."""
        return self.process.loss(self.network, tokens, Condition(text=word(r)).drop(self.dropped, noise), noise)

    def look(self, batch: Batch, noise: Noise) -> Tensor:
        return self.sample(noise=noise)

    # --- use --------------------------------------------------------------------------------------

    @property
    def rdm_denoiser(self) -> NetworkDenoiser:
        return NetworkDenoiser(self.rdm, self.rdm_process.scaling)

    @torch.no_grad()
    def sample(self, *, steps: int = 20, guidance: float = 2.0, noise: Noise, on_step: OnStep = ignore) -> Tensor:
        """(b, 4, size, size) in [-1, 1], one per seed of `noise`, asked for nothing."""
        return self.paint(self.imagine(noise=noise), steps=steps, guidance=guidance, noise=noise, on_step=on_step)

    @torch.no_grad()
    def imagine(self, *, steps: int = 250, noise: Noise) -> Tensor:
        """What pictures may show, one vector (b, d) per seed of `noise`."""
        process, levels = self.rdm_process, respaced(TABLE, steps)
        start = process.prior((self.rdm.config.channels,), noise)
        return process.sample(self.rdm_denoiser, start, Condition(), levels=levels, noise=noise)

    @torch.no_grad()
    def paint(self, r: Tensor, *, steps: int = 20, guidance: float = 2.0, noise: Noise, on_step: OnStep = ignore) -> Tensor:
        """Pictures (b, 4, size, size) that show r (b, d), zeros for anything; the guidance rises to this in the last step (app. A)."""
        pressed = 1.0 if guidance == 1 else lambda share: 1 + (guidance - 1) * (cosine_inverse(share) + 1 / steps)
        guided = classifier_free_logits(self.network, pressed)
        start = self.process.prior(self.network.config.places, noise)
        levels = self.process.levels(steps)
        asked = Condition(text=word(r.to(self.device)))
        return self.preview(self.process.sample(guided, start, asked, levels=levels, noise=noise, on_step=on_step))

    def variations(self, image: Tensor, **how: Any) -> Tensor:
        """Other pictures that show what these (b, c >= 3, h, w) show; `how` is `paint`'s."""
        return self.paint(self.vector(image), **how)

    def preview(self, x0: Tensor) -> Tensor:
        """What tokens (b, *places) look like: (b, 4, size, size) in [-1, 1]."""
        return self.tokenizer.detokenise(x0)
