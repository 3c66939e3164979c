"""Classifier-free guidance: a denoiser in, a denoiser out; and its twin for tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from diorama.guidance.scale import Scale, scale_at
from diorama.types import MASK, Condition, Denoiser, Prediction, Predictor


def classifier_free(denoiser: Denoiser, scale: Scale, negative: Condition | None = None) -> Denoiser:
    """D_u + scale (D_c - D_u): scale 1 is no guidance (Ho & Salimans 2022, eq. 6, whose w is scale - 1).

    `negative` has the words and labels that stand in the place of none; pictures stay. Both halves are one call of the network.
    """
    return denoiser if isinstance(scale, (int, float)) and scale == 1 else _ClassifierFree(denoiser, scale, negative)


def classifier_free_logits(predictor: Predictor, scale: Scale, negative: Condition | None = None) -> Predictor:
    """The same on logits; the level is the share of tokens still to come (Chang et al. 2023, Muse, sec. 2.7)."""
    if isinstance(scale, (int, float)) and scale == 1:
        return predictor

    def guided(tokens: Tensor, condition: Condition) -> Tensor:
        share = (tokens == MASK).flatten(1).float().mean(1)
        asked, unasked = _both(predictor, (tokens,), condition, negative)
        return unasked + scale_at(scale, share, asked) * (asked - unasked)

    return guided


class _ClassifierFree:
    def __init__(self, denoiser: Denoiser, scale: Scale, negative: Condition | None):
        self.denoiser, self.scale, self.negative = denoiser, scale, negative
        self.sigmas = denoiser.sigmas

    def __call__(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        asked, unasked = _both(self.denoiser, (x, sigma), condition, self.negative)
        return unasked + scale_at(self.scale, sigma, x) * (asked - unasked)

    def predict(self, x: Tensor, sigma: Tensor, condition: Condition) -> Prediction:
        return Prediction(self(x, sigma, condition))


def _both(
    model: Callable[..., Tensor], given: tuple[Tensor, ...], condition: Condition, negative: Condition | None
) -> tuple[Tensor, ...]:
    """What the model says where something is asked, and where nothing is: one call."""
    unasked = condition.null() if negative is None else replace(condition, text=negative.text, label=negative.label)
    both = Condition.cat([condition, unasked])
    return model(*(torch.cat([part, part]) for part in given), both).chunk(2)
