"""Tokens told one after another, each from those before it (Bengio et al. 2003; van den Oord et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from diorama.processes.masked import gumbel
from diorama.types import MASK, Condition, Noise, OnStep, Predictor, Step, ignore

NEVER = -2  # no token


@dataclass(frozen=True)
class Autoregressive:
    """A causal predictor learns each token from the true ones before it, and samples from its own. A step tells one token."""

    end: int = NEVER  # the token beyond which nothing is told
    temperature: float = 1.0  # 0 takes the likeliest

    def prior(self, shape: Sequence[int], noise: Noise) -> Tensor:
        """Nothing known, (b, *shape)."""
        return torch.full((len(noise), *shape), MASK, device=noise.device)

    def loss(self, model: Predictor, x: Tensor, condition: Condition, noise: Noise) -> Tensor:
        """Cross-entropy in nats per token of x (b, *places) int64: (b,). What is MASK, beyond the end, is not asked."""
        logits = model(x, condition).float().movedim(-1, 1)
        error = F.cross_entropy(logits, x, ignore_index=MASK, reduction="none").flatten(1)
        return error.sum(1) / (x != MASK).flatten(1).sum(1).clamp_min(1)

    def sample(self, model: Predictor, start: Tensor, condition: Condition, *, noise: Noise, on_step: OnStep = ignore) -> Tensor:
        """All MASK of `start` (b, *places) told in the order of places, the rest kept; the model is shown the row up to each."""
        tokens = start.flatten(1).clone()
        for i in range(n := tokens.shape[1]):
            over = (tokens[:, :i] == self.end).any(1)
            if over.all():
                break
            logits = model(tokens[:, : i + 1], condition)[:, i].float()
            told = (logits + self.temperature * gumbel(noise, logits.shape[-1])).argmax(-1)
            told = torch.where(over, self.end, told)
            tokens[:, i] = torch.where(tokens[:, i] == MASK, told, tokens[:, i])
            on_step(Step(i, n, tokens.reshape(start.shape)))
        return torch.where(tokens == MASK, self.end, tokens).reshape(start.shape)
