"""The gradient of a classifier of noisy pictures presses a diffusion towards a class, and pays for it in variety.

Dhariwal & Nichol 2021, sec. 4. The diffusion is the shipped one; each seed trains its own two classifiers, alike but for the noise
they see, and draws its own pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from diorama.claims.claim import Claim, Effect, Part, model_folder
from diorama.critics.precision import precision_recall
from diorama.errors import UserError
from diorama.foundations.registry import find
from diorama.foundations.world import world_of
from diorama.guidance.classifier import LogProb
from diorama.processes.levels import LogNormal
from diorama.systems.base import Kind
from diorama.systems.images.guided_diffusion import GuidedDiffusion
from diorama.systems.understanding.classifier import Classifier
from diorama.training.loop import fit
from diorama.training.plan import Plan
from diorama.types import Noise, mix
from diorama.worlds.oracle import Oracle
from diorama.worlds.source import WorldBatches

MODEL, JUDGE = "world-classes", "world-features"
SCALES = (0.0, 1.0, 2.0, 4.0, 8.0)
EACH = 24  # pictures per class and scale
NEIGHBOURS = 5
CHUNK = 64  # pictures sampled together
STEPS = 12
PLAN = Plan(steps=880, batch=64, lr=1e-3, warmup=50, decay=0.4, ema=0.99, device="cpu", dtype="float32")


class Clean(Classifier):
    """The same classifier, trained on pictures without noise."""

    law: ClassVar[LogNormal] = LogNormal(-20.0, 0.0)


Teach = Callable[[type[Classifier], int, GuidedDiffusion, Plan], Classifier]


def taught(kind: type[Classifier], seed: int, model: GuidedDiffusion, plan: Plan) -> Classifier:
    """A classifier of the model's classes; both kinds from the same weights and on the same pictures."""
    torch.manual_seed(mix(seed, 1))
    found = kind.new(preset="noisy", size=model.size, labels=model.labels, part=_no_part)
    fit(found, WorldBatches(world_of(find(MODEL), mix(seed, 2)), plan.batch), plan)
    return found.eval()


def as_said(log_prob: LogProb) -> LogProb:
    return log_prob


@dataclass(frozen=True)
class Drawn:
    """What one way of sampling gave."""

    pictures: Tensor  # (classes * EACH, 3, h, w)
    right: float  # share whose shape the oracle reads as asked, unreadable ones wrong


@dataclass(frozen=True, kw_only=True)
class GuidedDiffusionClaim(Claim):
    """Scales of guidance, a classifier that knows noise against one that does not, and the conditional model's own."""

    teach: Teach = taught
    lead: Callable[[LogProb], LogProb] = as_said  # what is done with the classifier's word
    scales: tuple[float, ...] = SCALES
    plan: Plan = PLAN
    each: int = EACH

    slug: ClassVar[str] = "guided-diffusion"
    title: ClassVar[str] = "Guided Diffusion"
    assets: ClassVar[tuple[str, ...]] = (MODEL, JUDGE)
    parts: ClassVar[tuple[Part, ...]] = (
        Part(
            letter="A1",
            statement="guidance of scale 4 makes the asked class at least 30 points more frequent",
            unit="share of pictures",
            margin=0.30,
            conditional_on=MODEL,
        ),
        Part(
            letter="A2",
            statement="as the scale rises from 1 to 8, recall within the class falls: rank correlation of -0.8 or less",
            unit="rank correlation, turned",
            margin=0.8,
            conditional_on=MODEL,
        ),
        Part(
            letter="B",
            statement="at its best scale, a classifier trained on noise leads at least 15 points better than one trained without",
            unit="share of pictures",
            margin=0.15,
            conditional_on=MODEL,
        ),
        Part(
            letter="C",
            statement="guided, the unconditional model closes at least half of its gap to the conditional one",
            unit="share of the gap, beyond a half",
            margin=0.0,
            conditional_on=MODEL,
        ),
    )

    def run(self, seed: int) -> Mapping[str, Effect]:
        try:
            model, judge = GuidedDiffusion.from_pretrained(model_folder(MODEL)), Classifier.from_pretrained(model_folder(JUDGE))
        except UserError as error:
            return {part.letter: Effect.missing(str(error)) for part in self.parts}
        return Experiment(self, seed, model, judge).effects()


@dataclass
class Experiment:
    """One seed."""

    claim: GuidedDiffusionClaim
    seed: int
    model: GuidedDiffusion
    judge: Classifier

    def effects(self) -> dict[str, Effect]:
        noisy = self.sweep(Classifier, self.claim.scales)
        clean = self.sweep(Clean, [scale for scale in self.claim.scales if scale])  # unguided, who would guide changes nothing
        plain, conditional = noisy[0.0].right, self.draw(None, 0.0).right
        recalls = {
            scale: self.recall(drawn.pictures) for scale, drawn in noisy.items() if scale
        }  # unguided, none is of its class
        right = {
            f"{kind}, scale {s:g}": d.right for kind, sweep in (("noisy", noisy), ("clean", clean)) for s, d in sweep.items()
        }
        best = {kind: max(d.right for s, d in sweep.items() if s) for kind, sweep in (("noisy", noisy), ("clean", clean))}
        gap = max(conditional - plain, 1e-6)
        return {
            "A1": Effect(noisy[4.0].right - plain, right),
            "A2": Effect(
                -spearman(list(recalls), list(recalls.values())), {f"recall, scale {s:g}": r for s, r in recalls.items()}
            ),
            "B": Effect(best["noisy"] - best["clean"], {f"{kind}, best": value for kind, value in best.items()}),
            "C": Effect(
                (best["noisy"] - plain) / gap - 0.5, {"unguided": plain, "guided": best["noisy"], "conditional": conditional}
            ),
        }

    @cached_property
    def asked(self) -> Tensor:
        return torch.arange(len(self.model.labels)).repeat_interleave(self.claim.each)

    def sweep(self, kind: type[Classifier], scales: Sequence[float]) -> dict[float, Drawn]:
        found = self.claim.teach(kind, self.seed, self.model, self.claim.plan)
        return {scale: self.draw(self.claim.lead(found.log_prob), scale) for scale in scales}

    def draw(self, guide: LogProb | None, scale: float) -> Drawn:
        """Pictures of every class from the same noise, whatever the guide; without one, the conditional model's."""
        seeds = [mix(self.seed, 3, i) for i in range(len(self.asked))]
        parts = [
            self.model.sample(label, steps=STEPS, guide=guide, scale=scale, noise=Noise(seeds[CHUNK * i : CHUNK * (i + 1)]))
            for i, label in enumerate(self.asked.split(CHUNK))
        ]
        pictures = torch.cat(parts)
        words = [f"a {self.model.labels[k]}" for k in self.asked.tolist()]
        return Drawn(pictures, float(Oracle().observe(pictures, words)[:, 1].mean()))

    def recall(self, pictures: Tensor) -> float:
        """The share of real pictures of a class in the neighbourhoods of the drawn ones of that class, mean over classes."""
        values = [
            precision_recall(self.seen(pictures[self.asked == k]), self.seen(real), NEIGHBOURS)[1].value
            for k, real in enumerate(self.real)
        ]
        return sum(values) / len(values)

    @cached_property
    def real(self) -> list[Tensor]:
        """As many real pictures of each class as are drawn."""
        found = world_of(find(MODEL), mix(self.seed, 4)).batch(0, 2 * len(self.asked))
        assert found.label is not None
        return [found.image[found.label == k][: self.claim.each] for k in range(len(self.model.labels))]

    def seen(self, pictures: Tensor) -> Tensor:
        with torch.no_grad():
            return self.judge.features(pictures)


def spearman(x: list[float], y: list[float]) -> float:
    """The correlation of ranks; ties share theirs."""
    a, b = (torch.tensor([sum(w < v for w in values) + 0.5 * sum(w == v for w in values) for v in values]) for values in (x, y))
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-9))


def _no_part(name: str, kind: type[Kind]) -> Kind:
    raise UserError(f"a classifier stands on no part, not on {name}")


CLAIM = GuidedDiffusionClaim()
