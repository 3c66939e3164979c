"""Tokens told all at once, the surest first: the masked process (Chang et al. 2022, MaskGIT).

The level of a set of tokens is the share of them that is still masked. A list has one more entry than steps: it ends in 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import Tensor

from diorama.errors import UserError
from diorama.types import MASK, Condition, Noise, OnStep, Predictor, Step, ignore

Schedule = Callable[[Tensor], Tensor]  # how much of the way is gone -> the share that is still masked


def cosine(gone: Tensor) -> Tensor:
    """From 1 to 0, slowly at first: few tokens are told while little is known (Chang et al. 2022, sec. 3.3)."""
    return (math.pi / 2 * gone).cos().clamp_min(0)


def cosine_inverse(share: Tensor) -> Tensor:
    """How much of the way is gone where this share is still masked by `cosine`."""
    return share.clamp(0, 1).acos() / (math.pi / 2)


def normal(mean: float, std: float, low: float = 0.5) -> Schedule:
    """From `low` to 1 as often as a normal law cut there says (Li et al. 2023, MAGE, sec. 3.1): a law of shares to learn from."""
    law = NormalDist(mean, std)
    first, last = law.cdf(low), law.cdf(1.0)
    return lambda gone: (mean + std * torch.special.ndtri(first + (last - first) * gone)).clamp(low, 1)


@dataclass(frozen=True)
class MaskedParallel:
    """Tokens are masked at random to learn, and told in parallel by confidence to sample."""

    schedule: Schedule = cosine
    temperature: float = 4.5  # of the choice which tokens stay; it falls to 0
    smoothing: float = 0.1  # of the labels (Chang et al. 2022, sec. 4.1)
    law: Schedule | None = None  # from an even draw to the share masked while learning; None is the schedule

    def prior(self, shape: Sequence[int], noise: Noise) -> Tensor:
        """Nothing known, (b, *shape)."""
        return torch.full((len(noise), *shape), MASK, device=noise.device)

    def levels(self, n: int) -> Tensor:
        """(n + 1,) from 1 to 0 along the schedule."""
        if n < 1:
            raise UserError(f"{n} steps tell no token: use 1 or more")
        return self.schedule(torch.linspace(0, 1, n + 1))

    def loss(self, model: Predictor, x: Tensor, condition: Condition, noise: Noise) -> Tensor:
        """Cross-entropy in nats per masked token of x (b, *places) int64: (b,) (Chang et al. 2022, eq. 2)."""
        n = x[0].numel()
        count = ((self.law or self.schedule)(noise.uniform()) * n).ceil().clamp_min(1)[:, None]
        masked = _lowest(noise.uniform(n), count).reshape(x.shape)
        logits = model(torch.where(masked, MASK, x), condition).float().movedim(-1, 1)
        error = F.cross_entropy(logits, x, reduction="none", label_smoothing=self.smoothing)
        return (error * masked).flatten(1).sum(1) / count[:, 0]

    def sample(
        self, model: Predictor, start: Tensor, condition: Condition, *, levels: Tensor, noise: Noise, on_step: OnStep = ignore
    ) -> Tensor:
        """All MASK of `start` (b, *places) told, the rest kept (Chang et al. 2022, sec. 3.2)."""
        n, tokens = len(levels) - 1, start.flatten(1)
        asked = (tokens == MASK).sum(1, keepdim=True)
        for i, (level, following) in enumerate(pairwise(levels.tolist())):
            logits = model(tokens.reshape(start.shape), condition).float().flatten(1, -2)  # (b, n, codes)
            told = (logits + gumbel(noise, *logits.shape[1:])).argmax(-1)
            told = torch.where(tokens == MASK, told, tokens)
            on_step(Step(i, n, told.reshape(start.shape), level))
            sure = logits.log_softmax(-1).gather(-1, told[..., None])[..., 0]
            sure = sure + self.temperature * (1 - (i + 1) / n) * gumbel(noise, *told.shape[1:])
            sure = sure.masked_fill(tokens != MASK, math.inf)
            left = (following / levels[0].item() * asked).floor()
            tokens = torch.where(_lowest(sure, left), MASK, told)
        return tokens.reshape(start.shape)


def _lowest(values: Tensor, count: Tensor) -> Tensor:
    """Where the `count` (b, 1) lowest of each row's values (b, n) are."""
    return values.argsort(dim=1, stable=True).argsort(dim=1) < count


def gumbel(noise: Noise, *shape: int) -> Tensor:
    """(b, *shape): logits plus this, and the largest is a draw of their softmax."""
    return -(-noise.uniform(*shape).clamp_min(1e-12).log()).log()
