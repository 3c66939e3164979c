"""Latent Diffusion: the latents of a frozen codec out of noise, and sentences in through cross-attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from diorama import cards
from diorama.codecs.conv import ConvCodec
from diorama.conditions.caption import CaptionConfig, CaptionEncoder
from diorama.networks.unet import UNetConfig
from diorama.processes.diffusion import Diffusion
from diorama.processes.levels import respaced, scaled_linear
from diorama.processes.scalings import Epsilon
from diorama.systems.base import TakePart
from diorama.systems.images.latent import LatentPainter

PRESETS = {
    "nano": (
        UNetConfig(channels=16, widths=(96,), depth=1, attention=(True,), embedding=192, levels=1.0, transformer=True),
        CaptionConfig(),
    ),
    "mini": (
        UNetConfig(channels=16, widths=(192,), attention=(True,), embedding=256, levels=1.0, transformer=True),
        CaptionConfig(width=256, depth=4),
    ),
    # 1.45 B for 256 px in latents of f = 8 (Rombach et al. 2022, sec. 4.3.1): 0.87 B in the U-Net, the rest in a text tower of
    # 32 layers, 1280 wide. Counted without the tower's output layer (39 M), which paints nothing
    "paper": (
        UNetConfig(
            channels=4,
            widths=(320, 640, 1280, 1280),
            attention=(True, True, True, False),
            heads=8,
            embedding=1280,
            levels=1.0,
            scales=False,
            resample="keeping",
            closing=True,
            transformer=True,
        ),
        CaptionConfig(words=30522, width=1280, depth=32, heads=8, head_width=64, max_tokens=77),
    ),
}


@dataclass(eq=False)
class LatentDiffusion(LatentPainter):
    """Sentences and styles to RGBA pictures; the text tower learns together with the network (Rombach et al. 2022)."""

    card: ClassVar[cards.Card] = cards.LDM
    process: ClassVar[Diffusion] = Diffusion.of_table(Epsilon, scaled_linear())

    @classmethod
    def new(cls, *, preset: str, size: int, labels: Sequence[str], part: TakePart) -> LatentDiffusion:
        cls.card.check_preset(preset)
        shape, words = PRESETS[preset]
        text = CaptionEncoder(words, part("text", CaptionEncoder).tokenizer)  # the pieces are the data's, the size is ours
        return cls.on(part("codec", ConvCodec), text, shape, labels, size)

    def levels(self, steps: int) -> Tensor:
        return respaced(Epsilon(scaled_linear()).sigmas, steps)
