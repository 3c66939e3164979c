"""Scenes one can look at from anywhere, and rays through volumes: where they enter and leave, and the light that comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from diorama.parts import Part
from diorama.scenes.cameras import Camera

Paint = Callable[[Tensor, Tensor], Tensor]  # colours (*, 3) and unit normals (*, 3) of places -> the colours that are seen (*, 3)


class Seen(NamedTuple):
    """What one camera sees of a scene in its p pixels."""

    colour: Tensor  # (p, 3) in 0 .. 1, on black
    left: Tensor  # (p,): the share of light that goes through
    turned: Tensor  # (p,): how far what is seen looks away from the camera (Poole et al. 2022, appendix A.2); 0 of a true surface


class Scene(Part):
    """What is seen from anywhere, in any light, with a gradient."""

    def look(self, camera: Camera, paint: Paint, jitter: Tensor | None = None) -> Seen:
        """What one camera sees, each place in the colour that `paint` gives it; `jitter` (p, samples) in 0 .. 1 moves samples on rays."""
        raise NotImplementedError

    @property
    def samples(self) -> int:
        """On each ray, where there are any."""
        return 0

    def roughness(self) -> Tensor:
        """How uneven it is. Nothing by default."""
        return torch.zeros(())


class Light(NamedTuple):
    """What comes out of rays (*)."""

    features: Tensor  # (*, c): summed front to back
    left: Tensor  # (*,): the share of light that goes all the way through
    weights: Tensor  # (*, n): of each sample in the sum; with `left` they make 1


def composite(density: Tensor, features: Tensor, steps: Tensor) -> Light:
    """The sum along rays of densities (*, n) per metre and features (*, n, c) over lengths (*, n), front first (Mildenhall et al. 2020, eq. 3).

    Features may be anything that is to be seen: colours, depths, normals.
    """
    clear = torch.exp(-density * steps)
    left = clear.cumprod(-1)
    weights = F.pad(left[..., :-1], (1, 0), value=1.0) * (1 - clear)
    return Light((weights[..., None] * features).sum(-2), left[..., -1], weights)


def crossing(origin: Tensor, direction: Tensor, middle: Sequence[float], half: float) -> tuple[Tensor, Tensor]:
    """From where to where (*,), along directions (*, 3) from origins (*, 3), rays are in a cube; both the same where they miss it."""
    towards = torch.where(direction.abs() < 1e-9, 1e-9, direction)
    faces = torch.stack([(origin.new_tensor(middle) + side * half - origin) / towards for side in (-1, 1)])  # (2, *, 3)
    near, far = faces.amin(0).amax(-1).clamp_min(0), faces.amax(0).amin(-1)
    return near, torch.maximum(near, far)


def sampled(near: Tensor, far: Tensor, n: int, jitter: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """n depths and lengths (*, n) between near and far (*,): middles of equal pieces, or anywhere in them by `jitter` (*, n) in 0 .. 1."""
    step = ((far - near) / n)[..., None]
    place = torch.arange(n, device=near.device) + (0.5 if jitter is None else jitter)
    return near[..., None] + step * place, step.expand(*near.shape, n)
