"""Kandinsky 3: sentences straight to latents, by a deep U-Net of bottlenecks, and to pictures, by a decoder that meets these at every norm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from diorama import cards
from diorama.codecs.conv import ConvCodec
from diorama.conditions.text import SentenceEncoder
from diorama.guidance.scale import Scale
from diorama.guidance.threshold import dynamic
from diorama.networks.unet import UNetConfig
from diorama.processes.diffusion import Diffusion
from diorama.processes.levels import cosine, respaced
from diorama.processes.scalings import Epsilon
from diorama.systems.base import TakePart
from diorama.systems.images.holes import HolePainter
from diorama.types import Condition, Denoiser

_OURS = UNetConfig(channels=4, levels=1.0, bottleneck=True)  # c_noise is an index of the table
PRESETS = {
    "nano": replace(_OURS, widths=(64, 128), depth=1, attention=(False, True), embedding=128, reads=128),
    "mini": replace(_OURS, widths=(128, 256), depth=1, attention=(True, True), embedding=256, reads=256),
    # 3.0 B (Arkhipkin et al. 2023, sec. 2) for 1024 px in latents of f = 8, reading the 4096 channels of Flan-UL2
    "paper": replace(
        _OURS,
        widths=(384, 768, 1536, 3072),
        depth=3,
        attention=(False, True, True, True),
        head_width=64,
        embedding=1536,
        reads=4096,
    ),
}


@dataclass(eq=False)
class Kandinsky3(HolePainter):
    """Sentences to RGBA pictures, with no prior between words and latents (Arkhipkin et al. 2023, sec. 2).

    The codec is meant to be that of a `vq` of preset movq, whose latents are painted and decoded as they are, without a look-up.
    A guidance of 4 here is the paper's 3.
    """

    threshold: float = 0.99  # quantile of what is expected of a picture's latents beyond which none may lie; 0 for none

    card: ClassVar[cards.Card] = cards.KANDINSKY3
    process: ClassVar[Diffusion] = Diffusion.of_table(Epsilon, cosine())
    dropped: ClassVar[dict[str, float]] = {"text": 0.1}
    farthest: ClassVar[float] = 3.0  # that latents of unit variance go, hardly any of them beyond

    @classmethod
    def new(cls, *, preset: str, size: int, labels: Sequence[str], part: TakePart) -> Kandinsky3:
        cls.card.check_preset(preset)
        return cls.on(part("codec", ConvCodec), part("text", SentenceEncoder), PRESETS[preset], (), size)

    def levels(self, steps: int) -> Tensor:
        return respaced(Epsilon(cosine()).sigmas, steps)

    def guided(self, scale: Scale, negative: Condition | None = None) -> Denoiser:
        """Where the table begins, at sigma 20,000, an error of a thousandth of the noise is one of 20 in the latents: hence the threshold."""
        guided = super().guided(scale, negative)
        return dynamic(guided, self.threshold, self.farthest) if self.threshold else guided
