"""Where a computation runs and in which precision: decided here and nowhere else.

The decision asks what the processor can do, never how fast it happens to be, so the same machine always
decides the same. A bf16 matrix product without hardware units is a thousand times slower than fp32.
"""

from __future__ import annotations

import os
import platform
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from diorama.errors import UserError

DType = Literal["auto", "float32", "bfloat16"]
NAMES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@cache
def has_bfloat16_units() -> bool:
    """Whether this processor multiplies bf16 matrices in hardware (AMX or AVX512-BF16)."""
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


@dataclass(frozen=True)
class Ground:
    """The device and the precision a computation stands on."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")


def exactly(x: Tensor) -> AbstractContextManager[object]:
    """Inside, no autocast around it narrows what is computed from x. One without numbers (meta) knows no autocast."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def slow_backward(x: Tensor) -> bool:
    """Whether the gradient of attention is better taken in float32: in bf16 without AMX it takes up to four times as long."""
    return x.requires_grad and x.dtype == torch.bfloat16 and x.device.type == "cpu" and not torch.cpu._is_amx_tile_supported()


def ground(device: str = "auto", dtype: str = "auto") -> Ground:
    """The best ground there is, or the one asked for. Raises UserError where it cannot be had."""
    if dtype != "auto" and dtype not in NAMES:
        raise UserError(f"dtype {dtype!r} is not known: use auto, {' or '.join(NAMES)}")
    chosen = _device(device)
    if dtype == "auto":
        fast = has_bfloat16_units() if chosen.type == "cpu" else chosen.type == "cuda"
        return Ground(chosen, torch.bfloat16 if fast else torch.float32)
    if chosen.type == "cpu" and dtype == "bfloat16" and not has_bfloat16_units():
        raise UserError("dtype bfloat16 needs AMX or AVX512-BF16, which this processor lacks: use --dtype float32")
    return Ground(chosen, NAMES[dtype])


def _device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # a device that holds no numbers (meta) is none
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0][:80]
        raise UserError(f"device {name!r} cannot be used here ({reason}): use auto, cpu or cuda") from None
    return device


def processor_kind() -> str:
    """What decides how kernels round: architecture and vector units. Recipes record it."""
    units = "amx" if torch.cpu._is_amx_tile_supported() else torch.backends.cpu.get_cpu_capability().lower()
    return f"{platform.machine()}-{units}{'-bf16' if has_bfloat16_units() else ''}"


def use_cores(n: int | None = None) -> int:
    """Let torch use n cores (default: those this process may run on); returns how many it uses."""
    torch.set_num_threads(n or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else n or os.cpu_count() or 1)
    return torch.get_num_threads()
