"""Numbers with their errors: shares, means, ratios, sums over pairs; the bootstrap and the jackknife; what no measure accepts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import update_wrapper
from typing import Generic, ParamSpec

import torch
from torch import Tensor

from diorama.errors import UserError
from diorama.types import Score

P = ParamSpec("P")


def share(hits: Tensor, higher_is_better: bool = True) -> Score:
    """The share of true entries (n,), where a half may stand for a tie, with its binomial error.

    The error is that of (k + 2) of (n + 4), so 0 of n has one too (Agresti & Coull 1998).
    """
    n, k = need(hits, 1, "outcomes"), float(hits.sum())
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


@dataclass
class PerSample(Generic[P]):
    """A critic that gives one number per sample, (b,), and scores their mean."""

    observe: Callable[P, Tensor]
    unit: str
    higher_is_better: bool
    features: str = ""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        return self.observe(*args, **kwargs)

    def score(self, observed: Tensor, reference: Tensor | None = None) -> Score:
        return replace(mean(observed, self.unit, self.higher_is_better), features=self.features)


def per_sample(unit: str, higher_is_better: bool, features: str = "") -> Callable[[Callable[P, Tensor]], PerSample[P]]:
    """Makes a function with one number per sample a `Critic`: `psnr(x, y)` is (b,), `psnr.score` of all of them a `Score`."""

    def made(function: Callable[P, Tensor]) -> PerSample[P]:
        critic = PerSample(function, unit, higher_is_better, features)
        update_wrapper(critic, function)  # its name and docstring
        return critic

    return made


def over_pairs(rows: Tensor) -> tuple[float, float]:
    """The mean over all pairs of n things, given each one's sum over its n - 1 pairs (n,), and the jackknife's error.

    Efron & Stein 1981: leave one out; the error is never too small on average.
    """
    n, total = len(rows), rows.sum()
    without = (total - 2 * rows) / ((n - 1) * (n - 2))
    return float(total / (n * (n - 1))), float(without.std() * (n - 1) / math.sqrt(n))


def of_halves(statistic: Callable[..., Tensor], samples: tuple[Tensor, ...], repeats: int = 16, seed: int = 0) -> list[float]:
    """Errors of the k values that `statistic` gives, (k,): their standard deviations over random halves of each sample.

    The jackknife that leaves out half (Shao & Wu 1989), for what a bootstrap cannot do: to a neighbour, a row drawn twice is a copy.
    """
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(repeats):
        drawn = (s[torch.randperm(len(s), generator=generator)[: len(s) // 2]] for s in samples)
        values.append(statistic(*drawn))
    return torch.stack(values).double().std(0).tolist()


def bootstrap(statistic: Callable[..., float], samples: tuple[Tensor, ...], repeats: int = 32, seed: int = 0) -> float:
    """The standard deviation of `statistic` over resamples of each sample's rows, drawn with replacement (Efron 1979)."""
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(repeats):
        drawn = (s[torch.randint(len(s), (len(s),), generator=generator)] for s in samples)
        values.append(statistic(*drawn))
    found = torch.tensor(values, dtype=torch.float64)
    return float(found[found.isfinite()].std())  # a draw may have no value, such as one with nothing to find


def need(rows: Tensor, least: int, what: str) -> int:
    """How many rows there are; UserError where they are fewer than `least`, or where one is no number."""
    if len(rows) < least:
        raise UserError(f"{len(rows)} {what} are too few for this measure: use {least} or more")
    if bad := int((~rows.isfinite())[:, None].flatten(1).any(1).sum()):
        raise UserError(f"{bad} of {len(rows)} {what} are NaN or infinite: leave them out, or mend what made them")
    return len(rows)


def alike(a: Tensor, b: Tensor, what: str, first: int = 0) -> None:
    """UserError where the two do not have the same shape, from axis `first` on."""
    if a.shape[first:] != b.shape[first:]:
        sizes = " and ".join(" x ".join(map(str, x.shape[first:])) for x in (a, b))
        raise UserError(f"{what} of {sizes} cannot be compared: give both the same size")


def within(numbers: Tensor, size: int, what: str) -> Tensor:
    """The same numbers; UserError where one is not in 0 .. size - 1."""
    if numbers.numel() and not (int(numbers.min()) >= 0 and int(numbers.max()) < size):
        raise UserError(
            f"{what} {int(numbers.min())} to {int(numbers.max())} are not all in 0 to {size - 1}: give the right number of them"
        )
    return numbers
