"""Sources made of sources: some of the items, several sources in a row, items seen more than once, and a fair hold-out."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from diorama.data.source import Item, Source
from diorama.errors import UserError
from diorama.types import mix


class Subset:
    """The items of these indices, in this order. The labels stay those of the whole, so that a class keeps its number."""

    def __init__(self, source: Source, indices: Iterable[int]):
        self.source = source
        self.indices = tuple(int(i) for i in indices)
        if self.indices and not (min(self.indices) >= 0 and max(self.indices) < len(source)):
            raise ValueError(f"an index of the subset is outside 0 .. {len(source) - 1}")

    @property
    def layout(self) -> str:
        return getattr(self.source, "layout", type(self.source).__name__)

    @property
    def notes(self) -> list[str]:
        return getattr(self.source, "notes", [])

    @property
    def labels(self) -> tuple[str, ...]:
        return self.source.labels

    def __len__(self) -> int:
        return len(self.indices)

    def record(self, i: int) -> Mapping[str, Any]:
        return self.source.record(self.indices[i])

    def read(self, i: int) -> Item:
        return self.source.read(self.indices[i])


class Repeated(Subset):
    """Item i of the source `times[i]` times (0 leaves it out): whole numbers instead of weights, so an epoch stays an epoch."""

    def __init__(self, source: Source, times: Sequence[int]):
        if len(times) != len(source) or any(t < 0 for t in times):
            raise ValueError(f"{len(times)} repeat counts for {len(source)} items: one count of 0 or more for each")
        super().__init__(source, (i for i, t in enumerate(times) for _ in range(t)))
        self.times = tuple(times)


class Relabelled(Subset):
    """All of the source, under another list of labels; what is not among them is no label there."""

    def __init__(self, source: Source, labels: Sequence[str]):
        super().__init__(source, range(len(source)))
        self._labels = tuple(labels)

    @property
    def labels(self) -> tuple[str, ...]:
        return self._labels


class Joined:
    """Several sources one after another; the labels are those of all of them."""

    layout = "joined"

    def __init__(self, sources: Sequence[Source]):
        self.sources = tuple(sources)
        self._ends = tuple(accumulate(len(source) for source in self.sources))
        self.labels = tuple(sorted({label for source in self.sources for label in source.labels}))
        self.notes = [note for source in self.sources for note in getattr(source, "notes", [])]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _place(self, i: int) -> tuple[Source, int]:
        if not 0 <= i < len(self):
            raise IndexError(i)
        part = bisect_right(self._ends, i)
        return self.sources[part], i - (self._ends[part - 1] if part else 0)

    def record(self, i: int) -> Mapping[str, Any]:
        source, j = self._place(i)
        return source.record(j)

    def read(self, i: int) -> Item:
        source, j = self._place(i)
        return source.read(j)


def hold_out(source: Source, fraction: float, seed: int, by: Sequence[str] = ("concept", "style")) -> tuple[Subset, Subset]:
    """(train, test): about this fraction of the combinations of `by` is kept for testing, whole groups at a time.

    Only a combination whose first part (the concept) stays in training in another form is held out: the test asks for a
    known thing in a style it was never seen in. Chosen by a hash of the names, so growing the data moves nothing across.
    """
    if not 0 <= fraction < 1:
        raise UserError(f"hold-out fraction {fraction} is not allowed: use 0 or more, below 1, for example 0.1")
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i in range(len(source)):
        groups[_combination(source.record(i), by)].append(i)
    kinds: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for group in groups:
        if all(group):  # an item that lacks one of the fields is never held out
            kinds[group[0]].append(group)
    held: set[int] = set()
    for forms in kinds.values():
        ranked = sorted(forms, key=lambda group: (_chance(group, seed), group))
        for group in ranked[:-1]:  # the last one always stays: the concept must be known
            if _chance(group, seed) < fraction:
                held.update(groups[group])
    rest = (i for i in range(len(source)) if i not in held)
    return Subset(source, rest), Subset(source, sorted(held))


def _combination(said: Mapping[str, Any], by: Sequence[str]) -> tuple[str, ...]:
    return tuple("" if said.get(name) is None else str(said[name]) for name in by)


def _chance(group: Sequence[str], seed: int) -> float:
    """Uniform on [0, 1) from the names alone; Python's own hash changes from run to run."""
    return mix(seed, zlib.crc32("\0".join(group).encode())) / 2**63
