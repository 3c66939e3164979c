"""A painter of pictures knows more of a thing than whether its picture fits a sentence, and its noise says so without its slope.

Poole et al. 2022: table 1 (Dream Fields' contrastive loss), section 3.2 (view words), section 3 and figure 2 (the slope left out).
Solids of the miniature world with one face. All arms look through the same cameras in the same light, at the same noise.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from diorama.claims.claim import Claim, Effect, Part, model_folder
from diorama.critics.around import arcs, consistency
from diorama.data.augment import augment
from diorama.data.source import Source
from diorama.errors import UserError
from diorama.foundations.registry import HELD_OUT, find
from diorama.guidance.distill import denoising
from diorama.scenes.cameras import orbit
from diorama.sources import Views
from diorama.systems.images.flow import Flow
from diorama.systems.images.latent import LatentPainter
from diorama.systems.scenes.dreamfusion import MIDDLE, PLAN, PRESETS, VIEWS, DreamFusion, How, bare, sides
from diorama.systems.understanding.clip import Clip
from diorama.train import Parts
from diorama.training.loop import fit
from diorama.training.plan import Plan
from diorama.types import Noise, mix
from diorama.worlds.source import WorldBatches
from diorama.worlds.view_oracle import gaze, likeness
from diorama.worlds.view_source import ViewWorld, call

MODEL = "world-views"
HOW, DREAM = How(), replace(PLAN, device="cpu")
PROMPTS = 2  # a seed
LOOKS, ELEVATION, GREY = 16, 15.0, 0.66  # views that are judged, how high they are taken, and what is behind
READER = Plan(steps=500, batch=48, lr=1e-3, warmup=50, decay=0.4, ema=0.98, device="cpu", dtype="float32")
CROPS = 8  # views of each view that the reader is shown: then its step costs what the painter's does
READ = 20.0  # how hard it pulls at each view, beside what keeps the scene solid: as the painter does


@dataclass(eq=False)
class Read(DreamFusion):
    """The baseline, a contrastive score of each view (Jain et al. 2022), by a reader that was shown what the painter was."""

    def by(self, reader: Clip) -> Read:
        with torch.no_grad():
            self.sentences = reader.encode_text([f"{view} of {self.prompt}" for view in VIEWS])
        self.reader = [reader]  # in a list, so that it is none of its parts
        return self

    def pull(self, picture: Tensor, azimuth: Tensor, elevation: Tensor, noise: Noise) -> Tensor:
        seen = torch.stack([self.reader[0].encode_image(augment(picture, noise)) for _ in range(CROPS)]).mean(0)
        (slope,) = torch.autograd.grad((seen * self.sentences[sides(azimuth, elevation)]).sum(), picture)
        return -READ * (picture * F.normalize(slope.flatten(1), dim=1).view_as(picture)).flatten(1).sum(1)


@dataclass(frozen=True)
class Judged:
    """What the oracle says of one scene."""

    kinds: float  # share of views that show the colour and the shape
    outlines: float  # share of views whose outline is the shape's, whatever its colours
    consistency: float  # V, of where a face is seen
    faces: float  # arcs once around


@dataclass(frozen=True, kw_only=True)
class DreamFusionClaim(Claim):
    """Distilled, read, distilled without words for views, and through the denoiser; as many steps each."""

    how: How = HOW
    plan: Plan = DREAM
    reader: Plan = READER

    slug: ClassVar[str] = "dreamfusion"
    title: ClassVar[str] = "DreamFusion"
    assets: ClassVar[tuple[str, ...]] = (MODEL,)
    parts: ClassVar[tuple[Part, ...]] = (
        Part(
            letter="A1",
            statement="distilled, a scene shows the colour and the shape asked for in 25 points more of its views than by a contrastive loss "
            "of equal cost",
            unit="share of views",
            margin=0.25,
            conditional_on=MODEL,
        ),
        Part(
            letter="A2",
            statement="and has the shape's outline, whatever its colours, in 25 points more",
            unit="share of views",
            margin=0.25,
            conditional_on=MODEL,
        ),
        Part(
            letter="B",
            statement="with words for views its one face is seen from one side more surely, by 0.10 of V",
            unit="V",
            margin=0.10,
            conditional_on=MODEL,
        ),
        Part(
            letter="C",
            statement="through the denoiser too, at twice the cost, colour and shape are shown in 10 points fewer",
            unit="share of views",
            margin=0.10,
            conditional_on=MODEL,
        ),
    )

    def run(self, seed: int) -> Mapping[str, Effect]:
        try:
            painter = Flow.from_pretrained(model_folder(MODEL))
        except UserError as error:
            return {part.letter: Effect.missing(str(error)) for part in self.parts}
        found = Experiment(self, seed, painter).arms()
        kinds, outlines, turned = (
            {arm: sum(getattr(judged, name) for judged in scenes) / len(scenes) for arm, scenes in found.items()}
            for name in ("kinds", "outlines", "consistency")
        )
        faces = {f"faces, {arm}": sum(j.faces for j in found[arm]) / len(found[arm]) for arm in ("distilled", "no view words")}
        return {
            "A1": Effect(kinds["distilled"] - kinds["read"], kinds),
            "A2": Effect(outlines["distilled"] - outlines["read"], outlines),
            "B": Effect(turned["distilled"] - turned["no view words"], turned | faces),
            "C": Effect(kinds["distilled"] - kinds["through"], kinds),
        }


@dataclass
class Experiment:
    """The sentences of a seed, and what becomes of each on every way."""

    claim: DreamFusionClaim
    seed: int
    painter: LatentPainter

    @cached_property
    def source(self) -> ViewWorld:
        """What the painter was shown, of another seed."""
        what = find(MODEL)
        return cast(ViewWorld, Views(size=what.size, rules=what.rules, hold_out=HELD_OUT).open(mix(self.seed, 3)))

    @property
    def asked(self) -> list[tuple[str, str]]:
        """Colour and shape of each sentence, as the painter knows them; no shape twice."""
        rng, pairs = random.Random(mix(self.seed, 1)), self.source.rules.pairs
        shapes = rng.sample(self.source.rules.shapes, PROMPTS)
        return [rng.choice([pair for pair in pairs if pair[1] == shape]) for shape in shapes]

    def arms(self) -> dict[str, list[Judged]]:
        how = self.claim.how
        ways: dict[str, tuple[type[DreamFusion], How]] = {
            "distilled": (DreamFusion, how),
            "read": (Read, how),
            "no view words": (DreamFusion, replace(how, views=False)),
            "through": (DreamFusion, replace(how, pull=denoising)),
        }
        return {arm: [self.judged(self.dreamt(*way, *pair), *pair) for pair in self.asked] for arm, way in ways.items()}

    def dreamt(self, kind: type[DreamFusion], how: How, colour: str, shape: str) -> DreamFusion:
        system = kind.over(call(shape, colour), self.painter, PRESETS["nano"], how)
        if isinstance(system, Read):
            system.by(self.reader)
        return system.dream(replace(self.claim.plan, seed=mix(self.seed, 2)))

    @cached_property
    def reader(self) -> Clip:
        """A CLIP that saw the painter's pictures and captions."""
        system = Clip.new(preset="nano", size=self.source.size, labels=(), part=Parts((), cast(Source, self.source)))
        fit(system, WorldBatches(self.source, self.claim.reader.batch), self.claim.reader)
        return system.requires_grad_(False).eval()

    @torch.no_grad()
    def judged(self, system: DreamFusion, colour: str, shape: str) -> Judged:
        shapes, size = self.source.rules.shapes, self.source.size
        cameras = orbit(LOOKS, ELEVATION, 1.35, target=MIDDLE, size=size, field=30.0)
        seen = [system.scene.look(cameras.rows(i), bare) for i in range(LOOKS)]
        left = torch.stack([one.left for one in seen])
        pictures = torch.stack([one.colour for one in seen]) + GREY * left[..., None]
        found = gaze(pictures.mT.unflatten(2, (size, size)) * 2 - 1, shapes)
        solid = (left < 0.5).float().unflatten(1, (size, size))
        outlines = likeness(solid, shapes).argmax(1) == shapes.index(shape)
        return Judged(
            sum(kind == (colour, shape) for kind in found.kinds) / LOOKS,
            float(outlines.double().mean()),
            float(consistency(found.face[None])),
            float(arcs(found.face[None])),
        )


CLAIM = DreamFusionClaim()
