"""What is sampled stays a picture: a denoiser in, one whose clean samples keep to the range of pictures out."""

from __future__ import annotations

from torch import Tensor

from diorama.types import Condition, Denoiser, Prediction


def clipped(denoiser: Denoiser, limit: float = 1.0) -> Denoiser:
    """Every expected clean sample within -limit .. limit, as DDPM samples (Ho et al. 2020; static in Saharia et al. 2022, sec. 2.3).

    It bends the path a solver follows: one of second order is only of first order where something was clipped.
    """
    return _Clipped(denoiser, limit)


class _Clipped:
    def __init__(self, denoiser: Denoiser, limit: float):
        self.denoiser, self.limit, self.sigmas = denoiser, limit, denoiser.sigmas

    def __call__(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        return self.denoiser(x, sigma, condition).clamp(-self.limit, self.limit)

    def predict(self, x: Tensor, sigma: Tensor, condition: Condition) -> Prediction:
        return Prediction(self(x, sigma, condition))
