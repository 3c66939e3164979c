"""How far masks that are still logits are from the truth, differentiably."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def focal(logits: Tensor, truth: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Cross-entropy that leaves what is easy alone: (*, h, w) -> (*), mean over pixels (Lin et al. 2017, eq. 5)."""
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    weight = alpha * truth + (1 - alpha) * (1 - truth)
    return (weight * (1 - (-entropy).exp()) ** gamma * entropy).mean((-2, -1))


def dice(logits: Tensor, truth: Tensor) -> Tensor:
    """One minus the overlap by Dice, of probabilities: (*, h, w) -> (*) (Milletari et al. 2016, with 1 added above and below)."""
    p = logits.sigmoid()
    return 1 - (2 * (p * truth).sum((-2, -1)) + 1) / ((p + truth).sum((-2, -1)) + 1)
