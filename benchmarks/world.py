"""Pictures of the miniature world: flat, and from cameras in space, beside a training step that would use them.

    OMP_NUM_THREADS=1 python benchmarks/world.py --rounds 7

A flat picture comes with its masks and boxes but where it is alone, one in space with depth, normals and masks too; scenes are made
beforehand but for the row that says so. The last column is the share of a step of `flow` that drawing its batch takes, round by round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models
import tyro
from timing import Spread, alternate, machine, ratio, report
from training import batch_of

from diorama.scenes.cameras import orbit
from diorama.types import Noise
from diorama.worlds.points import scan
from diorama.worlds.render import pictures, render
from diorama.worlds.scene import scene
from diorama.worlds.source import World
from diorama.worlds.views import shoot


@dataclass(frozen=True)
class Arguments:
    """Time batches of the world's pictures."""

    rounds: int = 7
    batch: int = 32
    size: int = 64
    views: int = 4
    preset: str = "mini"  # of the training step
    threads: int | None = None
    json: Path | None = None


def main() -> None:
    arguments = tyro.cli(Arguments)
    about = machine(arguments.threads)
    n, size, views = arguments.batch, arguments.size, arguments.views
    scenes, world = [scene(0, i) for i in range(n)], World(1, n, size)
    system = models.flow(arguments.preset).train()
    batch, noise = batch_of(system, n), Noise(range(n))

    arms: dict[str, tuple[int, Callable[[], Any]]] = {
        "flat": (n, lambda: render(scenes, size)),
        "flat, alone": (n, lambda: pictures(scenes, size)),
        "flat, with scenes and captions": (n, lambda: world.batch(0, n)),
        "in space, one view": (n, lambda: shoot(scenes, orbit(1, size=size))),
        f"in space, {views} views": (n * views, lambda: shoot(scenes, orbit(views, size=size))),
        "scans of 3072 beams": (n, lambda: scan(scenes)),
        "training step": (n, lambda: system.loss(batch, noise).mean().backward()),
    }
    times = alternate({name: action for name, (_, action) in arms.items()}, arguments.rounds)
    rows = []
    for name, (count, _) in arms.items():
        share = ratio(times[name], times["training step"])
        rows.append({"what": name, "per second": Spread.of([count / t for t in times[name]]), "share of a step": share})
    about |= {"size": size, "batch": n, "preset": arguments.preset}
    report("The world: median (quartiles)", rows, about, arguments.json)


if __name__ == "__main__":
    main()
