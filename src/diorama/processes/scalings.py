"""What a network predicts, written once: four scalings turn any network F into a denoiser D(x; sigma).

D(x; sigma) = c_skip x + c_out F(c_in x; c_noise), x = x0 + sigma noise (Karras et al. 2022, eq. 7). Noise
prediction, v-prediction, x0-prediction and rectified flow differ in these four functions and in nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from diorama.networks.layers import broadcast
from diorama.types import Condition, Network, Prediction

INFINITY = 1e4  # a flow's t = 1 is sigma = infinity; float32 is still exact enough here


class Scales(NamedTuple):
    """Each (b,), like sigma."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


class Scaling(Protocol):
    """A parameterisation: sigma (b,) -> its four scales."""

    @property
    def sigmas(self) -> Tensor | None: ...

    def __call__(self, sigma: Tensor) -> Scales: ...


@dataclass(frozen=True)
class RectifiedFlow:
    """F = noise - x0 along x_t = (1 - t) x0 + t noise, t = sigma / (1 + sigma) (Liu et al. 2022; Lipman et al. 2022)."""

    sigmas = None

    def __call__(self, sigma: Tensor) -> Scales:
        t = torch.where(sigma >= INFINITY, torch.ones_like(sigma), sigma / (1 + sigma))
        return Scales(1 / (1 + sigma), -sigma / (1 + sigma), 1 / (1 + sigma), t)


@dataclass(frozen=True)
class CleanFlow(RectifiedFlow):
    """F = x0 along the same path: clean pixels lie near a surface that noise and velocities do not (Li & He 2025, sec. 3)."""

    def __call__(self, sigma: Tensor) -> Scales:
        flow = super().__call__(sigma)
        return flow._replace(c_skip=torch.zeros_like(sigma), c_out=torch.ones_like(sigma))


@dataclass(frozen=True)
class EDM:
    """Unit variance in and out at every level (Karras et al. 2022, table 1)."""

    sigma_data: float = 0.5
    sigmas = None

    def __call__(self, sigma: Tensor) -> Scales:
        total = sigma**2 + self.sigma_data**2
        return Scales(self.sigma_data**2 / total, sigma * self.sigma_data / total.sqrt(), 1 / total.sqrt(), sigma.log() / 4)


LEAST = 0.02  # noise below this level is none


def seen(x: Tensor, sigma: Tensor | None, scaling: Scaling = EDM()) -> tuple[Tensor, Tensor]:
    """Data x0 + sigma noise (b, ...) as a network that reads it at any level is shown it: of unit variance, and its c_noise (b,).

    sigma (b,); None is clean data.
    """
    scales = scaling(x.new_full((len(x),), LEAST) if sigma is None else sigma.to(x).clamp_min(LEAST))
    return broadcast(scales.c_in, x) * x, scales.c_noise


@dataclass(frozen=True)
class X0:
    """F is the clean sample itself, from a variance-preserving input."""

    sigmas = None

    def __call__(self, sigma: Tensor) -> Scales:
        return Scales(torch.zeros_like(sigma), torch.ones_like(sigma), 1 / (1 + sigma**2).sqrt(), sigma.log() / 4)


@dataclass(frozen=True)
class _Table:
    """A scaling trained on a discrete table of levels: abar (T,) falling, sigma = sqrt((1 - abar) / abar)."""

    abar: tuple[float, ...]

    @cached_property
    def sigmas(self) -> Tensor:
        abar = torch.tensor(self.abar, dtype=torch.float64, device="cpu")
        return ((1 - abar) / abar).sqrt().float()

    def _t(self, sigma: Tensor) -> Tensor:
        """The table's index at sigma, by linear interpolation of log sigma."""
        logs, target = self.sigmas.to(sigma).log(), sigma.log()
        high = torch.searchsorted(logs, target.contiguous()).clamp(1, len(logs) - 1)
        low = high - 1
        return low + ((target - logs[low]) / (logs[high] - logs[low])).clamp(0, 1)


class Epsilon(_Table):
    """F is the noise (Ho et al. 2020, eq. 11)."""

    def __call__(self, sigma: Tensor) -> Scales:
        return Scales(torch.ones_like(sigma), -sigma, 1 / (1 + sigma**2).sqrt(), self._t(sigma))


class V(_Table):
    """F = alpha noise - sigma_vp x0 (Salimans & Ho 2022, app. D)."""

    def __call__(self, sigma: Tensor) -> Scales:
        total = 1 + sigma**2
        return Scales(1 / total, -sigma / total.sqrt(), 1 / total.sqrt(), self._t(sigma))


@dataclass(frozen=True)
class NetworkDenoiser:
    """A network and its scaling: D(x; sigma, condition), the one form every sampler and guidance sees."""

    network: Network
    scaling: Scaling

    @property
    def sigmas(self) -> Tensor | None:
        return self.scaling.sigmas

    def __call__(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        """x (b, c, *spatial), sigma (b,) -> the expected clean sample, like x."""
        scales = self.scaling(sigma.float())
        c_skip, c_out, c_in = (broadcast(s, x) for s in scales[:3])
        return c_skip * x + c_out * self.network(c_in * x, scales.c_noise, condition).float()

    def predict(self, x: Tensor, sigma: Tensor, condition: Condition) -> Prediction:
        return Prediction(self(x, sigma, condition))
