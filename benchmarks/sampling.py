"""A warm picture at the default settings, and what each picture costs in a batch.

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
    pipeline = models.pipeline("default", arguments.device, arguments.dtype)
    chosen = pipeline.ground

    def pictures(n: int) -> Callable[[], Any]:
        return lambda: pipeline.sample(models.prompts(n), seed=0)

    product = MatrixProduct(chosen)
    arms: dict[str, Callable[[], Any]] = {str(n): pictures(n) for n in arguments.batches}
    work = {name: flops(arm) for name, arm in arms.items()}
    times = alternate({**arms, "matrix product": product}, arguments.rounds, chosen.device)
    alone = [t / arguments.batches[0] for t in times[str(arguments.batches[0])]]
    rows = []
    for n in arguments.batches:
        each = [t / n for t in times[str(n)]]
        rows.append(
            {
                "batch": n,
                "s/picture": Spread.of(each),
                f"against batch {arguments.batches[0]}": ratio(each, alone),
                "GFLOP/picture": work[str(n)] / n / 1e9,
                "fraction of peak": fraction_of_peak(work[str(n)], times[str(n)], product, times["matrix product"]),
            }
        )
    rate = [product.work / t / 1e12 for t in times["matrix product"]]
    about |= {"device": str(chosen.device), "dtype": chosen.dtype_name}
    about[f"matrix product of {product.size}"] = f"{Spread.of(rate).format()} TFLOP/s"
    report("Warm pictures at the default settings: median (quartiles)", rows, about, arguments.json)


if __name__ == "__main__":
    main()
