"""Our own text-to-image system: rectified flow in the latents of a frozen codec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from diorama import cards
from diorama.codecs.conv import ConvCodec
from diorama.codecs.patches import PatchCodec, PatchCodecConfig
from diorama.conditions.caption import CaptionEncoder
from diorama.conditions.text import SentenceEncoder
from diorama.networks.unet import UNetConfig
from diorama.processes.diffusion import Diffusion, as_velocity
from diorama.processes.levels import LogitNormal, flow
from diorama.processes.scalings import CleanFlow
from diorama.systems.base import TakePart
from diorama.systems.images.latent import LatentPainter

PRESETS = {
    "nano": UNetConfig(channels=64, widths=(128, 128), depth=1, attention=(True, True), text_width=128, embedding=192),
    "mini": UNetConfig(channels=16, widths=(192,), depth=2, attention=(True,), text_width=384, embedding=256),
    "base": UNetConfig(channels=16, widths=(384,), depth=4, attention=(True,), heads=6, text_width=384, embedding=512),
}

LATENTS = Diffusion()
PIXELS = Diffusion(CleanFlow(), LogitNormal(0.4, 1.2), weight=as_velocity)


@dataclass(eq=False)
class Flow(LatentPainter):
    """Sentences and styles to RGBA pictures (Esser et al. 2024 on the latents of Rombach et al. 2022)."""

    card: ClassVar[cards.Card] = cards.FLOW

    @property
    def process(self) -> Diffusion:
        return PIXELS if isinstance(self.codec, PatchCodec) else LATENTS

    @classmethod
    def new(cls, *, preset: str, size: int, labels: Sequence[str], part: TakePart) -> Flow:
        cls.card.check_preset(preset)
        if preset == "nano":  # pixels, and words it learns itself: it stands on nothing
            codec, text = PatchCodec(PatchCodecConfig(patch=4, mean=0.3, std=0.6)), part("text", CaptionEncoder)
            return cls.on(codec, text, PRESETS[preset], labels, size)
        return cls.on(part("codec", ConvCodec), part("text", SentenceEncoder), PRESETS[preset], labels, size)

    def levels(self, steps: int) -> Tensor:
        return flow(steps, shift=1.5)
