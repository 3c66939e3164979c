"""What is sampled stays a picture: a denoiser in, one whose clean samples keep to the range of pictures out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diorama.networks.layers import broadcast
from diorama.types import Condition, Denoiser, Prediction


def clipped(denoiser: Denoiser, limit: float = 1.0) -> Denoiser:
    """Every expected clean sample within -limit .. limit, as DDPM samples (Ho et al. 2020; static in Saharia et al. 2022, sec. 2.3).

    It bends the path a solver follows: one of second order is only of first order where something was clipped.
    """
    return kept(denoiser, lambda x0: x0.clamp(-limit, limit))


def dynamic(denoiser: Denoiser, share: float = 0.995, limit: float = 1.0) -> Denoiser:
    """Every expected clean sample made `paler`, within -limit .. limit. Meant for pixels; for latents the limit is as far as they go."""
    return kept(denoiser, lambda x0: limit * paler(x0 / limit, share))


def paler(x: Tensor, share: float) -> Tensor:
    """Pictures (b, ...) within -1 .. 1: clipped to -s .. s and divided by s (Saharia et al. 2022, sec. 2.3).

    s = max(1, the quantile `share` of |x|), each picture's own: what was too much for a few numbers to be lost is shrunk, not flattened.
    """
    s = broadcast(torch.quantile(x.abs().flatten(1).float(), share, dim=1).clamp_min(1), x).to(x)
    return x.clamp(-s, s) / s


def kept(denoiser: Denoiser, rule: Callable[[Tensor], Tensor]) -> Denoiser:
    """What this denoiser expects, brought by the rule to where it should be."""
    return _Kept(denoiser, rule)


class _Kept:
    def __init__(self, denoiser: Denoiser, rule: Callable[[Tensor], Tensor]):
        self.denoiser, self.rule, self.sigmas = denoiser, rule, denoiser.sigmas

    def __call__(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        return self.rule(self.denoiser(x, sigma, condition))

    def predict(self, x: Tensor, sigma: Tensor, condition: Condition) -> Prediction:
        return Prediction(self(x, sigma, condition))
