"""Measure a few-step adapter: the model that wears it beside the model alone, on the same held-out prompts from the same noise.

    python recipes/measure_fast.py default --adapter default-fast --data emoji --scorer runs/clip/model --out runs/fast/measured

Prompts and scorer are those of `measure_default.py`, which says how to make the scorer. Beside both stands what the model alone does
with as few evaluations as the adapter takes: in half as many guided steps, and in as many without guidance. Writes numbers.json, and
a sheet of pairs, the model alone on the left.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import torch
import tyro
from measure_default import CANDIDATES, Arguments, Asked, Judge, Model, Numbers, World, distances, draw, table

from diorama.critics.statistics import ratio, share
from diorama.data.encoded import fingerprint
from diorama.errors import UserError
from diorama.files import write_json
from diorama.networks.precision import use_cores
from diorama.storage import kept
from diorama.systems.base import load_system
from diorama.systems.understanding.clip import Clip

PAIRS = 40  # on the sheet


class Arm:
    """One way to paint what is asked, and how it was judged. The pictures are kept: a second adapter is measured beside the same ones."""

    def __init__(self, name: str, arguments: Arguments, judge: Judge, asked: list[Asked]):
        model = Model(arguments)
        self.settings = {**model.options, "adapters": model.worn, "weights": model.weights, "dtype": model.ground.dtype_name}
        key = fingerprint(self.settings, arguments.seed, asked)
        self.pictures = kept(arguments.out / f"{name}.safetensors", key, lambda: {"pictures": model.make(asked)})["pictures"]
        self.seen = judge.see(self.pictures)
        self.right, self.styled = judge.ranks(self.seen, asked) < 1, self.seen.style == judge.styles(asked)
        self.evaluations = model.options["steps"] * (1 if model.options["guidance"] == 1 else 2)


@torch.no_grad()
def measure(arguments: Arguments) -> dict[str, Any]:
    clip = load_system(arguments.scorer)
    assert isinstance(clip, Clip)
    world = World(arguments.data, Model(arguments).system.size)
    judge = Judge(clip, world)
    arguments.out.mkdir(parents=True, exist_ok=True)
    asked, source = world.held_out(arguments.n)
    real = judge.see(world.pictures(source))
    alone, fast = replace(arguments, adapter=()), Arm("fast", arguments, judge, asked)
    n = fast.evaluations
    others = {
        "alone": alone,
        "alone, as few": replace(alone, steps=max(1, n // 2)),
        "alone, as few, unguided": replace(alone, steps=n, guidance=1.0),
    }
    arms = {"fast": fast, **{name: Arm(name, how, judge, asked) for name, how in others.items()}}
    many = arms["alone"]
    numbers: Numbers = {}
    for name, arm in arms.items():
        numbers[f"retrieval top-1 of {CANDIDATES}, {name}"] = share(arm.right)
        numbers[f"style right, {name}"] = share(arm.styled)
        numbers |= distances(name, arm.seen, real)
        if arm is not many:
            numbers[f"retrieval, {name} over alone"] = ratio(arm.right, many.right)
            numbers[f"style, {name} over alone"] = ratio(arm.styled, many.styled)
    labels = [f"{a.prompt}, {a.style}" for a in asked[:PAIRS]]
    draw(arguments.out / "pairs.png", [many.pictures[:PAIRS], fast.pictures[:PAIRS]], labels, 5)
    told = {name: {**arm.settings, "evaluations": arm.evaluations} for name, arm in arms.items()}
    return {"prompts": len(asked), "arms": told, "numbers": {name: asdict(score) for name, score in numbers.items()}}


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    if not arguments.adapter:
        raise UserError("there is nothing to measure beside the model: name an adapter with --adapter")
    use_cores(arguments.threads)
    found = measure(arguments)
    write_json(arguments.out / "numbers.json", found)
    print(table(found["numbers"]))
    print("evaluations a picture:", ", ".join(f"{name} {arm['evaluations']}" for name, arm in found["arms"].items()))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
