import json
import os
import subprocess
import sys
from pathlib import Path

import killed
import launched
import tiny
import torch
from safetensors.torch import load_file

from diorama.training.checkpoint import checkpoints
from diorama.training.loop import fit

HERE = Path(__file__).parent


def run(*command, limit=240, **environment):
    """A Python script of this folder, which sees what this test sees."""
    paths = os.pathsep.join([*sys.path, str(HERE)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run([sys.executable, *map(str, command)], env=environment, capture_output=True, text=True, timeout=limit)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_killed_at_any_moment_it_ends_with_the_same_weights(tmp_path):
    out, whole = tmp_path / "killed", tmp_path / "whole"
    assert int(run(HERE / "killed.py", out)) > 2
    fit(tiny.Toy(), tiny.ToyBatches(), killed.PLAN, whole)
    ends = [checkpoints(folder / "checkpoints")[-1] for folder in (out, whole)]
    assert {path.name for path in ends} == {"step-00000030"}
    for name in ("model", "ema", "optimizer-0"):
        assert len({(path / f"{name}.safetensors").read_bytes() for path in ends}) == 1
    logs = [[json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()] for folder in (out, whole)]
    assert [(e["step"], e["loss"]) for e in logs[0]] == [(e["step"], e["loss"]) for e in logs[1]]
    assert not list((out / "checkpoints").glob(".*"))


def test_two_launched_processes_are_one_with_twice_the_batch(tmp_path):
    """`accelerate launch`, on two processors through gloo."""
    (tmp_path / "two").mkdir()
    arguments = ["--multi_gpu", "--num_processes", 2, "--num_machines", 1, "--main_process_port", 0, "--mixed_precision", "no"]
    run("-m", "accelerate.commands.launch", *arguments, "--dynamo_backend", "no", HERE / "launched.py", tmp_path / "two", 3)
    toy = tiny.Toy(dropout=0)
    losses = fit(toy, tiny.ToyBatches(6), launched.PLAN).losses
    main, other = (load_file(tmp_path / "two" / f"weights-{name}.safetensors")["weights"] for name in ("main", "other"))
    assert torch.equal(main, other)
    assert torch.allclose(main, tiny.weights(toy), atol=1e-5)
    assert torch.allclose(
        torch.tensor(json.loads((tmp_path / "two" / "losses.json").read_text())), torch.tensor(losses), rtol=1e-4
    )
    assert len((tmp_path / "two" / "log.jsonl").read_text().splitlines()) == 8  # one process writes
