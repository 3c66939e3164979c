"""A vector of CLIP's for what a picture shows must be drawn before it is painted, keeps more variety, and holds what it says alone.

Ramesh et al. 2022, sec. 3 and 5. CLIP and the painter are the shipped ones; each seed trains a prior, and tunes the painter to read
vectors.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from diorama.claims.claim import Claim, Effect, Part, model_folder
from diorama.claims.glide import CLIP, MODEL, OfFlow, OnFlow
from diorama.conditions.picture import PictureWords, PictureWordsConfig
from diorama.errors import UserError
from diorama.foundations.measures import named
from diorama.foundations.registry import find
from diorama.foundations.world import world_of
from diorama.networks.prior import PriorConfig, PriorTransformer
from diorama.systems.images.flow import Flow
from diorama.systems.images.glide import Glide
from diorama.systems.images.unclip import Unclip
from diorama.systems.understanding.clip import Clip
from diorama.training.loop import Phase, fit
from diorama.training.plan import Plan
from diorama.types import Noise, mix
from diorama.worlds.descriptions import parse
from diorama.worlds.oracle import Found, Oracle, Reading
from diorama.worlds.source import World, WorldBatches

SCALES = (1.0, 2.0, 4.0, 8.0)
DRAWN, KINDS, SOURCES, EACH = 96, 4, 8, 16  # pictures of an arm, captions of part B, pictures varied, and how often
STEPS, CHUNK, PRESSED = 12, 48, 2.0
READ = 20  # tokens of a caption that the prior reads: captions of one or two things have fewer
PLAN = Plan(steps=600, batch=64, lr=1e-3, warmup=50, decay=0.4, ema=0.99, device="cpu", dtype="float32")
TUNE = Plan(steps=240, batch=32, lr=1e-3, warmup=50, decay=0.4, ema=0.98, device="cpu", dtype="float32")


class OfFlowAndClip(OnFlow, Unclip):
    """DALL-E 2 on the shipped flow's levels."""

    dropped: ClassVar[dict[str, float]] = {"text": 0.5, "label": 1.0}  # styles are not asked for


class PriorAlone(OfFlowAndClip):
    """The same, training only its prior."""

    def phases(self) -> Sequence[Phase]:
        return super().phases()[:1]


class DecoderAlone(OfFlowAndClip):
    """The same, training only its decoder: the two know nothing of each other, and need not be trained as long."""

    def phases(self) -> Sequence[Phase]:
        return super().phases()[1:]


Draw = Callable[[Unclip, Sequence[str], Noise], Tensor]


def imagined(model: Unclip, texts: Sequence[str], noise: Noise) -> Tensor:
    return model.imagine(texts, noise=noise)


def said(model: Unclip, texts: Sequence[str], noise: Noise) -> Tensor:
    """The sentence's own vector in the place of a picture's."""
    return model.sentences(texts).pooled * model.prior.config.channels**0.5


@dataclass(frozen=True, kw_only=True)
class UnclipClaim(Claim):
    """A prior against none, two painters pressed, and pictures varied."""

    draw: Draw = imagined
    plan: Plan = PLAN
    tune: Plan = TUNE
    drawn: int = DRAWN
    each: int = EACH

    slug: ClassVar[str] = "unclip"
    title: ClassVar[str] = "DALL-E 2"
    assets: ClassVar[tuple[str, ...]] = (MODEL, CLIP)
    parts: ClassVar[tuple[Part, ...]] = (
        Part(
            letter="A",
            statement="painted from a vector that the prior drew, 10 points more captions are kept than from the sentence's own vector",
            unit="share of pictures",
            margin=0.10,
            conditional_on=MODEL,
        ),
        Part(
            letter="B",
            statement="pressed until both keep as many captions, what these leave open loses at most half the entropy it loses without a prior",
            unit="bits, half the direct painter's loss - this one's",
            margin=0.0,
            conditional_on=MODEL,
        ),
        Part(
            letter="C1",
            statement="pictures of one vector, no words beside, show the shape and colour of the picture it is of, four times in five",
            unit="share of pictures, beyond 0.8",
            margin=0.0,
            conditional_on=MODEL,
        ),
        Part(
            letter="C2",
            statement="and are no copies: they place it at least half as differently as the world does",
            unit="of the side, spread of places - half the world's",
            margin=0.0,
            conditional_on=MODEL,
        ),
    )

    def run(self, seed: int) -> Mapping[str, Effect]:
        try:
            flow, clip = Flow.from_pretrained(model_folder(MODEL)), Clip.from_pretrained(model_folder(CLIP))
        except UserError as error:
            return {part.letter: Effect.missing(str(error)) for part in self.parts}
        direct = OfFlow(flow.codec, flow.text, flow.network, flow.styles, flow.size)
        return Experiment(self, seed, direct, trained(seed, direct, clip, self)).effects()


def trained(seed: int, direct: Glide, clip: Clip, claim: UnclipClaim) -> Unclip:
    """A new prior, and a copy of the direct painter that learned to read vectors."""
    torch.manual_seed(mix(seed, 1))
    d, reads = clip.heads.config.width, clip.text.config.width
    prior = PriorTransformer(PriorConfig(channels=d, text_width=reads, words=READ, width=96, depth=3))
    words = PictureWords(PictureWordsConfig(channels=d, text_width=direct.text.config.width))
    painter = direct.codec, deepcopy(direct.text), deepcopy(direct.network), direct.styles, direct.size
    parts = {"image": clip.image, "sentence": clip.text, "heads": clip.heads, "prior": prior, "words": words}
    for kind, plan in ((PriorAlone, claim.plan), (DecoderAlone, claim.tune)):
        fit(kind(*painter, **parts), WorldBatches(world_of(find(MODEL), mix(seed, 2)), plan.batch), plan)  # type: ignore[arg-type]
    return OfFlowAndClip(*painter, **parts).eval()  # type: ignore[arg-type]


@dataclass
class Experiment:
    """One seed."""

    claim: UnclipClaim
    seed: int
    direct: Glide
    model: Unclip

    def effects(self) -> dict[str, Effect]:
        return {"A": self.needed(), "B": self.open(), **self.varied()}

    # --- A ---

    def needed(self) -> Effect:
        pairs = self.world.rules.pairs
        texts = [named(*pairs[(7 * i) % len(pairs)]) for i in range(self.claim.drawn)]
        arms = {
            name: kept(
                self.painted(texts, lambda some, noise, draw=draw: self.decoded(draw(self.model, some, noise), noise)), texts
            )
            for name, draw in (("prior", self.claim.draw), ("sentence", said))
        }
        return Effect(arms["prior"] - arms["sentence"], arms)

    def decoded(self, z: Tensor, noise: Noise, texts: Sequence[str] | None = None, guidance: float = PRESSED) -> Tensor:
        return self.model.decode(z, texts, guidance=guidance, steps=STEPS, solver="dpmpp_2m", noise=noise)

    # --- B ---

    def open(self) -> Effect:
        pairs = self.world.rules.pairs
        kinds = [named(*pairs[(5 + 13 * i) % len(pairs)]) for i in range(KINDS)]
        texts = [kinds[i % KINDS] for i in range(self.claim.drawn)]
        how = {"steps": STEPS, "solver": "dpmpp_2m"}

        def two(some: Sequence[str], noise: Noise, w: float) -> Tensor:
            return self.decoded(self.claim.draw(self.model, some, noise), noise, some, w)

        def one(some: Sequence[str], noise: Noise, w: float) -> Tensor:
            return self.direct.sample(some, guidance=w, noise=noise, **how)  # type: ignore[arg-type]

        curves = {
            name: [variety(self.painted(texts, lambda some, noise, f=f, w=w: f(some, noise, w)), texts) for w in SCALES]
            for name, f in (("prior", two), ("direct", one))
        }
        level = min(max(share for share, _ in curve) for curve in curves.values())
        lost = {name: curve[0][1] - entropy_at(level, curve) for name, curve in curves.items()}
        told = {
            f"{name}, guidance {w:g}": bits for name, curve in curves.items() for w, (_, bits) in zip(SCALES, curve, strict=True)
        }
        return Effect(
            lost["direct"] / 2 - lost["prior"], {**{f"{k}, lost": v for k, v in lost.items()}, **told, "captions kept": level}
        )

    # --- C ---

    def varied(self) -> dict[str, Effect]:
        """Pictures of one thing each, and pictures of their vectors."""
        things = [self.world.scene(i).named[0] for i in range(SOURCES)]
        z = self.model.vector(self.world.batch(0, SOURCES).image).repeat_interleave(self.claim.each, 0)
        x = self.painted(range(len(z)), lambda some, noise: self.decoded(z[list(some)], noise))
        read, right, spreads = Oracle().read(x), 0, []
        for i, thing in enumerate(things):
            found = [r.named[0] for r in read[i * self.claim.each : (i + 1) * self.claim.each] if len(r.named) == 1]
            alike = [f for f in found if (f.shape, f.colour) == (thing.shape, thing.colour)]
            right += len(alike)
            spreads += [spread(alike)] if len(alike) > 2 else []
        share = right / len(read)
        real = spread([self.world.scene(SOURCES + i).named[0] for i in range(256)])  # type: ignore[misc]
        own = sum(spreads) / max(1, len(spreads))
        return {
            "C1": Effect(share - 0.8, {"as the picture": share}),
            "C2": Effect(own - real / 2, {"places, of one vector": own, "of the world": real}),
        }

    # --- all ---

    @cached_property
    def world(self) -> World:
        return world_of(find(MODEL), mix(self.seed, 3), most=1)

    def painted(self, asked: Sequence[object], paint: Callable[..., Tensor]) -> Tensor:
        """A few at a time, from the same noise whatever the arm."""
        parts = []
        for first in range(0, len(asked), CHUNK):
            some = asked[first : first + CHUNK]
            parts.append(paint(some, Noise([mix(self.seed, 4, first + i) for i in range(len(some))])))
        return torch.cat(parts)


def kept(x: Tensor, texts: Sequence[str]) -> float:
    """The share of captions of which the oracle finds all kept."""
    return float(Oracle().observe(x, texts)[:, 1].mean())


def variety(x: Tensor, texts: Sequence[str]) -> tuple[float, float]:
    """The share of captions kept, and the entropy of what they leave open in the pictures that keep them, mean over captions, in bits."""
    read = Oracle().read(x)
    right = [reading.readable and parse(text).true_of(reading) for reading, text in zip(read, texts, strict=True)]
    bits = [entropy([r for r, text, ok in zip(read, texts, right, strict=True) if ok and text == kind]) for kind in set(texts)]
    return sum(right) / len(right), sum(bits) / len(bits)


def entropy(readings: Sequence[Reading]) -> float:
    """Of the ground's tone and of the quarter of the picture, added, each corrected for its few draws (Miller 1955)."""
    if not readings:
        return 0.0
    told = [(r.tone, (r.named[0].x > 0.5, r.named[0].y > 0.5)) for r in readings]
    return sum(_entropy(Counter(column), len(told)) for column in zip(*told, strict=True))


def _entropy(counts: Counter[object], n: int) -> float:
    return -sum(k / n * math.log2(k / n) for k in counts.values()) + (len(counts) - 1) / (2 * n * math.log(2))


def entropy_at(level: float, curve: Sequence[tuple[float, float]]) -> float:
    """The entropy where the curve, straight between its scales, first keeps this share of captions; at its start where it always does."""
    for (low, before), (high, after) in pairwise(curve):
        if low >= level:
            return before
        if high >= level:
            return before + (level - low) / (high - low) * (after - before)
    return curve[-1][1] if curve[-1][0] >= level else curve[0][1]


def spread(things: Sequence[Found]) -> float:
    """Standard deviation of places, of both axes together."""
    at = torch.tensor([(thing.x, thing.y) for thing in things], dtype=torch.float64)
    return float(at.var(0).sum().sqrt())


CLAIM = UnclipClaim()
