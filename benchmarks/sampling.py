"""A warm picture at the default settings, with the fast adapter where one is shipped, and what each costs in a batch.

    python benchmarks/sampling.py --rounds 9

A picture here is everything between the words and the PIL picture: tokens, text encoder, every step of the solver with
guidance, codec. The model is already loaded. The fraction of the peak is against one matrix product, timed in the same rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models
import tyro
from timing import MatrixProduct, Spread, alternate, flops, fraction_of_peak, machine, ratio, report

from diorama.models import index_of
from diorama.pipeline import Pipeline, load


@dataclass(frozen=True)
class Arguments:
    """Time pictures through `diorama.load(...).sample(...)`."""

    rounds: int = 9
    batches: tuple[int, ...] = (1, 4, 16)
    dtype: str = "auto"
    device: str = "auto"
    json: Path | None = None


def main() -> None:
    arguments = tyro.cli(Arguments)
    about = machine()
    settings = {"default": models.pipeline("default", arguments.device, arguments.dtype)}
    chosen, folder = settings["default"].ground, settings["default"].folder
    if folder.is_dir() and "fast" in index_of(folder):
        settings["fast"] = load("default", arguments.device, arguments.dtype, fast=True)

    def pictures(pipeline: Pipeline, n: int) -> Callable[[], Any]:
        return lambda: pipeline.sample(models.prompts(n), seed=0)

    product = MatrixProduct(chosen)
    sizes = {f"{name}, {n}": (name, n) for name in settings for n in arguments.batches}
    arms: dict[str, Callable[[], Any]] = {arm: pictures(settings[name], n) for arm, (name, n) in sizes.items()}
    work = {arm: flops(action) for arm, action in arms.items()}
    times = alternate({**arms, "matrix product": product}, arguments.rounds, chosen.device)
    each = {arm: [t / n for t in times[arm]] for arm, (_, n) in sizes.items()}
    first = next(iter(arms))
    rows = [
        {
            "settings": name,
            "batch": n,
            "s/picture": Spread.of(each[arm]),
            f"against {first}": ratio(each[arm], each[first]),
            "GFLOP/picture": work[arm] / n / 1e9,
            "fraction of peak": fraction_of_peak(work[arm], times[arm], product, times["matrix product"]),
        }
        for arm, (name, n) in sizes.items()
    ]
    rate = [product.work / t / 1e12 for t in times["matrix product"]]
    about |= {"device": str(chosen.device), "dtype": chosen.dtype_name}
    about[f"matrix product of {product.size}"] = f"{Spread.of(rate).format()} TFLOP/s"
    report("Warm pictures: median (quartiles)", rows, about, arguments.json)


if __name__ == "__main__":
    main()
