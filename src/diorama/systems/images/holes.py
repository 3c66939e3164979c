"""What every painter has that fills holes: a network that is also shown what is known around them (Nichol et al. 2022, sec. 2.5)."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from diorama.data.holes import boxes
from diorama.guidance.inpaint import replaced
from diorama.guidance.scale import Scale
from diorama.networks.unet import widened
from diorama.systems.images.latent import LatentPainter
from diorama.types import Condition, Noise


@dataclass(eq=False)
class HolePainter(LatentPainter):
    """A painter in latents, and what it becomes once fine-tuned to fill holes."""

    def inpainter(self) -> Self:
        """A copy that is also shown what is known, by inputs that say nothing yet: fine-tune it."""
        copy = deepcopy(self)
        copy.network = widened(copy.network, self.codec.config.latent + self.marks)
        return copy

    @torch.no_grad()
    def inpaint(self, image: Tensor, mask: Tensor, prompts: Sequence[str], *, guidance: Scale = 3.0, **how: Any) -> Tensor:
        """Pictures (b, 4, size, size) with what is asked for where `mask` (b, 1, size, size) is 1; elsewhere their latents stay.

        A model that is no inpainter knows of the rest only that it is put back at every step.
        """
        z, condition = self.codec.encode(image.to(self.device)), self.condition(prompts)
        hole = self.places(mask.to(self.device))
        if self.network.config.given:
            condition = replace(condition, image=self.around(z, hole))
        return self.paint(replaced(self.guided(guidance), z, hole), condition, **how)

    def shown(self, condition: Condition, z: Tensor, noise: Noise) -> Condition:
        if not self.network.config.given:
            return condition
        return replace(condition, image=self.around(z, self.places(boxes(self.size, noise))))

    def condition(self, prompts: Sequence[str], styles: Sequence[str | None] | None = None) -> Condition:
        """An inpainter that is asked for whole pictures is shown one large hole."""
        asked = super().condition(prompts, styles)
        if not self.network.config.given:
            return asked
        hole = self.places(torch.ones(len(prompts), 1, self.size, self.size, device=self.device))
        z = hole.new_zeros(len(prompts), self.codec.config.latent, *hole.shape[2:])
        return replace(asked, image=self.around(z, hole))

    @property
    def marks(self) -> int:
        """Channels in which the network is shown where the hole is."""
        return 1

    def places(self, mask: Tensor) -> Tensor:
        """(b, 1, h, w) -> where the latents are to be generated, (b, 1, h', w'): wherever any of their pixels is."""
        return F.max_pool2d(mask, self.codec.config.stride)

    def around(self, z: Tensor, hole: Tensor) -> Tensor:
        """What is known, 0 in the hole, and where the hole is."""
        return torch.cat([z * (1 - hole), hole[:, : self.marks]], 1)
