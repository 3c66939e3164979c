"""Ways from one start, or one embedding, to another."""

from __future__ import annotations

import torch
from torch import Tensor

from diorama.networks.layers import broadcast


def slerp(a: Tensor, b: Tensor, share: Tensor | float) -> Tensor:
    """The point at this share, 0 to 1, of the arc from a to b, both (b, ...): of one length, so is all between (Shoemake 1985).

    `share` is a number or (b,). Where a and b have one direction it is the straight line; opposite ones have no arc between them.
    """
    t = broadcast(torch.as_tensor(share, dtype=a.dtype, device=a.device).expand(len(a)), a)
    unit_a, unit_b = (x.flatten(1) / x.flatten(1).norm(dim=1, keepdim=True).clamp_min(1e-12) for x in (a, b))
    angle = broadcast((unit_a * unit_b).sum(1).clamp(-1, 1).acos(), a)
    whole = angle.sin()
    near = whole < 1e-4  # the arc is the line, and the formula 0 / 0
    whole = torch.where(near, 1.0, whole)
    first, second = ((1 - t) * angle).sin() / whole, (t * angle).sin() / whole
    return torch.where(near, torch.lerp(a, b, t), first * a + second * b)
