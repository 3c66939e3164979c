"""A decoder whose norms take the latent beats a wider one, and a painter that reads the sentence binds what a prior's vector does not.

Arkhipkin et al. 2023, sec. 2, against what Kandinsky 2 had. Part A: the shipped tokenizer's codes, decoded by two new decoders. Part B:
the shipped painter, which reads sentences, and a copy of it tuned to read vectors in CLIP's space, which a new prior draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from diorama import cards
from diorama.claims import unclip
from diorama.claims.claim import Claim, Effect, Part, model_folder
from diorama.claims.glide import CLIP, MODEL, OfFlow, holes
from diorama.claims.unclip import CHUNK, PRESSED, STEPS, kept, trained
from diorama.codecs.conv import ConvCodec, ConvCodecConfig, reconstruction
from diorama.critics.fidelity import perceptual, psnr
from diorama.data.order import index_at
from diorama.errors import UserError
from diorama.foundations.registry import find
from diorama.foundations.world import world_of
from diorama.systems.base import System
from diorama.systems.images.flow import Flow
from diorama.systems.images.glide import Glide
from diorama.systems.images.unclip import Unclip
from diorama.systems.images.vq import VectorQuantised
from diorama.systems.understanding.classifier import Classifier
from diorama.systems.understanding.clip import Clip
from diorama.training.loop import BatchAt, Phase, fit
from diorama.training.plan import Plan
from diorama.types import Batch, Noise, mix

TOKENS, JUDGE = "world-vq", "world-features"
SPATIAL = ConvCodecConfig(latent=8, patch=2, widths=(48, 64), variational=False, spatial=True)
PLAIN = replace(SPATIAL, widths=(52, 64), spatial=False)  # with no fewer parameters, and groups of about the same size
SEEN, UNSEEN = 4096, 256  # pictures to learn to decode, and to be judged by
DRAWN = 96
PLAN = Plan(steps=500, batch=24, lr=2e-3, warmup=50, decay=0.4, ema=0.98, device="cpu", dtype="float32")
PRIOR, TUNE = replace(unclip.PLAN, steps=600), replace(unclip.TUNE, steps=280)


@dataclass(eq=False)
class Decoding(System):
    """A new decoder for latents that are there."""

    codec: ConvCodec

    card: ClassVar[cards.Card] = cards.VQ

    def phases(self) -> Sequence[Phase]:
        return [Phase("decoder", list(self.codec.decoder.parameters()), self.loss)]

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        assert batch.latent is not None
        return reconstruction(self.codec.decode(batch.latent), batch.image)


@dataclass(frozen=True, kw_only=True)
class Kandinsky3Claim(Claim):
    """Two decoders, and two ways from a sentence to a picture."""

    decoder: ConvCodecConfig = SPATIAL
    plan: Plan = PLAN
    prior: Plan = PRIOR
    tune: Plan = TUNE
    seen: int = SEEN
    unseen: int = UNSEEN
    drawn: int = DRAWN

    slug: ClassVar[str] = "kandinsky3"
    title: ClassVar[str] = "Kandinsky 3.0"
    assets: ClassVar[tuple[str, ...]] = (TOKENS, JUDGE, MODEL, CLIP)
    parts: ClassVar[tuple[Part, ...]] = (
        Part(
            letter="A1",
            statement="of the same codes, a decoder whose norms take them reconstructs 0.5 dB better than a wider one with plain norms",
            unit="dB",
            margin=0.5,
            conditional_on=TOKENS,
        ),
        Part(
            letter="A2",
            statement="and stands at most 0.92 times as far from the picture in the features of the judge",
            unit="perceptual distance, 0.92 plain - spatial",
            margin=0.0,
            conditional_on=TOKENS,
        ),
        Part(
            letter="B",
            statement="5 points more captions of two things are kept where the sentence is read than where a prior says what it means, "
            "though the latter is larger",
            unit="share of pictures",
            margin=0.05,
            conditional_on=MODEL,
        ),
    )

    def run(self, seed: int) -> Mapping[str, Effect]:
        return {**self.decoded(seed), **self.asked(seed)}

    # --- A ----------------------------------------------------------------------------------------

    def decoded(self, seed: int) -> Mapping[str, Effect]:
        try:
            tokens = VectorQuantised.from_pretrained(model_folder(TOKENS))
            judge = Classifier.from_pretrained(model_folder(JUDGE))
        except UserError as error:
            return {letter: Effect.missing(str(error)) for letter in ("A1", "A2")}
        found = {}
        image, z = pictures(tokens, mix(seed, 1), self.seen)
        unseen, z_unseen = pictures(tokens, mix(seed, 2), self.unseen)
        for name, config in (("spatial", self.decoder), ("plain", PLAIN)):
            torch.manual_seed(mix(seed, 3))
            system = Decoding(ConvCodec(config))
            fit(system, pairs(image, z, self.plan.batch), self.plan)
            found[name] = judged(system.eval().codec, judge, unseen, z_unseen)
        near, far = ({name: values[k] for name, values in found.items()} for k in (0, 1))
        return {
            "A1": Effect(near["spatial"] - near["plain"], near),
            "A2": Effect(0.92 * far["plain"] - far["spatial"], far),
        }

    # --- B ----------------------------------------------------------------------------------------

    def asked(self, seed: int) -> Mapping[str, Effect]:
        try:
            flow, clip = Flow.from_pretrained(model_folder(MODEL)), Clip.from_pretrained(model_folder(CLIP))
        except UserError as error:
            return {"B": Effect.missing(str(error))}
        direct = OfFlow(flow.codec, flow.text, flow.network, flow.styles, flow.size)
        told = trained(seed, direct, clip, replace(unclip.CLAIM, plan=self.prior, tune=self.tune))
        texts = [hole.words for hole in holes(seed, self.drawn)]
        share = {name: kept(drawn(model, texts, seed), texts) for name, model in (("sentence", direct), ("vector", told))}
        return {"B": Effect(share["sentence"] - share["vector"], share)}


@torch.no_grad()
def pictures(tokens: VectorQuantised, seed: int, n: int) -> tuple[Tensor, Tensor]:
    """Pictures of the world that the tokenizer knows, and the codes it writes them in: (n, 4, s, s), (n, latent, s', s')."""
    world = world_of(find(TOKENS), seed)
    image = torch.cat([world.batch(first, CHUNK).image for first in range(0, n, CHUNK)])[:n]
    return image, torch.cat([tokens.tokenizer.lookup(tokens.tokenise(part)) for part in image.split(CHUNK)])


def pairs(image: Tensor, z: Tensor, n: int) -> BatchAt:
    """n pictures a step, each with its latents; all come once before one comes twice."""

    def batch(step: int, rank: int = 0, world: int = 1) -> Batch:
        first = (step * world + rank) * n
        rows = [index_at(p, len(image), 0) for p in range(first, first + n)]
        return Batch(image[rows], latent=z[rows])

    return batch


@torch.no_grad()
def judged(codec: ConvCodec, judge: Classifier, image: Tensor, z: Tensor) -> tuple[float, float]:
    """How near the pictures come that are decoded, in dB, and how far they stay in the features of the judge: means."""
    x = torch.cat([codec.decode(part) for part in z.split(CHUNK)]).clamp(-1, 1)
    return float(psnr(x, image).mean()), float(perceptual(judge.maps(x), judge.maps(image)).mean())


def drawn(model: Glide, texts: Sequence[str], seed: int) -> Tensor:
    """A picture for each, from the same noise whichever model paints; one with a prior sees nothing but what that drew."""

    def some(rows: slice) -> Tensor:
        numbers = range(len(texts))[rows]
        painting, dreaming = (Noise([mix(seed, k, i) for i in numbers]) for k in (4, 5))
        if isinstance(model, Unclip):
            paint = partial(model.decode, model.imagine(texts[rows], noise=dreaming))
        else:
            paint = partial(model.sample, texts[rows])
        return paint(guidance=PRESSED, steps=STEPS, solver="dpmpp_2m", noise=painting)

    return torch.cat([some(slice(first, first + CHUNK)) for first in range(0, len(texts), CHUNK)])


CLAIM = Kandinsky3Claim()
