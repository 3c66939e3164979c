"""Dynamic thresholds keep strongly guided pictures from burning out, and a stage that learned on noised pictures makes painted ones larger.

Saharia et al. 2022, sec. 2.3 and 2.4. What is sampled in B is the shipped flow of pixels, and its pictures, shrunk, are what C makes
larger: no base is trained for it. The paper's first point is not here: that the size of the encoder of words counts for more than
that of the network would take five diffusions that can be read, each of more FLOPs than all of a claim may cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from diorama import cards
from diorama.claims.claim import Claim, Effect, Part, model_folder
from diorama.critics.frechet import kernel_distance
from diorama.errors import UserError
from diorama.foundations.registry import find
from diorama.foundations.world import world_of
from diorama.guidance.classifier_free import classifier_free
from diorama.guidance.threshold import kept, paler
from diorama.networks.layers import halved
from diorama.networks.unet import UNet, UNetConfig
from diorama.processes.cascade import follow, resized
from diorama.processes.diffusion import Diffusion
from diorama.processes.levels import flow
from diorama.processes.scalings import NetworkDenoiser
from diorama.processes.solvers import dpmpp_2m
from diorama.systems.base import System
from diorama.systems.images.flow import PIXELS, Flow
from diorama.systems.understanding.classifier import Classifier
from diorama.training.loop import fit
from diorama.training.plan import Plan
from diorama.types import Batch, Condition, Noise, mix
from diorama.worlds.oracle import Oracle
from diorama.worlds.source import WorldBatches

MODEL, JUDGE = "world-flow", "world-features"
DRAWN, CHUNK, STEPS = 192, 64, 16
PRESSED, ASKED = 10.0, 4.0  # guidance of B, and of the pictures that C makes larger
SHARE = 0.995
SATURATED = 0.99
NOISE = 0.2  # on the picture a larger stage follows, where it learned of noise
PLAN = Plan(steps=350, batch=32, lr=1.5e-3, warmup=50, decay=0.4, ema=0.98, device="cpu", dtype="float32")
SHAPE = UNetConfig(channels=4, given=4, augmented=True, patch=2, widths=(32, 64), depth=1, attention=(False, True), embedding=96)

Rule = Callable[[Tensor], Tensor]


def saturated(x: Tensor) -> float:
    """The share of the numbers of colours that have nowhere left to go."""
    return float((x[:, :3].abs() > SATURATED).float().mean())


def dynamic(x: Tensor) -> Tensor:
    return paler(x, SHARE)


def static(x: Tensor) -> Tensor:
    return x.clamp(-1, 1)


def none(x: Tensor) -> Tensor:
    return x


def any_level(noise: Noise) -> Tensor:
    """How much noise a stage learns to follow a picture through, (b,)."""
    return noise.uniform()


def no_level(noise: Noise) -> Tensor:
    return torch.zeros(len(noise))


@dataclass(eq=False)
class Larger(System):
    """A stage that is shown a smaller picture, and asked for nothing else."""

    network: UNet

    card: ClassVar[cards.Card] = cards.IMAGEN
    process: ClassVar[Diffusion] = replace(PIXELS, solver=dpmpp_2m)  # noise itself is not learned within these steps

    def __post_init__(self) -> None:
        self.levels: Callable[[Noise], Tensor] = any_level

    @property
    def denoiser(self) -> NetworkDenoiser:
        return NetworkDenoiser(self.network, self.process.scaling)

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        shown = follow(Condition(), halved(batch.image), batch.image.shape[2:], self.levels(noise), noise)
        return self.process.loss(self.denoiser, batch.image, shown, noise)

    @torch.no_grad()
    def sample(self, small: Tensor, level: float, noise: Noise) -> Tensor:
        """(b, 4, h, w) to (b, 4, 2 h, 2 w)."""
        size = [2 * side for side in small.shape[2:]]
        shown = follow(Condition(), small, size, torch.full((len(small),), level), noise)
        start = self.process.prior((small.shape[1], *size), noise)
        return self.process.sample(self.denoiser, start, shown, levels=flow(STEPS), noise=noise).clamp(-1, 1)


@dataclass(frozen=True, kw_only=True)
class ImagenClaim(Claim):
    """Three rules for what a guided denoiser expects; two stages, one of which learned to see through noise."""

    rule: Rule = dynamic
    levels: Callable[[Noise], Tensor] = any_level
    plan: Plan = PLAN
    drawn: int = DRAWN

    slug: ClassVar[str] = "imagen"
    title: ClassVar[str] = "Imagen"
    assets: ClassVar[tuple[str, ...]] = (MODEL, JUDGE)
    parts: ClassVar[tuple[Part, ...]] = (
        Part(
            letter="B1",
            statement="guided by 10, fewer numbers burn out under a dynamic threshold than a static one, and fewer there than under none",
            unit="share of numbers beyond 0.99, the smaller of both differences",
            margin=0.0,
            conditional_on=MODEL,
        ),
        Part(
            letter="B2",
            statement="under a dynamic threshold they stand at most 0.85 times as far from real pictures as under a static one",
            unit="squared kernel distance, 0.85 static - dynamic",
            margin=0.0,
            conditional_on=MODEL,
        ),
        Part(
            letter="B3",
            statement="and the oracle reads in them at most 5 points less of what was asked for",
            unit="share of claims kept, dynamic - static + 0.05",
            margin=0.0,
            conditional_on=MODEL,
        ),
        Part(
            letter="C1",
            statement="from painted small pictures, the stage that learned on noised ones ends at most 0.85 times as far from real ones",
            unit="squared kernel distance, 0.85 without - with",
            margin=0.0,
            conditional_on=MODEL,
        ),
        Part(
            letter="C2",
            statement="from real small ones it is worse by at most a tenth of what plain enlarging leaves",
            unit="squared kernel distance, without + 0.1 enlarged - with",
            margin=0.0,
            conditional_on=MODEL,
        ),
    )

    def run(self, seed: int) -> Mapping[str, Effect]:
        try:
            model, judge = Flow.from_pretrained(model_folder(MODEL)), Classifier.from_pretrained(model_folder(JUDGE))
        except UserError as error:
            return {part.letter: Effect.missing(str(error)) for part in self.parts}
        experiment = Experiment(self, seed, model, judge)
        return {**experiment.thresholds(), **experiment.stages()}


@dataclass
class Experiment:
    """One seed."""

    claim: ImagenClaim
    seed: int
    model: Flow
    judge: Classifier

    @cached_property
    def real(self) -> Batch:
        """What is asked for, and real pictures of it."""
        return world_of(find(MODEL), mix(self.seed, 1)).batch(0, self.claim.drawn)

    @cached_property
    def seen(self) -> Tensor:
        """Other real pictures, as the judge sees them."""
        return self.features(world_of(find(MODEL), mix(self.seed, 2)).batch(0, self.claim.drawn).image)

    @torch.no_grad()
    def features(self, image: Tensor) -> Tensor:
        return torch.cat([self.judge.features(part) for part in image.split(CHUNK)])

    def distance(self, image: Tensor) -> float:
        return kernel_distance(self.features(image), self.seen).value

    def noises(self, what: int) -> list[Noise]:
        """The streams of each chunk of pictures, the same for every arm."""
        seeds = [mix(self.seed, what, i) for i in range(self.claim.drawn)]
        return [Noise(seeds[i : i + CHUNK]) for i in range(0, len(seeds), CHUNK)]

    # --- B ----------------------------------------------------------------------------------------

    def thresholds(self) -> dict[str, Effect]:
        arms = {"none": none, "static": static, "dynamic": self.claim.rule}
        drawn = {name: self.draw(PRESSED, rule) for name, rule in arms.items()}
        burnt = {name: saturated(x) for name, x in drawn.items()}
        far = {name: self.distance(x) for name, x in drawn.items()}
        right = {name: float(Oracle().observe(x, self.real.text)[:, 0].mean()) for name, x in drawn.items()}
        fewer = min(burnt["none"] - burnt["static"], burnt["static"] - burnt["dynamic"])
        return {
            "B1": Effect(fewer, {**burnt, "real": saturated(self.real.image)}),
            "B2": Effect(0.85 * far["static"] - far["dynamic"], {**far, "real": self.distance(self.real.image)}),
            "B3": Effect(right["dynamic"] - right["static"] + 0.05, right),
        }

    @torch.no_grad()
    def draw(self, guidance: float, rule: Rule) -> Tensor:
        """A picture of each sentence, (n, 4, h, w), by a denoiser whose clean pictures the rule keeps."""
        model, found = self.model, []
        for first, noise in zip(range(0, self.claim.drawn, CHUNK), self.noises(3), strict=True):
            condition = model.condition(self.real.text[first : first + CHUNK])
            guided = classifier_free(model.denoiser, guidance)
            found.append(model.paint(kept(guided, self.of_colours(rule)), condition, steps=STEPS, solver="euler", noise=noise))
        return torch.cat(found)

    def of_colours(self, rule: Rule) -> Rule:
        """The rule in the model's latents, which are pixels, on colour alone: alpha is 1 almost everywhere, and would be the quantile."""

        def ruled(z: Tensor) -> Tensor:
            x = self.model.codec.decode(z)
            return self.model.codec.encode(torch.cat([rule(x[:, :3]), x[:, 3:]], 1))

        return ruled

    # --- C ----------------------------------------------------------------------------------------

    def stages(self) -> dict[str, Effect]:
        painted, real = halved(self.draw(ASKED, none)), halved(self.real.image)
        with_noise, without = self.taught(self.claim.levels), self.taught(no_level)
        far = {"with": self.larger(with_noise, painted, NOISE), "without": self.larger(without, painted, 0.0)}
        clean = {"with": self.larger(with_noise, real, 0.0), "without": self.larger(without, real, 0.0)}
        clean["enlarged"] = self.distance(resized(real, self.real.image.shape[2:]).clamp(-1, 1))
        return {
            "C1": Effect(0.85 * far["without"] - far["with"], far),
            "C2": Effect(clean["without"] + 0.1 * clean["enlarged"] - clean["with"], clean),
        }

    def taught(self, levels: Callable[[Noise], Tensor]) -> Larger:
        """A stage from the same weights and on the same pictures, whichever noise they bear."""
        torch.manual_seed(mix(self.seed, 4))
        stage = Larger(UNet(SHAPE))
        stage.levels = levels
        fit(stage, WorldBatches(world_of(find(MODEL), mix(self.seed, 5)), self.claim.plan.batch), self.claim.plan)
        return stage.eval()

    def larger(self, stage: Larger, small: Tensor, level: float) -> float:
        """How far from real pictures what the stage makes of these is."""
        parts = zip(small.split(CHUNK), self.noises(6), strict=True)
        return self.distance(torch.cat([stage.sample(part, level, noise) for part, noise in parts]))


CLAIM = ImagenClaim()
