"""A transformer that tells tokens from the tokens around them (Chang et al. 2022, sec. 3.1), or from those before them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diorama.networks.layers import silent
from diorama.networks.transformer import Transformer, TransformerConfig
from diorama.parts import Part
from diorama.types import MASK, Condition


@dataclass(frozen=True, kw_only=True)
class TokenTransformerConfig:
    """Sizes of the stack and of what it reads."""

    codes: int = 256
    places: tuple[int, ...] = (8, 8)
    width: int = 160
    depth: int = 6
    heads: int = 5
    text_width: int = 0  # of the sentence's tokens beside; 0 means no text
    labels: int = 0  # classes or styles; 0 means none
    causal: bool = False  # a token is told from those before it, of which there may be fewer than places: a language model


class TokenTransformer(Part):
    """Tokens (b, *places) int64, MASK where still to come -> logits (b, *places, codes): a Predictor."""

    Config = TokenTransformerConfig

    def __init__(self, config: TokenTransformerConfig):
        super().__init__()
        self.config, width = config, config.width
        self.tokens = nn.Embedding(config.codes + 1, width)  # row 0 is MASK
        self.places = nn.Parameter(0.02 * torch.randn(math.prod(config.places), width))
        self.label = silent(config.labels + 1, width) if config.labels else None  # row 0 is NO_LABEL
        context = config.text_width or None
        stack = TransformerConfig(width=width, depth=config.depth, heads=config.heads, context=context, causal=config.causal)
        self.transformer = Transformer(stack)
        self.head = nn.Linear(width, config.codes)

    def forward(self, tokens: Tensor, condition: Condition) -> Tensor:
        read = tokens.flatten(1)
        if self.config.causal:  # each place reads the token before it, and the first reads MASK
            read = F.pad(read[:, :-1], (1, 0), value=MASK)
        x = self.tokens(read + 1) + self.places[: read.shape[1]]
        if self.label is not None and condition.label is not None:
            x = x + self.label(condition.label + 1)[:, None]
        words, mask = None, None
        if self.config.text_width and condition.text is not None:
            words, mask, _ = condition.text
        return self.head(self.transformer(x, mask, words)).reshape(*tokens.shape, -1)
