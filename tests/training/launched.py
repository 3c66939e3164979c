"""Trains a toy on as many processes as were launched; each leaves its weights, the main one the losses."""

import json
import sys
from pathlib import Path

import tiny
import torch
from safetensors.torch import save_file

from diorama.training.loop import fit, main_first
from diorama.training.plan import Plan

PLAN = Plan(steps=8, lr=0.01, warmup=2, log_every=1, sample_every=4, save_minutes=0, device="cpu", dtype="float32")


def main(out: Path, n: int) -> None:
    torch.set_num_threads(1)
    toy = tiny.Toy(dropout=0)
    with main_first(PLAN) as main_one:
        if not main_one:
            assert (out / "made").is_file()
            torch.nn.init.zeros_(toy.net[0].weight)  # where processes differ, the main one's weights hold
        (out / "made").touch()
    history = fit(toy, tiny.ToyBatches(n), PLAN, out, held_out=tiny.ToyBatches())
    save_file({"weights": tiny.weights(toy)}, out / f"weights-{'main' if main_one else 'other'}.safetensors")
    if main_one:
        (out / "losses.json").write_text(json.dumps(history.losses))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
