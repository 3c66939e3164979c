"""A picture codec for clips: its decoder sees neighbouring frames, so that what stands still does not flicker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diorama import cards
from diorama.adapters.temporal import Temporal, apart, together
from diorama.codecs.adversary import PatchCritic, hinge, matching
from diorama.codecs.conv import ConvCodec, reconstruction
from diorama.systems.base import System
from diorama.training.loop import Phase
from diorama.types import Batch, Noise

SCALES = 4  # of the pyramid on which clips are compared


@dataclass(eq=False)
class ClipCodec(System):
    """A frozen encoder of frames, and its decoder with temporal layers, held to clips by a critic of 3-D patches.

    Blattmann et al. 2023, sec. 3.1.1. Latents (b, c, t, ...) are those of the pictures, so any picture model may paint them.
    """

    codec: ConvCodec
    temporal: Temporal
    critic: PatchCritic | None  # None where clips are held to numbers alone
    whole: bool = False  # the decoder's own weights learn too
    weight: float = 0.05  # of the critic's judgement beside the errors

    card: ClassVar[cards.Card] = cards.VIDEO_LDM

    def __post_init__(self) -> None:
        if self.whole:
            self.codec.decoder.requires_grad_(True)

    def encode_clip(self, image: Tensor, noise: Noise | None = None) -> Tensor:
        """(b, 4, t, h, w) in [-1, 1] -> latents; with `noise` a sample of what each frame may be by itself."""
        t = image.shape[2]
        return together(self.codec.encode(apart(image), noise and PerFrame(noise, t)), t)

    def decode(self, z: Tensor) -> Tensor:
        """Latents (b, c, t, ...) -> (b, 4, t, h, w)."""
        t = z.shape[2]
        with self.temporal.between(getattr(self.codec, "decoder", self.codec), t):
            return together(self.codec.decode(apart(z)), t)

    # --- training ---------------------------------------------------------------------------------

    def phases(self) -> Sequence[Phase]:
        learned = [*self.temporal.parameters(), *(self.codec.decoder.parameters() if self.whole else ())]
        critic = [] if self.critic is None else [Phase("critic", list(self.critic.parameters()), self.critic_loss)]
        return [Phase("decoder", learned, self.loss), *critic] if learned else []

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        """Errors of pixels and of their differences in space and time; of what the critic sees, and its judgement, (b,)."""
        image = batch.image.to(self.device)
        x = self.through(image, noise)
        error = reconstruction(x.float(), image, min(SCALES, image.shape[2].bit_length()))
        if self.critic is None:
            return error
        seen = self.critic.features(x)
        return error + matching(seen, self.critic.features(image)) - self.weight * seen[-1].flatten(1).mean(1)

    def critic_loss(self, batch: Batch, noise: Noise) -> Tensor:
        assert self.critic is not None
        image = batch.image.to(self.device)
        with torch.no_grad():
            x = self.through(image, noise)
        return hinge(self.critic(image), self.critic(x))

    def through(self, image: Tensor, noise: Noise) -> Tensor:
        """Clips through latents whose frames were drawn each by itself, as a picture model would draw them."""
        with torch.no_grad():
            z = self.encode_clip(image, noise)
        return self.decode(z)


class PerFrame(Noise):
    """The streams of clips, drawn from for all their frames in a row (b t)."""

    def __init__(self, noise: Noise, t: int):
        self.noise, self.t = noise, t

    def normal(self, *shape: int) -> Tensor:
        return self.noise.normal(self.t, *shape).flatten(0, 1)
