"""Pictures per second at an equal distance from real pictures: one trained network, walked as diffusers walks and as ours does.

    python -m venv .peers && .peers/bin/pip install -c constraints.txt . -r benchmarks/peers/requirements.txt
    .peers/bin/python benchmarks/peers/sampling_quality.py --rounds 5

The network is the shipped flow of the miniature world. The peer's way is the loop of `StableDiffusion3Pipeline`, with its 28 steps,
around `FlowMatchEulerDiscreteScheduler` as it comes. Ours is each of our solvers along our levels, with more and more calls of the
network until both distances, Fréchet's and the kernel's (which small sets do not bias), are no more than one standard error above
the peer's. Since the first that is near enough may be so by luck, it and the peer are then measured again from other noise and for
other captions, and these distances are reported. Both ways have the same captions, noise, guidance, batch and precision; sentences
are encoded before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import tyro
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))  # timing.py
from timing import Spread, alternate, machine, ratio, report

from diorama.critics.frechet import frechet, kernel_distance
from diorama.foundations.make import ready
from diorama.foundations.registry import find
from diorama.foundations.world import world_of
from diorama.networks.precision import Ground, ground
from diorama.processes.scalings import INFINITY
from diorama.systems.images.flow import Flow
from diorama.systems.understanding.classifier import Classifier
from diorama.types import Condition, Noise, Score, mix

CALLS = {"euler": 1, "dpmpp_2m": 1, "heun": 2}  # of the network in a step; Heun's last step has one
SEED = 77  # of the world that is asked for; training saw 0 and 1

Sampler = Callable[[Condition, Noise], Tensor]  # pictures (b, 4, size, size)
Distances = dict[str, Score]


@dataclass(frozen=True)
class Arguments:
    """Find our fewest calls of the network for the peer's distance, then time both in turn and report ours / theirs."""

    rounds: int = 5
    pictures: int = 256  # in each distance
    batch: int = 16
    guidance: float = 4.0
    peer_steps: int = 28
    tries: tuple[int, ...] = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 28)  # calls
    model: str = "world-flow"
    judge: str = "world-features"
    dtype: str = "auto"
    json: Path | None = None


# --- the two ways ---------------------------------------------------------------------------------


def velocity(system: Flow, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
    """noise - x0, which the scheduler steps along, at x = (1 - t) x0 + t noise."""
    sigma = (t / (1 - t)).clamp_max(INFINITY)
    return (x - system.denoiser(x * (1 + sigma), sigma.expand(len(x)), condition)) / t


def theirs(system: Flow, steps: int, guidance: float) -> Sampler:
    side = system.size // system.codec.config.stride

    def sample(condition: Condition, noise: Noise) -> Tensor:
        scheduler = FlowMatchEulerDiscreteScheduler()
        scheduler.set_timesteps(steps)
        both = Condition.cat([condition.null(), condition])
        x = noise.normal(system.codec.config.latent, side, side)
        for timestep in scheduler.timesteps:
            t = timestep / scheduler.config.num_train_timesteps
            unasked, asked = velocity(system, torch.cat([x, x]), t, both).chunk(2)
            x = scheduler.step(unasked + guidance * (asked - unasked), timestep, x, return_dict=False)[0]
        return system.preview(x)

    return sample


def ours(system: Flow, solver: str, calls: int, guidance: float) -> Sampler:
    steps = (calls + CALLS[solver] - 1) // CALLS[solver]
    return lambda asked, noise: system.paint(system.guided(guidance), asked, steps=steps, solver=solver, noise=noise)


# --- how far from real ----------------------------------------------------------------------------


def distances(features: Tensor, real: Tensor) -> Distances:
    return {"Fréchet distance": frechet(features, real), "kernel distance": kernel_distance(features, real)}


@dataclass(frozen=True)
class Gauge:
    """How far a sampler's pictures are from real ones."""

    system: Flow
    judge: Classifier
    arguments: Arguments
    where: Ground
    real: Tensor  # features

    @torch.inference_mode()
    def __call__(self, sampler: Sampler, first: int) -> Distances:
        """Of pictures for the world's captions from number `first` on."""
        batches = range(first, first + self.arguments.pictures, self.arguments.batch)
        pictures = torch.cat([self.paint(sampler, i)() for i in batches])
        return distances(self.judge.features(pictures), self.real)

    def paint(self, sampler: Sampler, first: int) -> Callable[[], Tensor]:
        """One batch; its sentences are encoded here, and not where it is painted."""
        n = self.arguments.batch
        captions = world_of(find(self.arguments.model), SEED).batch(first, n).text
        with torch.no_grad():
            condition = self.system.condition(captions)

        def painted() -> Tensor:
            with torch.inference_mode(), self.where.autocast():
                return sampler(condition, Noise([mix(SEED, i) for i in range(first, first + n)])).float()

        return painted


def fewest(gauge: Gauge, goal: Distances, tried: list[dict[str, Any]]) -> tuple[str, int]:
    """The solver and the calls that first come within one standard error of the goal, in both distances. SystemExit where none does."""
    for calls in gauge.arguments.tries:
        near = {}
        for solver, each in CALLS.items():
            if (calls + each - 1) % each:  # Heun's calls are odd
                continue
            found = gauge(ours(gauge.system, solver, calls, gauge.arguments.guidance), 0)
            tried.append({"way": solver, "calls": calls, **told(found)})
            if all(found[name].value <= score.value + score.stderr for name, score in goal.items()):
                near[solver] = found["Fréchet distance"].value
        if near:
            return min(near, key=lambda solver: near[solver]), calls
    raise SystemExit(f"no way of ours came within a standard error of the peer's distances, {told(goal)}")


def told(found: Distances) -> dict[str, str]:
    return {name: f"{score.value:.3g} ± {score.stderr:.2g}" for name, score in found.items()}


def main() -> None:
    arguments = tyro.cli(Arguments)
    about, where = machine(), ground("cpu", arguments.dtype)
    system, judge = ready(arguments.model).eval(), ready(arguments.judge).eval()
    assert isinstance(system, Flow) and isinstance(judge, Classifier)
    far, n = 1_000_000, arguments.pictures
    with torch.no_grad():
        real, other = (
            judge.features(world_of(find(arguments.model), SEED).batch(far + i * 4 * n, k).image) for i, k in ((0, 4 * n), (1, n))
        )
    gauge = Gauge(system, judge, arguments, where, real)

    peer = theirs(system, arguments.peer_steps, arguments.guidance)
    goal = gauge(peer, 0)
    way = f"diffusers, Euler, {arguments.peer_steps} steps"
    tried = [{"way": "real pictures", "calls": 0, **told(distances(other, real))}]
    tried.append({"way": way, "calls": arguments.peer_steps, **told(goal)})
    solver, calls = fewest(gauge, goal, tried)
    report("Tried: distance ± its standard error", tried, {"pictures": n, "guidance": arguments.guidance})

    mine = ours(system, solver, calls, arguments.guidance)
    ways = {way: peer, f"diorama, {solver}": mine}
    again = {name: gauge(sampler, n) for name, sampler in ways.items()}
    times = alternate({name: gauge.paint(sampler, 0) for name, sampler in ways.items()}, arguments.rounds)
    rows: list[dict[str, Any]] = [
        {
            "way": name,
            "calls": k,
            **told(again[name]),
            "pictures/s": Spread.of([arguments.batch / t for t in times[name]]),
            "ours / theirs": ratio(times[way], times[name]),
        }
        for name, k in zip(ways, (arguments.peer_steps, calls), strict=True)
    ]
    about |= {"diffusers": diffusers.__version__, "both in": where.dtype_name, "batch": arguments.batch}
    report("Encoded sentences to pictures at an equal distance: median (quartiles)", rows, about, arguments.json)


if __name__ == "__main__":
    main()
