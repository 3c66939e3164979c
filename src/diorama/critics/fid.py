"""FID as it is published: the Fréchet distance of plain covariances, of more pictures than features."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diorama.critics.statistics import alike, need
from diorama.types import Score

TINY = 1e-9  # of the largest: a direction in which a set has no width adds no error


def fid(features: Tensor, reference: Tensor) -> Score:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of two sets (n, d) and (m, d), lower is better (Heusel et al. 2017, eq. 6).

    `frechet.frechet` without its shrinkage, so both sets have to be larger than d. Unit: squared feature lengths. Biased upwards
    by small sets: compare only at the same n. The error is the delta method's, from what each picture adds; on the safe side
    where both sets are alike.
    """
    alike(features, reference, "features", 1)
    least = features.shape[1] + 1
    n, m = need(features, least, "pictures"), need(reference, least, "reference pictures")
    x, y = features.double(), reference.double()
    apart = x.mean(0) - y.mean(0)
    x, y = x - x.mean(0), y - y.mean(0)
    r1, r2 = _root(x), _root(y)
    u, s, vh = torch.linalg.svd(r2 @ r1.T)  # the sum of s is the trace of (C1 C2)^(1/2)
    value = apart.square().sum() + r1.square().sum() + r2.square().sum() - 2 * s.sum()
    scale = torch.where(s > s[0] * TINY, s.rsqrt(), 0)[:, None]
    # the derivative in a covariance is I - T, where T = root.T @ root carries the one Gaussian over to the other
    error = math.hypot(_error(x, scale * (u.T @ r2), apart), _error(y, scale * (vh @ r1), -apart))
    return Score(float(value), error, "squared feature length", False, min(n, m))


def _root(x: Tensor) -> Tensor:
    """(n, d) around its mean -> (d, d), whose product with itself, transposed first, is the covariance."""
    return torch.linalg.qr(x, mode="r").R / math.sqrt(len(x) - 1)


def _error(x: Tensor, root: Tensor, apart: Tensor) -> float:
    """The standard error that the chance of one set brings, (n, d) around its mean."""
    adds = 2 * x @ apart + x.square().sum(1) - (x @ root.T).square().sum(1)
    return float(adds.std() / math.sqrt(len(x)))
