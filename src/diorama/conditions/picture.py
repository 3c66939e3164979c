"""A picture as words: its vector beside a sentence (Ramesh et al. 2022, sec. 2.1), or as all that is said (Li et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diorama.parts import Part
from diorama.types import TextEmbedding


@dataclass(frozen=True, kw_only=True)
class PictureWordsConfig:
    """Sizes on both sides."""

    channels: int = 192  # of the picture's vector
    text_width: int = 128
    words: int = 4  # that one picture becomes


class PictureWords(Part):
    """A sentence and a vector (b, channels), entries of size 1 -> the sentence with the vector's words after its own.

    What modulates every block is the sentence's pooled vector and a part for the picture. A vector of zeros asks for nothing.
    """

    Config = PictureWordsConfig

    def __init__(self, config: PictureWordsConfig):
        super().__init__()
        self.config = config
        self.tokens = nn.Linear(config.channels, config.words * config.text_width)
        self.pooled = nn.Linear(config.channels, config.text_width)

    def forward(self, text: TextEmbedding, z: Tensor) -> TextEmbedding:
        there, n = z.any(-1, keepdim=True), self.config.words
        tokens = self.tokens(z).unflatten(-1, (n, -1)) * there[..., None]
        pooled = self.pooled(z) * there / self.config.text_width**0.5  # about as long as a pooled sentence
        mask = there.expand(-1, n)
        return TextEmbedding(torch.cat([text.tokens, tokens], 1), torch.cat([text.mask, mask], 1), text.pooled + pooled)


def word(z: Tensor) -> TextEmbedding:
    """Vectors (b, channels) as sentences of one word. A vector of zeros asks for nothing."""
    return TextEmbedding(z[:, None], z.any(-1, keepdim=True), z)


@dataclass(frozen=True, kw_only=True)
class StandardConfig:
    """Size of what is measured."""

    channels: int = 128


class Standard(Part):
    """Features (b, channels) on one scale: each entry over all pictures seen while training, then each picture over its entries.

    The first is what ends the head of MoCo v3, a batch norm without weights (Chen et al. 2021), the second what RCG takes of it
    (Li et al. 2023, sec. 3.1). A picture's own answer never depends on its neighbours but through what has been seen so far.
    """

    Config = StandardConfig

    def __init__(self, config: StandardConfig):
        super().__init__()
        self.config = config
        self.seen = nn.BatchNorm1d(config.channels, affine=False, momentum=None)

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        if self.training and len(x) > 1 and not x.is_meta:  # where a step is planned without numbers there is nothing to see
            self.seen(x)
        mean, variance = self.seen.running_mean, self.seen.running_var
        return F.layer_norm(F.batch_norm(x, mean, variance), x.shape[-1:])
