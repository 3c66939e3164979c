"""Classifier guidance: a denoiser and the gradient of a classifier of noisy pictures in, a denoiser out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diorama.guidance.scale import Scale, scale_at
from diorama.networks.layers import broadcast
from diorama.types import Condition, Denoiser, Prediction

LogProb = Callable[[Tensor, Tensor, Tensor], Tensor]  # x (b, ...), sigma (b,), label (b,) -> log p(label | x; sigma) (b,)


def classifier(denoiser: Denoiser, log_prob: LogProb, label: Tensor, scale: Scale) -> Denoiser:
    """D + scale sigma^2 grad_x log p(label | x; sigma): scale 0 leaves it alone (Dhariwal & Nichol 2021, sec. 4, in these coordinates).

    With the true classifier and scale 1 it is the denoiser of that class; more presses harder than Bayes. `label` (b,) int64.
    """
    return denoiser if isinstance(scale, (int, float)) and scale == 0 else _Classifier(denoiser, log_prob, label, scale)


class _Classifier:
    def __init__(self, denoiser: Denoiser, log_prob: LogProb, label: Tensor, scale: Scale):
        self.denoiser, self.log_prob, self.label, self.scale = denoiser, log_prob, label, scale
        self.sigmas = denoiser.sigmas

    def __call__(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        with torch.enable_grad():
            seen = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.log_prob(seen, sigma, self.label).sum(), seen)
        return self.denoiser(x, sigma, condition) + scale_at(self.scale, sigma, x) * broadcast(sigma.square(), x) * gradient

    def predict(self, x: Tensor, sigma: Tensor, condition: Condition) -> Prediction:
        return Prediction(self(x, sigma, condition))
