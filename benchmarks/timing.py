"""How everything in this folder is timed: arms in turn, ratios round by round, medians with their spread.

A machine slows down and speeds up with what else runs on it. Arms timed A B A B ... meet the same weather, so the
ratio within a round says more than two absolute times, and it is the ratio that is reported wherever there are two arms.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diorama.networks.precision import Ground, processor_kind, use_cores


@dataclass(frozen=True)
class Spread:
    """The median of n measurements and the quartiles around it."""

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else (values[0],) * 3
        return cls(median(values), low, high, len(values))

    def format(self, digits: int = 3) -> str:
        return f"{self.median:.{digits}g} ({self.low:.{digits}g} to {self.high:.{digits}g})"


def seconds(action: Callable[[], Any], device: torch.device | str = "cpu") -> float:
    """Wall time of one call, with everything an accelerator still owes."""
    _wait(device)
    start = time.perf_counter()
    action()
    _wait(device)
    return time.perf_counter() - start


def alternate(arms: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device | str = "cpu") -> dict[str, list[float]]:
    """Seconds of every arm in every round, after one untimed call of each."""
    for action in arms.values():
        action()
    times: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(rounds):
        names = list(arms)[:: 1 if turn % 2 == 0 else -1]  # no arm always follows the same other one
        for name in names:
            times[name].append(seconds(arms[name], device))
    return times


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Spread:
    """Round by round."""
    return Spread.of([a / b for a, b in zip(numerator, denominator, strict=True)])


def flops(action: Callable[[], Any]) -> int:
    """Floating-point operations of one call: matrix products, convolutions and attention, forward and backward."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # the fused kernel of the CPU is not counted
        action()
    return counter.get_total_flops()


class MatrixProduct:
    """The yardstick: one square matrix product of the size this machine multiplies fastest in this precision."""

    def __init__(self, ground: Ground, sizes: Sequence[int] = (768, 1024, 1536, 2048, 4096)):
        self.device, self.dtype = ground.device, ground.dtype
        if ground.device.type == "cpu":
            sizes = [n for n in sizes if n <= 2048]
        rates = {n: self._rate(n) for n in sizes}
        self.size = max(rates, key=lambda n: rates[n])
        self.a, self.b = self._factors(self.size)

    @property
    def work(self) -> int:
        """Floating-point operations of one call."""
        return 2 * self.size**3

    def __call__(self) -> Tensor:
        return self.a @ self.b

    def _factors(self, n: int) -> tuple[Tensor, Tensor]:
        a, b = torch.randn(2, n, n).to(self.device, self.dtype)
        return a, b

    def _rate(self, n: int) -> float:
        a, b = self._factors(n)
        return n**3 / min(seconds(lambda: a @ b, self.device) for _ in range(6))


def fraction_of_peak(work: float, times: Sequence[float], product: MatrixProduct, product_times: Sequence[float]) -> Spread:
    """Share of the matrix product's own rate that `work` floating-point operations reached, round by round."""
    return Spread.of([(work / t) / (product.work / p) for t, p in zip(times, product_times, strict=True)])


def machine(threads: int | None = None) -> dict[str, Any]:
    """What a number depends on besides the code. Also lets torch use the cores there are."""
    cores = use_cores(threads)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return {
        "processor": _processor(),
        "kind": processor_kind(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "threads": cores,
        "load": round(load, 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def report(title: str, rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any], json_file: Path | None = None) -> None:
    """A table for people on stdout and, where asked, the same numbers unrounded in a JSON file."""
    print(f"\n{title}")
    print("  " + ", ".join(f"{key} {value}" for key, value in about.items()))
    if about.get("load", 0) > 1:
        print("  other work was running when this began: read the ratios, not the seconds")
    names = list(dict.fromkeys(key for row in rows for key in row))
    cells = [names, *[[_cell(row.get(name, "")) for name in names] for row in rows]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    for line in cells:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    if json_file is not None:
        plain = [{k: asdict(v) if isinstance(v, Spread) else v for k, v in row.items()} for row in rows]
        json_file.write_text(json.dumps({"title": title, "about": dict(about), "rows": plain}, indent=2) + "\n")


def _cell(value: Any) -> str:
    if isinstance(value, Spread):
        return value.format()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _wait(device: torch.device | str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def _processor() -> str:
    """The processor's own name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
