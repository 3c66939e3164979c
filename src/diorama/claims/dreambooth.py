"""Beside pictures of its class that it painted itself, a model learns a subject, and the class does not turn into it.

Ruiz et al. 2023, sec. 3.2 and 4.4, on things that no caption of the miniature world names and the shipped model never saw. Each seed
has a subject and a class of its own, and tunes the whole network three times alike.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from diorama.claims.claim import Claim, Effect, Part, model_folder
from diorama.errors import UserError
from diorama.foundations.registry import HELD_OUT, find
from diorama.foundations.world import world_of
from diorama.systems.images.dreambooth import PLANS, DreamBooth, Words
from diorama.systems.images.flow import Flow
from diorama.training.plan import Plan
from diorama.types import Noise, mix
from diorama.worlds.captions import caption
from diorama.worlds.oracle import Oracle
from diorama.worlds.render import as_poses, corner, paint, pictures, window
from diorama.worlds.scene import SIZES, Rules, Thing, scene
from diorama.worlds.shapes import SUBJECT
from diorama.worlds.source import unseen

MODEL = "world-flow"
IDENTIFIER = "sks"
PLAN = replace(PLANS["full"], steps=300, device="cpu", dtype="float32")
GIVEN, PRIOR, EACH = 4, 128, 48  # pictures of the subject, of its class, and drawn per sentence
HOW: dict[str, Any] = {"guidance": 2.0, "solver": "dpmpp_2m"}
CHUNK = 48  # pictures drawn together
TURN = 15  # degrees between the paintings of a subject that a picture is held against
SHOWN = 0.5  # overlap with the best of them: real ones reach 0.6 and more, coloured things 0.1 at most, other subjects mostly 0.7
LIGHT = ("white", "grey", "cream")  # grounds on which a subject, nearly black, is seen


class Nameless(Words):
    """The class alone, for the subject too."""

    @property
    def subject(self) -> str:
        return self.kind


@dataclass(frozen=True)
class Shown:
    """What one way of tuning gave, as shares of pictures."""

    fidelity: float  # that show the subject, asked for it beside another thing
    leak: float  # that show it, asked for the class alone
    kept: float  # that the oracle reads as the class, asked for that


@dataclass(frozen=True, kw_only=True)
class DreamBoothClaim(Claim):
    """The subject with its class and without, with a name and without, beside the model as it was."""

    prior: int = PRIOR  # pictures of the class in the method's arms
    plan: Plan = PLAN
    each: int = EACH
    steps: int = 10  # of painting

    slug: ClassVar[str] = "dreambooth"
    title: ClassVar[str] = "DreamBooth"
    assets: ClassVar[tuple[str, ...]] = (MODEL,)
    parts: ClassVar[tuple[Part, ...]] = (
        Part(
            letter="A",
            statement="asked for the subject beside another thing, the tuned model shows it at least 25 points more often than before",
            unit="share of pictures",
            margin=0.25,
            conditional_on=MODEL,
        ),
        Part(
            letter="B1",
            statement="asked for the class, it shows the subject at least 20 points less often than without pictures of the class",
            unit="share of pictures",
            margin=0.20,
            conditional_on=MODEL,
        ),
        Part(
            letter="B2",
            statement="and asked for the subject at most 8 points less often",
            unit="share of pictures, beyond a loss of 0.08",
            margin=0.0,
            conditional_on=MODEL,
        ),
        Part(
            letter="C",
            statement="without a name of its own, the subject is shown at least 15 points less often",
            unit="share of pictures",
            margin=0.15,
            conditional_on=MODEL,
        ),
    )

    def run(self, seed: int) -> Mapping[str, Effect]:
        try:
            model_folder(MODEL)
        except UserError as error:
            return {part.letter: Effect.missing(str(error)) for part in self.parts}
        subject = Subject(seed)
        named, nameless = Words(IDENTIFIER, subject.noun), Nameless(IDENTIFIER, subject.noun)
        arms = {
            "untuned": self.shown(subject, named, None),
            "DreamBooth": (method := self.shown(subject, named, self.prior)),
            "no class": (bare := self.shown(subject, named, 0)),
            "no name": self.shown(subject, nameless, self.prior),
        }
        fidelity, leak, kept = ({arm: getattr(shown, f.name) for arm, shown in arms.items()} for f in fields(Shown))
        return {
            "A": Effect(method.fidelity - fidelity["untuned"], fidelity),
            "B1": Effect(bare.leak - method.leak, {**leak, **{f"class read, {arm}": share for arm, share in kept.items()}}),
            "B2": Effect(method.fidelity - bare.fidelity + 0.08, fidelity),
            "C": Effect(method.fidelity - fidelity["no name"], fidelity),
        }

    def shown(self, subject: Subject, words: Words, prior: int | None) -> Shown:
        """What the shipped model paints once it was tuned with so many pictures of the class; None: as it is."""
        painter = deepcopy(read(model_folder(MODEL)))
        if prior is not None:
            DreamBooth(painter, words, rank=0).learn(subject.given, self.plan, prior, steps=self.steps, **HOW)
        beside, alone = [f"{words.subject} and {other}" for other in subject.others(self.each)], [words.kind] * self.each
        asked, unasked = (draw(painter.eval(), sentences, subject.seed, self.steps) for sentences in (beside, alone))
        return Shown(subject.share(asked), subject.share(unasked), float(Oracle().observe(unasked, alone)[:, 1].mean()))


@cache
def read(folder: Path) -> Flow:
    return Flow.from_pretrained(folder)


def draw(painter: Flow, sentences: Sequence[str], seed: int, steps: int) -> Tensor:
    """One picture a sentence, from the same noise whoever paints."""
    seeds = [mix(seed, 3, i) for i in range(len(sentences))]
    chunks = [slice(first, first + CHUNK) for first in range(0, len(sentences), CHUNK)]
    return torch.cat([painter.sample(sentences[some], steps=steps, noise=Noise(seeds[some]), **HOW) for some in chunks])


@dataclass(frozen=True)
class Subject:
    """The unique thing of a seed, the class it is said to be of, and whether a picture shows it."""

    seed: int

    @property
    def number(self) -> int:
        return mix(self.seed, 1) % 2**31

    @cached_property
    def rules(self) -> Rules:
        """Of single things, of the kinds that the model was shown."""
        known = world_of(find(MODEL), 0).rules
        return replace(known, most=1, held_out=unseen(known, HELD_OUT))

    @cached_property
    def noun(self) -> str:
        """The class: a coloured shape."""
        return " ".join(random.Random(mix(self.seed, 2)).choice(self.rules.pairs))

    def others(self, n: int) -> list[str]:
        """What it is to be painted beside: single things of another colour."""
        colours = tuple(colour for colour in self.rules.colours if colour not in self.noun)
        rules = replace(self.rules, colours=colours)
        return [caption(scene(mix(self.seed, 4), i, rules), form="short") for i in range(n)]

    @cached_property
    def given(self) -> Tensor:
        """(GIVEN, 4, size, size): it alone, on different grounds."""
        scenes = [scene(mix(self.seed, 5), i, replace(self.rules, tones=LIGHT)) for i in range(GIVEN)]
        its: dict[str, Any] = {"shape": SUBJECT, "texture": "plain", "subject": self.number}
        return pictures([replace(s, things=(replace(s.things[0], **its),)) for s in scenes], find(MODEL).size)

    def share(self, image: Tensor) -> float:
        """The share of pictures (b, 4, size, size) that show it."""
        return float((overlap(image, self.paintings) >= SHOWN).double().mean())

    @cached_property
    def paintings(self) -> Tensor:
        """(m, 3, w, w) in 0 .. 1: it on white, in every turn and size."""
        low, high = SIZES["large"]
        turns = [(radius, angle) for radius in (low, (low + high) / 2, high) for angle in range(0, 360, TURN)]
        poses = as_poses([(self._thing(*turn), "flat") for turn in turns], size := find(MODEL).size)
        rgb, cover = paint(poses, *corner(poses, window(size)), window(size), size)
        return 1 + cover[:, None] * (rgb - 1)

    def _thing(self, radius: float, angle: float) -> Thing:
        known: dict[str, Any] = {"shape": SUBJECT, "colour": "red", "size": "large", "texture": "plain", "subject": self.number}
        return Thing(**known, x=0.5, y=0.5, radius=radius, angle=angle, depth=0.0)


def overlap(image: Tensor, paintings: Tensor) -> Tensor:
    """(b,) in 0 .. 1: what is dark in a picture and in the painting that lies best on it, over what is dark in either."""
    seen, painted = dark((image[:, :3] + 1) / 2), dark(paintings)
    both = F.conv2d(seen[:, None], painted[:, None], padding=painted.shape[-1] // 2).flatten(2).amax(2)
    return (both / (seen.sum((1, 2))[:, None] + painted.sum((1, 2)) - both).clamp_min(1e-6)).amax(1)


def dark(rgb: Tensor) -> Tensor:
    """(b, 3, h, w) in 0 .. 1 -> (b, h, w): 1 where nearly black, as no coloured thing is, 0 from a middling grey on."""
    return ((0.5 - rgb.amax(1)) / (0.5 - 0.17)).clamp(0, 1)


CLAIM = DreamBoothClaim()
