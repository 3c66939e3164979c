"""How far apart two sets of pictures are, in the feature space of a network: Fréchet and kernel distances."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diorama.critics.statistics import alike, bootstrap, need, over_pairs
from diorama.errors import UserError
from diorama.types import Score

LEAST = 32


@dataclass
class Moments:
    """Mean and covariance of features that come in pieces; a data set never has to fit in memory."""

    n: int
    mean: Tensor  # (d,) float64
    scatter: Tensor  # (d, d) float64: the sum of outer products around the mean

    @classmethod
    def empty(cls, width: int) -> Moments:
        return cls(0, torch.zeros(width, dtype=torch.float64), torch.zeros(width, width, dtype=torch.float64))

    def observe(self, features: Tensor) -> Moments:
        """Add (n, d); returns itself. The pieces are joined as Chan, Golub & LeVeque 1979 do, without cancellation."""
        x = features.detach().double().cpu()
        if not len(x):
            return self
        mean = x.mean(0)
        delta, n = mean - self.mean, self.n + len(x)
        between = torch.outer(delta, delta) * (self.n * len(x) / n)
        self.scatter = self.scatter + (x - mean).T @ (x - mean) + between
        self.mean = self.mean + delta * (len(x) / n)
        self.n = n
        return self

    @property
    def covariance(self) -> Tensor:
        """Unbiased, (d, d)."""
        return self.scatter / (self.n - 1)

    @property
    def shrunk(self) -> Tensor:
        """The covariance drawn towards a sphere by as much as its own noise asks for (OAS: Chen et al. 2010, eq. 23)."""
        s, d = self.covariance, len(self.mean)
        trace, square = s.trace(), s.square().sum()
        spread = (self.n + 1 - 2 / d) * (square - trace.square() / d)
        rho = 1.0 if spread <= 0 else min(1.0, float(((1 - 2 / d) * square + trace.square()) / spread))
        return (1 - rho) * s + rho * trace / d * torch.eye(d, dtype=s.dtype)


def gaussian_distance(mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Dowson & Landau 1982): the squared Wasserstein-2 distance of two Gaussians.

    (C1 C2)^(1/2) has the trace of (A C2 A)^(1/2) with A = C1^(1/2), which is symmetric, so its eigenvalues are safe.
    """
    root = _root(covariance1)
    cross = torch.linalg.eigvalsh(root @ covariance2 @ root).clamp_min(0).sqrt().sum()
    return float((mean1 - mean2).square().sum() + covariance1.trace() + covariance2.trace() - 2 * cross)


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_min(0).sqrt() @ vectors.T


def between(a: Moments, b: Moments) -> float:
    """The Fréchet distance of two sets from their moments, covariances shrunk."""
    n, d = min(a.n, b.n), len(a.mean)
    least = max(LEAST, d // 2)  # below, more of the covariance would be guessed than seen
    if n < least:
        raise UserError(f"{n} pictures are too few for a Fréchet distance of {d} features: use {least} or more")
    return gaussian_distance(a.mean, a.shrunk, b.mean, b.shrunk)


def frechet(features: Tensor, reference: Tensor, repeats: int = 32, seed: int = 0) -> Score:
    """The Fréchet distance of two sets of features (n, d) and (m, d), lower is better (Heusel et al. 2017, eq. 6).

    Unit: squared feature lengths, so numbers compare only within one network. It is biased upwards by small sets: read it
    beside the distance of two real sets of the same sizes. The error is a bootstrap over both sets.
    """
    alike(features, reference, "features", 1)
    value = between(_moments(features), _moments(reference))
    error = bootstrap(lambda x, y: between(_moments(x), _moments(y)), (features, reference), repeats, seed)
    return Score(value, error, "squared feature length", False, min(len(features), len(reference)))


def _moments(features: Tensor) -> Moments:
    need(features, 0, "pictures")
    return Moments.empty(features.shape[1]).observe(features)


def kernel_distance(features: Tensor, reference: Tensor) -> Score:
    """KID: the squared maximum mean discrepancy under (x.y / d + 1)^3, unbiased (Binkowski et al. 2018, sec. 4); lower is better.

    (n, d) and (m, d); the longer set is cut to the shorter's length, and row i may be paired with row i (the same prompt).
    Zero on average, so sometimes negative, when both sets are alike. The error is the jackknife's, never too small on average.
    """
    alike(features, reference, "features", 1)
    n = min(need(features, LEAST, "pictures"), need(reference, LEAST, "reference pictures"))
    x, y = features[:n].double(), reference[:n].double()
    h = _kernel(x, x) + _kernel(y, y) - (cross := _kernel(x, y)) - cross.T
    value, error = over_pairs(h.fill_diagonal_(0).sum(1))  # without the diagonal: that is what makes it unbiased
    return Score(value, error, "squared kernel distance", False, n)


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3
