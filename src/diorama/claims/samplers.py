"""A sampler is a numerical integrator: its order shows, and a better one needs fewer calls of the network.

Song et al. 2021 (DDIM), Lu et al. 2022 (DPM-Solver++), Karras et al. 2022 (EDM). Part A stands on a mixture of Gaussians,
whose denoiser is known exactly; parts B and C on the shipped diffusion of pixels. (On the mixture the Karras grid of part C has no
fixed place: it ends nearer to the solution than even steps of time in 64 dimensions, and farther in 2.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diorama.claims.claim import Claim, Effect, Part, model_folder
from diorama.critics.frechet import kernel_distance
from diorama.errors import UserError
from diorama.foundations.registry import find
from diorama.foundations.world import world_of
from diorama.networks.layers import broadcast
from diorama.processes import solvers
from diorama.processes.levels import karras
from diorama.processes.solvers import Solver
from diorama.systems.images.guided_diffusion import GuidedDiffusion
from diorama.systems.understanding.classifier import Classifier
from diorama.types import Condition, Noise, Prediction, Score, ignore, mix

HIGH = 80.0  # sigma where all begin
N = 256  # points, and pictures
TOLERANCE = {1: 0.25, 2: 0.4}  # of the slope, by order
FEW, MANY, GRIDS = 10, 40, 12  # calls of the network
MODEL, JUDGE = "world-classes", "world-features"


@dataclass(frozen=True)
class Arm:
    """A solver, the order it is said to have (0: it draws), and the calls of the network a step costs."""

    solver: Solver
    order: int
    calls: int = 1

    def steps(self, calls: int) -> int:
        """How many steps that many calls pay for; the last step costs one call."""
        return (calls + self.calls - 1) // self.calls


# --- a world whose denoiser is known ---------------------------------------------------------------


@dataclass(frozen=True)
class Mixture:
    """E[x0 | x] for equally likely Gaussians around `means` (k, d), each of standard deviation `std`."""

    means: Tensor
    std: float = 0.1
    sigmas: ClassVar[None] = None

    def __call__(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        noise, own = broadcast(sigma, x) ** 2, self.std**2
        logits = (x @ self.means.T - self.means.square().sum(1) / 2) / (own + noise)
        return (own * x + noise * (logits.softmax(1) @ self.means)) / (own + noise)

    def predict(self, x: Tensor, sigma: Tensor, condition: Condition) -> Prediction:
        return Prediction(self(x, sigma, condition))


def toy(seed: int, d: int) -> tuple[Mixture, Tensor]:
    """Eight modes in d dimensions, spread as pictures are (sigma_data 0.5), and points (256, d) at sigma 80."""
    means, start = Noise([mix(seed, d)]).normal(8, d)[0], Noise([mix(seed, d, 1)]).normal(N, d)[0]
    return Mixture(0.5 * means.double()), HIGH * start.double()


def solve(solver: Solver, denoiser: Mixture, x: Tensor, levels: Tensor) -> Tensor:
    return solver(denoiser, x, Condition(), levels, Noise(range(len(x))))


def distance(x: Tensor, reference: Tensor) -> float:
    """The median over points: the few that lie between two modes say nothing of the order."""
    return float((x - reference).norm(dim=1).median())


def before_zero(n: int) -> Tensor:
    """The n steps of a Karras grid without the one to sigma = 0, which is Euler's whatever the solver."""
    return karras(n + 1)[:-1]


def even_in_time(n: int) -> Tensor:
    """(n + 1,) levels even in the time of a variance-preserving diffusion (Song et al. 2021; Karras et al. 2022, table 1), and 0."""
    b, least = 19.9, 1e-3  # beta rises by b from 0.1: sigma^2 = exp(b t^2 / 2 + 0.1 t) - 1
    first = (math.sqrt(0.01 + 2 * b * math.log1p(HIGH**2)) - 0.1) / b
    t = torch.linspace(first, least, n, dtype=torch.float64)
    return torch.cat([torch.expm1(b * t**2 / 2 + 0.1 * t).sqrt(), t.new_zeros(1)])


# --- a model that was trained ----------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """What parts B and C need: 256 pictures from a seed's own noise, the real ones, and a network that sees how far apart they are."""

    sample: Callable[[Solver, Tensor, int], Tensor]  # solver, levels, seed -> pictures
    real: Callable[[int], Tensor]  # seed -> pictures
    features: Callable[[Tensor], Tensor]  # pictures -> (n, d)


def shipped() -> Trained:
    """The diffusion of pixels, asked for all its classes in turn, unguided. Raises UserError where it is not there."""
    model, judge = GuidedDiffusion.from_pretrained(model_folder(MODEL)), Classifier.from_pretrained(model_folder(JUDGE))
    asked = Condition(label=torch.arange(N) % len(model.labels))

    @torch.no_grad()
    def sample(solver: Solver, levels: Tensor, seed: int) -> Tensor:
        noise = Noise([mix(seed, i) for i in range(N)])
        start = model.process.prior((3, model.size, model.size), noise)
        return solver(model.denoiser, start, asked, levels, noise, ignore).clamp(-1, 1)

    return Trained(sample, lambda seed: world_of(find(MODEL), mix(seed, 2)).batch(0, N).image, torch.no_grad()(judge.features))


# --- the claim -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Samplers(Claim):
    """Four solvers, two grids, a mixture, and a trained model."""

    euler: Arm = Arm(solvers.euler, 1)
    heun: Arm = Arm(solvers.heun, 2, calls=2)
    multistep: Arm = Arm(solvers.dpmpp_2m, 2)
    ancestral: Arm = Arm(solvers.ancestral, 0)
    grid: Callable[[int], Tensor] = karras
    dimensions: tuple[int, ...] = (2, 64)
    steps: tuple[int, int, int] = (64, 256, 2000)  # coarse, fine, and of the solution they are compared with
    trained: Callable[[], Trained] = shipped

    slug: ClassVar[str] = "samplers"
    title: ClassVar[str] = "Fast samplers"
    assets: ClassVar[tuple[str, ...]] = (MODEL, JUDGE)
    parts: ClassVar[tuple[Part, ...]] = (
        Part(
            letter="A",
            statement="the error falls with the first power of the step for Euler (± 0.25), with the second for Heun and 2M (± 0.4)",
            unit="of the slope, left within the tolerance",
            margin=0.0,
        ),
        Part(
            letter="B1",
            statement=f"with {FEW} calls, Heun and 2M stand at most 0.8 times as far from real pictures as DDIM",
            unit="squared kernel distance, 0.8 DDIM - the worse of the two",
            margin=0.0,
            conditional_on=MODEL,
        ),
        Part(
            letter="B2",
            statement=f"with {FEW} calls, DDIM stands at most 0.8 times as far from real pictures as ancestral sampling",
            unit="squared kernel distance, 0.8 ancestral - DDIM",
            margin=0.0,
            conditional_on=MODEL,
        ),
        Part(
            letter="B3",
            statement=f"with {MANY} calls they differ by less than a quarter of what they do with {FEW}",
            unit="squared kernel distance, a quarter of the range - the range",
            margin=0.0,
            conditional_on=MODEL,
        ),
        Part(
            letter="C",
            statement=f"with {GRIDS} calls of Heun, the Karras grid leaves pictures at most 0.9 times as far as even steps of time do",
            unit="squared kernel distance, 0.9 even - Karras",
            margin=0.0,
            conditional_on=MODEL,
        ),
    )

    def run(self, seed: int) -> Mapping[str, Effect]:
        return {**self._analytic(seed), **self._trained(seed)}

    def _analytic(self, seed: int) -> dict[str, Effect]:
        slopes: dict[str, float] = {}
        left = []
        for d in self.dimensions:
            denoiser, x = toy(seed, d)
            solution = solve(solvers.heun, denoiser, x, before_zero(self.steps[-1]))
            for name, arm in {"Euler": self.euler, "Heun": self.heun, "2M": self.multistep}.items():
                slopes[f"{name} {d}-D"] = measured = self._slope(arm, denoiser, x, solution)
                left.append(TOLERANCE[arm.order] - abs(measured - arm.order))
        return {"A": Effect(min(left), slopes)}

    def _slope(self, arm: Arm, denoiser: Mixture, x: Tensor, solution: Tensor) -> float:
        """The power of the step with which the error falls."""
        coarse, fine, _ = self.steps
        errors = [distance(solve(arm.solver, denoiser, x, before_zero(n)), solution) for n in (coarse, fine)]
        return math.log(errors[0] / errors[1]) / math.log(fine / coarse)

    def _trained(self, seed: int) -> dict[str, Effect]:
        try:
            trained = self.trained()
        except UserError as error:
            return dict.fromkeys(("B1", "B2", "B3", "C"), Effect.missing(str(error)))
        real = trained.features(trained.real(seed))
        floor = kernel_distance(trained.features(trained.real(mix(seed, 3))), real)
        arms = {"DDIM": self.euler, "Heun": self.heun, "2M": self.multistep, "ancestral": self.ancestral}

        def distance(arm: Arm, calls: int, grid: Callable[[int], Tensor] = karras) -> Score:
            return kernel_distance(trained.features(trained.sample(arm.solver, grid(arm.steps(calls)), seed)), real)

        few, many = ({name: distance(arm, calls) for name, arm in arms.items()} for calls in (FEW, MANY))
        ours, even = distance(self.heun, GRIDS, self.grid), distance(self.heun, GRIDS, even_in_time)
        told = {name: score.value for name, score in {**few, "real": floor}.items()}
        worse = max(few["Heun"], few["2M"], key=lambda score: score.value)
        return {
            "B1": _nearer(0.8, worse, few["DDIM"], told),
            "B2": _nearer(0.8, few["DDIM"], few["ancestral"], told),
            "C": _nearer(0.9, ours, even, {"Karras": ours.value, "even in time": even.value}),
            "B3": Effect(_range(few) / 4 - _range(many), {name: score.value for name, score in many.items()}),
        }


def _nearer(ratio: float, method: Score, baseline: Score, arms: Mapping[str, float]) -> Effect:
    """A ratio of distances as a difference, which has a value where they are near zero."""
    return Effect(ratio * baseline.value - method.value, arms, math.hypot(ratio * baseline.stderr, method.stderr))


def _range(scores: Mapping[str, Score]) -> float:
    values = [score.value for score in scores.values()]
    return max(values) - min(values)


CLAIM = Samplers()
