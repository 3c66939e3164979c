"""Run a claim seed after seed, count what it costs, and keep each finished seed, so that an interruption loses nothing.

What is counted are the FLOPs of matrix products, convolutions and attention, forward and backward (two for a multiply and an
add). What is not: everything element by element, norms, reductions, Fourier transforms, and work outside torch or in threads of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from diorama.claims.claim import BUDGET, Claim, Effect
from diorama.claims.scoreboard import Row
from diorama.claims.sources import source_hash
from diorama.claims.verdict import judge, together
from diorama.errors import UserError
from diorama.files import read_json, write_json
from diorama.networks.precision import processor_kind
from diorama.types import OnStep, Step, ignore, mix

aten = torch.ops.aten


class OverBudget(Exception):
    """The work of a seed has passed what was left to spend."""


@dataclass(frozen=True)
class Run:
    """One seed, finished or stopped."""

    seed: int
    effects: Mapping[str, Effect]  # empty where it was stopped
    tflop: float
    minutes: float
    processor: str
    date: str
    allowed: float  # TFLOP


def verify(
    claim: Claim, seeds: int | None = None, budget: float = BUDGET, store: Path | None = None, on_step: OnStep = ignore
) -> Row:
    """The claim's row. Finished seeds are read from `store` and written there; a claim with pieces exchanged is never kept.

    `budget` is in TFLOP, for all seeds together. Raises FloatingPointError where an effect is not a number; a KeyboardInterrupt
    says how many seeds are kept.
    """
    n, source = seeds or claim.seeds, source_hash(claim)
    folder = None if store is None or claim != type(claim)() else _made(store / claim.slug)
    runs: list[Run] = []
    try:
        for seed in range(n):
            path = folder and folder / f"{source[:16]}-{seed}.json"
            runs.append(_kept_or_new(claim, seed, budget - sum(run.tflop for run in runs), path))
            on_step(Step(seed, n))
            if not runs[-1].effects:
                break
    except KeyboardInterrupt:
        kept = len(runs) if folder else 0
        raise KeyboardInterrupt(f"{kept} of {n} seeds of {claim.slug} are kept, the same command goes on") from None
    return _row(claim, runs, source, budget)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"cannot make the folder {folder} ({reason}): set XDG_CACHE_HOME to one you may write to") from None
    return folder


def _kept_or_new(claim: Claim, seed: int, left: float, path: Path | None) -> Run:
    """The seed as it was kept, unless it was stopped with less to spend than there is now; else run, and kept."""
    if path and path.is_file():
        values = read_json(path)
        run = Run(**{**values, "effects": {letter: Effect(**effect) for letter, effect in values["effects"].items()}})
        if run.effects or left <= run.allowed:
            return run
    run = _new(claim, seed, left)
    if path:
        write_json(path, asdict(run))
    return run


def _new(claim: Claim, seed: int, left: float) -> Run:
    began, meter = time.perf_counter(), Meter(left)
    effects: Mapping[str, Effect] = {}
    try:
        with meter, torch.random.fork_rng():  # the same numbers whichever seeds were run before in this process
            torch.manual_seed(mix(seed))
            effects = claim.run(seed)
    except OverBudget:
        pass
    else:
        _check(claim, seed, effects)
    minutes, date = (time.perf_counter() - began) / 60, datetime.now(UTC).date().isoformat()
    return Run(seed, effects, meter.tflop, minutes, processor_kind(), date, left)


def _check(claim: Claim, seed: int, effects: Mapping[str, Effect]) -> None:
    needed = {part.letter for part in claim.parts if seed == 0 or not part.exact}
    assert needed <= set(effects), f"{claim.slug} left out {sorted(needed - set(effects))}"
    for letter, effect in effects.items():
        numbers = {"effect": 0.0 if effect.value is None else effect.value, "error": effect.stderr, **effect.arms}
        for name, number in numbers.items():
            if not math.isfinite(number):
                raise FloatingPointError(f"{claim.slug}, part {letter}, seed {seed}: the {name} is {number}, not a number")


def _row(claim: Claim, runs: list[Run], source: str, budget: float) -> Row:
    finished = [run for run in runs if run.effects]
    found = {part.letter: [run.effects[part.letter] for run in finished if part.letter in run.effects] for part in claim.parts}
    judged = tuple(judge(part, found[part.letter]) for part in claim.parts)
    stopped = len(finished) < len(runs)
    return Row(
        slug=claim.slug,
        title=claim.title,
        verdict="undecided" if stopped else together(part.verdict for part in judged),
        parts=judged,
        seeds=len(finished),
        tflop=sum(run.tflop for run in runs),
        minutes=sum(run.minutes for run in runs),
        processor=", ".join(sorted({run.processor for run in runs})),
        source=source,
        date=max(run.date for run in runs),
        note=f"stopped in seed {runs[-1].seed}: more than {budget:g} TFLOP, use a larger --budget" if stopped else "",
    )


class Meter(TorchDispatchMode):
    """Counts `tflop`, and raises OverBudget within the operation that passes `limit`.

    torch's own FlopCounterMode follows modules and takes twice as long, which a small network feels.
    """

    def __init__(self, limit: float):
        super().__init__()
        self.limit, self.tflop = limit, 0.0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # asking the compiler to look away would import it, for seconds

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        if _is_composite(function):  # as in inference mode, where a linear layer arrives whole
            with self:
                return function.decompose(*arguments, **options)
        out = function(*arguments, **options)
        if (flops := FLOPS.get(function.overloadpacket)) is not None:
            self.tflop += flops(*arguments, **options, out_val=out) / 1e12
            if self.tflop > self.limit:
                raise OverBudget
        return out


@cache
def _is_composite(function: Any) -> bool:
    return bool(function.has_kernel_for_dispatch_key(torch.DispatchKey.CompositeImplicitAutograd))


FLOPS = {  # attention on a processor is an operation of its own, which torch leaves out
    **flop_registry,
    aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[aten._scaled_dot_product_flash_attention],
    aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[aten._scaled_dot_product_flash_attention_backward],
}
