"""How many flat pictures of the miniature world several processes make a second, by the clock: what training could take at most.

    python benchmarks/world_rate.py --processes 2 --rounds 5

Each process has one thread and a world of its own, and makes batches as training takes them, with scenes and captions.
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from timing import Spread, machine, report

from diorama.worlds.source import World


@dataclass(frozen=True)
class Arguments:
    """Time the world's pictures in several processes at once."""

    processes: int = 2
    rounds: int = 5
    seconds: float = 8.0  # of a round
    batch: int = 32
    size: int = 64
    json: Path | None = None


def pictures(seed: int, start: float, arguments: Arguments) -> float:
    """Pictures a second of the world `seed`, from the moment `start` on."""
    torch.set_num_threads(1)
    world, first = World(seed, 10**6, arguments.size), 0
    world.batch(0, arguments.batch)  # what is made once is made before
    time.sleep(max(0.0, start - time.time()))
    while (spent := time.time() - start) < arguments.seconds:
        world.batch(first, arguments.batch)
        first += arguments.batch
    return first / spent


def main() -> None:
    arguments = tyro.cli(Arguments)
    with ProcessPoolExecutor(arguments.processes) as pool:
        rounds = []
        for _ in range(arguments.rounds):
            start = time.time() + 3.0
            working = [pool.submit(pictures, seed, start, arguments) for seed in range(arguments.processes)]
            rounds.append([one.result() for one in working])
    rows = [{"what": "all together", "per second": Spread.of([sum(each) for each in rounds])}]
    rows += [{"what": f"process {k}", "per second": Spread.of([each[k] for each in rounds])} for k in range(arguments.processes)]
    report("The world by the clock: median (quartiles)", rows, machine(1) | {"size": arguments.size}, arguments.json)


if __name__ == "__main__":
    main()
