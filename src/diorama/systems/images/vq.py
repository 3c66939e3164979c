"""A picture tokenizer: a convolutional codec whose latents are words of a codebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from diorama import cards
from diorama.codecs.conv import PRESETS as CODECS
from diorama.codecs.conv import ConvCodec, reconstruction
from diorama.codecs.quantise import QuantisedCodec, VectorQuantiser, VectorQuantiserConfig
from diorama.systems.base import System, TakePart
from diorama.types import Batch, Noise

PRESETS = {"mini": (replace(CODECS["f4"], variational=False), VectorQuantiserConfig(codes=256, width=CODECS["f4"].latent))}


@dataclass(eq=False)
class VectorQuantised(System):
    """RGBA pictures to tokens and back (van den Oord et al. 2017), with the codes of Yu et al. 2022 and no adversary."""

    codec: ConvCodec
    quantiser: VectorQuantiser

    card: ClassVar[cards.Card] = cards.VQ

    @classmethod
    def new(cls, *, preset: str, size: int, labels: Sequence[str], part: TakePart) -> VectorQuantised:
        cls.card.check_preset(preset)
        codec, quantiser = PRESETS[preset]
        system = cls(ConvCodec(codec), VectorQuantiser(quantiser))
        system.codec.check_size(size)
        return system

    @property
    def tokenizer(self) -> QuantisedCodec:
        return QuantisedCodec(self.codec, self.quantiser)

    def look(self, batch: Batch, noise: Noise) -> Tensor:
        return self.detokenise(self.tokenise(batch.image))

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        image = batch.image.to(self.device)
        z = self.codec.encode(image)
        codes = self.quantiser(z)
        x = self.codec.decode(codes.z_q)
        if self.training:
            self.quantiser.update(z, codes.indices, noise)
        return reconstruction(x.float(), image) + codes.loss

    def tokenise(self, image: Tensor) -> Tensor:
        """(b, 4, h, w) in [-1, 1] -> (b, h / stride, w / stride) int64 in 0 .. codes - 1."""
        return self.tokenizer.tokenise(image.to(self.device))

    def detokenise(self, indices: Tensor) -> Tensor:
        """What `tokenise` gave, or the like -> (b, 4, h, w) in [-1, 1]."""
        return self.tokenizer.detokenise(indices.to(self.device))
