"""Classifier-free guidance: a denoiser in, a denoiser out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diorama.networks.layers import broadcast
from diorama.types import Condition, Denoiser, Prediction

Scale = float | Tensor | Callable[[Tensor], Tensor]  # a number, one per sample (b,), or a function of sigma (b,)


def classifier_free(denoiser: Denoiser, scale: Scale, negative: Condition | None = None) -> Denoiser:
    """D_u + scale (D_c - D_u): scale 1 is no guidance (Ho & Salimans 2022, eq. 6, whose w is scale - 1).

    `negative` replaces the condition that asks for nothing. Both halves are one call of the network.
    """
    return denoiser if isinstance(scale, (int, float)) and scale == 1 else _ClassifierFree(denoiser, scale, negative)


class _ClassifierFree:
    def __init__(self, denoiser: Denoiser, scale: Scale, negative: Condition | None):
        self.denoiser, self.scale, self.negative = denoiser, scale, negative
        self.sigmas = denoiser.sigmas

    def __call__(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        other = condition.null() if self.negative is None else self.negative
        both = Condition.cat([condition, other])
        asked, unasked = self.denoiser(torch.cat([x, x]), torch.cat([sigma, sigma]), both).chunk(2)
        return unasked + self._scale(sigma, x) * (asked - unasked)

    def _scale(self, sigma: Tensor, x: Tensor) -> float | Tensor:
        scale = self.scale(sigma) if callable(self.scale) else self.scale
        return broadcast(scale, x) if isinstance(scale, Tensor) else scale

    def predict(self, x: Tensor, sigma: Tensor, condition: Condition) -> Prediction:
        return Prediction(self(x, sigma, condition))
