"""A few tokens and a picture that look at each other in turn, until the tokens know which pixels are meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diorama.networks.attention import Attention
from diorama.networks.layers import ChannelNorm
from diorama.parts import Part


@dataclass(frozen=True, kw_only=True)
class NeckConfig:
    """How wide the encoder's tokens are, and what follows."""

    given: int = 1280
    width: int = 256


class Neck(Part):
    """Tokens (b, side * side, given) row by row -> features (b, width, side, side) (Li et al. 2022, as Kirillov et al. 2023 use it)."""

    Config = NeckConfig

    def __init__(self, config: NeckConfig):
        super().__init__()
        self.config, width = config, config.width
        self.layers = nn.Sequential(
            *(nn.Conv2d(config.given, width, 1, bias=False), ChannelNorm(width, eps=1e-6)),
            *(nn.Conv2d(width, width, 3, padding=1, bias=False), ChannelNorm(width, eps=1e-6)),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        side = round(tokens.shape[1] ** 0.5)
        return self.layers(tokens.mT.unflatten(2, (side, side)))


@dataclass(frozen=True, kw_only=True)
class MaskDecoderConfig:
    """Sizes of the decoder."""

    width: int = 256
    depth: int = 2
    heads: int = 8
    hidden: int = 2048
    masks: int = 3  # answers to one prompt; one more answers several prompts together


class TwoWayBlock(nn.Module):
    """Tokens look at each other and at the picture, and the picture at them (Kirillov et al. 2023, fig. 14)."""

    def __init__(self, config: MaskDecoderConfig, first: bool):
        super().__init__()
        self.first, width = first, config.width
        self.own = Attention(width, config.heads)
        self.look = across(config)
        self.mlp = nn.Sequential(nn.Linear(width, config.hidden), nn.ReLU(), nn.Linear(config.hidden, width))
        self.tell = across(config)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))

    def forward(self, x: Tensor, image: Tensor, at: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """x (b, n, d), image (b, m, d), and where both stand, of the same shapes: the tokens at what they were in the beginning."""
        one, two, three, four = self.norms
        x = one(self.own(x) if self.first else x + self.own(x, at=at))  # at first they are where they stand
        x = two(x + self.look(x, image, at=at, context_at=places))
        x = three(x + self.mlp(x))
        return x, four(image + self.tell(image, x, at=places, context_at=at))


def across(config: MaskDecoderConfig) -> Attention:
    """Cross-attention of half the width."""
    half = config.width // config.heads // 2
    return Attention(config.width, config.heads, config.width, head_width=half, own=False, sink=False)


class Answer(NamedTuple):
    """What may be meant. The first is for several prompts together, the others for one that can mean several things."""

    logits: Tensor  # (b, 1 + masks, 4 side, 4 side)
    iou: Tensor  # (b, 1 + masks) how well each is expected to fit


class MaskDecoder(Part):
    """A picture's features (b, width, side, side), where they stand, and prompts (b, n, width) -> masks (Kirillov et al. 2023, app. A)."""

    Config = MaskDecoderConfig

    def __init__(self, config: MaskDecoderConfig):
        super().__init__()
        self.config, width, answers = config, config.width, 1 + config.masks
        self.asked = nn.Parameter(torch.empty(1 + answers, width).normal_())  # for the fits, then for each mask
        self.blocks = nn.ModuleList(TwoWayBlock(config, first=i == 0) for i in range(config.depth))
        self.look, self.norm = across(config), nn.LayerNorm(width)
        self.enlarge = nn.Sequential(
            *(nn.ConvTranspose2d(width, width // 4, 2, 2), ChannelNorm(width // 4, eps=1e-6), nn.GELU()),
            *(nn.ConvTranspose2d(width // 4, width // 8, 2, 2), nn.GELU()),
        )
        self.kernels = nn.ModuleList(three_layers(width, width // 8) for _ in range(answers))
        self.iou = three_layers(width, answers)

    def forward(self, image: Tensor, places: Tensor, prompts: Tensor) -> Answer:
        tokens = torch.cat([self.asked.expand(len(prompts), -1, -1), prompts], 1)
        x, seen = tokens, image.flatten(2).mT
        for block in self.blocks:
            x, seen = block(x, seen, tokens, places)
        x = self.norm(x + self.look(x, seen, at=tokens, context_at=places))
        fine = self.enlarge(seen.mT.unflatten(2, image.shape[2:]))
        kernels = torch.stack([kernel(x[:, i]) for i, kernel in enumerate(self.kernels, 1)], 1)
        return Answer(torch.einsum("bmc, bchw -> bmhw", kernels, fine), self.iou(x[:, 0]))


def three_layers(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out))
