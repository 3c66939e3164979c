"""What is known stays: a denoiser in, one that only ever changes its mind about the hole out."""

from __future__ import annotations

from torch import Tensor

from diorama.types import Condition, Denoiser, Prediction


def replaced(denoiser: Denoiser, known: Tensor, mask: Tensor) -> Denoiser:
    """mask D + (1 - mask) known: `mask`, like x or broadcast to it, is 1 where something is to be generated.

    A solver that starts from pure noise then carries the truth and its own noise at every level outside the hole, and ends in
    the truth: the known region replaced at each step (Song et al. 2021, app. I.2; Nichol et al. 2022, sec. 2.5).
    """
    return _Replaced(denoiser, known, mask)


class _Replaced:
    def __init__(self, denoiser: Denoiser, known: Tensor, mask: Tensor):
        self.denoiser, self.known, self.mask, self.sigmas = denoiser, known, mask, denoiser.sigmas

    def __call__(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        return self.mask * self.denoiser(x, sigma, condition) + (1 - self.mask) * self.known

    def predict(self, x: Tensor, sigma: Tensor, condition: Condition) -> Prediction:
        return Prediction(self(x, sigma, condition))
