"""What a codec's pictures, clips or sounds are held to beside their numbers: a critic of patches that learns to tell them from real ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from diorama.networks.layers import GroupNorm, convolution


class PatchCritic(nn.Module):
    """Convolutions that judge every patch by itself (Isola et al. 2017, sec. 3.2.2), for any number of axes."""

    def __init__(self, axes: int, channels: int, widths: Sequence[int] = (32, 64, 128)):
        super().__init__()
        self.layers = nn.ModuleList()
        for i, width in enumerate(widths):
            before = widths[i - 1] if i else channels
            norm = GroupNorm(width) if i else nn.Identity()
            self.layers.append(nn.Sequential(convolution(axes, before, width, stride=2), norm, nn.LeakyReLU(0.2)))
        self.layers.append(convolution(axes, widths[-1], 1))

    def features(self, x: Tensor) -> list[Tensor]:
        """What it sees, layer by layer, and last its judgement (b, 1, *places), higher for what looks real."""
        found = []
        for layer in self.layers:
            x = layer(x)
            found.append(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)[-1]


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """The critic's own loss on its judgements, (b,): real ones above 1 and others below -1 cost nothing (Lim & Ye 2017)."""
    return (F.relu(1 - real).flatten(1).mean(1) + F.relu(1 + fake).flatten(1).mean(1)) / 2


def matching(seen: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """L1 of what the critic sees in two, its judgement aside, (b,) (Wang et al. 2018, pix2pixHD, sec. 3.2)."""
    pairs = list(zip(seen[:-1], target[:-1], strict=True))
    return sum((a - b.detach()).abs().flatten(1).mean(1) for a, b in pairs) / len(pairs)  # type: ignore[return-value]
