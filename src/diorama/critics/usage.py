"""How many of the possible things come up: codes of a codebook, modes of a distribution."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diorama.critics.statistics import bootstrap, need, within
from diorama.types import Score


def counts(codes: Tensor, size: int) -> Tensor:
    """How often each of `size` codes comes up in each sample: (b, ...) int64 -> (b, size)."""
    return torch.stack([torch.bincount(row.flatten(), minlength=size) for row in within(codes, size, "codes")])


def used(counts: Tensor) -> Score:
    """The share of all codes that came up at all, from `counts` (n, size). Mode coverage, where the codes are classes (n, 1).

    It grows with n: compare only at the same n. The error is a bootstrap over samples.
    """
    return _score(lambda rows: float(rows.sum(0).gt(0).double().mean()), counts, "share")


def perplexity(counts: Tensor) -> Score:
    """How many codes would be in use if all used ones were equally frequent: exp of the entropy, 1 to size (van den Oord et al. 2017)."""

    def value(rows: Tensor) -> float:
        p = rows.sum(0).double() / rows.sum()
        return float(torch.special.entr(p).sum().exp())

    return _score(value, counts, "codes")


def _score(value: Callable[[Tensor], float], counts: Tensor, unit: str) -> Score:
    n = need(counts, 2, "samples")
    return Score(value(counts), bootstrap(value, (counts,)), unit, True, n)
