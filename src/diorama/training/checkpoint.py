"""Training state on disk: complete or absent, never pickle.

A checkpoint is a folder `step-00001000` with state.json (two integers tell where the data stands),
model.safetensors, ema.safetensors and one optimizer file per phase. It is written beside its place and
renamed, so a process killed at any moment leaves the newest complete checkpoint as it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diorama.errors import UserError
from diorama.files import atomic_folder, read_json, write_json
from diorama.training.ema import Ema

FORMAT = 1


def trained(module: nn.Module) -> dict[str, Tensor]:
    """What training changes: parameters with gradients, and buffers of modules that hold such parameters."""
    frozen = {name for name, p in module.named_parameters() if not p.requires_grad}
    parts = {name.rpartition(".")[0] for name in frozen}
    return {k: v for k, v in module.state_dict().items() if k not in frozen and k.rpartition(".")[0] not in parts}


def save_checkpoint(
    folder: Path, step: int, module: nn.Module, ema: Ema, optimizers: Sequence[torch.optim.Optimizer], keep: int = 2, **state: object
) -> Path:
    """Write `folder/step-XXXXXXXX` and drop all but the newest `keep`."""
    target = folder / f"step-{step:08d}"
    folder.mkdir(exist_ok=True)
    with atomic_folder(target) as new:
        save_file({k: v.contiguous() for k, v in trained(module).items()}, new / "model.safetensors")
        save_file({k: v.contiguous() for k, v in ema.shadow.items()}, new / "ema.safetensors")
        for i, optimizer in enumerate(optimizers):
            save_file(_flatten(optimizer), new / f"optimizer-{i}.safetensors")
        write_json(new / "state.json", {"format_version": FORMAT, "step": step, "ema_updates": ema.updates, **state})
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints here, oldest first."""
    return sorted(p for p in folder.glob("step-[0-9]*") if p.is_dir() and (p / "state.json").is_file() and ".tmp" not in p.name)


def load_checkpoint(path: Path, module: nn.Module, ema: Ema, optimizers: Sequence[torch.optim.Optimizer]) -> Mapping[str, object]:
    """Put everything back in place and return the state. Raises UserError where the checkpoint is not this system's."""
    try:
        state = read_json(path / "state.json")
        missing, unexpected = module.load_state_dict(load_file(path / "model.safetensors"), strict=False)
        wanted = set(trained(module))
        if lost := [k for k in missing if k in wanted] + list(unexpected):
            raise UserError(f"checkpoint {path} is of another system or preset (first differing weight: {lost[0]}): choose another --out")
        ema.load(load_file(path / "ema.safetensors"), int(state["ema_updates"]))
        for i, optimizer in enumerate(optimizers):
            _unflatten(optimizer, load_file(path / f"optimizer-{i}.safetensors"))
    except UserError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(f"checkpoint {path} cannot be read ({reason}): delete it to resume from the one before") from None
    return state


def _flatten(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": value.contiguous() for i, slots in state.items() for name, value in slots.items()}


def _unflatten(optimizer: torch.optim.Optimizer, flat: Mapping[str, Tensor]) -> None:
    whole = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        i, name = key.split(".", 1)
        state.setdefault(int(i), {})[name] = value
    optimizer.load_state_dict({**whole, "state": state})
