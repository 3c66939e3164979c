"""A diffusion network for vectors: residual blocks of two layers, told the level in between (Li et al. 2023, RCG, app. A)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from diorama.networks.layers import LevelEmbedding, zeroed
from diorama.parts import Part
from diorama.types import Condition


@dataclass(frozen=True, kw_only=True)
class VectorMLPConfig:
    """Sizes of the stack and of what it cleans."""

    channels: int = 128  # of the vector
    width: int = 256
    depth: int = 3
    embedding: int = 256  # width of what tells every block the level
    levels: float = 100.0  # scale of c_noise


class VectorBlock(nn.Module):
    """Two layers beside a skip, the level added between them."""

    def __init__(self, width: int, embedding: int):
        super().__init__()
        self.norm1, self.inlet = nn.LayerNorm(width), nn.Linear(width, width)
        self.level = nn.Linear(embedding, width)
        self.norm2, self.outlet = nn.LayerNorm(width), zeroed(nn.Linear(width, width))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.inlet(F.silu(self.norm1(x))) + self.level(F.silu(embedding))
        return x + self.outlet(F.silu(self.norm2(h)))


class VectorMLP(Part):
    """x (b, channels), c_noise (b,) -> (b, channels): a Network of no spatial axes, asked for nothing."""

    Config = VectorMLPConfig

    def __init__(self, config: VectorMLPConfig):
        super().__init__()
        self.config, width = config, config.width
        self.level = LevelEmbedding(config.embedding, features=width, scale=config.levels)
        self.inlet = nn.Linear(config.channels, width)
        self.blocks = nn.ModuleList(VectorBlock(width, config.embedding) for _ in range(config.depth))
        self.outlet = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), zeroed(nn.Linear(width, config.channels)))

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        x, embedding = self.inlet(x), self.level(c_noise)
        for block in self.blocks:
            x = block(x, embedding)
        return self.outlet(x)
