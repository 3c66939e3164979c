"""The exponential moving average of trained weights, which is what samples and ships (Ho et al. 2020, app. B)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """theta_ema <- decay theta_ema + (1 - decay) theta over the trained parameters of a module.

    Early on the decay is (1 + n) / (10 + n), so that the random start is forgotten quickly.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay, self.updates = decay, 0
        self.live = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.shadow = {name: p.detach().clone() for name, p in self.live.items()}

    @torch.no_grad()
    def update(self) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.shadow.values()), [p.detach() for p in self.live.values()], 1 - decay)

    def load(self, shadow: Mapping[str, Tensor], updates: int) -> None:
        self.updates = updates
        for name, value in self.shadow.items():
            value.copy_(shadow[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the module computes with the averaged weights."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """The module takes the averaged weights, the average those of the module; twice changes nothing."""
        for name, p in self.live.items():
            mine = p.detach().clone()
            p.copy_(self.shadow[name])
            self.shadow[name].copy_(mine)
