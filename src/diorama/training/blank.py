"""What a step reads, without the numbers: batches and draws on the meta device, which cost nothing at any size."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diorama.conditions.text import TextTower
from diorama.types import Batch, Noise, TextEmbedding


class Blank(Noise):
    """Draws that are not drawn. Whole numbers are zeros on the processor: what is done next may depend on them, as a crop does."""

    def __init__(self, n: int):
        self.n, self.device = n, torch.device("meta")

    def __len__(self) -> int:
        return self.n

    def normal(self, *shape: int) -> Tensor:
        return torch.empty(self.n, *shape, device=self.device)

    def uniform(self, *shape: int) -> Tensor:
        return self.normal(*shape)

    def integers(self, high: int, *shape: int) -> Tensor:
        return torch.zeros(self.n, *shape, dtype=torch.int64)


def blank(system: nn.Module, n: int, size: int, frames: int = 0) -> Batch:
    """n pictures of this size, or clips of so many frames, each with a label and a sentence as long as can be.

    A frozen text tower has read the sentences: it would have to look at them.
    """
    draw = Blank(n)
    tower = next((part for part in system.children() if isinstance(part, TextTower)), None)
    longest = 1 if tower is None else tower.config.max_tokens
    embedding = None
    if tower is not None and tower.frozen:
        width = tower.config.width
        embedding = TextEmbedding(draw.normal(longest, width), draw.normal(longest).bool(), draw.normal(width))
    image = draw.normal(4, *([frames] if frames else []), size, size)
    return Batch(image, [" ".join(["word"] * longest)] * n, draw.integers(1).to("meta"), embedding=embedding)
