"""Run a claim seed after seed, count what it costs, and keep each finished seed, so that an interruption loses nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from diorama.claims.claim import BUDGET, Claim, Effect
from diorama.claims.scoreboard import Row
from diorama.claims.sources import source_hash
from diorama.claims.verdict import judge, together
from diorama.errors import UserError
from diorama.files import read_json, write_json
from diorama.networks.precision import processor_kind
from diorama.training.meter import Meter, OverBudget
from diorama.types import OnStep, Step, ignore, mix


@dataclass(frozen=True)
class Run:
    """One seed, finished or stopped."""

    seed: int
    effects: Mapping[str, Effect]  # empty where it was stopped; one without a value lacked a model
    tflop: float
    minutes: float
    processor: str
    date: str
    allowed: float  # TFLOP

    def settles(self, left: float) -> bool:
        """Whether the same would come out again with this much left to spend: it lacked nothing, or was stopped at no less."""
        return all(effect.value is not None for effect in self.effects.values()) if self.effects else left <= self.allowed


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
    """The seed as it was kept, where that settles it; else run, and kept."""
    if path and path.is_file():
        values = read_json(path)
        run = Run(**{**values, "effects": {letter: Effect(**effect) for letter, effect in values["effects"].items()}})
        if run.settles(left):
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
