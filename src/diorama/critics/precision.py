"""Is it real, is it all of it, and how varied is it? Two sets compared by whose neighbourhoods they fall into."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diorama.critics.statistics import alike, need, of_halves, over_pairs
from diorama.types import Score

CHUNK = 1024  # rows of a distance matrix that are held at once


def precision_recall(features: Tensor, reference: Tensor, k: int = 3) -> tuple[Score, Score]:
    """The share of samples inside the reference's neighbourhoods, and of the reference inside theirs (Kynkäänniemi et al. 2019).

    (n, d) and (m, d); a neighbourhood reaches to its centre's k-th neighbour. Both numbers move with n, m and k: compare
    only at the same ones, n = m by custom, k = 3 at tens of thousands and 5 at thousands.
    """

    def shares(x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([_inside(x, y, k).gt(0).double().mean(), _inside(y, x, k).gt(0).double().mean()])

    precision, recall = _scores(shares, features, reference, k, ("share", "share"))
    return precision, recall


def density_coverage(features: Tensor, reference: Tensor, k: int = 5) -> tuple[Score, Score]:
    """Twins of precision and recall that one outlier does not sway (Naeem et al. 2020).

    Density: in how many of the reference's neighbourhoods a sample lies, over k; 1 on average where both sets are alike,
    without an upper end. Coverage: the share of the reference whose neighbourhood holds a sample.
    """

    def values(x: Tensor, y: Tensor) -> Tensor:
        nearest = torch.cat([torch.cdist(part, x).min(1).values for part in y.split(CHUNK)])
        return torch.stack([_inside(x, y, k).double().mean() / k, (nearest < _radii(y, k)).double().mean()])

    density, coverage = _scores(values, features, reference, k, ("ratio", "share"))
    return density, coverage


def _scores(
    values: Callable[[Tensor, Tensor], Tensor], features: Tensor, reference: Tensor, k: int, units: tuple[str, ...]
) -> list[Score]:
    """With errors that hold both sets' chance."""
    alike(features, reference, "features", 1)
    n = min(need(features, 4 * k, "pictures"), need(reference, 4 * k, "reference pictures"))
    centre = reference.double().mean(0)  # differences of small numbers round less
    samples = (features.double() - centre, reference.double() - centre)
    found = zip(values(*samples).tolist(), of_halves(values, samples), units, strict=True)
    return [Score(value, error, unit, True, n) for value, error, unit in found]


def _radii(x: Tensor, k: int) -> Tensor:
    """The distance from each row of (n, d) to its k-th neighbour, itself not counted: (n,)."""
    return torch.cat([torch.cdist(part, x).kthvalue(k + 1).values for part in x.split(CHUNK)])


def _inside(x: Tensor, y: Tensor, k: int) -> Tensor:
    """In how many of the neighbourhoods of y's rows each row of x lies: (n,) int64."""
    radii = _radii(y, k)
    return torch.cat([(torch.cdist(part, y) <= radii).sum(1) for part in x.split(CHUNK)])


def diversity(features: Tensor) -> Score:
    """The mean distance of two different samples, (n, d): 0 where all are the same (as Zhu et al. 2017 use LPIPS).

    Unit: feature lengths, so compare within one network, with the real pictures' own number beside it.
    """
    n, x = need(features, 3, "pictures"), features.double()
    rows = torch.cat([torch.cdist(part, x, compute_mode="donot_use_mm_for_euclid_dist").sum(1) for part in x.split(CHUNK)])
    return Score(*over_pairs(rows), "feature length", True, n)
