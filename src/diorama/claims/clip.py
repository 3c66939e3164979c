"""Which sentence goes with which picture teaches more than the sentence's words, and a balanced set teaches its rare things.

Radford et al. 2021, sec. 2.2 and 2.3, on the miniature world.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diorama import cards
from diorama.claims.claim import Claim, Effect, Part
from diorama.claims.runner import Meter
from diorama.conditions.caption import CaptionConfig, CaptionEncoder
from diorama.data.augment import augment
from diorama.data.balance import balance
from diorama.data.order import index_at
from diorama.networks.towers import ImageTower, TowerConfig
from diorama.systems.base import System
from diorama.systems.understanding.clip import PRESETS, Clip
from diorama.training.loop import fit
from diorama.training.plan import Plan
from diorama.types import Batch, Noise, mix
from diorama.worlds.captions import caption
from diorama.worlds.render import render
from diorama.worlds.scene import COLOURS, Rules, Scene, scene
from diorama.worlds.shapes import SHAPES
from diorama.worlds.source import World, WorldBatches, unseen

SIZE = 32
KINDS = tuple(product(COLOURS, SHAPES))  # 64 concepts
HELD_OUT = unseen(Rules(), 0.25)
PLAN = Plan(steps=400, batch=64, lr=1e-3, warmup=50, decay=0.4, ema=0.98, device="cpu", dtype="float32")
EACH = 16  # test pictures of a concept
POOL, KEPT, ZIPF = 40_000, 4_000, 1.3
Texts = Callable[[Sequence[str]], Sequence[str]]


def as_written(texts: Sequence[str]) -> Sequence[str]:
    return texts


@dataclass(eq=False)
class WordPredictor(System):
    """The baseline: the same tower, asked which words its caption holds (Joulin et al. 2016; Radford et al. 2021, fig. 2)."""

    image: ImageTower
    head: nn.Linear
    words: tuple[str, ...]

    card: ClassVar[cards.Card] = cards.CLIP

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        said = torch.tensor([[float(word in text.lower().split()) for word in self.words] for text in batch.text])
        logits = self.head(self.image(augment(batch.image[:, :3], noise)))
        return F.binary_cross_entropy_with_logits(logits.float(), said, reduction="none").mean(1)

    def scores(self, image: Tensor) -> Tensor:
        """(b, 64): the mean logit of each concept's words."""
        logits = self.head(self.image(image[:, :3]))
        return torch.stack([logits[:, [self.words.index(word) for word in kind]].mean(1) for kind in KINDS], 1)


@dataclass(frozen=True, kw_only=True)
class ClipClaim(Claim):
    """Contrast against words at equal FLOPs; balanced pairs against as many drawn at random."""

    told: Texts = as_written  # what the contrastive arm is told of a batch's pictures
    plan: Plan = PLAN
    pool: int = POOL
    kept: int = KEPT
    each: int = EACH

    slug: ClassVar[str] = "clip"
    title: ClassVar[str] = "CLIP"
    parts: ClassVar[tuple[Part, ...]] = (
        Part(
            letter="A",
            statement="at equal FLOPs, contrast names 16 combinations never trained on, of 64, 10 points better than predicting words",
            unit="share of pictures",
            margin=0.10,
        ),
        Part(
            letter="B1",
            statement="of as many pairs, those capped per concept name the 32 rarest of 64 concepts 10 points better than a random draw",
            unit="share of pictures",
            margin=0.10,
        ),
        Part(
            letter="B2",
            statement="and the 32 commonest at most 5 points worse",
            unit="share of pictures, beyond a loss of 0.05",
            margin=0.0,
        ),
    )

    def run(self, seed: int) -> Mapping[str, Effect]:
        return {"A": self.objective(seed), **self.data(seed)}

    # --- A: the objective ---

    def objective(self, seed: int) -> Effect:
        world = World(mix(seed, 1), 2**40, SIZE, Rules(most=2, subjects=0.0, held_out=HELD_OUT), form="short")
        contrast, words = clip(seed), word_predictor(seed)
        ratio = flops(contrast, world) / flops(words, world)
        fit(contrast, Told(WorldBatches(world, self.plan.batch), self.told), self.plan)
        fit(words, WorldBatches(world, self.plan.batch), replace(self.plan, steps=round(self.plan.steps * ratio)))
        image, kind = pictures(seed, [KINDS.index(pair) for pair in HELD_OUT], self.each)
        with torch.no_grad():
            arms = {"contrast": right(scores(contrast.eval(), image), kind), "words": right(words.eval().scores(image), kind)}
        return Effect(arms["contrast"] - arms["words"], {**arms, "steps of words per step of contrast": ratio})

    # --- B: the data ---

    def data(self, seed: int) -> dict[str, Effect]:
        kinds = concepts(seed, self.pool)
        texts = [caption(thing(seed, i, k), form="short") for i, k in enumerate(kinds)]
        rng = random.Random(mix(seed, 2))
        balanced = balance(texts, [" ".join(kind) for kind in KINDS], self._cap(kinds), rng)
        drawn = rng.sample(range(self.pool), len(balanced))
        rare, common = range(32, 64), range(32)
        found = {name: self._named(seed, kinds, texts, some) for name, some in (("balanced", balanced), ("random", drawn))}
        tail, head = ({name: f(ks) for name, f in found.items()} for ks in (rare, common))
        return {
            "B1": Effect(tail["balanced"] - tail["random"], {**tail, "pairs": float(len(balanced))}),
            "B2": Effect(head["balanced"] - head["random"] + 0.05, head),
        }

    def _cap(self, kinds: Sequence[int]) -> int:
        """The largest cap that keeps no more than `kept` pairs."""
        counts = [kinds.count(k) for k in range(len(KINDS))]
        return max(cap for cap in range(1, self.kept) if sum(min(n, cap) for n in counts) <= self.kept)

    def _named(self, seed: int, kinds: Sequence[int], texts: Sequence[str], some: Sequence[int]) -> Callable[[range], float]:
        """CLIP trained on these pairs of the pool; how often it names the concepts of these ranks."""
        image = torch.cat([drawn_of([thing(seed, i, kinds[i]) for i in some[n : n + 256]]) for n in range(0, len(some), 256)])
        system = clip(seed)
        fit(system, Told(Pairs(image, [texts[i] for i in some], self.plan.batch), self.told), self.plan)
        system.eval()

        def named(ranks: range) -> float:
            image, kind = pictures(seed, ranked(seed)[ranks.start : ranks.stop], self.each)
            with torch.no_grad():
                return right(scores(system, image), kind)

        return named


# --- the two arms ----------------------------------------------------------------------------------


def clip(seed: int) -> Clip:
    torch.manual_seed(mix(seed, 3))
    words = [*COLOURS, *SHAPES, "a", "an", "and", "large", "small", "medium", "striped", "dotted", "checked", "plain"]
    text = CaptionEncoder.of([" ".join(words)] * 2, CaptionConfig(words=512, max_tokens=24))
    return Clip.build(text, (), replace(PRESETS["nano"], size=SIZE))


def word_predictor(seed: int) -> WordPredictor:
    torch.manual_seed(mix(seed, 3))
    tower = ImageTower(TowerConfig(**{**vars(PRESETS["nano"]), "size": SIZE}))  # the same first weights as the other arm's
    words = (*COLOURS, *SHAPES)
    return WordPredictor(tower, nn.Linear(tower.width, len(words)), words)


def flops(system: System, world: World) -> float:
    """TFLOP of one step on a batch of 64."""
    batch = world.batch(0, 64)
    with Meter(float("inf")) as meter:
        system.train().loss(batch, Noise(range(64))).mean().backward()
    system.zero_grad(set_to_none=True)
    return meter.tflop


def scores(system: Clip, image: Tensor) -> Tensor:
    """(b, 64): how well each concept's sentence fits."""
    sentences = [f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {shape}" for colour, shape in KINDS]
    return system.encode_image(image) @ system.encode_text(sentences).T


def right(scores: Tensor, kind: Tensor) -> float:
    return float((scores.argmax(1) == kind).double().mean())


# --- pictures of one thing -------------------------------------------------------------------------


def thing(seed: int, i: int, kind: int) -> Scene:
    colour, shape = KINDS[kind]
    return scene(mix(seed, 4), i, Rules(colours=(colour,), shapes=(shape,), most=1, subjects=0.0))


def drawn_of(scenes: Sequence[Scene]) -> Tensor:
    return render(scenes, SIZE).image


def pictures(seed: int, kinds: Sequence[int], each: int) -> tuple[Tensor, Tensor]:
    """`each` new pictures of these concepts, and which they are."""
    which = [k for k in kinds for _ in range(each)]
    return drawn_of([thing(mix(seed, 5), i, k) for i, k in enumerate(which)]), torch.tensor(which)


def ranked(seed: int) -> list[int]:
    """The concepts from the commonest to the rarest: another order for each seed."""
    return random.Random(mix(seed, 6)).sample(range(len(KINDS)), len(KINDS))


def concepts(seed: int, n: int) -> list[int]:
    """The concept of each pair of the pool, by Zipf's law over their ranks."""
    weights = [1 / (rank + 1) ** ZIPF for rank in range(len(KINDS))]
    return random.Random(mix(seed, 7)).choices(ranked(seed), weights, k=n)


@dataclass(frozen=True)
class Pairs:
    """Batches of stored pairs."""

    image: Tensor
    texts: Sequence[str]
    batch: int

    def __call__(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        first = (step * world + rank) * self.batch
        rows = [index_at(p, len(self.texts), 0) for p in range(first, first + self.batch)]
        return Batch(self.image[rows], [self.texts[i] for i in rows])


@dataclass(frozen=True)
class Told:
    """The same batches with other words."""

    batches: Any
    told: Texts

    def __call__(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        batch = self.batches(step, rank, world)
        return replace(batch, text=self.told(batch.text))


CLAIM = ClipClaim()
