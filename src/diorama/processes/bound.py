"""The variational bound of a diffusion over a table of levels: what its samples cost to write down (Ho et al. 2020, eq. 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diorama.networks.layers import broadcast
from diorama.processes.scalings import Epsilon
from diorama.types import Condition, Denoiser, Noise

HALF = 1 / 255  # half the distance of two of the 256 values between -1 and 1


@dataclass(frozen=True)
class Bound:
    """The chain of these signal levels abar (T,), each step back a Gaussian of variance beta (Ho et al. 2020, sec. 3.2)."""

    abar: tuple[float, ...]

    @cached_property
    def sigmas(self) -> Tensor:
        return Epsilon(self.abar).sigmas

    @cached_property
    def _beta(self) -> Tensor:
        abar = torch.tensor((1.0, *self.abar), dtype=torch.float64)
        return 1 - abar[1:] / abar[:-1]

    @cached_property
    def _weights(self) -> Tensor:
        """beta^2 / (2 s^2 alpha (1 - abar)) with s^2 = beta, in nats (eq. 12)."""
        return (self._beta / (2 * (1 - self._beta) * (1 - torch.tensor(self.abar, dtype=torch.float64)))).float()

    @cached_property
    def _constants(self) -> Tensor:
        """What no network can change: KL of two variances, the posterior's and beta. Level 0 has no posterior."""
        abar = torch.tensor(self.abar, dtype=torch.float64)
        ratio = (1 - abar[:-1]) / (1 - abar[1:])
        return torch.cat([ratio.new_zeros(1), (ratio - 1 - ratio.log()) / 2]).float()

    def weight(self, sigma: Tensor) -> Tensor:
        """Of the squared error of the noise at sigma (b,), a level of the table (eq. 12)."""
        return self._weights.to(sigma)[torch.searchsorted(self.sigmas.to(sigma), sigma)]

    @torch.no_grad()
    def bits(self, model: Denoiser, x: Tensor, condition: Condition, noise: Noise, draws: int = 20) -> Tensor:
        """At most this many bits a number are needed for x (b, ...), one of 256 values in [-1, 1] each: (b,).

        Of the steps but the last, `draws` are looked at, evenly spread and drawn; their mean is right on average.
        """
        total, inner = self._prior(x) + self._decoder(model, x, condition, noise), len(self.abar) - 1
        for k in range(draws):
            level = 1 + ((k + noise.uniform()) * inner / draws).long().clamp_max(inner - 1)
            total = total + inner / draws * self._step(model, x, condition, noise, level.to(x.device))
        return total / math.log(2)

    def _prior(self, x: Tensor) -> Tensor:
        """KL(q(x_T | x0) || N(0, 1)) in nats a number."""
        abar = self.abar[-1]
        return (abar * x.square().flatten(1).mean(1) - abar - math.log1p(-abar)) / 2

    def _step(self, model: Denoiser, x: Tensor, condition: Condition, noise: Noise, level: Tensor) -> Tensor:
        """KL of one step back from this level (b,), the table's index, in nats a number."""
        sigma, e = self.sigmas.to(x)[level], noise.normal(*x.shape[1:])
        x0 = model(x + broadcast(sigma, x) * e, sigma, condition)
        error = ((x0 - x) / broadcast(sigma, x)).square().flatten(1).mean(1)  # of the noise: both lie on one line through x
        return self._weights.to(x)[level] * error + self._constants.to(x)[level]

    def _decoder(self, model: Denoiser, x: Tensor, condition: Condition, noise: Noise) -> Tensor:
        """-log p(x0 | x_1) in nats a number: a Gaussian's share of each of the 256 bins, the outer two open (eq. 13)."""
        sigma = self.sigmas[:1].to(x).expand(len(x))
        mean = model(x + broadcast(sigma, x) * noise.normal(*x.shape[1:]), sigma, condition)
        gaussian = torch.distributions.Normal(mean.double(), self._beta[0].sqrt().item())
        above = torch.where(x > 1 - HALF, 1.0, gaussian.cdf(x.double() + HALF))
        below = torch.where(x < HALF - 1, 0.0, gaussian.cdf(x.double() - HALF))
        return -(above - below).clamp_min(1e-12).log().flatten(1).mean(1).to(x)
