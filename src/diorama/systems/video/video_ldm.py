"""Video LDM: a picture model that is frozen, and layers between its own that learn from clips how frames hang together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diorama import cards
from diorama.adapters.temporal import Inflated, Temporal, apart, inflate
from diorama.codecs.adversary import PatchCritic
from diorama.codecs.conv import ConvCodec
from diorama.conditions.caption import CaptionConfig, CaptionEncoder
from diorama.conditions.text import TextTower
from diorama.errors import UserError
from diorama.guidance.classifier_free import by_frames, classifier_free
from diorama.guidance.inpaint import replaced
from diorama.networks.unet import UNet
from diorama.processes.scalings import NetworkDenoiser
from diorama.processes.solvers import SOLVERS
from diorama.systems.base import System, TakePart
from diorama.systems.images.flow import Flow
from diorama.systems.images.latent import LatentPainter
from diorama.systems.images.ldm import PRESETS as LDM
from diorama.systems.images.ldm import LatentDiffusion
from diorama.systems.video.decoder import ClipCodec
from diorama.training.loop import Phase
from diorama.types import NO_LABEL, Batch, Condition, Denoiser, Noise, OnStep, ignore

PAINTERS: dict[str, type[LatentPainter]] = {kind.card.slug: kind for kind in (Flow, LatentDiffusion)}
ATTENDS = {"nano": None, "mini": True, "paper": None}  # which layers look over all of time; None: where the picture model attends
MOST_KNOWN = 2  # frames that may be known: 0, 1 or 2 as often (Blattmann et al. 2023, sec. 3.2)
SHOWN = 2  # clips of a preview


@dataclass(eq=False)
class VideoLDM(System):
    """Sentences, or a first frame, to clips; codec, text and network are a picture model's and stay so (Blattmann et al. 2023)."""

    codec: ConvCodec
    text: TextTower
    network: UNet
    temporal: Temporal  # after the network's blocks
    decoder: Temporal  # after those of the codec's decoder
    base: str = "flow"  # which system the picture model is
    styles: tuple[str, ...] = ()
    size: int = 32  # pixels along a side
    frames: int = 8
    fps: float = 8.0

    card: ClassVar[cards.Card] = cards.VIDEO_LDM

    def __post_init__(self) -> None:
        for part in (self.codec, self.text, self.network):
            part.requires_grad_(False).eval()
        self.critic = PatchCritic(3, self.codec.config.channels) if self.decoder.layers else None  # it only teaches: never saved

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for part in (self.codec, self.text, self.network):
            part.eval()
        return self

    # --- what it is made of -----------------------------------------------------------------------

    @classmethod
    def on(cls, painter: LatentPainter, attends: bool | None = None) -> Self:
        """New layers between those of a trained picture model: its clips are at first pictures that know nothing of each other."""
        if painter.card.slug not in PAINTERS or painter.network.config.given:
            raise UserError(f"{painter.card.slug} cannot be set in motion: use a picture model of {' or '.join(PAINTERS)}")
        temporal = inflate(painter.network, attends=attends, known=painter.codec.config.latent)
        decoder = inflate(getattr(painter.codec, "decoder", nn.Identity()))
        parts = painter.codec, painter.text, painter.network, temporal, decoder
        return cls(*parts, painter.card.slug, painter.styles, painter.size)

    @classmethod
    def new(cls, *, preset: str, size: int, labels: Sequence[str], part: TakePart) -> Self:
        cls.card.check_preset(preset)
        painter = published(size, part) if preset == "paper" else part("painter", LatentPainter)
        if painter.size != size:
            raise UserError(f"size {size} is not what the picture model paints: use --size {painter.size}")
        return cls.on(painter, ATTENDS[preset])

    @cached_property
    def painter(self) -> LatentPainter:
        """The picture model: of these very parts."""
        return PAINTERS[self.base](self.codec, self.text, self.network, self.styles, self.size)

    @cached_property
    def clips(self) -> ClipCodec:
        return ClipCodec(self.codec, self.decoder, self.critic)

    @property
    def denoiser(self) -> Denoiser:
        return NetworkDenoiser(Inflated(self.network, self.temporal), self.painter.process.scaling)

    # --- training ---------------------------------------------------------------------------------

    def phases(self) -> Sequence[Phase]:
        return [Phase("temporal", list(self.temporal.parameters()), self.loss), *self.clips.phases()]

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        """The picture model's own, with one level of noise for all frames of a clip, of which some may be known (eq. 2)."""
        with torch.no_grad():
            z = self.clips.encode_clip(batch.image.to(self.device)).float()
            text = self.text(list(batch.text)) if batch.embedding is None else batch.embedding
        label = torch.full((len(z),), NO_LABEL, device=self.device) if self.styles else None
        asked = Condition(text=text, label=label).drop({"text": 0.1}, noise)
        known = shown(asked, z, noise.integers(MOST_KNOWN + 1).to(self.device))
        return self.painter.process.loss(self.denoiser, z, known, noise)

    def look(self, batch: Batch, noise: Noise) -> Tensor:
        """The frames of two clips, one after the other."""
        return apart(self.sample(batch.text[:SHOWN], noise=Noise(range(SHOWN), noise.device)))

    def finish(self, batch: Batch) -> None:
        self.frames = batch.image.shape[2]

    # --- use --------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        styles: Sequence[str | None] | None = None,
        *,
        first: Tensor | None = None,
        frames: int | None = None,
        negative: Sequence[str] | None = None,
        steps: int = 20,
        guidance: float = 4.0,
        pressed: float = 1.0,
        solver: str = "euler",
        noise: Noise,
        on_step: OnStep = ignore,
    ) -> Tensor:
        """(b, 4, frames, size, size) in [-1, 1], one clip per prompt; `noise` has a seed for each.

        `first` (b, 4, s, size, size) are frames it begins with, 2 at most, which `pressed` presses as `guidance` does the words.
        More frames than it learned to make at once go on from the last two.
        """
        asked = self.painter.condition(prompts, styles)
        unasked = None if negative is None else self.painter.condition(negative)
        guided = classifier_free(by_frames(self.denoiser, pressed), guidance, unasked)
        process = replace(self.painter.process, solver=SOLVERS[solver])

        def window(known: Tensor) -> Tensor:
            """As many frames as it knows to make, of which these are the first."""
            condition = shown(asked, F.pad(known, (0, 0, 0, 0, 0, self.frames - known.shape[2])), known.shape[2])
            assert condition.frames is not None and condition.known is not None
            start = process.prior(condition.frames.shape[1:], noise)
            keeping = replaced(guided, condition.frames, condition.known)
            levels = self.painter.levels(steps)
            return process.sample(keeping, start, condition, levels=levels, noise=noise, on_step=on_step)

        side = self.size // self.codec.config.stride
        nothing = torch.zeros(len(noise), self.codec.config.latent, 0, side, side, device=self.device)
        z = window(nothing if first is None else self.clips.encode_clip(first[:, :, -MOST_KNOWN:].to(self.device)))
        known = min(MOST_KNOWN, self.frames - 1)
        while (t := z.shape[2]) < (frames or self.frames):
            z = torch.cat([z, window(z[:, :, t - known :])[:, :, known:]], 2)
        return self.clips.decode(z[:, :, : frames or self.frames]).float().clamp(-1, 1)


def shown(asked: Condition, z: Tensor, s: Tensor | int) -> Condition:
    """The condition with the first s frames, a number or (b,), of these clips as what is known: themselves beside a mask."""
    t = torch.arange(z.shape[2], device=z.device)
    hidden = t >= torch.as_tensor(s, device=z.device).reshape(-1, 1)  # (b or 1, t)
    mask = hidden[:, None, :, None, None].to(z).expand(len(z), 1, *z.shape[2:])
    return replace(asked, frames=z * (1 - mask), known=mask)


def published(size: int, part: TakePart) -> LatentPainter:
    """A latent diffusion of the size of Stable Diffusion 2.1, whose U-Net has 865.9 M weights and reads OpenCLIP's words.

    The paper's text-to-video models have 4.1 B weights without the words' tower, 2.7 B of them trained on clips (sec. 4.2): key
    frames, interpolation and upsampling, in shares it does not tell. This is the first of the three alone.
    """
    shape = replace(LDM["paper"][0], head_width=64)
    text = CaptionEncoder(CaptionConfig(width=1024), part("text", CaptionEncoder).tokenizer)  # stands where OpenCLIP's tower does
    return LatentDiffusion.on(part("codec", ConvCodec), text, shape, (), size)
