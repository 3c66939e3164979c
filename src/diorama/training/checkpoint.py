"""Training state on disk: complete or absent, never pickle.

A checkpoint is a folder `step-00001000` with state.json (a few numbers tell where the run stands),
model.safetensors, ema.safetensors and one optimizer file per phase. It is written beside its place and
renamed, so a process killed at any moment leaves the newest complete checkpoint as it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diorama.errors import UserError
from diorama.files import atomic_folder, read_json, write_json
from diorama.storage import read_tensors, write_tensors
from diorama.training.ema import Ema

FORMAT = 1


def trained(module: nn.Module) -> dict[str, Tensor]:
    """What training changes: the parameters that take gradients, and all buffers."""
    frozen = {name for name, p in module.named_parameters() if not p.requires_grad}
    return {name: value for name, value in module.state_dict().items() if name not in frozen}


def save_checkpoint(
    folder: Path, step: int, module: nn.Module, ema: Ema, optimizers: Sequence[torch.optim.Optimizer], keep: int, **state: object
) -> Path:
    """Write `folder/step-XXXXXXXX` and drop all but the newest `keep`, and whatever a killed process left half done."""
    target = folder / f"step-{step:08d}"
    folder.mkdir(exist_ok=True)
    with atomic_folder(target) as new:
        write_tensors(new / "model.safetensors", trained(module))
        write_tensors(new / "ema.safetensors", ema.shadow)
        for i, optimizer in enumerate(optimizers):
            write_tensors(new / f"optimizer-{i}.safetensors", _flatten(optimizer))
        write_json(new / "state.json", {"format_version": FORMAT, "step": step, "ema_updates": ema.updates, **state})
    for old in checkpoints(folder)[: -max(1, keep)]:
        old.rename(old.with_name(f".{old.name}.old"))  # hidden first: a checkpoint is complete as long as it has its name
    for rest in folder.glob(".step-*"):
        shutil.rmtree(rest, ignore_errors=True)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints here, oldest first."""
    return sorted(p for p in folder.glob("step-[0-9]*") if (p / "state.json").is_file())


def load_checkpoint(path: Path, module: nn.Module, ema: Ema, optimizers: Sequence[torch.optim.Optimizer]) -> Mapping[str, Any]:
    """Put everything back in place and return the state. Raises UserError where it is damaged or not this system's."""
    try:
        state = read_json(path / "state.json")
        updates = int(state["ema_updates"])
        names = ["model", "ema", *(f"optimizer-{i}" for i in range(len(optimizers)))]
        weights, shadow, *slots = (read_tensors(path / f"{name}.safetensors")[1] for name in names)
    except (UserError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"checkpoint {path} cannot be read ({error}): delete it to resume from the one before") from error
    _check(path, trained(module), weights)
    module.load_state_dict(weights, strict=False)
    ema.load(shadow, updates)
    for optimizer, flat in zip(optimizers, slots, strict=True):
        _unflatten(optimizer, flat)
    return state


def _check(path: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    shapes = [{name: value.shape for name, value in state.items()} for state in (wanted, found)]
    if differing := {name for name, _ in shapes[0].items() ^ shapes[1].items()}:
        other = f"checkpoint {path} is of another system or preset (first differing weight: {min(differing)})"
        raise UserError(f"{other}: use another --out")


def _flatten(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": value for i, slots in state.items() for name, value in slots.items()}


def _unflatten(optimizer: torch.optim.Optimizer, flat: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        i, name = key.split(".", 1)
        state.setdefault(int(i), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
