"""Latents to tokens: the codebook between an encoder and a decoder (van den Oord et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diorama.networks.precision import exactly
from diorama.parts import Part
from diorama.types import Codec, Codes, Noise


@dataclass(frozen=True, kw_only=True)
class VectorQuantiserConfig:
    """A codebook and how it learns."""

    codes: int = 256
    width: int = 8  # of a code, and channels of the latents
    unit: bool = True  # latents and codes are compared by direction alone (Yu et al. 2022, sec. 3.2)
    beta: float = 0.25  # weight of the commitment loss
    decay: float | None = 0.99  # of the moving averages that the codes are; None where a loss trains them instead
    restart: float = 0.1  # a code used less than this share of an even use begins anew; 0 for never. Without a decay none does


class VectorQuantiser(Part):
    """The nearest code for every latent; the gradient goes straight through to the latent (van den Oord et al. 2017, sec. 3.2).

    With `unit`, latents and codes are scaled to unit variance, so that a squared distance per entry is one of unit vectors.
    """

    Config = VectorQuantiserConfig

    def __init__(self, config: VectorQuantiserConfig):
        super().__init__()
        self.config = config
        self.codebook: Tensor
        self.uses: Tensor  # moving average of the latents assigned to each code
        codebook = torch.randn(config.codes, config.width)
        if config.decay is None:
            self.codebook = nn.Parameter(codebook)
        else:
            self.register_buffer("codebook", codebook)
            self.register_buffer("uses", torch.zeros(config.codes))

    def forward(self, z: Tensor) -> Codes:
        """z (b, width, *places) -> codes; the loss is the mean over latents and entries (van den Oord et al. 2017, eq. 3)."""
        with exactly(z):  # the nearest code in bfloat16 is another one
            z = self._scaled(z.float(), 1)
            indices = self._nearest(z.movedim(1, -1))
            e = self.lookup(indices)
            loss = self.config.beta * (z - e.detach()).square()
            if self.config.decay is None:
                loss = loss + (z.detach() - e).square()
            return Codes(indices, z + (e - z).detach(), loss.flatten(1).mean(1))

    def lookup(self, indices: Tensor) -> Tensor:
        """(b, *places) int64 -> their codes (b, width, *places)."""
        return F.embedding(indices, self._scaled(self.codebook, -1)).movedim(-1, 1)

    def _nearest(self, z: Tensor) -> Tensor:
        """(b, *places, width) -> (b, *places): argmin |z - e|^2 = argmax z e - |e|^2 / 2."""
        e = self._scaled(self.codebook, -1)
        return (z @ e.T - e.square().sum(1) / 2).argmax(-1)

    def _scaled(self, x: Tensor, dim: int) -> Tensor:
        return F.normalize(x, dim=dim) * self.config.width**0.5 if self.config.unit else x

    @torch.no_grad()
    def update(self, z: Tensor, indices: Tensor, noise: Noise) -> None:
        """Each code becomes the moving average of the latents assigned to it (van den Oord et al. 2017, app. A.1).

        A code hardly ever used begins anew at a latent drawn from this batch (Dhariwal et al. 2020, sec. 3.1), as all do at first.
        Where several processes train, the first one's batch decides: buffers follow it.
        """
        config, z = self.config, self._scaled(z.float(), 1).flatten(2).mT  # (b, n, width)
        drawn = self._drawn(z, noise)
        if config.decay is None or not z.isfinite().all():
            return
        used = torch.bincount(indices.flatten(), minlength=config.codes)
        total = torch.zeros_like(self.codebook).index_add_(0, indices.flatten(), z.flatten(0, 1))
        dead = (self.uses < config.restart * self.uses.mean()) | ~self.uses.any()
        uses = torch.lerp(used.float(), self.uses, config.decay)
        step = (1 - config.decay) * (total - used[:, None] * self.codebook) / uses.clamp_min(1e-12)[:, None]
        self.codebook.copy_(torch.where(dead[:, None], drawn, self.codebook + step))
        self.uses.copy_(torch.where(dead, uses.mean(), uses))

    def _drawn(self, z: Tensor, noise: Noise) -> Tensor:
        """A latent for every code, as evenly from all samples as it goes: (codes, width)."""
        b, n, _ = z.shape
        picked = noise.integers(n, -(-self.config.codes // b))
        return z[torch.arange(b, device=z.device)[:, None], picked].transpose(0, 1).flatten(0, 1)[: self.config.codes]


@dataclass(frozen=True)
class QuantisedCodec:
    """A codec and the codebook of its latents: a Tokenizer."""

    codec: Codec
    quantiser: VectorQuantiser

    def encode(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        return self.codec.encode(x, noise)

    def decode(self, z: Tensor) -> Tensor:
        return self.codec.decode(z)

    def quantise(self, z: Tensor) -> Codes:
        return self.quantiser(z)

    def lookup(self, indices: Tensor) -> Tensor:
        return self.quantiser.lookup(indices)

    @torch.no_grad()
    def tokenise(self, x: Tensor) -> Tensor:
        """(b, c, *spatial) -> (b, *places) int64."""
        return self.quantise(self.encode(x)).indices

    @torch.no_grad()
    def detokenise(self, indices: Tensor) -> Tensor:
        """(b, *places) int64 -> (b, c, *spatial) in [-1, 1]."""
        return self.decode(self.lookup(indices)).float().clamp(-1, 1)
