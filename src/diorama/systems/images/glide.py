"""GLIDE: sentences to pixels by a diffusion that learns its words with it; its two ways to be guided, and holes filled in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from diorama import cards
from diorama.codecs.patches import PatchCodec, PatchCodecConfig
from diorama.conditions.caption import CaptionConfig, CaptionEncoder
from diorama.errors import UserError
from diorama.guidance.contrastive import Eye, contrastive
from diorama.guidance.scale import Scale
from diorama.guidance.threshold import clipped
from diorama.networks.layers import broadcast, fold
from diorama.networks.unet import UNetConfig
from diorama.processes.diffusion import Diffusion
from diorama.processes.levels import cosine, respaced
from diorama.processes.scalings import Epsilon
from diorama.systems.base import TakePart
from diorama.systems.images.holes import HolePainter
from diorama.systems.understanding.clip import Clip
from diorama.types import Condition, Denoiser

_OURS = UNetConfig(channels=4, levels=1.0)  # c_noise is an index of the table
PRESETS = {
    "nano": (replace(_OURS, patch=2, widths=(48, 96), depth=1, embedding=192), CaptionConfig()),
    "mini": (
        replace(_OURS, patch=4, widths=(64, 128), depth=1, embedding=256),
        CaptionConfig(width=256, depth=4),
    ),
    # 3.5 B for 64 px (Nichol et al. 2022, sec. 4): 2.3 B in the U-Net, which is ADM's at width 512, 1.2 B in a text tower of
    # 24 layers, 2048 wide. The upsampler to 256 px, 1.5 B, is a system of its own
    "paper": (
        replace(
            _OURS,
            widths=(512, 1024, 1536, 2048),
            depth=3,
            attention=(False, True, True, True),
            head_width=64,
            embedding=2048,
            dropout=0.1,
            resample="block",
            closing=True,
        ),
        CaptionConfig(words=50257, width=2048, depth=24, heads=32, max_tokens=128),
    ),
}


@dataclass(eq=False)
class Glide(HolePainter):
    """Sentences to RGBA pictures, pixel by pixel; attention sees the words beside the places (Nichol et al. 2022)."""

    card: ClassVar[cards.Card] = cards.GLIDE
    process: ClassVar[Diffusion] = Diffusion.of_table(Epsilon, cosine())
    dropped: ClassVar[dict[str, float]] = {"text": 0.2}
    limit: ClassVar[float] = 1.0  # of a clean sample

    @classmethod
    def new(cls, *, preset: str, size: int, labels: Sequence[str], part: TakePart) -> Glide:
        cls.card.check_preset(preset)
        return cls.build(preset, size, part)

    @classmethod
    def build(cls, preset: str, size: int, part: TakePart) -> Self:
        shape, words = PRESETS[preset]
        text = CaptionEncoder(words, part("text", CaptionEncoder).tokenizer)  # the pieces are the data's, the size is ours
        return cls.on(PatchCodec(PatchCodecConfig(patch=1)), text, shape, (), size)

    def levels(self, steps: int) -> Tensor:
        return respaced(Epsilon(cosine()).sigmas, steps)

    def paint(self, denoiser: Denoiser, condition: Condition, **how: Any) -> Tensor:
        return super().paint(clipped(denoiser, self.limit), condition, **how)

    # --- CLIP in place of classifier-free guidance ------------------------------------------------

    @torch.no_grad()
    def sample_by_clip(self, prompts: Sequence[str], clip: Clip, *, scale: Scale = 1.0, **how: Any) -> Tensor:
        """As `sample`, led by the gradient of how well a `noisy` CLIP finds that each prompt fits; `how` is `paint`'s."""
        if not clip.knows_noise:
            raise UserError("this CLIP has only seen clean pictures and cannot lead: train one of preset noisy")
        text = clip.heads.scale * clip.encode_text(prompts)
        return self.paint(contrastive(self.denoiser, self.eye(clip), text, scale), self.condition(prompts), **how)

    def eye(self, clip: Clip) -> Eye:
        """How CLIP sees what stands at (x, sigma): noise on pixels is noise on their picture. Beyond the noise it learned it cannot lead."""

        def see(x: Tensor, sigma: Tensor) -> Tensor:
            noisy = self.codec.scale.mean() * sigma
            x = torch.where(broadcast(noisy < clip.law.farthest, x), x, x.detach())
            return clip.encode_image(self.codec.decode(x), noisy)

        return see

    # --- holes ------------------------------------------------------------------------------------

    @property
    def marks(self) -> int:
        return self.codec.config.stride**2

    def places(self, mask: Tensor) -> Tensor:
        """(b, 1, h, w) -> the same for every number of the latents, which are pixels, (b, latent, h', w')."""
        config = self.codec.config
        return fold(mask.expand(-1, config.channels, -1, -1), config.stride)
