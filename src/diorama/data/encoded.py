"""A data set seen once through frozen encoders: what training then reads is a few kilobytes an item."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from diorama.data.batches import Batches
from diorama.data.folder import Folder
from diorama.data.order import index_at
from diorama.data.shards import Shards
from diorama.data.source import Source
from diorama.data.views import Joined, Subset
from diorama.errors import UserError
from diorama.storage import read_metadata, read_tensors, write_tensors
from diorama.types import Batch, OnStep, Step, TextEmbedding, ignore

Encode = Callable[[Batch], Batch]  # fills in latent and embedding


@dataclass(frozen=True)
class Encoded:
    """Latents (n, c, h, w) and, for each different text once, its tokens; float16, in memory.

    Called like `Batches`: `encoded(step, rank, world)` is a function of the step alone.
    """

    latent: Tensor  # (n, c, h, w) float16
    label: Tensor  # (n,) int64
    text: Tensor  # (n,) int64: which of the sentences
    tokens: Tensor  # (all tokens of all sentences, d) float16
    ends: Tensor  # (sentences,) int64: where each sentence's tokens end
    pooled: Tensor  # (sentences, d) float16
    batch: int
    seed: int
    skipped: Mapping[str, str] = field(default_factory=dict)  # the items that could not be read: key and reason

    def __len__(self) -> int:
        return len(self.latent)

    def __call__(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        first = (step * world + rank) * self.batch
        rows = torch.tensor([index_at(p, len(self), self.seed) for p in range(first, first + self.batch)])
        latent = self.latent[rows].float()
        return Batch(image=latent.new_zeros(0), label=self.label[rows], latent=latent, embedding=self._embedding(self.text[rows]))

    def _embedding(self, sentences: Tensor) -> TextEmbedding:
        ends = self.ends[sentences]
        starts = torch.where(sentences > 0, self.ends[sentences - 1], torch.zeros_like(ends))
        n = max(1, int((ends - starts).max()))
        places = starts[:, None] + torch.arange(n)
        mask = places < ends[:, None]
        tokens = self.tokens[places.clamp_max(len(self.tokens) - 1)].float() * mask[..., None]
        return TextEmbedding(tokens, mask, self.pooled[sentences].float())


def encode(
    source: Source,
    size: int,
    encoder: Encode,
    *,
    batch: int,
    seed: int,
    cache: Path | None = None,
    key: str = "",
    n: int = 64,
    on_step: OnStep = ignore,
) -> Encoded:
    """Every readable item of the source once through `encoder`, n together; kept in `cache` and read back while `key` is the same."""
    if cache is not None and (found := _read(cache, key)) is not None:
        tensors, skipped = found
        return Encoded(**tensors, batch=batch, seed=seed, skipped=skipped)
    tensors, skipped = _encode(source, size, encoder, on_step, n)
    if cache is not None:
        write_tensors(cache, tensors, {"key": key, "skipped": json.dumps(skipped)})
    return Encoded(**tensors, batch=batch, seed=seed, skipped=skipped)


def _read(cache: Path, key: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    if not cache.is_file():
        return None
    try:
        if read_metadata(cache).get("key") != key:
            return None
        about, tensors = read_tensors(cache)
        return tensors, json.loads(about["skipped"])
    except UserError:  # a damaged cache is made again
        return None


def _encode(source: Source, size: int, encoder: Encode, on_step: OnStep, n: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All items in their order, n at a time; what was seen, and what could not be read."""
    latents, labels, texts, sentences = [], [], [], _Sentences()
    batches = Batches(source, size, n, 0, threads=2, ordered=True)
    steps = -(-len(source) // n)
    for step in range(steps):
        batch = encoder(batches(step, stop=len(source)))
        assert batch.latent is not None
        assert batch.embedding is not None
        assert batch.label is not None
        latents.append(batch.latent.half().cpu())
        labels.append(batch.label)
        texts += [sentences.add(text, batch.embedding, row) for row, text in enumerate(batch.text)]
        on_step(Step(step, steps))
    tensors = {
        "latent": torch.cat(latents).contiguous(),
        "label": torch.cat(labels),
        "text": torch.tensor(texts),
        **sentences.tensors(),
    }
    return tensors, batches.skipped


class _Sentences:
    """Different texts, each kept once."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.tokens: list[Tensor] = []
        self.pooled: list[Tensor] = []

    def add(self, text: str, embedding: TextEmbedding, row: int) -> int:
        if text not in self.numbers:
            self.numbers[text] = len(self.tokens)
            self.tokens.append(embedding.tokens[row][embedding.mask[row]].half().cpu())
            self.pooled.append(embedding.pooled[row].half().cpu())
        return self.numbers[text]

    def tensors(self) -> dict[str, Tensor]:
        ends = torch.tensor([len(t) for t in self.tokens]).cumsum(0)
        pooled = torch.stack(self.pooled)
        nothing = pooled.new_zeros(1, pooled.shape[1])  # there is always a token to point at, even where all captions are empty
        return {"tokens": torch.cat([*self.tokens, nothing]), "ends": ends, "pooled": pooled}


def sayings(source: Source) -> str:
    """A short stable name of all that is said of the items: a mended caption must not meet what an old cache saw."""
    digest = hashlib.sha256()
    for i in range(len(source)):
        digest.update(json.dumps(source.record(i), sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


def stamps(source: Source) -> str:
    """A short stable name of the state of the files it reads, where it reads any: nor must a replaced picture."""
    digest = hashlib.sha256()
    for path in _files(source):
        try:
            state = path.stat()
        except OSError:  # it cannot be read either, and is counted there
            continue
        digest.update(f"{path.name} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _files(source: Source) -> Iterator[Path]:
    match source:
        case Folder():
            yield from (entry.path for entry in source.entries)
        case Shards():
            yield from source.paths
        case Subset():
            yield from _files(source.source)
        case Joined():
            for part in source.sources:
                yield from _files(part)


def fingerprint(*parts: object) -> str:
    """A short stable name of what a cache was made from."""
    return hashlib.sha256(json.dumps([str(p) for p in parts]).encode()).hexdigest()[:16]
