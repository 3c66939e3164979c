"""Is it only remembered? Distances from generated pictures to the nearest training pictures, beside those of unseen real ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from diorama.critics.statistics import need, ratio, share
from diorama.types import Score


class Nearest(NamedTuple):
    """For each picture its nearest neighbour."""

    distance: Tensor  # (n,) Euclidean, in feature lengths
    index: Tensor  # type: ignore[assignment]  # (n,) int64, counted through all pieces; hides tuple.index


def nearest(features: Tensor, pieces: Iterable[Tensor]) -> Nearest:
    """The nearest of all rows of `pieces`, each (m, d), to each row of `features` (n, d); the pieces are seen once, one by one."""
    n, seen = len(features), 0
    distance = torch.full((n,), torch.inf, dtype=torch.float64)
    index = torch.full((n,), -1, dtype=torch.int64)
    for piece in pieces:
        found = torch.cdist(features.double(), piece.double(), compute_mode="donot_use_mm_for_euclid_dist").min(1)  # 0 for a copy
        nearer = found.values < distance
        distance = torch.where(nearer, found.values, distance)
        index = torch.where(nearer, found.indices + seen, index)
        seen += len(piece)
    return Nearest(distance, index)


def copied(generated: Tensor, unseen: Tensor, quantile: float = 0.05) -> Score:
    """The share of generated pictures nearer to the training set than all but `quantile` of unseen real ones. Lower is better.

    Both are distances to the nearest training picture, (n,) and (m,), as `nearest` gives. A model that remembers no more
    than chance scores `quantile`; one that copies scores 1. The error does not hold that of the threshold.
    """
    need(generated, 20, "generated pictures")
    need(unseen, 20, "unseen real pictures")
    return share(generated < unseen.double().quantile(quantile), higher_is_better=False)


def closeness(generated: Tensor, unseen: Tensor) -> Score:
    """Mean distance to the nearest training picture, generated over unseen real ones of the same prompts, both (n,).

    1 is as far as new pictures are, 0 is copying.
    """
    return ratio(generated, unseen)
