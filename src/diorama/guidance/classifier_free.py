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
    return _guided(denoiser, scale, _unasked(negative))


def by_frames(denoiser: Denoiser, scale: Scale) -> Denoiser:
    """The same for what is known of a clip: D_0 + scale (D_S - D_0), S frames known or none (Blattmann et al. 2023, sec. 3.2)."""
    return _guided(denoiser, scale, _unseen)


def classifier_free_logits(predictor: Predictor, scale: Scale, negative: Condition | None = None) -> Predictor:
    """The same on logits; the level is the share of tokens still to come (Chang et al. 2023, Muse, sec. 2.7)."""
    if isinstance(scale, (int, float)) and scale == 1:
        return predictor

    def guided(tokens: Tensor, condition: Condition) -> Tensor:
        share = (tokens == MASK).flatten(1).float().mean(1)
        asked, unasked = _both(predictor, (tokens,), condition, _unasked(negative))
        return unasked + scale_at(scale, share, asked) * (asked - unasked)

    return guided


Without = Callable[[Condition], Condition]  # the same condition, in which what is pressed is not asked for


def _guided(denoiser: Denoiser, scale: Scale, without: Without) -> Denoiser:
    return denoiser if isinstance(scale, (int, float)) and scale == 1 else _Guided(denoiser, scale, without)


class _Guided:
    def __init__(self, denoiser: Denoiser, scale: Scale, without: Without):
        self.denoiser, self.scale, self.without = denoiser, scale, without
        self.sigmas = denoiser.sigmas

    def __call__(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        asked, unasked = _both(self.denoiser, (x, sigma), condition, self.without)
        return unasked + scale_at(self.scale, sigma, x) * (asked - unasked)

    def predict(self, x: Tensor, sigma: Tensor, condition: Condition) -> Prediction:
        return Prediction(self(x, sigma, condition))


def _unasked(negative: Condition | None) -> Without:
    return Condition.null if negative is None else lambda asked: replace(asked, text=negative.text, label=negative.label)


def _unseen(asked: Condition) -> Condition:
    assert asked.frames is not None and asked.known is not None, "no frame could be known"
    return replace(asked, frames=torch.zeros_like(asked.frames), known=torch.ones_like(asked.known))


def _both(model: Callable[..., Tensor], given: tuple[Tensor, ...], condition: Condition, without: Without) -> tuple[Tensor, ...]:
    """What the model says where something is asked, and where nothing is: one call."""
    both = Condition.cat([condition, without(condition)])
    return model(*(torch.cat([part, part]) for part in given), both).chunk(2)
