"""Cascades: a small picture first, then stages that each make the last one's larger (Ho et al. 2021; Saharia et al. 2022, sec. 2.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor

from diorama.networks.layers import broadcast
from diorama.processes.diffusion import Diffusion
from diorama.types import Condition, Denoiser, Noise, OnStep, ignore


@dataclass(frozen=True)
class Stage:
    """One diffusion of a cascade, ready to be walked."""

    denoiser: Denoiser
    process: Diffusion
    shape: tuple[int, ...]  # of one sample
    levels: Tensor
    augmentation: float = 0.0  # of the smaller picture it follows; the first stage follows none


def cascade(stages: Sequence[Stage], condition: Condition, noise: Noise, on_step: OnStep = ignore) -> Tensor:
    """The sample of the last stage: each follows the sample of the one before it."""
    x: Tensor | None = None
    for stage in stages:
        asked = (
            condition if x is None else follow(condition, x, stage.shape[1:], x.new_full((len(x),), stage.augmentation), noise)
        )
        start = stage.process.prior(stage.shape, noise)
        x = stage.process.sample(stage.denoiser, start, asked, levels=stage.levels, noise=noise, on_step=on_step)
    assert x is not None, "a cascade has a stage"
    return x


def follow(condition: Condition, small: Tensor, size: Sequence[int], level: Tensor, noise: Noise) -> Condition:
    """The condition with a smaller picture in it, noised so that its flaws are hidden, and told how much, then brought to `size`.

    `level` (b,) is a flow's time, from 0, nothing, to 1, nothing left (noise-conditioning augmentation, Saharia et al. 2022,
    sec. 2.4). A stage that learned at all levels takes a generated picture as it took real ones.
    """
    t = broadcast(level, small)
    noised = (1 - t) * small + t * noise.normal(*small.shape[1:]).to(small)
    return replace(condition, image=resized(noised, size), extra={**condition.extra, "augmentation": level})


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """Pictures (b, c, h, w) at another size, by cubic interpolation that averages where it shrinks."""
    return F.interpolate(x, size=tuple(size), mode="bicubic", align_corners=False, antialias=True)
