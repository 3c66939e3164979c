"""A small language model that writes sentences of what it reads: a picture's places, or another sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, decoders
from torch import Tensor

from diorama.conditions.text import TextTower
from diorama.networks.tokens import TokenTransformer, TokenTransformerConfig
from diorama.types import MASK, Condition


@dataclass(frozen=True, kw_only=True)
class WriterConfig:
    """Sizes of the model and of what it reads."""

    words: int = 1024  # pieces of the vocabulary, at most
    width: int = 128
    depth: int = 3
    heads: int = 4
    max_tokens: int = 48  # longer sentences are cut
    read: int = 128  # width of the tokens it reads
    forms: int = 0  # ways to put the same thing; 0 means one


class Writer(TextTower):
    """Pieces (b, n) int64, MASK where still to come -> logits (b, n, pieces and END): a causal Predictor with its tokenizer.

    What it reads is the condition's text; the condition's label says in which form it writes.
    """

    Config = WriterConfig
    frozen = False

    def __init__(self, config: WriterConfig, tokenizer: Tokenizer):
        super().__init__()
        self.config = config
        self.use(Tokenizer.from_str(tokenizer.to_str()))  # its own: other towers cut elsewhere
        self.tokenizer.decoder = decoders.ByteLevel()
        shape = {"width": config.width, "depth": config.depth, "heads": config.heads, "labels": config.forms}
        places = (config.max_tokens + 1,)
        self.network = TokenTransformer(
            TokenTransformerConfig(codes=config.words + 1, places=places, text_width=config.read, causal=True, **shape)
        )

    @property
    def end(self) -> int:
        """The token after a sentence's last piece."""
        return int(self.config.words)

    def forward(self, tokens: Tensor, condition: Condition) -> Tensor:
        return self.network(tokens, condition)

    def spelled(self, texts: Sequence[str]) -> Tensor:
        """Sentences -> their pieces, then END, then MASK: (b, n) int64, n that of the longest."""
        ids, mask = self.pieces(texts)
        tokens = torch.where(mask, ids, MASK)
        tokens = torch.nn.functional.pad(tokens, (0, 1), value=MASK)
        return tokens.scatter(1, mask.sum(1, keepdim=True), self.end)

    def read_out(self, tokens: Tensor) -> list[str]:
        """(b, n) -> the sentences they spell, each up to its END."""
        rows = [row[: row.index(self.end)] if self.end in row else row for row in tokens.tolist()]
        return [self.tokenizer.decode(row).strip() for row in rows]
