"""One click can mean a part, a thing or a group: three masks of which only the best learns cover more of that than one mask.

Kirillov et al. 2023, sec. 3, on the miniature world, where all three truths are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from diorama.claims.claim import Claim, Effect, Part
from diorama.conditions.clicks import somewhere
from diorama.critics.segmentation import overlaps
from diorama.networks.prompts import NO_POINT, Prompts
from diorama.systems.understanding.sam import LEAST, Sam
from diorama.training.loop import fit
from diorama.training.plan import Plan
from diorama.types import Noise, mix
from diorama.worlds.parts import Masked
from diorama.worlds.scene import Rules
from diorama.worlds.source import ENDLESS, World, WorldBatches

SIZE = 32
RULES = Rules(overlap=0.7, sizes=("medium", "large"), textures=("striped", "dotted", "checked"))  # groups, and things with parts
PLAN = Plan(steps=600, batch=32, lr=1e-3, warmup=50, decay=0.4, ema=0.98, device="cpu", dtype="float32")
PICTURES = 200  # each clicked on once


class OneMask(Sam):
    """The same network with one mask for every prompt."""

    def allowed(self, prompts: Prompts) -> Tensor:
        return super().allowed(prompts._replace(says=torch.full_like(prompts.says, NO_POINT)))  # as where none is alone


class Averaged(Sam):
    """Three masks that all learn, whichever is best: the control."""

    def over(self, losses: Tensor, allowed: Tensor) -> Tensor:
        return (losses * allowed).sum(1) / allowed.sum(1)


def world(seed: int) -> Masked:
    return Masked(World(seed, ENDLESS, SIZE, RULES))


def taught(kind: type[Sam], seed: int, plan: Plan) -> Sam:
    """All arms from the same weights, on the same pictures and clicks."""
    torch.manual_seed(mix(seed, 1))
    sam = kind.build("nano", SIZE)
    sam.clicks = 1  # what is claimed is about the first one
    fit(sam, WorldBatches(world(mix(seed, 2)), plan.batch), plan)
    return sam.eval()


class Clicked(NamedTuple):
    """Means over clicks."""

    any: float  # IoU of the best mask with a thing that the click may mean, mean over those
    surest: float  # IoU of the surest mask with the thing that it fits best


@dataclass(frozen=True, kw_only=True)
class SamClaim(Claim):
    """Three masks and the least loss, one mask, three and the mean loss."""

    teach: Callable[[type[Sam], int, Plan], Sam] = taught
    plan: Plan = PLAN
    pictures: int = PICTURES

    slug: ClassVar[str] = "sam"
    title: ClassVar[str] = "Segment Anything"
    parts: ClassVar[tuple[Part, ...]] = (
        Part(
            letter="A1",
            statement="of three masks the best fits any one thing that a click may mean 10 points better than one mask does",
            unit="IoU",
            margin=0.10,
        ),
        Part(letter="A2", statement="three masks that all learn from every loss fit it worse", unit="IoU", margin=0.0),
        Part(
            letter="A3",
            statement="the mask it is surest of fits some such thing better than the one mask",
            unit="IoU",
            margin=0.0,
        ),
    )

    def run(self, seed: int) -> Mapping[str, Effect]:
        three, one, mean = (self.clicked(self.teach(kind, seed, self.plan), seed) for kind in (Sam, OneMask, Averaged))
        return {
            "A1": Effect(three.any - one.any, {"three masks": three.any, "one mask": one.any}),
            "A2": Effect(three.any - mean.any, {"least loss": three.any, "mean loss": mean.any}),
            "A3": Effect(three.surest - one.surest, {"surest of three": three.surest, "one mask": one.surest}),
        }

    def clicked(self, sam: Sam, seed: int) -> Clicked:
        """One click in each new picture that has a place for it where it can mean two things or three."""
        batch = world(mix(seed, 3)).batch(0, self.pictures)
        assert batch.masks is not None
        truths = batch.masks >= 0.5
        truths &= truths.sum((2, 3), keepdim=True) >= LEAST  # as in training
        shared = truths.sum(1) >= 2
        points = somewhere(shared, Noise([mix(seed, 4, i) for i in range(len(batch))]).uniform())
        best, surest = [], []
        for i in shared.flatten(1).any(1).nonzero()[:, 0].tolist():
            x, y = points[i].long().tolist()
            masks = sam.see(batch.image[i]).masks(Prompts.at(points[None, i : i + 1])).logits[0] > 0
            fits = overlaps(masks, truths[i, truths[i, :, y, x]])
            best.append(fits.amax(0).mean())
            surest.append(fits[0].max())
        return Clicked(float(torch.stack(best).mean()), float(torch.stack(surest).mean()))


CLAIM = SamClaim()
