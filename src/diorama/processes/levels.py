"""Noise levels: the lists a sampler walks down, and the laws training draws from.

Everything is sigma in x = x0 + sigma noise. A list has one more entry than steps: it ends in 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from diorama.errors import UserError
from diorama.processes.scalings import INFINITY
from diorama.types import Noise


def karras(n: int, low: float = 0.002, high: float = 80.0, rho: float = 7.0) -> Tensor:
    """(n + 1,) levels, dense near zero (Karras et al. 2022, eq. 5)."""
    ramp = torch.linspace(0, 1, n, dtype=torch.float64)
    levels = (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    return torch.cat([levels, levels.new_zeros(1)]).float()


def flow(n: int, shift: float = 1.0, start: float = 1.0) -> Tensor:
    """(n + 1,) levels even in a flow's time t from `start` to 0; shift > 1: more at high noise (Esser et al. 2024, eq. 23)."""
    t = torch.linspace(start, 0, n + 1, dtype=torch.float64)
    t = shift * t / (1 + (shift - 1) * t)
    return torch.where(t < 1, t / (1 - t).clamp_min(1e-12), torch.tensor(INFINITY, dtype=t.dtype)).clamp_max(INFINITY).float()


def linear_abar(n: int = 1000, low: float = 1e-4, high: float = 0.02) -> tuple[float, ...]:
    """The signal levels abar (n,) of DDPM, whose beta rises linearly (Ho et al. 2020, sec. 4)."""
    return _abar(_ramp(low, high, n))


def scaled_linear(n: int = 1000, low: float = 0.0015, high: float = 0.0195) -> tuple[float, ...]:
    """The same where the square root of beta rises linearly (Rombach et al. 2022; Stable Diffusion's are 0.00085 and 0.012)."""
    return _abar(_ramp(low**0.5, high**0.5, n) ** 2)


def cosine(n: int = 1000, offset: float = 0.008, most: float = 0.999) -> tuple[float, ...]:
    """abar falls as a squared cosine, each beta at most `most` (Nichol & Dhariwal 2021, eq. 17)."""
    f = (math.pi / 2 * (_ramp(0, 1, n + 1) + offset) / (1 + offset)).cos() ** 2
    return _abar((1 - f[1:] / f[:-1]).clamp_max(most))


def _ramp(low: float, high: float, n: int) -> Tensor:
    return torch.linspace(low, high, n, dtype=torch.float64, device="cpu")  # also where a network is built on the meta device


def _abar(beta: Tensor) -> tuple[float, ...]:
    return tuple((1 - beta).cumprod(0).tolist())


def respaced(sigmas: Tensor, n: int) -> Tensor:
    """(n + 1,) levels: n of a rising table's, its first and last among them and evenly between (Nichol & Dhariwal 2021, sec. 4), and 0."""
    if not 1 <= n <= len(sigmas):
        raise UserError(f"{n} steps do not fit a table of {len(sigmas)} levels: use 1 to {len(sigmas)}")
    kept = torch.linspace(len(sigmas) - 1, 0, n, dtype=torch.float64).round().long()
    return torch.cat([sigmas[kept], sigmas.new_zeros(1)])


class Law(Protocol):
    """Where training looks: one sigma (b,) per sample."""

    def __call__(self, noise: Noise) -> Tensor: ...


@dataclass(frozen=True)
class LogNormal:
    """ln sigma ~ N(mean, std^2) (Karras et al. 2022, table 1)."""

    mean: float = -1.2
    std: float = 1.2

    def __call__(self, noise: Noise) -> Tensor:
        return (self.mean + self.std * noise.normal()).exp()

    @property
    def farthest(self) -> float:
        """The level above which hardly any training is done: one draw in 44."""
        return math.exp(self.mean + 2 * self.std)


class LogitNormal(LogNormal):
    """logit t ~ N(mean, std^2) for a flow's time t (Esser et al. 2024, eq. 19): the same law, since sigma = t / (1 - t)."""


@dataclass(frozen=True)
class OfTable:
    """Uniform over a discrete table of levels (Ho et al. 2020, alg. 1)."""

    sigmas: tuple[float, ...]

    def __call__(self, noise: Noise) -> Tensor:
        table = torch.tensor(self.sigmas, device=noise.device)
        return table[noise.integers(len(self.sigmas))]
