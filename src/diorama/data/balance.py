"""Which of many captioned pictures to keep, so that no query has more than its share (Radford et al. 2021, sec. 2.2)."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence

from diorama.errors import UserError


def balance(captions: Iterable[str], queries: Sequence[str], cap: int, rng: random.Random) -> list[int]:
    """The places of the captions to keep, rising: at most `cap` for each query, drawn evenly from all that contain it.

    A caption of several queries is kept where any of them chose it, so a query may end with more than `cap`; one that contains
    no query goes. Words are compared whole and in lower case. One pass, and memory for what is kept alone (Vitter's reservoir).
    """
    if cap < 1:
        raise UserError(f"a cap of {cap} keeps nothing: use 1 or more")
    if not queries:
        raise UserError("no queries are given: without one every caption would go")
    index = _Index(queries)
    kept: list[list[int]] = [[] for _ in queries]
    seen = [0] * len(queries)
    for place, caption in enumerate(captions):
        for query in index.of(caption):
            seen[query] += 1
            if len(kept[query]) < cap:
                kept[query].append(place)
            elif (j := rng.randrange(seen[query])) < cap:
                kept[query][j] = place
    return sorted(set().union(*kept))


class _Index:
    """Queries by their words, longest first to look for."""

    def __init__(self, queries: Sequence[str]):
        self.numbers = {tuple(_words(query)): number for number, query in enumerate(queries)}
        self.lengths = sorted({len(words) for words in self.numbers})

    def of(self, caption: str) -> set[int]:
        words = _words(caption)
        grams = (tuple(words[i : i + n]) for n in self.lengths for i in range(len(words) - n + 1))
        return {self.numbers[gram] for gram in grams if gram in self.numbers}


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
