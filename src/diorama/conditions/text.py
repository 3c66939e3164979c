"""Sentences to vectors: a small BERT with a word-piece vocabulary, trained for meaning (Reimers & Gurevych 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from diorama.errors import UserError
from diorama.networks.precision import exactly
from diorama.networks.transformer import Transformer, TransformerConfig
from diorama.parts import Part
from diorama.types import TextEmbedding

SPECIAL = 2  # a sentence is [CLS], its pieces, [SEP]


@dataclass(frozen=True, kw_only=True)
class SentenceConfig:
    """Sizes of the tower; the defaults are all-MiniLM-L6-v2 (Wang et al. 2020), 22.6 M parameters with all its words."""

    words: int = 30522
    positions: int = 512
    width: int = 384
    depth: int = 6
    heads: int = 12
    hidden: int = 1536
    eps: float = 1e-12
    max_tokens: int = 24  # longer sentences are cut, the two special tokens included


class TextTower(Part):
    """What every text encoder of the house has: a tokenizer beside its weights, and a config with `width` and `max_tokens`."""

    frozen: ClassVar[bool]  # whether it was trained before and stays as it is
    tokenizer: Tokenizer

    def use(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(self.config.max_tokens)

    def pieces(self, texts: Sequence[str], least: int = 1) -> tuple[Tensor, Tensor]:
        """Ids (b, n) and mask (b, n), n the longest of these texts; a text of fewer pieces than `least` has no tokens at all."""
        if isinstance(texts, str):
            raise TypeError("texts is one string: pass a list of strings")
        # one by one: encode_batch starts a pool of threads, which does not survive a data loader's fork
        rows = [self.tokenizer.encode(text).ids for text in texts]
        rows = [row if len(row) >= least else [] for row in rows]
        n = max([1, *map(len, rows)])
        ids = torch.tensor([row + [0] * (n - len(row)) for row in rows], dtype=torch.int64).reshape(len(rows), n)
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        mask = torch.arange(n) < lengths[:, None]
        device = next(self.parameters()).device
        return ids.to(device), mask.to(device)

    def means(self, word: str) -> bool:
        """Whether the word has a piece of its own, and so a meaning that it learned."""
        return len(self.pieces_of(word)) == 1

    def pieces_of(self, word: str) -> list[str]:
        """The pieces of a word; none where it cannot be spelled."""
        pieces = self.tokenizer.encode(word, add_special_tokens=False).tokens
        return [] if pieces == [getattr(self.tokenizer.model, "unk_token", None)] else pieces

    @classmethod
    def build(cls, config: Any, folder: Path) -> Self:
        return cls(config, read_tokenizer(folder / "tokenizer.json"))

    def save_files(self, folder: Path) -> None:
        """What it needs besides config and weights: tokenizer.json."""
        (folder / "tokenizer.json").write_text(self.tokenizer.to_str(), encoding="utf-8")


class SentenceEncoder(TextTower):
    """A frozen sentence encoder. Texts of any batch -> tokens (b, n, d), mask (b, n), pooled (b, d) of length 1.

    The pooled vector is the mean over a sentence's tokens, normalised, as sentence-transformers does. A text without a
    single piece, an empty or a blank one, asks for nothing: zeros and a mask that is all false.
    """

    Config = SentenceConfig
    frozen = True

    def __init__(self, config: SentenceConfig, tokenizer: Tokenizer):
        super().__init__()
        if not SPECIAL < config.max_tokens <= config.positions:
            raise UserError(f"max_tokens {config.max_tokens} is not allowed: use {SPECIAL + 1} to {config.positions}")
        self.config = config
        self.use(tokenizer)
        # zeros: drawing random tables that are replaced at once costs seconds, on the meta device too, where it imports sympy
        self.words = nn.Embedding.from_pretrained(torch.zeros(config.words, config.width))
        self.positions = nn.Embedding.from_pretrained(torch.zeros(config.positions, config.width))
        self.norm = nn.LayerNorm(config.width, eps=config.eps)
        self.transformer = Transformer(_stack(config))
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> SentenceEncoder:
        """It stays as it is: a frozen tower inside a system that trains."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, texts: Sequence[str]) -> TextEmbedding:
        """n is the longest of these texts, at least 1; positions past a sentence's end are zero and masked."""
        ids, mask = self.pieces(texts, SPECIAL + 1)  # the two special tokens alone are no sentence
        asked = mask.any(1)
        tokens = self.words.weight.new_zeros(*ids.shape, self.config.width)
        if asked.any():
            tokens[asked] = self._encode(ids[asked], mask[asked])
        pooled = F.normalize(tokens.sum(1), dim=-1)  # of the sum: its direction is the mean's, and zero stays zero
        return TextEmbedding(tokens, mask, pooled)

    def _encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(b, n) -> (b, n, d), zero where masked. In its own precision: a text means the same inside an autocast."""
        with exactly(ids):
            x = self.norm(self.words(ids) + self.positions.weight[: ids.shape[1]])
            return self.transformer(x, mask) * mask[..., None]


def read_tokenizer(path: str | Path) -> Tokenizer:
    """A tokenizer.json of the `tokenizers` library. Raises UserError where it is absent or damaged."""
    if not Path(path).is_file():
        raise UserError(f"{path} is not there: fetch or make the folder again")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{path} is not a tokenizer of the tokenizers library: fetch or make the folder again") from error


def from_bert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a `transformers` BertModel under our names; its only token type is added to the positions."""
    state = {name.removeprefix("bert."): tensor for name, tensor in state.items()}
    depth = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("encoder.layer."))
    ours = {ours: state[theirs] for ours, theirs in _names(depth).items()}
    for i in range(depth):
        for kind in ("weight", "bias"):
            parts = [state[f"encoder.layer.{i}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            ours[f"transformer.blocks.{i}.attention.qkv.{kind}"] = torch.cat(parts)
    ours["positions.weight"] = ours["positions.weight"] + state["embeddings.token_type_embeddings.weight"][0]
    return ours


BLOCK = {
    "attention.out": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "mlp.0": "intermediate.dense",
    "mlp.2": "output.dense",
    "norm2": "output.LayerNorm",
}  # ours: theirs


def _names(depth: int) -> dict[str, str]:
    """Ours: theirs, for every tensor that is taken over as it is."""
    names = {"words.weight": "embeddings.word_embeddings.weight", "positions.weight": "embeddings.position_embeddings.weight"}
    for kind in ("weight", "bias"):
        names[f"norm.{kind}"] = f"embeddings.LayerNorm.{kind}"
        for i in range(depth):
            names |= {
                f"transformer.blocks.{i}.{ours}.{kind}": f"encoder.layer.{i}.{theirs}.{kind}" for ours, theirs in BLOCK.items()
            }
    return names


def _stack(config: SentenceConfig) -> TransformerConfig:
    width, depth, heads, hidden = config.width, config.depth, config.heads, config.hidden
    return TransformerConfig(width=width, depth=depth, heads=heads, hidden=hidden, eps=config.eps, pre_norm=False)
