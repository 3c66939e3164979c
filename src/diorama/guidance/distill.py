"""Score distillation: what a denoiser would change in a picture, as a loss for whatever the picture was made from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diorama.networks.layers import broadcast
from diorama.types import Condition, Denoiser, Noise

Weight = Callable[[Tensor], Tensor]  # of levels (b,)


def preserving(sigma: Tensor) -> Tensor:
    """The variance of the noise where that of the whole is kept: sigma^2 / (1 + sigma^2) (Poole et al. 2022, section 3)."""
    return sigma**2 / (1 + sigma**2)


def distill(
    denoiser: Denoiser, x: Tensor, condition: Condition, sigma: Tensor, noise: Noise, weight: Weight = preserving
) -> Tensor:
    """(b,): a loss whose gradient in x (b, ...) is w(sigma) (eps_hat - eps) = w(sigma) (x - D(x + sigma eps)) / sigma, not averaged.

    The denoiser's own slope is left out (Poole et al. 2022, eq. 3); its value is half the square of that pull. With w = 1 it is
    the gradient of Score Jacobian Chaining (Wang et al. 2023, eq. 12, with the noise taken off to lower its variance).
    """
    with torch.no_grad():
        pull = broadcast(weight(sigma), x) * _residual(denoiser, x, condition, sigma, noise)
        target = x - pull
    return (x - target).square().flatten(1).sum(1) / 2


def denoising(
    denoiser: Denoiser, x: Tensor, condition: Condition, sigma: Tensor, noise: Noise, weight: Weight = preserving
) -> Tensor:
    """(b,): w(sigma) |eps_hat - eps|^2 / 2, with the slope through the denoiser: what `distill` leaves out (Poole et al. 2022, eq. 2)."""
    return weight(sigma) * _residual(denoiser, x, condition, sigma, noise).square().flatten(1).sum(1) / 2


def _residual(denoiser: Denoiser, x: Tensor, condition: Condition, sigma: Tensor, noise: Noise) -> Tensor:
    """eps_hat - eps, where eps is the noise added to x and eps_hat what the denoiser takes for it."""
    level = broadcast(sigma, x)
    return (x - denoiser(x + level * noise.normal(*x.shape[1:]), sigma, condition)) / level
