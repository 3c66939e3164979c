"""An encoder that reads the tokens of a picture there are, and a decoder that tells the others (Li et al. 2023, MAGE, sec. 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diorama.networks.transformer import Transformer, TransformerConfig
from diorama.parts import Part
from diorama.types import MASK, Condition


@dataclass(frozen=True, kw_only=True)
class MageConfig:
    """Sizes of the two stacks and of what they read."""

    codes: int = 256
    places: tuple[int, ...] = (8, 8)
    told: int = 128  # width of the vector that says what to paint
    width: int = 160
    depth: int = 5  # of the encoder
    decoder_depth: int = 3
    heads: int = 5
    dropped: float = 0.5  # of all tokens, masked ones that the encoder never reads while training: no more than are masked


class Mage(Part):
    """Tokens (b, *places) int64, MASK where still to come -> logits (b, *places, codes): a Predictor.

    The condition's text is one word, a vector that says what to paint; where it says nothing a learned one stands. It enters as
    the encoder's first token, and what the encoder makes of it stands in the decoder wherever a token is masked.
    """

    Config = MageConfig

    def __init__(self, config: MageConfig):
        super().__init__()
        self.config, width, n = config, config.width, math.prod(config.places)
        self.tokens = nn.Parameter(0.02 * torch.randn(config.codes + 1, width))  # row 0 is MASK
        self.places = nn.Parameter(0.02 * torch.randn(n, width))
        self.norm = nn.LayerNorm(width)
        self.told = nn.Linear(config.told, width)
        self.nothing = nn.Parameter(0.02 * torch.randn(config.told))
        self.encoder = Transformer(TransformerConfig(width=width, depth=config.depth, heads=config.heads))
        self.between = nn.Linear(width, width)
        self.decoder_places = nn.Parameter(0.02 * torch.randn(n + 1, width))
        self.decoder = Transformer(TransformerConfig(width=width, depth=config.decoder_depth, heads=config.heads))
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(config.codes))

    def forward(self, tokens: Tensor, condition: Condition) -> Tensor:
        assert condition.text is not None, "this network is told what to paint, or that nothing is asked"
        vector, there, _ = condition.text
        told = self.told(torch.where(there[..., None], vector, self.nothing.to(vector)))  # (b, 1, width)
        flat = tokens.flatten(1)
        x = torch.cat([told, self.norm(F.embedding(flat + 1, self.tokens) + self.places)], 1)
        masked = F.pad(flat == MASK, (1, 0))
        read = self._read(masked)
        x = self.between(self.encoder(x.gather(1, read.expand(-1, -1, x.shape[-1]))))
        first = x[:, :1].expand(-1, masked.shape[1], -1)
        x = torch.where(masked[..., None], first, first.scatter(1, read.expand_as(x), x))
        h = self.head(self.decoder(x + self.decoder_places)[:, 1:])
        return (h @ self.tokens[1:].T + self.bias).reshape(*tokens.shape, -1)

    def _read(self, masked: Tensor) -> Tensor:
        """Which tokens the encoder reads, (b, m, 1): all of them, the first one first; while training, not some that are masked."""
        b, n = masked.shape
        if not self.training:
            return torch.arange(n, device=masked.device).expand(b, n)[..., None]
        dropped = int(self.config.dropped * (n - 1))  # as many of all, for attention among as many
        if not masked.is_meta:  # and none that is told; planned without numbers, enough are masked
            dropped = min(dropped, int(masked.sum(1).min()))
        late = torch.rand(b, n, device=masked.device).masked_fill(~masked, -1.0)
        return late.argsort(dim=1, stable=True)[:, : n - dropped, None]
