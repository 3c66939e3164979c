"""The path that a solver walks, and how to learn to walk it in a few steps (Salimans & Ho 2022; Yan et al. 2024, PeRFlow).

A path (b, n + 1, ...) says where a walk stands at each of n + 1 levels, over 1 + sigma: the states of a flow, finite everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from diorama.processes.solvers import Solver
from diorama.types import Condition, Denoiser, Noise, OnStep, Prediction, ignore


def walk(
    solver: Solver, denoiser: Denoiser, x: Tensor, condition: Condition, levels: Tensor, noise: Noise, on_step: OnStep = ignore
) -> Tensor:
    """The path of any solver from x, which stands at levels[0], down to 0."""
    watched = _Watched(denoiser)
    x0 = solver(watched, x, condition, levels, noise, on_step)
    return torch.stack([*(x / (1 + sigma) for sigma, x in watched.states.items()), x0], 1)


@dataclass
class _Watched:
    """A denoiser that remembers what it was last shown at each level; a solver that looks ahead comes to that level again."""

    denoiser: Denoiser
    states: dict[float, Tensor] = field(default_factory=dict)

    @property
    def sigmas(self) -> Tensor | None:
        return self.denoiser.sigmas

    def __call__(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        self.states[sigma[0].item()] = x
        return self.denoiser(x, sigma, condition)

    def predict(self, x: Tensor, sigma: Tensor, condition: Condition) -> Prediction:
        return Prediction(self(x, sigma, condition))


def places(many: Tensor, few: Tensor) -> list[int] | None:
    """Where each of a few levels stands among many; None where one does not, and a path of the many misses it."""
    found = [int((many - level).abs().argmin()) for level in few]
    return found if torch.allclose(many[found], few, rtol=1e-4) else None


def follow(denoiser: Denoiser, path: Tensor, condition: Condition, levels: Tensor) -> Tensor:
    """By how much Euler's steps along these levels miss the path that stands there, (b,): the mean square of their velocities' error.

    Every step is taken from where those before it have led, not from the path, so that it learns to mend what they missed; its
    gradient is its own.
    """
    y, errors = path[:, 0], []
    for (sigma, following), target in zip(pairwise(levels.tolist()), path.unbind(1)[1:], strict=True):
        x = (1 + sigma) * y
        x0 = denoiser(x, x.new_full((len(x),), sigma), condition)
        velocity = (x - x0) / sigma - x0  # dy / dt in a flow's time t = sigma / (1 + sigma)
        step = following / (1 + following) - sigma / (1 + sigma)
        errors.append((velocity - (target - y) / step).square().flatten(1).mean(1))
        y = (y + step * velocity).detach()
    return torch.stack(errors).mean(0)
