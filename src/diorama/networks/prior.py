"""A transformer that paints vectors: one clean embedding from a noisy one and a sentence (Ramesh et al. 2022, sec. 2.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diorama.networks.layers import LevelEmbedding
from diorama.networks.transformer import Transformer, TransformerConfig
from diorama.parts import Part
from diorama.types import Condition, TextEmbedding


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """Sizes of the stack and of what it reads."""

    channels: int = 192  # of the embedding
    text_width: int = 128  # of the sentence's tokens; its pooled vector is as wide as the embedding
    words: int = 48  # places for tokens
    width: int = 128
    depth: int = 4
    heads: int = 4
    levels: float = 100.0  # scale of c_noise


class PriorTransformer(Part):
    """x (b, channels), c_noise (b,), condition -> (b, channels), by a causal stack: a Network of no spatial axes.

    It reads the sentence's tokens, its pooled vector, the level, x, and answers at a last token of its own, which alone sees
    all. Where there is no token a learned one stands, so a sentence that was dropped is an empty one; of a longer
    sentence the end is cut.
    """

    Config = PriorConfig

    def __init__(self, config: PriorConfig):
        super().__init__()
        self.config, width = config, config.width
        self.level = LevelEmbedding(width, scale=config.levels)
        self.tokens, self.pooled = nn.Linear(config.text_width, width), nn.Linear(config.channels, width)
        self.inlet, self.outlet = nn.Linear(config.channels, width), nn.Linear(width, config.channels)
        self.nothing = nn.Parameter(torch.zeros(width))  # where there is no token
        self.answer = nn.Parameter(torch.zeros(width))
        self.places = nn.Parameter(0.02 * torch.randn(config.words + 4, width))
        self.transformer = Transformer(TransformerConfig(width=width, depth=config.depth, heads=config.heads, causal=True))

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        assert condition.text is not None, "a prior reads a sentence"
        sentence = self.pooled(condition.text.pooled * self.config.channels**0.5)  # unit vectors: to entries of size 1
        last = torch.stack([sentence, self.level(c_noise), self.inlet(x), self.answer.expand(len(x), -1)], 1)
        return self.outlet(self.transformer(torch.cat([self._words(condition.text), last], 1) + self.places)[:, -1])

    def _words(self, text: TextEmbedding) -> Tensor:
        """(b, words, width), whatever the longest sentence of the batch."""
        more = self.config.words - text.tokens.shape[1]
        tokens, mask = F.pad(self.tokens(text.tokens), (0, 0, 0, more)), F.pad(text.mask, (0, more))
        return torch.where(mask[..., None], tokens, self.nothing.to(tokens))
