"""Diffusion in the latents of a mildly compressing codec beats diffusion of pixels at equal cost; too much compression loses again.

Rombach et al. 2022, sec. 4.1. The codecs are the shipped ones; each seed trains five diffusions alike in FLOPs, steps and pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from diorama import cards
from diorama.claims.claim import Claim, Effect, Part, model_folder
from diorama.claims.runner import Meter
from diorama.codecs.conv import ConvCodec
from diorama.critics.frechet import kernel_distance
from diorama.data.order import index_at
from diorama.errors import UserError
from diorama.foundations.registry import find
from diorama.foundations.world import world_of
from diorama.networks.unet import UNet, UNetConfig
from diorama.processes.diffusion import Diffusion
from diorama.processes.levels import flow
from diorama.processes.scalings import NetworkDenoiser
from diorama.processes.solvers import dpmpp_2m
from diorama.systems.base import System
from diorama.systems.images.autoencoder import Autoencoder
from diorama.systems.understanding.classifier import Classifier
from diorama.training.loop import fit
from diorama.training.plan import Plan
from diorama.types import Batch, Condition, Noise, mix

STRIDES = (1, 2, 4, 8, 16)
JUDGE = "world-features"
COST = 0.15e9  # FLOPs of one picture once through the network
PICTURES, DRAWN, STEPS = 2048, 256, 12
CHUNK = 64
PLAN = Plan(steps=230, batch=32, lr=1.5e-3, warmup=40, decay=0.4, ema=0.98, device="cpu", dtype="float32")


def codec_name(f: int) -> str:
    return f"world-codec-f{f}"


@dataclass(eq=False)
class Unconditional(System):
    """A diffusion that is asked for nothing."""

    network: UNet

    card: ClassVar[cards.Card] = cards.FLOW
    process: ClassVar[Diffusion] = Diffusion()

    @property
    def denoiser(self) -> NetworkDenoiser:
        return NetworkDenoiser(self.network, self.process.scaling)

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        assert batch.latent is not None
        return self.process.loss(self.denoiser, batch.latent, Condition(), noise)


@dataclass(frozen=True, kw_only=True)
class LatentClaim(Claim):
    """The same experiment at five strides; 1 is pixels."""

    strides: tuple[int, ...] = STRIDES
    plan: Plan = PLAN

    slug: ClassVar[str] = "ldm"
    title: ClassVar[str] = "Latent Diffusion"
    assets: ClassVar[tuple[str, ...]] = (*(codec_name(f) for f in STRIDES[1:]), JUDGE)
    parts: ClassVar[tuple[Part, ...]] = (
        Part(
            letter="A",
            statement="at equal FLOPs, the better of f = 4 and f = 8 stands at most 0.7 times as far from real pictures as pixels do",
            unit="squared kernel distance, 0.7 pixels - latents",
            margin=0.0,
            conditional_on="the codecs",
        ),
        Part(
            letter="B",
            statement="f = 16 stands at least 1.3 times as far as the better of f = 4 and f = 8",
            unit="squared kernel distance, f16 - 1.3 best",
            margin=0.0,
            conditional_on="the codecs",
        ),
    )

    def run(self, seed: int) -> Mapping[str, Effect]:
        try:
            for name in self.assets:
                model_folder(name)
        except UserError as error:
            return {part.letter: Effect.missing(str(error)) for part in self.parts}
        real = features(pictures(mix(seed, 2), DRAWN))
        distances = {f: kernel_distance(features(self._drawn(seed, f)), real).value for f in self.strides}
        floor = kernel_distance(features(pictures(mix(seed, 3), DRAWN)), real).value
        arms = {**{f"f = {f}" if f > 1 else "pixels": d for f, d in distances.items()}, "real": floor}
        best = min(distances[4], distances[8])
        return {"A": Effect(0.7 * distances[1] - best, arms), "B": Effect(distances[16] - 1.3 * best, arms)}

    def _drawn(self, seed: int, f: int) -> Tensor:
        """Pictures of a diffusion that was trained at this stride."""
        codec = codec_of(f)
        image = pictures(mix(seed, 1), PICTURES)
        with torch.no_grad():
            latent = image if codec is None else torch.cat([codec.encode(part) for part in image.split(CHUNK)])
        torch.manual_seed(mix(seed, 4))
        system = Unconditional(UNet(sized(latent.shape[1], latent.shape[2])))
        fit(system, Latents(latent, self.plan.batch), self.plan)
        return sample(system.eval(), codec, latent.shape[1:], [mix(seed, 5, i) for i in range(DRAWN)])


@torch.no_grad()
def sample(system: Unconditional, codec: ConvCodec | None, shape: torch.Size, seeds: list[int]) -> Tensor:
    """One picture per seed, (n, 4, 64, 64)."""
    found = []
    for first in range(0, len(seeds), CHUNK):
        noise = Noise(seeds[first : first + CHUNK])
        z = dpmpp_2m(system.denoiser, system.process.prior(shape, noise), Condition(), flow(STEPS), noise)
        found.append((z if codec is None else codec.decode(z)).clamp(-1, 1))
    return torch.cat(found)


@cache
def sized(channels: int, side: int) -> UNetConfig:
    """The U-Net of the family, down to 8 places a side, whose cost at this size is nearest to COST."""
    levels = max(1, round(math.log2(side / 8)) + 1)

    def config(base: int) -> UNetConfig:
        widths = tuple(base * (level + 1) for level in range(levels))
        attention = tuple(side // 2**level <= 8 for level in range(levels))
        return UNetConfig(channels=channels, widths=widths, depth=1, attention=attention, heads=2, embedding=64)

    with torch.device("meta"), Meter(float("inf")) as meter:
        UNet(config(32))(torch.empty(1, channels, side, side), torch.empty(1), Condition())
    return config(max(1, round(4 * math.sqrt(COST / (meter.tflop * 1e12)))) * 8)  # the cost is nearly square in the width


def codec_of(f: int) -> ConvCodec | None:
    if f == 1:
        return None
    return Autoencoder.from_pretrained(model_folder(codec_name(f))).codec


@cache
def pictures(seed: int, n: int) -> Tensor:
    """Pictures of the world that the codecs know, with all its textures and styles."""
    world = world_of(find(codec_name(8)), seed)
    return torch.cat([world.batch(first, CHUNK).image for first in range(0, n, CHUNK)])


@torch.no_grad()
def features(image: Tensor) -> Tensor:
    judge = Classifier.from_pretrained(model_folder(JUDGE))
    return torch.cat([judge.features(part) for part in image.split(CHUNK)])


@dataclass(frozen=True)
class Latents:
    """Batches of stored latents (n, c, h, w)."""

    latent: Tensor
    batch: int

    def __call__(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        first = (step * world + rank) * self.batch
        rows = [index_at(p, len(self.latent), 0) for p in range(first, first + self.batch)]
        return Batch(self.latent.new_zeros(0), latent=self.latent[rows])


CLAIM = LatentClaim()
