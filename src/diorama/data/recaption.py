"""The same pictures with captions that were written for them: as a source, and as a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from diorama.data.cleaning import write_folder
from diorama.data.curate import CHUNK, readings, tensor
from diorama.data.folder import Folder
from diorama.data.source import Item, Source
from diorama.data.views import Repeated, Subset
from diorama.errors import UserError
from diorama.files import atomic_folder
from diorama.types import OnStep, Step, ignore, mix

BLEND = 0.95  # of the captions are new; the others keep a model used to how people write (Betker et al. 2023, sec. 3.3)
Describe = Callable[[Tensor], Sequence[str]]  # (b, 4, size, size) in [-1, 1] -> a sentence for each


class Recaptioned(Subset):
    """A source whose items have new captions, but for the share 1 - `blend` of them that keep their own.

    Which do is a function of (seed, i) alone. What was said before stands in the field `original`; where `short` has the same in
    few words, that stands in the field `short`.
    """

    def __init__(
        self, source: Source, captions: Sequence[str], blend: float = BLEND, seed: int = 0, *, short: Sequence[str] | None = None
    ):
        if len(captions) != len(source) or (short is not None and len(short) != len(source)):
            raise ValueError(f"{len(captions)} captions for {len(source)} items: one for each")
        if not 0 <= blend <= 1:
            raise UserError(f"a blend of {blend} is not allowed: use 0, all captions as they were, to 1, all of them new")
        super().__init__(source, range(len(source)))
        self.captions, self.short = captions, short
        self.renamed = [mix(seed, i) / 2**63 < blend for i in self.indices]

    def record(self, i: int) -> Mapping[str, Any]:
        said = self.source.record(i)
        text = self.captions[i] if self.renamed[i] else said["text"]
        short = {} if self.short is None else {"short": self.short[i]}
        return {**said, **short, "text": text, "original": said["text"]}

    def read(self, i: int) -> Item:
        said = dict(self.record(i))
        return replace(self.source.read(i), text=said.pop("text"), fields={k: said[k] for k in said if k not in ("key", "label")})


def described(source: Source, describe: Describe, size: int, on_step: OnStep = ignore) -> list[str]:
    """What is seen in each picture, at this size; one that cannot be read keeps its words."""
    captions = [source.record(i)["text"] for i in range(len(source))]
    for first in range(0, len(source), CHUNK):
        some = {i: item.image for i, item in enumerate(readings(source, first), first) if isinstance(item, Item)}
        if some:
            for i, words in zip(some, describe(tensor(list(some.values()), size)), strict=True):
                captions[i] = words
        on_step(Step(min(first + CHUNK, len(source)) - 1, len(source)))
    return captions


def recaption(
    source: Source,
    out: Path,
    describe: Describe,
    brief: Describe,
    size: int,
    *,
    blend: float = BLEND,
    seed: int = 0,
    copy: bool = False,
    on_step: OnStep = ignore,
) -> Recaptioned:
    """The pictures of a folder in the new folder `out`, linked where the disk can, with metadata.jsonl of what the source returned says.

    `describe` writes captions and `brief` the same in few words. Raises UserError where `out` is there already, or the pictures are
    no files.
    """
    whole = source.source if isinstance(source, Repeated) else source
    if not isinstance(whole, Folder):
        raise UserError(f"a {type(whole).__name__} of pictures cannot be captioned into files: give a folder")
    if out.exists():
        raise UserError(f"{out} is there already: name a new folder")
    captions, short = described(whole, describe, size, on_step), described(whole, brief, size, on_step)
    new = Recaptioned(whole, captions, blend, seed, short=short)
    with atomic_folder(out) as folder:
        write_folder(whole.entries, new, range(len(new)), folder, copy)
    return new
