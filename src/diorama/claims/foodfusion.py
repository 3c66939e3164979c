"""Of as many pictures and steps, a set cleaned by retrieval and by masks teaches a new domain better than the pool it came from.

After FoodFusion (arXiv 2312.03540), which gives no number for it. The domain is the shaded style, new to the model that is carried
on; in its pool are captions of other pictures, captions that name one thing too many, drawings and repetitions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diorama.claims.claim import Claim, Effect, Part, model_folder
from diorama.critics.frechet import kernel_distance
from diorama.critics.precision import precision_recall
from diorama.data.batches import Batches
from diorama.data.curate import Limits, Looker, Scorer, judge, look
from diorama.data.source import Item
from diorama.data.views import Subset
from diorama.errors import UserError
from diorama.foundations.registry import find
from diorama.systems.images.flow import Flow
from diorama.systems.images.foodfusion import FoodFusion, fitting
from diorama.systems.understanding.classifier import Classifier
from diorama.systems.understanding.clip import Clip
from diorama.training.loop import fit
from diorama.training.plan import Plan
from diorama.types import Batch, Noise, mix
from diorama.worlds.oracle import Oracle
from diorama.worlds.scene import Rules
from diorama.worlds.source import World

MODEL, RETRIEVER, JUDGE = "world-flow", "world-clip", "world-features"
POOL, DRAWN, CHUNK, SAMPLING = 2048, 192, 64, 10
FAULTS = {"wrong": 0.15, "more": 0.15, "drawing": 0.2, "repeated": 0.1}  # shares of the pool
UNLIKE = ("a sketch", "pixel art", "an outlined drawing")
LIMITS = Limits(worst=0.45)  # retrieval drops about as many as are known to be wrong or drawn
RETRIEVAL = ("retrieval", "duplicate")
MASKS = ("mask", "retrieval", "duplicate")
PLAN = Plan(steps=100, batch=32, lr=3e-4, warmup=20, decay=0.4, ema=0.98, device="cpu", dtype="float32")


@dataclass(frozen=True)
class Pool:
    """A `data.source.Source`: pictures of the domain in the world `seed`, some of which are not what they should be."""

    seed: int
    n: int
    labels: tuple[str, ...] = ()

    @cached_property
    def worlds(self) -> tuple[World, World]:
        """The domain, and drawings of the same."""
        return domain(self.seed, self.n), domain(self.seed, self.n, ("sketch", "pixel", "outlined"))

    @cached_property
    def faults(self) -> tuple[str, ...]:
        """What is wrong with each picture: each fault for itself, so some have several."""
        rng = random.Random(mix(self.seed, 1))
        return tuple(" ".join(name for name, chance in FAULTS.items() if rng.random() < chance) for _ in range(self.n))

    @cached_property
    def _images(self) -> list[Image.Image]:
        """Of all items, drawn once and in order: training asks for them in any."""
        return [self._world(i).read(i).image for i in range(self.n)]

    def __len__(self) -> int:
        return self.n

    def _shown(self, i: int) -> int:
        """The item whose picture stands here: an earlier one, where it is repeated."""
        return mix(self.seed, 2, i) % i if i and "repeated" in self.faults[i] else i

    def _world(self, j: int) -> World:
        return self.worlds["drawing" in self.faults[j]]

    def record(self, i: int) -> Mapping[str, Any]:
        j, other = self._shown(i), mix(self.seed, 3, i) % self.n
        own, others = (self._world(j).record(k)["text"] for k in (j, other))
        text = others if "wrong" in self.faults[i] else f"{own} and {others}" if "more" in self.faults[i] else own
        return {"key": str(i), "text": text, "label": None}

    def read(self, i: int) -> Item:
        said = self.record(i)
        return Item(said["key"], self._images[self._shown(i)], said["text"])


def domain(seed: int, n: int, styles: Sequence[str] = ("shaded",)) -> World:
    """What the model knows, in styles it never saw."""
    what = find(MODEL)
    return World(seed, n, what.size, Rules(**{**what.rules, "styles": tuple(styles)}), what.form)


@dataclass(frozen=True, kw_only=True)
class FoodFusionClaim(Claim):
    """The pool as it is, a random part of it, and what two cleanings leave."""

    fits: Callable[[Clip, Sequence[str]], Scorer] = fitting
    limits: Limits = LIMITS
    plan: Plan = PLAN
    pool: int = POOL
    drawn: int = DRAWN

    slug: ClassVar[str] = "foodfusion"
    title: ClassVar[str] = "FoodFusion"
    assets: ClassVar[tuple[str, ...]] = (MODEL, RETRIEVER, JUDGE)
    parts: ClassVar[tuple[Part, ...]] = (
        Part(
            letter="A",
            statement="cleaned by retrieval, it comes within 0.85 times the distance from real pictures that the whole pool gives",
            unit="squared kernel distance, 0.85 pool - retrieval",
            margin=0.0,
            conditional_on=MODEL,
        ),
        Part(
            letter="B1",
            statement="cleaned by retrieval and masks, at least 8 points more captions are kept than with the whole pool",
            unit="share of pictures",
            margin=0.08,
            conditional_on=MODEL,
        ),
        Part(
            letter="B2",
            statement="and at least 3 points more than with retrieval alone",
            unit="share of pictures",
            margin=0.03,
            conditional_on=MODEL,
        ),
        Part(
            letter="C",
            statement="and of the real pictures at least 0.9 times as many are covered as with a random part of the pool of that size",
            unit="recall, masks - 0.9 random",
            margin=0.0,
            conditional_on=MODEL,
        ),
    )

    def run(self, seed: int) -> Mapping[str, Effect]:
        try:
            base, judge = Flow.from_pretrained(model_folder(MODEL)), Classifier.from_pretrained(model_folder(JUDGE))
            clip = Clip.from_pretrained(model_folder(RETRIEVER))
        except UserError as error:
            return {part.letter: Effect.missing(str(error)) for part in self.parts}
        return Experiment(self, seed, base, clip, judge).effects()


@dataclass
class Experiment:
    """One seed."""

    claim: FoodFusionClaim
    seed: int
    base: Flow
    clip: Clip
    judge: Classifier

    def effects(self) -> dict[str, Effect]:
        pool = Pool(mix(self.seed, 1), self.claim.pool)
        kept = self.kept(pool)
        n = min(map(len, kept.values()))
        rng = random.Random(mix(self.seed, 2))
        sets = {
            "pool": range(len(pool)),
            "random": rng.sample(range(len(pool)), n),
            **{name: rng.sample(rows, n) for name, rows in kept.items()},
        }
        found = {name: self.taught(Subset(pool, sorted(rows))) for name, rows in sets.items()}
        distance, right, recall = ({name: one[k] for name, one in found.items()} for k in range(3))
        sound = {f"sound, {name}": sum(not pool.faults[i] for i in rows) / len(rows) for name, rows in sets.items()}
        return {
            "A": Effect(0.85 * distance["pool"] - distance["retrieval"], {**distance, **sound, "pictures": float(n)}),
            "B1": Effect(right["masks"] - right["pool"], right),
            "B2": Effect(right["masks"] - right["retrieval"], right),
            "C": Effect(recall["masks"] - 0.9 * recall["random"], recall),
        }

    def kept(self, pool: Pool) -> dict[str, list[int]]:
        """What either cleaning leaves of the pool, which is looked at once."""
        seen = np.concatenate(list(look(pool, Looker(self.claim.fits(self.clip, UNLIKE), self.clip.image.config.size))))
        filters = {"retrieval": RETRIEVAL, "masks": MASKS}
        return {name: judge(seen, replace(self.claim.limits, filters=some)).kept.tolist() for name, some in filters.items()}

    def taught(self, data: Subset) -> tuple[float, float, float]:
        """The model carried on with these pictures: its distance from real ones, captions kept, recall."""
        system = FoodFusion.carry_on(deepcopy(self.base))
        fit(system, Batches(data, system.size, self.claim.plan.batch, mix(self.seed, 3)), self.claim.plan)
        image = self.painted(system)
        right = float(Oracle().observe(image, self.real.text)[:, 1].mean())
        seen, real = self.seen(image), self.seen(self.real.image)
        return kernel_distance(seen, real).value, right, precision_recall(seen, real, 5)[1].value

    def painted(self, system: FoodFusion) -> Tensor:
        seeds = [mix(self.seed, 4, i) for i in range(len(self.real.text))]
        chunks = [slice(first, first + CHUNK) for first in range(0, len(seeds), CHUNK)]
        return torch.cat([system.sample(self.real.text[some], steps=SAMPLING, noise=Noise(seeds[some])) for some in chunks])

    @cached_property
    def real(self) -> Batch:
        """Pictures of the domain that no arm was shown, whose captions all arms are asked for."""
        return domain(mix(self.seed, 5), self.claim.drawn).batch(0, self.claim.drawn)

    @torch.no_grad()
    def seen(self, image: Tensor) -> Tensor:
        return torch.cat([self.judge.features(part) for part in image.split(CHUNK)])


CLAIM = FoodFusionClaim()
