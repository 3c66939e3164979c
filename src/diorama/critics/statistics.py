"""Numbers with their errors: shares, ratios of paired shares, bootstraps."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diorama.errors import UserError
from diorama.types import Score


def share(hits: Tensor, higher_is_better: bool = True) -> Score:
    """The share of true entries (n,) with its binomial error; the error is that of (k + 2) of (n + 4), so 0 of n has one too.

    Agresti & Coull 1998.
    """
    n, k = need(hits, 1, "outcomes"), int(hits.sum())
    p = (k + 2) / (n + 4)
    return Score(k / n, math.sqrt(p * (1 - p) / (n + 4)), "share", higher_is_better, n)


def mean(values: Tensor, unit: str, higher_is_better: bool) -> Score:
    """The mean of (n,) with its standard error."""
    n = need(values, 2, "values")
    values = values.double()
    return Score(float(values.mean()), float(values.std() / math.sqrt(n)), unit, higher_is_better, n)


def ratio(a: Tensor, b: Tensor) -> Score:
    """mean(a) / mean(b) of paired outcomes (n,), error by the delta method (what a and b have in common cancels)."""
    n = need(a, 2, "pairs")
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} outcomes are no pairs")
    a, b = a.double(), b.double()
    if not float(b.mean()):
        raise UserError("the ratio has no value: the reference got none right; use a better scorer or more pictures")
    r = a.mean() / b.mean()
    rest = a - r * b  # its mean is zero: the error of r is that of its mean over mean(b)
    return Score(float(r), float(rest.std() / math.sqrt(n) / b.mean()), "ratio", True, n)


def bootstrap(statistic: Callable[..., float], samples: tuple[Tensor, ...], repeats: int = 32, seed: int = 0) -> float:
    """The standard deviation of `statistic` over resamples of each sample's rows, drawn with replacement (Efron 1979)."""
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(repeats):
        drawn = (s[torch.randint(len(s), (len(s),), generator=generator)] for s in samples)
        values.append(statistic(*drawn))
    return float(torch.tensor(values, dtype=torch.float64).std())


def need(rows: Tensor, least: int, what: str) -> int:
    """How many rows there are; UserError where they are fewer than `least`."""
    if len(rows) < least:
        raise UserError(f"{len(rows)} {what} are too few for this measure: use {least} or more")
    return len(rows)
