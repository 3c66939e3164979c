"""How hard to press: what every guidance takes as its scale."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from diorama.networks.layers import broadcast

Scale = float | Tensor | Callable[[Tensor], Tensor]  # a number, one per sample (b,), or a function of sigma (b,)


def scale_at(scale: Scale, sigma: Tensor, x: Tensor) -> float | Tensor:
    """The scale at these levels (b,), ready to multiply x (b, ...)."""
    value = scale(sigma) if callable(scale) else scale
    return broadcast(value, x) if isinstance(value, Tensor) else value
