"""One training step of `flow`, as the training loop runs it, from cached latents and sentences.

    python benchmarks/training.py --steps 12

A step is all of it: noise, forward, backward, clipping, AdamW and the moving average. The fraction of the peak counts the
FLOPs of forward and backward against one matrix product in the same precision, timed after every step.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import models
import torch
import tyro
from timing import MatrixProduct, Spread, flops, fraction_of_peak, machine, report, seconds

from diorama.networks.precision import ground, has_bfloat16_units
from diorama.systems.images.flow import Flow
from diorama.training.loop import fit
from diorama.training.plan import Plan
from diorama.types import Batch, Noise, Step


@dataclass(frozen=True)
class Arguments:
    """Time training steps through `diorama.training.loop.fit`."""

    steps: int = 12
    batch: int = 32
    preset: str = "mini"
    dtypes: tuple[str, ...] = ()  # default: float32, and bfloat16 where the processor has units for it
    device: str = "auto"
    json: Path | None = None


class Clock:
    """Seconds of every step, and of a matrix product after each; the first two steps are not counted."""

    def __init__(self, product: MatrixProduct):
        self.product = product
        self.steps: list[float] = []
        self.products: list[float] = []
        self.before = time.perf_counter()

    def __call__(self, step: Step) -> None:
        if self.product.device.type == "cuda":
            torch.cuda.synchronize()
        elapsed = time.perf_counter() - self.before
        product = seconds(self.product, self.product.device)
        if step.index >= 2:
            self.steps.append(elapsed)
            self.products.append(product)
        self.before = time.perf_counter()


def batch_of(system: Flow, n: int) -> Batch:
    """n cached pictures: latents of unit variance and real sentences."""
    side = system.size // system.codec.config.stride
    latent = torch.randn(n, system.codec.config.latent, side, side)
    label = torch.arange(n) % len(system.styles)
    return Batch(image=latent, label=label, latent=latent, embedding=system.text(models.prompts(n)))


def step_work(system: Flow, batch: Batch) -> int:
    """FLOPs of one forward and backward."""
    noise = Noise.at(0, 0, n=len(batch), device=system.device)
    work = flops(lambda: system.loss(batch, noise).mean().backward())
    system.zero_grad()
    return work


def main() -> None:
    arguments = tyro.cli(Arguments)
    about = machine()
    names = arguments.dtypes or (("float32", "bfloat16") if has_bfloat16_units() or torch.cuda.is_available() else ("float32",))
    rows = []
    for name in names:
        chosen = ground(arguments.device, name)
        system = models.flow(arguments.preset).to(chosen.device).train()
        batch = batch_of(system, arguments.batch)
        work = step_work(system, batch)
        clock = Clock(MatrixProduct(chosen))
        plan = Plan(steps=arguments.steps + 2, batch=arguments.batch, device=arguments.device, dtype=name)
        fit(system, lambda step, rank=0, world=1, batch=batch: batch, plan, on_step=clock)
        rows.append(
            {
                "dtype": name,
                "batch": arguments.batch,
                "samples/s": Spread.of([arguments.batch / t for t in clock.steps]),
                "GFLOP/sample": work / arguments.batch / 1e9,
                "TFLOP/s": Spread.of([work / t / 1e12 for t in clock.steps]),
                "matrix product TFLOP/s": Spread.of([clock.product.work / t / 1e12 for t in clock.products]),
                "fraction of peak": fraction_of_peak(work, clock.steps, clock.product, clock.products),
            }
        )
    parameters = sum(p.numel() for p in system.network.parameters())
    about |= {"preset": arguments.preset, "trained parameters": parameters}
    report("Training step of flow: median (quartiles)", rows, about, arguments.json)


if __name__ == "__main__":
    main()
