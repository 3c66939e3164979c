"""Whether a thing that has one face shows it from one side: the measure of the two-faced (Poole et al. 2022, section 5)."""

from __future__ import annotations

import torch
from torch import Tensor

VISIBLE = 65.0  # degrees from the front within which a face is truly seen


def consistency(faces: Tensor) -> Tensor:
    """V (b,) in 0.5 .. 1: whether a face is seen (b, n) bool, once around at n equal turns, as it would be of a thing with one.

    The mean of the shares that are right where a face should be and where none should, after the best turn of the whole: which side
    is the front does not matter. Of 16 views one face is 1, two are 0.77, three of four sides 0.64, everywhere or nowhere 0.5, chance 0.7.
    """
    n = faces.shape[1]
    off = (torch.arange(n) * (360 / n) + 180) % 360 - 180
    truth = torch.stack([(off.abs() < VISIBLE).roll(k) for k in range(n)]).double()  # (n turns, n views)
    seen = faces.double().to("cpu")
    hits, rejections = seen @ truth.T / truth.sum(1), (1 - seen) @ (1 - truth).T / (1 - truth).sum(1)
    return ((hits + rejections) / 2).amax(1)


def arcs(faces: Tensor) -> Tensor:
    """(b,) int64: how many faces (b, n) bool there are once around, each one or more neighbouring views. It should be 1."""
    return (faces & ~faces.roll(1, 1)).sum(1)
