"""Trains a toy in children that are killed with SIGKILL at random moments, until one reaches the end. Prints the kills."""

import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import tiny
import torch

from diorama.training.checkpoint import checkpoints
from diorama.training.loop import fit
from diorama.training.plan import Plan

PLAN = Plan(steps=30, lr=0.01, warmup=2, log_every=1, save_minutes=0, device="cpu", dtype="float32")  # saves after every step


def train(out: Path) -> None:
    fit(tiny.Toy(), tiny.ToyBatches(), PLAN, out)


def steps(out: Path) -> int:
    """How far the newest checkpoint is."""
    return max((int(path.name.removeprefix("step-")) for path in checkpoints(out / "checkpoints")), default=0)


def main(out: Path) -> None:
    torch.set_num_threads(1)
    fit(tiny.Toy(), tiny.ToyBatches(), replace(PLAN, steps=1))  # all that is imported late: a child is at work at once
    draw, kills = random.Random(0), 0
    while True:
        child, goal = (
            os.fork(),
            steps(out) + draw.randint(0, 4),
        )  # in steps, so that a fast machine is not done before the first kill
        if child == 0:
            train(out)
            os._exit(0)
        done, status = 0, 0
        while not done and steps(out) < goal:
            done, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.001)
        if not done:
            time.sleep(draw.uniform(0, 0.01))  # anywhere within a step, while it saves too
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        kills += 1
    print(kills)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
