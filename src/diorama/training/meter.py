"""What work costs, counted as it is done: FLOPs, and the bytes that are alive.

Counted are the FLOPs of matrix products, convolutions and attention, forward and backward (two for a multiply and an add). Not
counted: everything element by element, norms, reductions, Fourier transforms, and work outside torch or in threads of its own.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten


class OverBudget(Exception):
    """The work has passed what was left to spend."""


class Meter(TorchDispatchMode):
    """Counts `tflop`, and raises OverBudget within the operation that passes `limit`.

    torch's own FlopCounterMode follows modules and takes twice as long, which a small network feels.
    """

    def __init__(self, limit: float):
        super().__init__()
        self.limit, self.tflop = limit, 0.0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # asking the compiler to look away would import it, for seconds

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        if _is_composite(function):  # as in inference mode, where a linear layer arrives whole
            with self:
                return function.decompose(*arguments, **options)
        out = function(*arguments, **options)
        if (flops := FLOPS.get(function.overloadpacket)) is not None:
            self.tflop += flops(*arguments, **options, out_val=out) / 1e12
            if self.tflop > self.limit:
                raise OverBudget
        return out


@cache
def _is_composite(function: Any) -> bool:
    return bool(function.has_kernel_for_dispatch_key(torch.DispatchKey.CompositeImplicitAutograd))


FLOPS = {  # attention on a processor is an operation of its own, which torch leaves out
    **flop_registry,
    aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[aten._scaled_dot_product_flash_attention],
    aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[aten._scaled_dot_product_flash_attention_backward],
}


class Alive(TorchDispatchMode):
    """Every storage on the meta device, from its birth to its end, operation by operation."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[int, int]] = []  # a storage's number, the bytes that came or went
        self.number: dict[int, int] = {}  # of the storage at this address

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # as above

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        out = function(*arguments, **(options or {}))
        self.hold(tree_leaves(out))
        return out

    def know(self, tensors: Iterable[Tensor]) -> None:
        """These were there before, and are not counted."""
        self.number |= {x.untyped_storage()._cdata: -1 for x in tensors}

    def hold(self, found: Iterable[Any]) -> None:
        for x in found:
            if isinstance(x, Tensor) and x.is_meta and (storage := x.untyped_storage())._cdata not in self.number:
                number, size = len(self.events), storage.nbytes()
                self.number[storage._cdata] = number
                self.events.append((number, size))
                weakref.finalize(storage, self._end, storage._cdata, number, size)

    def _end(self, address: int, number: int, size: int) -> None:
        del self.number[address]
        self.events.append((number, -size))

    def numbers(self, tensors: Iterable[Tensor]) -> set[int]:
        return {self.number[x.untyped_storage()._cdata] for x in tensors}
