"""Guidance without a classifier beats CLIP's gradient, which learns to please CLIP; a model tuned to see around holes fills them better.

Nichol et al. 2022, sec. 4 and 2.5. The diffusion is the shipped flow; each seed makes its own noise-aware CLIP of the shipped one,
tunes its own inpainter, and draws its own pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from statistics import median
from typing import ClassVar

import torch
from torch import Tensor

from diorama.claims.claim import Claim, Effect, Part, model_folder
from diorama.critics.frechet import kernel_distance
from diorama.errors import UserError
from diorama.foundations.measures import named
from diorama.foundations.registry import find
from diorama.foundations.world import world_of
from diorama.networks.towers import ImageTower
from diorama.systems.images.flow import Flow
from diorama.systems.images.glide import Glide
from diorama.systems.understanding.classifier import Classifier
from diorama.systems.understanding.clip import Clip
from diorama.training.loop import fit
from diorama.training.plan import Plan
from diorama.types import Noise, mix
from diorama.worlds.oracle import Found, Oracle
from diorama.worlds.render import pictures
from diorama.worlds.scene import Scene, Thing
from diorama.worlds.shapes import REACH
from diorama.worlds.source import WorldBatches

MODEL, CLIP, JUDGE = "world-flow", "world-clip", "world-features"
FREE = (1.0, 2.0, 4.0, 8.0)  # scales without a classifier; 1 is none
LED = (0.0, 1.0, 3.0, 7.0)  # of CLIP's gradient; 0 is none, and each is as much as its neighbour where CLIP is right
DRAWN, HOLES, STEPS, CHUNK = 160, 96, 12, 48
PRESSED = 3.0  # guidance of the pictures with holes
PIXEL = 1 / 32
_QUICK = Plan(steps=440, batch=64, lr=1e-3, warmup=50, decay=0.4, ema=0.99, device="cpu", dtype="float32")
AWARE, TUNE = _QUICK, replace(_QUICK, steps=260, batch=16, lr=5e-4, ema=0.98)


class OnFlow:
    """What stands on the shipped flow walks its levels, in its latents."""

    process = Flow.process
    levels = Flow.levels
    limit = 2.2  # the latents of black; those of white are nearer


class OfFlow(OnFlow, Glide):
    """GLIDE on the shipped flow."""

    dropped: ClassVar[dict[str, float]] = {"text": 0.2, "label": 1.0}  # styles are not asked for


Look = Callable[[Glide], Glide]


def around(model: Glide) -> Glide:
    return model.inpainter()


@dataclass(frozen=True, kw_only=True)
class GlideClaim(Claim):
    """Two guidances swept, and two ways to fill holes tuned alike."""

    look: Look = around  # what the tuned model sees of a picture with a hole
    aware: Plan = AWARE
    tune: Plan = TUNE
    drawn: int = DRAWN
    holes: int = HOLES

    slug: ClassVar[str] = "glide"
    title: ClassVar[str] = "GLIDE"
    assets: ClassVar[tuple[str, ...]] = (MODEL, CLIP, JUDGE)
    parts: ClassVar[tuple[Part, ...]] = (
        Part(
            letter="A",
            statement="where both keep as many captions, guidance without a classifier is at most 0.85 times as far from real pictures",
            unit="squared kernel distance, 0.85 CLIP's - free",
            margin=0.0,
            conditional_on=MODEL,
        ),
        Part(
            letter="B1",
            statement="pressed hardest, CLIP's gradient pleases the CLIP that leads by a cosine of 0.02 more",
            unit="cosine",
            margin=0.02,
            conditional_on=MODEL,
        ),
        Part(
            letter="B2",
            statement="and yet the oracle finds no more captions kept than without a classifier",
            unit="share of pictures",
            margin=0.0,
            conditional_on=MODEL,
        ),
        Part(
            letter="C1",
            statement="tuned to see around holes, a model puts what is asked there 10 points more often than one tuned as long without",
            unit="share of pictures",
            margin=0.10,
            conditional_on=MODEL,
        ),
        Part(
            letter="C2",
            statement="and its gradients across the seam err at most 0.8 times as much",
            unit="of 2, black to white: 0.8 replaced - tuned",
            margin=0.0,
            conditional_on=MODEL,
        ),
    )

    def run(self, seed: int) -> Mapping[str, Effect]:
        try:
            flow = Flow.from_pretrained(model_folder(MODEL))
            clip, judge = Clip.from_pretrained(model_folder(CLIP)), Classifier.from_pretrained(model_folder(JUDGE))
        except UserError as error:
            return {part.letter: Effect.missing(str(error)) for part in self.parts}
        model = OfFlow(flow.codec, flow.text, flow.network, flow.styles, flow.size)
        return {**Guided(self, seed, model, clip, judge).effects(), **self.filled(seed, model)}

    def filled(self, seed: int, model: Glide) -> dict[str, Effect]:
        """The same pictures with the same holes and noise, by the two models."""
        things = holes(seed, self.holes)
        found = {
            name: fill(tuned(seed, m, self.tune), things, seed) for name, m in (("tuned", self.look(model)), ("replaced", model))
        }
        right, seam = ({name: f(things, x) for name, x in found.items()} for f in (shown, seams))
        return {
            "C1": Effect(right["tuned"] - right["replaced"], right),
            "C2": Effect(0.8 * seam["replaced"] - seam["tuned"], seam),
        }


# --- A, B: two guidances ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """What one guidance at one scale gave."""

    kept: float  # share whose caption the oracle finds kept
    distance: float  # from real pictures, in the features of the judge
    liked: float  # the cosine that the leading CLIP gives


@dataclass
class Guided:
    """One seed."""

    claim: GlideClaim
    seed: int
    model: Glide
    clip: Clip
    judge: Classifier

    def effects(self) -> dict[str, Effect]:
        guide = aware(self.clip, self.seed, self.claim.aware)
        free = {w: self.draw(guide, partial(self.model.sample, guidance=w)) for w in FREE}
        led = {s: self.draw(guide, partial(self.model.sample_by_clip, clip=guide, scale=s)) for s in LED}
        everything = {f"free, {w:g}": d for w, d in free.items()} | {f"CLIP's, {s:g}": d for s, d in led.items()}
        best = (max(drawn.kept for drawn in arm.values()) for arm in (free, led))
        level = min(median(drawn.kept for drawn in everything.values()), *best)
        at = {name: distance_at(level, list(arm.values())) for name, arm in (("free", free), ("CLIP's", led))}
        hardest = free[FREE[-1]], led[LED[-1]]
        return {
            "A": Effect(
                0.85 * at["CLIP's"] - at["free"],
                {**at, "captions kept": level, **{f"distance, {name}": d.distance for name, d in everything.items()}},
            ),
            "B1": Effect(hardest[1].liked - hardest[0].liked, {name: d.liked for name, d in everything.items()}),
            "B2": Effect(hardest[0].kept - hardest[1].kept, {name: d.kept for name, d in everything.items()}),
        }

    @cached_property
    def real(self) -> tuple[Tensor, Sequence[str]]:
        batch = world_of(find(MODEL), mix(self.seed, 1)).batch(0, self.claim.drawn)
        return batch.image, batch.text

    @torch.no_grad()
    def draw(self, guide: Clip, sample: Callable[..., Tensor]) -> Drawn:
        """A picture for each real one's caption, from the same noise whatever the guidance."""
        (real, texts), found = self.real, []
        for first in range(0, len(texts), CHUNK):
            some = texts[first : first + CHUNK]
            noise = Noise([mix(self.seed, 2, first + i) for i in range(len(some))])
            found.append(sample(some, steps=STEPS, solver="dpmpp_2m", noise=noise))
        x = torch.cat(found)
        return Drawn(
            float(Oracle().observe(x, texts)[:, 1].mean()),
            kernel_distance(self.judge.features(x), self.judge.features(real)).value,
            float((guide.encode_image(x) * guide.encode_text(texts)).sum(1).mean()),
        )


def aware(clip: Clip, seed: int, plan: Plan) -> Clip:
    """A noise-aware CLIP: the same sentences, and a tower that begins with the weights of the clean one."""
    torch.manual_seed(mix(seed, 3))
    tower = ImageTower(replace(clip.image.config, embedding=128))
    tower.load_state_dict(clip.image.state_dict(), strict=False)  # what is new says nothing yet
    guide = Clip(tower, clip.text, clip.heads, clip.style)
    for part in (guide.text, guide.heads, guide.style):
        part.requires_grad_(False)
    fit(guide, WorldBatches(world_of(find(MODEL), mix(seed, 4)), plan.batch), plan)
    return guide.eval()


def distance_at(level: float, arm: Sequence[Drawn]) -> float:
    """The least distance at which the arm, straight between its scales, keeps this share of captions."""
    found = [d.distance for d in arm if d.kept == level]
    for a, b in pairwise(arm):
        if (a.kept - level) * (b.kept - level) < 0:
            found.append(a.distance + (level - a.kept) / (b.kept - a.kept) * (b.distance - a.distance))
    return min(found, default=arm[0].distance)  # below all of the arm: where it begins


# --- C: holes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hole:
    """A scene of two things, and a box around one of them."""

    scene: Scene
    hidden: Thing
    mask: Tensor  # (1, s, s)

    @property
    def words(self) -> str:
        a, b = self.scene.named
        return f"{named(a.colour, a.shape)} and {named(b.colour, b.shape)}"


def holes(seed: int, n: int) -> list[Hole]:
    what = find(MODEL)
    world = world_of(what, mix(seed, 5), least=2, most=2, overlap=0.0)
    middle = (torch.arange(what.size) + 0.5) / what.size
    found = []
    for i in range(n):
        scene = world.scene(i)
        thing = scene.named[i % 2]
        reach = REACH * thing.radius + 2 * PIXEL
        down, across = ((middle - at).abs() < reach for at in (thing.y, thing.x))
        found.append(Hole(scene, thing, (down[:, None] & across).float()[None]))
    return found


def tuned(seed: int, model: Glide, plan: Plan) -> Glide:
    """Tuned on the same pictures and noise, whatever it sees; its own copy of the weights."""
    torch.manual_seed(mix(seed, 6))
    own = deepcopy(model)
    fit(own, WorldBatches(world_of(find(MODEL), mix(seed, 7)), plan.batch), plan)
    return own.eval()


def truth(things: Sequence[Hole]) -> Tensor:
    return pictures([hole.scene for hole in things], find(MODEL).size)


def fill(model: Glide, things: Sequence[Hole], seed: int) -> Tensor:
    found = []
    for first in range(0, len(things), CHUNK):
        some = things[first : first + CHUNK]
        noise = Noise([mix(seed, 8, first + i) for i in range(len(some))])
        masks, words = torch.stack([hole.mask for hole in some]), [hole.words for hole in some]
        found.append(model.inpaint(truth(some), masks, words, guidance=PRESSED, steps=STEPS, solver="dpmpp_2m", noise=noise))
    return torch.cat(found)


def shown(things: Sequence[Hole], x: Tensor) -> float:
    """How often the oracle reads, in the hole, a thing of the shape and colour that was asked for."""

    def there(hole: Hole, seen: Sequence[Found]) -> bool:
        return any(
            (thing.shape, thing.colour) == (hole.hidden.shape, hole.hidden.colour)
            and hole.mask[0, int(thing.y / PIXEL), int(thing.x / PIXEL)] > 0
            for thing in seen
        )

    return sum(there(hole, reading.named) for hole, reading in zip(things, Oracle().read(x), strict=True)) / len(things)


def seams(things: Sequence[Hole], x: Tensor) -> float:
    """How far steps from pixel to pixel across the seams are from the true picture's, where there is ground: mean of absolute values."""
    off, mask = x[:, :3] - truth(things)[:, :3], torch.stack([hole.mask for hole in things])
    total = count = torch.zeros(())
    for axis in (2, 3):
        seam = mask.diff(dim=axis).abs().expand(-1, 3, -1, -1)
        total, count = total + (off.diff(dim=axis).abs() * seam).sum(), count + seam.sum()
    return float(total / count)


CLAIM = GlideClaim()
