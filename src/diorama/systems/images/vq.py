"""A picture tokenizer: a convolutional codec whose latents are words of a codebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from diorama import cards
from diorama.codecs.conv import PRESETS as CODECS
from diorama.codecs.conv import ConvCodec, reconstruction
from diorama.codecs.quantise import QuantisedCodec, VectorQuantiser, VectorQuantiserConfig
from diorama.systems.base import System, TakePart
from diorama.types import Batch, Noise

PRESETS = {
    "mini": (replace(CODECS["f4"], variational=False), VectorQuantiserConfig(codes=256, width=CODECS["f4"].latent)),
    # the decoder's norms take the latents (Zheng et al. 2022), which Kandinsky 3 paints as they are, before any code is looked up
    "movq": (CODECS["movq"], VectorQuantiserConfig(codes=1024, width=4, unit=False)),
    "movq-paper": (CODECS["movq-paper"], VectorQuantiserConfig(codes=16_384, width=4, unit=False, decay=None)),
}


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

    @torch.no_grad()
    def finish(self, batch: Batch) -> None:
        """Latents of zero mean and unit variance, and the codes with them: tokens and pictures stay. By direction they are so already."""
        if self.quantiser.config.unit:
            return
        codec, codes = self.codec, self.quantiser.codebook
        codes.mul_(codec.scale).add_(codec.shift)
        codec.normalise(batch.image.to(self.device))
        codec.scale.fill_(codec.scale.square().mean().sqrt())  # one for all: what is nearest stays nearest
        codes.sub_(codec.shift).div_(codec.scale)

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
