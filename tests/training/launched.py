"""Trains a toy on as many processes as were launched, the last of which is told to end in the middle; each leaves its weights, the
main one the losses."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import save_file

from diorama.training.loop import fit, main_first
from diorama.training.plan import Plan

PLAN = Plan(steps=8, lr=0.01, warmup=2, log_every=1, sample_every=4, save_minutes=0, device="cpu", dtype="float32")


class Asked(tiny.ToyBatches):
    def __call__(self, step, rank=0, world=1):
        if (step, rank) == (3, 1):
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__call__(step, rank, world)


def main(out: Path, n: int) -> None:
    torch.set_num_threads(1)
    toy = tiny.Toy(dropout=0)
    with main_first(PLAN) as main_one:
        if not main_one:
            assert (out / "made").is_file()
            torch.nn.init.zeros_(toy.net[0].weight)  # where processes differ, the main one's weights hold
        (out / "made").touch()
    with pytest.raises(KeyboardInterrupt, match="^step 4 of 8 is saved"):  # no process goes on alone
        fit(toy, Asked(n), PLAN, out)
    history = fit(toy, tiny.ToyBatches(n), PLAN, out, held_out=tiny.ToyBatches())
    save_file({"weights": tiny.weights(toy)}, out / f"weights-{'main' if main_one else 'other'}.safetensors")
    if main_one:
        (out / "losses.json").write_text(json.dumps(history.losses))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
