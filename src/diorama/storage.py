"""Weights on disk: one safetensors file, in float32, bfloat16 or int8, always read back as float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diorama.errors import UserError
from diorama.files import atomic_file

Storage = Literal["float32", "bfloat16", "int8"]

SCALE = ".scale"  # the int8 tensor `w` has its scales beside it as `w.scale`
LEVELS = 127  # symmetric: -128 is not used


def write_weights(
    path: str | Path, state: Mapping[str, Tensor], storage: Storage = "float32", metadata: Mapping[str, str] | None = None
) -> None:
    """The state in one file, atomically. Floating tensors of two or more axes take the storage type, vectors stay float32.

    int8 is symmetric with one scale per output channel (axis 0), an error of at most 1/254 of the channel's largest weight.
    Integers and booleans stay as they are. Raises UserError for an unknown storage or a weight that is not finite.
    """
    if storage not in get_args(Storage):
        raise UserError(f"storage {storage!r} is not known: use {', '.join(get_args(Storage))}")
    stored = {k: v for name, tensor in state.items() for k, v in _store(name, tensor, storage, state).items()}
    write_tensors(path, stored, {**(metadata or {}), "storage": storage})


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The state as it was given, floating tensors in float32 on the processor. Raises UserError for an absent or damaged file."""
    metadata, stored = read_tensors(path)
    if metadata.get("storage") != "int8":
        return {name: _widen(tensor) for name, tensor in stored.items()}
    scaled = [name for name, tensor in stored.items() if tensor.dtype == torch.int8 and name + SCALE in stored]
    scales = {name: stored.pop(name + SCALE) for name in scaled}
    return {name: _dequantise(tensor, scales[name]) if name in scales else _widen(tensor) for name, tensor in stored.items()}


def read_metadata(path: str | Path) -> dict[str, str]:
    """The file's metadata: `format`, `storage` and whatever the writer added. Raises UserError as `read_weights` does."""
    return _load(path, only_metadata=True)[0]


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """The tensors as they are in one file, atomically. Raises UserError where it cannot be written."""
    stored = _apart({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    with atomic_file(path) as temporary:
        try:
            save_file(stored, temporary, metadata={**(metadata or {}), "format": "pt"})
        except SafetensorError as error:  # a full disk comes as this, not as an OSError
            raise UserError(f"cannot write {path} ({_line(error)}): free some space or write elsewhere") from error


def read_tensors(path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors as they were written. Raises UserError for an absent or damaged file."""
    return _load(path)


def kept(file: Path | None, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors in this file where they were made under the same key; else they are made, and written there if there is a file."""
    if file and file.is_file() and read_metadata(file).get("key") == key:
        return read_tensors(file)[1]
    made = make()
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(file, made, {"key": key})
    return made


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(o, ...) floating -> int8 of the same shape and float32 scales (o,): weight is about int8 * scale."""
    rows = weight.float().flatten(1)
    scale = rows.abs().amax(1).div(LEVELS).clamp_min(torch.finfo(torch.float32).tiny)
    return (rows / scale[:, None]).round().clamp(-LEVELS, LEVELS).to(torch.int8).reshape(weight.shape), scale


def _dequantise(weight: Tensor, scale: Tensor) -> Tensor:
    return weight.float().mul_(scale.float().reshape(-1, *[1] * (weight.ndim - 1)))


def _store(name: str, tensor: Tensor, storage: Storage, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What goes to disk for one tensor: itself, narrowed, or its int8 numbers with their scales."""
    tensor = tensor.detach()
    if not tensor.is_floating_point():
        return {name: tensor}
    if tensor.ndim < 2 or not tensor.numel() or storage == "float32":
        return {name: tensor.float()}
    if storage == "bfloat16":
        return {name: tensor.bfloat16()}
    if name + SCALE in state:
        raise ValueError(f"{name} and {name + SCALE} cannot both be stored in int8")
    if not tensor.isfinite().all():
        raise UserError(f"weight {name} is not finite: the training diverged, go back to an earlier checkpoint")
    weight, scale = quantise(tensor)
    return {name: weight, name + SCALE: scale}


def _apart(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tied weights each with memory of their own: safetensors refuses shared ones."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in state.items():
        pointer = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if pointer in seen else tensor
        seen.add(pointer)
    return apart


def _load(path: str | Path, only_metadata: bool = False) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not Path(path).is_file():
        raise UserError(f"weights file {path} is not there: fetch or train it")
    try:
        with safe_open(path, framework="pt") as file:
            names = [] if only_metadata else file.keys()
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise UserError(f"weights file {path} is damaged or truncated: fetch or train it again ({_line(error)})") from error
    except OSError as error:
        raise UserError(f"weights file {path} cannot be read ({_line(error)}): check its permissions") from error


def _widen(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _line(error: Exception) -> str:
    return str(error).splitlines()[0][:100] if str(error) else type(error).__name__
