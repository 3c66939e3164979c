"""Solvers of the probability-flow ODE dx/dsigma = (x - D(x; sigma)) / sigma, and one that draws, written on the denoiser alone.

Each is a function (denoiser, x, condition, levels, noise, on_step) -> x. `levels` falls from x's own level to 0;
any list will do, a Karras grid or a flow's times. One step costs one call of D, Heun's two.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

from torch import Tensor

from diorama.types import Condition, Denoiser, Noise, OnStep, Step, ignore


class Solver(Protocol):
    def __call__(
        self, denoiser: Denoiser, x: Tensor, condition: Condition, levels: Tensor, noise: Noise, on_step: OnStep = ignore
    ) -> Tensor: ...


def euler(denoiser: Denoiser, x: Tensor, condition: Condition, levels: Tensor, noise: Noise, on_step: OnStep = ignore) -> Tensor:
    """First order; the same as DDIM with eta = 0 (Song et al. 2021) and as Euler in a flow's time."""
    for i, (sigma, following) in enumerate(_pairs(levels)):
        x0 = denoiser(x, _batch(sigma, x), condition)
        on_step(Step(i, len(levels) - 1, x0, sigma))
        x = _toward(x, x0, sigma, following)
    return x


def heun(denoiser: Denoiser, x: Tensor, condition: Condition, levels: Tensor, noise: Noise, on_step: OnStep = ignore) -> Tensor:
    """Second order, two calls a step (Karras et al. 2022, alg. 1), in the variable whose steps stay finite from infinity on.

    With u = sigma / (1 + sigma) and y = x / (1 + sigma) the slope dy/du = (x - D) / sigma - D is bounded where a
    flow begins at sigma = infinity; a step in sigma itself would multiply its own error by thousands there.
    """
    for i, (sigma, following) in enumerate(_pairs(levels)):
        x0 = denoiser(x, _batch(sigma, x), condition)
        on_step(Step(i, len(levels) - 1, x0, sigma))
        guess = _toward(x, x0, sigma, following)
        if following > 0:  # the slope at sigma = 0 is 0 / 0
            again = denoiser(guess, _batch(following, x), condition)
            slope = ((x - x0) / sigma - x0 + (guess - again) / following - again) / 2
            u, v = sigma / (1 + sigma), following / (1 + following)
            guess = (x / (1 + sigma) + (v - u) * slope) * (1 + following)
        x = guess
    return x


def dpmpp_2m(
    denoiser: Denoiser, x: Tensor, condition: Condition, levels: Tensor, noise: Noise, on_step: OnStep = ignore
) -> Tensor:
    """DPM-Solver++(2M), second order with one call a step (Lu et al. 2022, alg. 2); its first and last steps are first order."""
    before: tuple[Tensor, float] | None = None  # the last x0 and the last h
    for i, (sigma, following) in enumerate(_pairs(levels)):
        x0 = denoiser(x, _batch(sigma, x), condition)
        on_step(Step(i, len(levels) - 1, x0, sigma))
        ahead = x0
        if following > 0:
            h = math.log(sigma / following)
            if before is not None:
                half = h / (2 * before[1])  # 1 / (2 r)
                ahead = (1 + half) * x0 - half * before[0]
            before = (x0, h)
        x = _toward(x, ahead, sigma, following)
    return x


def ancestral(
    denoiser: Denoiser, x: Tensor, condition: Condition, levels: Tensor, noise: Noise, on_step: OnStep = ignore
) -> Tensor:
    """DDPM's sampler (Ho et al. 2020, alg. 2, with the posterior's variance), DDIM's with eta = 1: each step draws fresh noise.

    It goes down to sigma'^2 / sigma and up again by noise of variance sigma'^2 (sigma^2 - sigma'^2) / sigma^2.
    """
    for i, (sigma, following) in enumerate(_pairs(levels)):
        x0 = denoiser(x, _batch(sigma, x), condition)
        on_step(Step(i, len(levels) - 1, x0, sigma))
        x = _toward(x, x0, sigma, following**2 / sigma)
        if following > 0:
            up = following * math.sqrt(1 - (following / sigma) ** 2)
            x = x + up * noise.normal(*x.shape[1:]).to(x)
    return x


def invert(denoiser: Denoiser, x: Tensor, condition: Condition, levels: Tensor, noise: Noise, on_step: OnStep = ignore) -> Tensor:
    """`euler` run backwards: the start at levels[0] from which these levels lead back to x (Song et al. 2021, sec. 4.3; DDIM inversion).

    x is taken to stand at the last level above 0. Each step's slope is taken where it begins, so the way back is only as exact as
    the steps are small.
    """
    return euler(denoiser, x, condition, levels[levels > 0].flip(0), noise, on_step)


SOLVERS: dict[str, Callable[..., Tensor]] = {"euler": euler, "heun": heun, "dpmpp_2m": dpmpp_2m}


def _toward(x: Tensor, x0: Tensor, sigma: float, following: float) -> Tensor:
    """From sigma down to `following` along the straight line through x and x0."""
    return x0 + following / sigma * (x - x0)


def _pairs(levels: Tensor) -> list[tuple[float, float]]:
    return list(pairwise(levels.double().tolist()))


def _batch(sigma: float, x: Tensor) -> Tensor:
    return x.new_full((len(x),), sigma)
