"""Who first draws what a picture is to show, as an encoder without labels sees it, paints nearly as well as who is told the class.

Li, Katabi & He 2023, tables 1 and 4. The tokenizer and the encoder are the shipped ones. Each seed trains four generators with the
same weights to begin with, on the same pictures and noise, that differ in what they are told: nothing, the class, or the vector
of one of two encoders, of which the other never learned. The pictures are of sixteen kinds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from diorama.claims.claim import Claim, Effect, Part, model_folder
from diorama.conditions.picture import word
from diorama.critics.frechet import kernel_distance
from diorama.critics.nearest import closeness, nearest
from diorama.data.order import index_at
from diorama.errors import UserError
from diorama.foundations.registry import find
from diorama.foundations.world import world_of
from diorama.networks.vit import ViT
from diorama.systems.images.rcg import Rcg
from diorama.systems.images.vq import VectorQuantised
from diorama.systems.understanding.classifier import Classifier
from diorama.systems.understanding.mae import MaskedAutoencoder
from diorama.training.loop import BatchAt, fit
from diorama.training.plan import Plan
from diorama.types import Batch, Noise, mix
from diorama.worlds.oracle import Oracle
from diorama.worlds.source import World

TOKENS, ENCODER, JUDGE = "world-vq", "world-vit", "world-features"
KINDS = {
    "shapes": ("circle", "square", "triangle", "star"),
    "colours": ("red", "yellow", "green", "blue"),
    "sizes": ("large",),
    "textures": ("plain",),
    "styles": ("flat",),
    "grounds": ("plain",),
}
SEEN, DRAWN, CHUNK = 4096, 384, 64  # pictures
STEPS = 12
SCALES = (1.5, 2.0, 4.0)  # of guidance, beside none
PLAN = Plan(steps=1000, batch=32, lr=2e-3, warmup=50, decay=0.4, ema=0.99, device="cpu", dtype="float32")
DREAM = replace(PLAN, steps=1500, batch=64, lr=1e-3)  # the vectors are few numbers


class Dreams(Rcg):
    """Learns which vectors there are."""

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        assert batch.embedding is not None
        return self.rdm_loss(batch.embedding.pooled, noise)


class Paints(Rcg):
    """Learns the pictures that go with what it is told."""

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        assert batch.embedding is not None and batch.latent is not None
        return self.picture_loss(batch.latent, batch.embedding.pooled, noise)


Look = Callable[[ViT], ViT]


def as_shipped(encoder: ViT) -> ViT:
    return encoder


def untrained(encoder: ViT) -> ViT:
    """The same before it learned anything."""
    return ViT(encoder.config)


@dataclass(frozen=True, kw_only=True)
class RcgClaim(Claim):
    """Four generators that differ in what they are told."""

    look: Look = as_shipped
    baseline: Look = untrained
    plan: Plan = PLAN
    dream: Plan = DREAM
    seen: int = SEEN
    drawn: int = DRAWN

    slug: ClassVar[str] = "rcg"
    title: ClassVar[str] = "RCG"
    assets: ClassVar[tuple[str, ...]] = (TOKENS, ENCODER, JUDGE)
    parts: ClassVar[tuple[Part, ...]] = (
        Part(
            letter="A",
            statement="drawing a vector first closes at least half of the gap between pictures told nothing and those told a class",
            unit="squared kernel distance, (nothing + class) / 2 - RCG",
            margin=0.0,
        ),
        Part(
            letter="B",
            statement="what the encoder learned matters: at most 0.9 times as far from real pictures as by one that never learned",
            unit="squared kernel distance, 0.9 untrained - RCG",
            margin=0.0,
        ),
        Part(
            letter="C",
            statement="guided towards the vector, pictures stand at most 0.9 times as far as unguided, at a scale chosen on others",
            unit="squared kernel distance, 0.9 unguided - guided",
            margin=0.0,
        ),
        Part(
            letter="D",
            statement="kinds of things come more evenly than where nothing is told",
            unit="total variation from even, nothing - RCG",
            margin=0.0,
        ),
    )

    def run(self, seed: int) -> Mapping[str, Effect]:
        try:
            tokens = VectorQuantised.from_pretrained(model_folder(TOKENS))
            encoder = MaskedAutoencoder.from_pretrained(model_folder(ENCODER)).encoder
            judge = Classifier.from_pretrained(model_folder(JUDGE))
        except UserError as error:
            return {part.letter: Effect.missing(str(error)) for part in self.parts}
        return Experiment(self, seed, tokens, encoder, judge).effects()


@dataclass(frozen=True)
class Told:
    """What one generator is told of the pictures it learns, and of those it is to draw: (n, d) and (m, d)."""

    learning: Tensor
    drawing: Tensor


@dataclass
class Experiment:
    """One seed."""

    claim: RcgClaim
    seed: int
    tokens: VectorQuantised
    encoder: ViT
    judge: Classifier

    def effects(self) -> dict[str, Effect]:
        vectors, near = self.dreamed(self.claim.look(self.encoder))
        arms = {
            "nothing": Told(*(torch.zeros_like(r) for r in (vectors.learning, vectors.drawing))),
            "class": self.classes(),
            "RCG": vectors,
            "untrained": self.dreamed(self.claim.baseline(self.encoder))[0],
        }
        painters = {name: self.taught(told.learning) for name, told in arms.items()}
        drawn = {name: self.drawn(painter, arms[name].drawing) for name, painter in painters.items()}
        far = {name: self.distance(x) for name, x in drawn.items()}
        pressed = {1.0: drawn["RCG"], **{w: self.drawn(painters["RCG"], vectors.drawing, w) for w in SCALES}}
        half = self.claim.drawn // 2
        best = min(SCALES, key=lambda w: self.distance(pressed[w][:half]))
        guided = {w: self.distance(x[half:], half) for w, x in pressed.items()}
        shown = {"nothing": drawn["nothing"], "RCG": drawn["RCG"], "real": self.real.image}
        uneven = {name: unevenness(x, self.world.labels) for name, x in shown.items()}
        return {
            "A": Effect((far["nothing"] + far["class"]) / 2 - far["RCG"], far),
            "B": Effect(0.9 * far["untrained"] - far["RCG"], {**far, "nearness to vectors learned from": near}),
            "C": Effect(
                0.9 * guided[1.0] - guided[best], {**{f"guidance {w:g}": d for w, d in guided.items()}, "best on others": best}
            ),
            "D": Effect(uneven["nothing"] - uneven["RCG"], uneven),
        }

    # --- pictures ---------------------------------------------------------------------------------

    @cached_property
    def world(self) -> World:
        return world_of(find(JUDGE), mix(self.seed, 1), **KINDS)

    @cached_property
    def pictures(self) -> Batch:
        """Those to learn from, labelled by their kinds."""
        return self.world.batch(0, self.claim.seen)

    @cached_property
    def real(self) -> Batch:
        """Others of the same world, which no arm learned from."""
        return self.world.batch(self.claim.seen, self.claim.drawn)

    @cached_property
    def indices(self) -> Tensor:
        return torch.cat([self.tokens.tokenise(part) for part in self.pictures.image.split(CHUNK)])

    def noise(self, k: int, rows: slice = slice(None)) -> Noise:
        """The streams of the pictures to draw, or of some of them."""
        return Noise([mix(self.seed, k, i) for i in range(self.claim.drawn)[rows]])

    def system(self, kind: type[Rcg], encoder: ViT) -> Rcg:
        """A new one, with the same weights to begin with whatever it is to be told."""
        torch.manual_seed(mix(self.seed, 3))
        return kind.on(self.tokens.codec, self.tokens.quantiser, encoder, "nano", find(JUDGE).size)

    # --- what they learn --------------------------------------------------------------------------

    def classes(self) -> Told:
        """One entry for each kind, and vectors as long as the others; of those to draw all kinds are as likely."""
        d, label = self.encoder.config.width, self.pictures.label
        assert label is not None
        asked = self.noise(2).integers(len(self.world.labels))
        return Told(*(F.one_hot(kind, d) * d**0.5 for kind in (label, asked)))

    def dreamed(self, encoder: ViT) -> tuple[Told, float]:
        """Vectors of the pictures and new ones; and how near to the former the latter are, beside those of other pictures."""
        model = self.system(Dreams, encoder)
        features, other = (
            torch.cat([model.features(part) for part in batch.image.split(CHUNK)]) for batch in (self.pictures, self.real)
        )
        model.standard.train()(features)  # sees them all
        vectors, unseen = (model.standard.eval()(x) for x in (features, other))
        fit(model, self.pairs(vectors, self.claim.dream.batch), replace(self.claim.dream, seed=self.seed))
        drawn = model.imagine(noise=self.noise(4))
        near = closeness(*(nearest(x, [vectors]).distance for x in (drawn, unseen))).value
        return Told(vectors, drawn), near

    def taught(self, told: Tensor) -> Rcg:
        model = self.system(Paints, self.encoder)
        fit(model, self.pairs(told, self.claim.plan.batch), replace(self.claim.plan, seed=self.seed))
        return model

    def pairs(self, told: Tensor, n: int) -> BatchAt:
        """n pictures a step as tokens, each with what is told of it; all come once before one comes twice."""

        def batch(step: int, rank: int = 0, world: int = 1) -> Batch:
            first = (step * world + rank) * n
            rows = [index_at(p, len(told), 0) for p in range(first, first + n)]
            return Batch(torch.zeros(0), latent=self.indices[rows], embedding=word(told[rows]))

        return batch

    # --- what they draw ---------------------------------------------------------------------------

    def drawn(self, painter: Rcg, told: Tensor, guidance: float = 1.0) -> Tensor:
        """A picture for each vector, from the same noise whoever paints."""
        parts = []
        for first in range(0, len(told), CHUNK):
            rows = slice(first, first + CHUNK)
            parts.append(painter.paint(told[rows], steps=STEPS, guidance=guidance, noise=self.noise(5, rows)))
        return torch.cat(parts)

    @torch.no_grad()
    def distance(self, x: Tensor, first: int = 0) -> float:
        """From as many real pictures, beginning with this one."""
        real = self.real.image[first : first + len(x)]
        return kernel_distance(self.judge.features(x), self.judge.features(real)).value


def unevenness(x: Tensor, kinds: Sequence[str]) -> float:
    """Total variation between the kinds the oracle reads in pictures and all kinds alike; what it cannot read is of no kind."""
    alone = (reading.named[0] for reading in Oracle().read(x) if len(reading.named) == 1)
    read = Counter(f"{thing.colour} {thing.shape}" for thing in alone)
    return sum(max(0.0, 1 / len(kinds) - read[kind] / len(x)) for kind in kinds)


CLAIM = RcgClaim()
