"""Layers over time in a frozen picture model make better clips than the same network from scratch, and a decoder with them flickers less.

Blattmann et al. 2023, Align your Latents, tables 2 and 6 and sec. 3.1.1. The picture model of A is the shipped flow of pixels, whose
clips a network that reads motion compares with real ones. B fine-tunes the decoder of the shipped codec; its latents are drawn for
each frame by itself, as a picture model would draw them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor, nn

from diorama.adapters.temporal import Temporal, apart, inflate
from diorama.claims.claim import Claim, Effect, Part, model_folder
from diorama.codecs.adversary import PatchCritic
from diorama.codecs.conv import ConvCodec
from diorama.critics.fidelity import psnr
from diorama.critics.frechet import frechet
from diorama.critics.motion import flicker, persistence, steps
from diorama.errors import UserError
from diorama.foundations.registry import PAINTED
from diorama.networks.unet import UNet
from diorama.systems.base import read_part
from diorama.systems.images.flow import Flow
from diorama.systems.images.latent import LatentPainter
from diorama.systems.understanding.classifier import Classifier
from diorama.systems.video.decoder import ClipCodec
from diorama.systems.video.video_ldm import VideoLDM
from diorama.training.loop import Phase, fit
from diorama.training.plan import Plan
from diorama.types import Batch, Noise, mix
from diorama.worlds.clip_source import ClipWorld
from diorama.worlds.clips import ClipRules
from diorama.worlds.source import ENDLESS, WorldBatches
from diorama.worlds.tracking import LEAP, tracked

MODEL, JUDGE, CODEC = "world-flow", "world-motion", "world-codec-f4"
SIZE, FRAMES, FPS = 32, 8, 8.0
DRAWN, CHUNK, STEPS = 64, 16, 10
SEEN = 24  # clips on which the decoders of B are compared
STILL = 1 / 255  # what changes less from frame to frame stands still
PLAN = Plan(steps=160, batch=4, lr=2e-3, warmup=20, decay=0.4, ema=0.98, device="cpu", dtype="float32")
DECODER_PLAN = Plan(steps=120, batch=4, lr=1e-3, warmup=20, decay=0.4, ema=0.98, device="cpu", dtype="float32")
RULES = ClipRules(frames=FRAMES, fps=FPS, world=dict(PAINTED), cameras=("still",), changes=0.0)  # type: ignore[arg-type]
BUSY = ClipRules(frames=FRAMES, fps=FPS, cameras=("still",), changes=0.0)  # for B, which is asked for nothing
MARGIN_A1, MARGIN_A2, MARGIN_A3, MARGIN_B1, MARGIN_B2 = 0.7, 0.25, 0.2, 0.6, 0.5


def world(seed: int, rules: ClipRules = RULES) -> ClipWorld:
    return ClipWorld(seed, ENDLESS, SIZE, rules, form="still")


class Scratch(VideoLDM):
    """The same architecture from random weights, of which all learn but those that read the words."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.network = UNet(self.network.config)

    def phases(self) -> Sequence[Phase]:
        return [Phase("all", [*self.network.parameters(), *self.temporal.parameters()], self.loss)]


@dataclass(frozen=True, kw_only=True)
class VideoLDMClaim(Claim):
    """Layers put into the frozen model; layers put into the decoder."""

    inflated: Callable[[LatentPainter], VideoLDM] = VideoLDM.on
    between: Callable[[nn.Module], Temporal] = inflate
    plan: Plan = PLAN
    decoder_plan: Plan = DECODER_PLAN
    drawn: int = DRAWN

    slug: ClassVar[str] = "video-ldm"
    title: ClassVar[str] = "Video LDM"
    assets: ClassVar[tuple[str, ...]] = (MODEL, JUDGE, CODEC)
    parts: ClassVar[tuple[Part, ...]] = (
        Part(
            letter="A1",
            statement="after as many steps, clips stand at most 0.7 times as far from real ones as from the same network from scratch",
            unit="Fréchet video distance, 0.7 scratch - inflated",
            margin=0.0,
            conditional_on=MODEL,
        ),
        Part(
            letter="A2",
            statement="what the first frame shows persists in 25 points more of the frames than where each is painted by itself",
            unit="share of frames, inflated - apart",
            margin=MARGIN_A2,
            conditional_on=MODEL,
        ),
        Part(
            letter="A3",
            statement="and things go as far from frame to frame as in real clips, within 20 %",
            unit="of the real steps, 0.2 - |inflated / real - 1|",
            margin=0.0,
            conditional_on=MODEL,
        ),
        Part(
            letter="B1",
            statement="what stands still flickers at least 40 % less by a temporal decoder than by one that learned frame by frame",
            unit="pixel value, 0.6 by frames - temporal",
            margin=0.0,
        ),
        Part(
            letter="B2",
            statement="and each of its frames is at most 0.5 dB further from the truth",
            unit="dB, temporal - by frames + 0.5",
            margin=0.0,
        ),
    )

    def run(self, seed: int) -> Mapping[str, Effect]:
        experiment = Experiment(self, seed)
        return {**_where(("A1", "A2", "A3"), experiment.alignment), **_where(("B1", "B2"), experiment.decoders)}


def _where(letters: Sequence[str], measured: Callable[[], Mapping[str, Effect]]) -> Mapping[str, Effect]:
    """What is measured where its models are there."""
    try:
        return measured()
    except UserError as error:
        return {letter: Effect.missing(str(error)) for letter in letters}


@dataclass
class Experiment:
    """One seed."""

    claim: VideoLDMClaim
    seed: int

    # --- A: layers in a picture model ---------------------------------------------------------------

    @cached_property
    def model(self) -> Flow:
        return Flow.from_pretrained(model_folder(MODEL))

    @cached_property
    def judge(self) -> Classifier:
        return Classifier.from_pretrained(model_folder(JUDGE))

    @cached_property
    def real(self) -> Batch:
        """What is asked for, and real clips of it."""
        return world(mix(self.seed, 1)).batch(0, self.claim.drawn)

    def alignment(self) -> dict[str, Effect]:
        seen = self.features(world(mix(self.seed, 2)).batch(0, self.claim.drawn).image)
        arms = {
            "inflated": self.taught(self.claim.inflated),
            "scratch": self.taught(Scratch.on),
            "apart": VideoLDM.on(self.model),
        }
        clips = {name: self.draw(system) for name, system in arms.items()} | {"real": self.real.image}
        far = {name: frechet(self.features(x), seen, repeats=2).value for name, x in clips.items()}
        tracks = {name: tracked(clips[name]) for name in ("inflated", "apart", "real")}
        stays = {name: float(persistence(*track, LEAP / FPS).mean()) for name, track in tracks.items()}
        goes = {
            name: float(steps(*track).nanmean().nan_to_num()) for name, track in tracks.items()
        }  # where nothing is seen, nothing goes
        return {
            "A1": Effect(MARGIN_A1 * far["scratch"] - far["inflated"], far),
            "A2": Effect(stays["inflated"] - stays["apart"], stays),
            "A3": Effect(MARGIN_A3 - abs(goes["inflated"] / goes["real"] - 1), goes),
        }

    def taught(self, make: Callable[[LatentPainter], VideoLDM]) -> VideoLDM:
        """A model of clips, on the same clips and noise whichever it is."""
        torch.manual_seed(mix(self.seed, 3))
        system = make(deepcopy(self.model))
        fit(system, WorldBatches(world(mix(self.seed, 4)), self.claim.plan.batch), self.claim.plan)
        return system.eval()

    def draw(self, system: VideoLDM) -> Tensor:
        """A clip of each sentence (n, 4, t, h, w), from the same noise by every arm; nothing is pressed."""
        found = []
        for first in range(0, self.claim.drawn, CHUNK):
            words = self.real.text[first : first + CHUNK]
            noise = Noise([mix(self.seed, 5, first + i) for i in range(len(words))])
            found.append(system.sample(words, steps=STEPS, guidance=1.0, solver="dpmpp_2m", noise=noise))
        return torch.cat(found)

    @torch.no_grad()
    def features(self, clips: Tensor) -> Tensor:
        return torch.cat([self.judge.features(part) for part in clips.split(CHUNK)])

    # --- B: layers in a decoder ---------------------------------------------------------------------

    def decoders(self) -> dict[str, Effect]:
        codec = read_part(model_folder(CODEC) / "codec", ConvCodec)
        image = world(mix(self.seed, 6), BUSY).batch(0, SEEN).image
        still = at_rest(image)
        arms = {"by frames": self.decoder(codec, None), "temporal": self.decoder(codec, self.claim.between)}
        with torch.no_grad():
            noise = [mix(self.seed, 7, i) for i in range(SEEN)]
            back = {name: arm.through(image, Noise(noise)).clamp(-1, 1) for name, arm in arms.items()}
        moves = {name: float(flicker(x[:, :3], still).nanmean()) for name, x in back.items()}
        near = {name: float(psnr(apart(x)[:, :3], apart(image)[:, :3]).mean()) for name, x in back.items()}
        return {
            "B1": Effect(MARGIN_B1 * moves["by frames"] - moves["temporal"], moves),
            "B2": Effect(near["temporal"] - near["by frames"] + MARGIN_B2, near),
        }

    def decoder(self, codec: ConvCodec, between: Callable[[nn.Module], Temporal] | None) -> ClipCodec:
        """A decoder that all learns on the same clips, with layers over time and a critic of clips or with neither."""
        torch.manual_seed(mix(self.seed, 8))
        own = deepcopy(codec).requires_grad_(False)
        temporal = inflate(nn.Identity()) if between is None else between(own.decoder)
        critic = None if between is None else PatchCritic(3, codec.config.channels)
        system = ClipCodec(own, temporal, critic, whole=True)
        fit(system, WorldBatches(world(mix(self.seed, 9), BUSY), self.claim.decoder_plan.batch), self.claim.decoder_plan)
        return system.eval()


def at_rest(clips: Tensor) -> Tensor:
    """(b, t - 2, h, w): what is the same in a frame, the one before and the one after."""
    still = clips.diff(dim=2).abs().amax(1) < STILL
    return still[:, :-1] & still[:, 1:]


CLAIM = VideoLDMClaim()
