"""Sentences to vectors by a small transformer that learns its words together with the system it serves (Rombach et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn

from diorama.conditions.text import TextTower
from diorama.networks.transformer import Transformer, TransformerConfig
from diorama.types import TextEmbedding


@dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """Sizes of the tower."""

    words: int = 1024  # pieces of the vocabulary, at most
    width: int = 128
    depth: int = 2
    heads: int = 4
    max_tokens: int = 48  # longer sentences are cut
    head_width: int | None = None  # of each head; None is width / heads
    token_shift: bool = False  # each word also carries the one before it (Peng et al. 2023, sec. 3.1.1); not in older files


class CaptionEncoder(TextTower):
    """A text encoder that trains with its system. Texts of any batch -> tokens (b, n, d), mask (b, n), pooled (b, d) of length 1.

    Its pieces are learned from the captions it is made for; what it never saw is spelled in bytes. A text without a single piece
    asks for nothing: zeros and a mask that is all false.
    """

    Config = CaptionConfig
    frozen = False

    def __init__(self, config: CaptionConfig, tokenizer: Tokenizer):
        super().__init__()
        self.config = config
        self.use(tokenizer)
        self.words = nn.Embedding.from_pretrained(torch.randn(config.words, config.width), freeze=False)
        self.positions = nn.Embedding.from_pretrained(0.02 * torch.randn(config.max_tokens, config.width), freeze=False)
        # Which colour is of which shape then stands in the shape's own token. A painter of two things gives a tower that would have
        # to find it by attention no reason to: one that had seen half a million pictures still did not tell.
        self.before = nn.Linear(config.width, config.width, bias=False) if config.token_shift else None
        if self.before is not None:
            nn.init.normal_(self.before.weight, std=config.width**-0.5)
        width, depth, heads, head_width = config.width, config.depth, config.heads, config.head_width
        self.transformer = Transformer(TransformerConfig(width=width, depth=depth, heads=heads, head_width=head_width))

    @classmethod
    def of(cls, captions: Iterable[str], config: CaptionConfig | None = None) -> CaptionEncoder:
        """An untrained tower whose pieces are the commonest of these captions (byte-pair encoding, Sennrich et al. 2016)."""
        config = config or CaptionConfig(token_shift=True)
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        tokenizer.train_from_iterator(
            captions, trainers.BpeTrainer(vocab_size=config.words, initial_alphabet=alphabet, show_progress=False)
        )
        return cls(config, tokenizer)

    def forward(self, texts: Sequence[str]) -> TextEmbedding:
        """n is the longest of these texts, at least 1; positions past a sentence's end are zero and masked."""
        ids, mask = self.pieces(texts)
        seen = mask.clone()
        seen[:, 0] = True  # attention needs a place to look at, even where nothing is asked
        words = self.words(ids)
        x = words + self.positions.weight[: ids.shape[1]]
        if self.before is not None:
            x = x + F.pad(self.before(words[:, :-1]), (0, 0, 1, 0))
        tokens = self.transformer(x, seen) * mask[..., None]
        return TextEmbedding(tokens, mask, F.normalize(tokens.float().sum(1), dim=-1))
