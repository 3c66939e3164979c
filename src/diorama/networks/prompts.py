"""What points to a thing in a picture, points, boxes, earlier masks and vectors, as tokens (Kirillov et al. 2023, app. A)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diorama.networks.layers import ChannelNorm
from diorama.parts import Part

NO_POINT, AWAY, MEANT, FIRST, LAST = -1, 0, 1, 2, 3  # what a point says; the last two are a box's upper left and lower right


class Prompts(NamedTuple):
    """One row per answer that is wanted. Lengths are pixels, x to the right and y downwards; pixel i reaches from i to i + 1."""

    points: Tensor  # (b, n, 2)
    says: Tensor  # (b, n) int64, NO_POINT where a row has fewer of them
    mask: Tensor | None = None  # (b, 4 side, 4 side) logits of an earlier answer
    vector: Tensor | None = None  # (b, d) what the thing looks like or is called; zero where nothing is said of it

    @classmethod
    def at(cls, points: Tensor, says: Tensor | None = None) -> Prompts:
        """Points (b, n, 2) of the thing, or as they say (b, n); beside them the point that is none, as where no box is given."""
        says = torch.full(points.shape[:2], MEANT, device=points.device) if says is None else says
        return cls(points, says).clicked(torch.zeros_like(points[:, :1]), torch.full_like(says[:, :1], NO_POINT))

    @classmethod
    def box(cls, boxes: Tensor) -> Prompts:
        """Boxes (b, 4): left, top, right, bottom."""
        return cls(boxes.reshape(-1, 2, 2).float(), torch.tensor([[FIRST, LAST]], device=boxes.device).expand(len(boxes), 2))

    def clicked(self, points: Tensor, says: Tensor) -> Prompts:
        """The same with more points (b, n, 2) after its own."""
        return self._replace(points=torch.cat([self.points, points], 1), says=torch.cat([self.says, says], 1))

    def to(self, device: torch.device | str) -> Prompts:
        mask, vector = (None if part is None else part.to(device) for part in (self.mask, self.vector))
        return Prompts(self.points.to(device), self.says.to(device), mask, vector)

    @property
    def alone(self) -> Tensor:
        """(b,) bool: nothing but one point, one box or one vector, so that several things may be meant."""
        told = ((self.says >= AWAY) & (self.says != LAST)).sum(1)
        if self.vector is not None:
            told = told + self.vector.any(1)
        return (told == 1) if self.mask is None else torch.zeros_like(told, dtype=torch.bool)


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """Sizes of the tokens, and of the frame that the points lie in."""

    width: int = 256
    size: int = 1024  # pixels along a side of the frame
    side: int = 64  # places along a side of the picture's features
    hidden: int = 16  # channels on the way from a mask
    vector: int = 0  # width of the vectors; 0 knows none


class PromptEncoder(Part):
    """Prompts -> tokens (b, n, width), and what is added to the picture's features (b, width, side or 1, side or 1).

    A point is random Fourier features of where it is (Tancik et al. 2020), with a learned vector for what it says.
    """

    Config = PromptConfig
    directions: Tensor

    def __init__(self, config: PromptConfig):
        super().__init__()
        self.config, width, hidden = config, config.width, config.hidden
        self.register_buffer("directions", torch.randn(2, width // 2))
        self.says = nn.Embedding(LAST - NO_POINT + 1, width)
        self.no_mask = nn.Parameter(torch.zeros(width))
        self.mask = nn.Sequential(
            *(nn.Conv2d(1, hidden // 4, 2, 2), ChannelNorm(hidden // 4, eps=1e-6), nn.GELU()),
            *(nn.Conv2d(hidden // 4, hidden, 2, 2), ChannelNorm(hidden, eps=1e-6), nn.GELU()),
            nn.Conv2d(hidden, width, 1),
        )
        self.vector = nn.Linear(config.vector, width) if config.vector else None

    def forward(self, prompts: Prompts) -> tuple[Tensor, Tensor]:
        there = (prompts.says > NO_POINT)[..., None]
        tokens = self.where(prompts.points / self.config.size) * there + self.says(prompts.says - NO_POINT)
        if self.vector is not None and prompts.vector is not None:
            said = prompts.vector.any(1, keepdim=True)
            token = torch.where(said, self.vector(prompts.vector), self.says.weight[0])
            tokens = torch.cat([tokens, token[:, None]], 1)
        if prompts.mask is None:
            return tokens, self.no_mask[:, None, None].expand(len(tokens), -1, 1, 1)
        return tokens, self.mask(prompts.mask[:, None])

    def where(self, xy: Tensor) -> Tensor:
        """Places (*, 2) in 0 .. 1 -> (*, width)."""
        angles = 2 * math.pi * (2 * xy - 1) @ self.directions
        return torch.cat([angles.sin(), angles.cos()], -1)

    def places(self) -> Tensor:
        """Where the features of a picture stand: (1, side * side, width), row by row."""
        line = (torch.arange(self.config.side, device=self.directions.device) + 0.5) / self.config.side
        return self.where(torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)).flatten(0, 1)[None]
