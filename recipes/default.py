"""Make the shipped default model: a codec, then a text-to-image flow in its latents, then int8 files.

    python recipes/default.py --data emoji --out runs/default

Start it again with the same words to resume. `--codec-steps` and `--steps` set how long; the shipped card says what was used.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from diorama.networks.precision import use_cores
from diorama.systems.base import load_system
from diorama.systems.images.flow import Flow
from diorama.train import Data, train
from diorama.training.plan import Plan
from diorama.types import OnStep, Step


@dataclass(frozen=True)
class Arguments:
    """Train the default model."""

    data: Path  # the emoji shards
    out: Path = Path("runs/default")
    codec_steps: int = 6000  # of 16 pictures
    steps: int = 30_000  # of 32 pictures
    name: str = "default"
    minutes: float = 3.0  # between checkpoints
    samples: int = 2000  # steps between sheets of samples


def codec(arguments: Arguments) -> None:
    """L1 with its differences and averages, and a little KL; no adversary."""
    plan = Plan(
        steps=arguments.codec_steps, batch=16, lr=8e-4, warmup=100, decay=0.4, ema=0.998, sample_every=500, save_minutes=arguments.minutes
    )
    data = Data(path=arguments.data, on_white=True, compose=4, hold_out=0.1)
    train("autoencoder", data, arguments.out / "codec", plan, on_step=_shown("codec"))


def flow(arguments: Arguments) -> None:
    """Plain forms twice as often as skin tones and genders, every picture composed about eight ways."""
    plan = Plan(steps=arguments.steps, batch=32, lr=1e-3, warmup=300, decay=0.3, betas=(0.9, 0.95), ema=0.9995, save_minutes=arguments.minutes)
    plan = replace(plan, sample_every=arguments.samples)
    data = Data(path=arguments.data, on_white=True, compose=4, hold_out=0.1, often="base=3")
    base = arguments.out / "codec" / "model"
    train("flow", data, arguments.out / "flow", plan, base=base, name=arguments.name, on_step=_shown("flow"), on_encode=_shown("encode"))


def pack(arguments: Arguments) -> Path:
    """The trained flow as int8, beside its checkpoints: what goes into the package."""
    target = arguments.out / "model"
    system = load_system(arguments.out / "flow" / "model")
    assert isinstance(system, Flow)
    system.save_pretrained(target, storage="int8", name=arguments.name)
    return target


def _shown(what: str) -> OnStep:
    """A line every hundred steps."""
    start = time.monotonic()

    def show(step: Step) -> None:
        if step.index % 100 == 0 or step.index + 1 == step.n:
            values = " ".join(f"{k} {v:.4g}" for k, v in step.values.items())
            print(f"{what} {step.index}/{step.n} {time.monotonic() - start:.0f}s {values}", flush=True)

    return show


def main() -> None:
    arguments = tyro.cli(Arguments)
    use_cores()
    codec(arguments)
    flow(arguments)
    print(pack(arguments))


if __name__ == "__main__":
    main()
