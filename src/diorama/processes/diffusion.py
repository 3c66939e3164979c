"""Diffusion and flow: one process, whatever the network predicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diorama.networks.layers import broadcast
from diorama.processes.levels import Law, LogitNormal, OfTable
from diorama.processes.scalings import INFINITY, Epsilon, RectifiedFlow, Scaling, V
from diorama.processes.solvers import Solver, euler
from diorama.types import Condition, Denoiser, Noise, OnStep, ignore


def even(sigma: Tensor) -> Tensor:
    """Every level counts as much (Ho et al. 2020, eq. 14)."""
    return torch.ones_like(sigma)


def as_velocity(sigma: Tensor) -> Tensor:
    """Clean samples count what their velocity would, 1 / t^2 (Li & He 2025, table 1), up to 10: below that noise there is little to see."""
    return ((1 + sigma) / sigma).square().clamp_max(10.0)


@dataclass(frozen=True)
class Diffusion:
    """Noise at every level, a denoiser that removes it, and an ODE that walks from pure noise to data.

    The default is rectified flow with logit-normal times (Esser et al. 2024, sec. 3).
    """

    scaling: Scaling = field(default_factory=RectifiedFlow)
    law: Law = field(default_factory=lambda: LogitNormal(0.0, 1.0))
    sigma_max: float = INFINITY
    solver: Solver = euler
    weight: Callable[[Tensor], Tensor] = even  # of each level (b,) in the loss

    @classmethod
    def of_table(cls, kind: type[Epsilon] | type[V], abar: tuple[float, ...], solver: Solver = euler) -> Diffusion:
        """On a discrete table of levels, each drawn as often (Ho et al. 2020, alg. 1)."""
        sigmas = tuple(((1 - level) / level) ** 0.5 for level in abar)
        return cls(kind(abar), OfTable(sigmas), sigmas[-1], solver)

    def prior(self, shape: Sequence[int], noise: Noise) -> Tensor:
        """Pure noise at sigma_max, (b, *shape), scaled so that the network sees exactly a standard normal."""
        c_in = self.scaling(torch.tensor([self.sigma_max])).c_in.item()
        return noise.normal(*shape) / c_in

    def loss(self, model: Denoiser, x: Tensor, condition: Condition, noise: Noise) -> Tensor:
        """Squared error of the network's own target, (b,): 1 / c_out^2 of the clean sample's (Karras et al. 2022, eq. 8)."""
        sigma = self.law(noise)
        noisy = x + broadcast(sigma, x) * noise.normal(*x.shape[1:])
        error = (model(noisy, sigma, condition) - x) / broadcast(self.scaling(sigma).c_out, x)
        return self.weight(sigma) * error.square().flatten(1).mean(1)

    def sample(
        self, model: Denoiser, start: Tensor, condition: Condition, *, levels: Tensor, noise: Noise, on_step: OnStep = ignore
    ) -> Tensor:
        """From `start` at levels[0] down to levels[-1]; inversion, editing and continuation are other starts."""
        return self.solver(model, start, condition, levels, noise, on_step)
