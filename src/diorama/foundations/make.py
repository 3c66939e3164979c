"""From the plan of a foundation model to its folder: train, measure, write its card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TaskID

from diorama.foundations.data import data_of
from diorama.foundations.measures import measure
from diorama.foundations.plans import DEFAULTS, PLANS
from diorama.foundations.registry import HELD_OUT, Foundation, find, folder_of
from diorama.models import made
from diorama.networks.precision import processor_kind
from diorama.storage import Storage
from diorama.systems.base import System, load_system
from diorama.train import minutes, train
from diorama.types import OnStep, Score, Step, ignore


def ready(name: str, say: Callable[[str], None] = print) -> System:
    """The trained system; where it is nowhere yet it is trained into the cache, under a bar on standard error."""
    folder = folder_of(name)
    if folder is None:
        say(f"{name} is not here yet: training it into {made() / name}, once")
        with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True)) as bar:
            task = bar.add_task(name, total=None)
            folder = make(name, made() / name, on_step=partial(_shown, bar, task), say=say)
    return load_system(folder)


def _shown(bar: Progress, task: TaskID, step: Step) -> None:
    bar.update(task, completed=step.index + 1, total=step.n)


def make(name: str, out: Path, run: Path | None = None, on_step: OnStep = ignore, say: Callable[[str], None] = print) -> Path:
    """Train the model into `out`, from the newest checkpoint of `run` (beside `out` where not given) if there is one.

    Raises UserError where `out` holds something else.
    """
    what, plan, run = find(name), PLANS[name], run or out.with_name(f"{out.name}-run")
    base = None
    if what.base:
        base = folder_of(what.base) or make(what.base, made() / what.base, on_step=on_step, say=say)
    run.parent.mkdir(parents=True, exist_ok=True)
    train(what.system, data_of(what), run, plan, preset=what.preset, base=base, name=name, on_step=on_step, say=say)
    out.parent.mkdir(parents=True, exist_ok=True)
    system = load_system(run / "model")
    about: dict[str, Any] = {"name": name, "size": what.size, "pictures": plan.steps * plan.batch}
    if name in DEFAULTS:
        about["defaults"] = DEFAULTS[name]
    system.save_pretrained(out, storage=cast(Storage, what.storage), **about)
    scores = measure(what, load_system(out))  # of what is kept, with its rounded weights
    numbers = {measure_name: asdict(score) for measure_name, score in scores.items()}
    system.save_pretrained(out, storage=cast(Storage, what.storage), **about, measured=numbers)
    (out / "README.md").write_text(card(what, scores, minutes(run / "log.jsonl", plan.batch)), encoding="utf-8")
    return out


def card(what: Foundation, scores: Mapping[str, Score], spent: float) -> str:
    plan = PLANS[what.name]
    rows = [f"| {name} | {score.value:.4g} ± {score.stderr:.2g} {score.unit} | {score.n} |" for name, score in scores.items()]
    return TEMPLATE.format(
        name=what.name,
        summary=f"{what.summary[0].upper()}{what.summary[1:]}.",
        system=f"`{what.system}`, preset `{what.preset}`, {what.size} x {what.size} pixels{f', on `{what.base}`' if what.base else ''}",
        rules="; ".join(f"{name} {value}" for name, value in what.rules.items()) or "everything it has",
        held_out=f"{HELD_OUT:.0%}",
        plan=f"{plan.steps:,} steps of {plan.batch}, seed {plan.seed}, {spent:.0f} minutes",
        processor=processor_kind(),
        storage=what.storage,
        rows="\n".join(rows) or "| nothing yet | | |",
    )


TEMPLATE = """---
license: apache-2.0
library_name: diorama
---

# {name}

{summary}

- **System**: {system}
- **Data**: the miniature world, drawn as it was needed ({rules}); {held_out} of the (colour, shape) pairs never shown
- **Made by** `diorama foundations {name}`: {plan}, on a {processor} processor that other work shared
- **Stored** as {storage}

| measured on what it never saw | | n |
|---|---|---|
{rows}
"""
