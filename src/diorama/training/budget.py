"""What a step of training takes, before there is anything to train on: bytes at every moment, and FLOPs.

The real step runs on tensors without numbers, and every storage is followed from its birth to its end. At each moment the bytes
alive are linear in the batch, so two traces say the peak of any batch. What kernels take for themselves, and what an allocator
loses between its blocks, is not seen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from diorama.training.blank import Blank
from diorama.training.meter import Alive, Meter
from diorama.types import Batch

FEW = 2  # samples of the smaller trace


@dataclass(frozen=True)
class Sharing:
    """How the processes of a run share what a step holds (Rajbhandari et al. 2020, ZeRO): each stage shares one thing more.

    0 is the loop's own data parallelism, where every process holds all; 1 the optimiser and the average, 2 gradients, 3 weights.
    """

    processes: int = 1
    stage: int = 0
    accumulated: bool = False  # whether gradients are, over several batches

    def of(self, stage: int) -> int:
        """Among how many that which is shared from this stage on is divided."""
        return self.processes if self.stage >= stage else 1


@dataclass(frozen=True, eq=False)
class Footprint:
    """What one step of a system holds on one device and does, for any number of samples up to the traced one."""

    trained: int  # bytes of the weights that learn
    frozen: int  # bytes of all other weights and of the buffers
    block: int  # bytes of the largest block of weights
    fixed: Tensor  # (moments,) bytes alive beside weights and gradients, without a sample
    slope: Tensor  # (moments,) bytes more with each sample
    gradients: Tensor  # (moments,) bytes
    flops: float  # of a sample, forward and backward

    def held(self, sharing: Sharing) -> dict[str, float]:
        """Bytes that are there at every moment, in float32: the loop's AdamW has two numbers per weight, its average one."""
        several, gathered = sharing.processes > 1, 2 * self.block if sharing.of(3) > 1 else 0  # a block, and the one after it
        return {
            "weights": self.frozen + self.trained / sharing.of(3) + gathered,
            "buckets": self.trained if several and sharing.stage < 2 else 0,  # in which gradients travel
            "optimiser": 2 * self.trained / sharing.of(1),
            "average": self.trained / sharing.of(1),
        }

    def peak(self, n: int, sharing: Sharing) -> float:
        """The most bytes at any moment of a step on n samples."""
        return sum(self.held(sharing).values()) + (self.activations(n) + self._gradients(sharing)).max().item()

    def activations(self, n: int) -> Tensor:
        """(moments,) bytes."""
        return self.fixed + n * self.slope

    def most(self, room: float, sharing: Sharing) -> int:
        """How many samples fit into this many bytes; 0 where none does."""
        left = room - sum(self.held(sharing).values()) - self.fixed - self._gradients(sharing)
        grows = self.slope > 0
        return 0 if (left < 0).any() else math.floor((left[grows] / self.slope[grows]).min().item())

    def _gradients(self, sharing: Sharing) -> Tensor:
        """(moments,) bytes. Where they are accumulated, those of the batch before are there from the start."""
        return (self.gradients.max() if sharing.accumulated else self.gradients) / sharing.of(2)


def footprint(system: nn.Module, batch_of: Callable[[int], Batch], n: int, dtype: torch.dtype) -> Footprint:
    """Of a system on the meta device and batches of up to n samples."""
    n = max(n, FEW + 1)
    few, many = (_trace(system, batch_of(size), dtype) for size in (FEW, n))
    assert len(few.rest) == len(many.rest), "what is done depends on the size of the batch"
    slope = (many.rest - few.rest) / (n - FEW)
    trained = _bytes(p for p in system.parameters() if p.requires_grad)
    blocks = [_bytes(block.parameters()) for layers in system.modules() if isinstance(layers, nn.ModuleList) for block in layers]
    return Footprint(
        trained=trained,
        frozen=_bytes([*system.parameters(), *system.buffers()]) - trained,
        block=max(blocks, default=trained),
        fixed=few.rest - FEW * slope,
        slope=slope,
        gradients=many.gradients,
        flops=many.flops / n,
    )


class _Trace(NamedTuple):
    rest: Tensor  # (moments,) float64
    gradients: Tensor
    flops: float


def _trace(system: nn.Module, batch: Batch, dtype: torch.dtype) -> _Trace:
    """The loss and its gradient, phase by phase as the loop takes them, and what was alive meanwhile."""
    alive, meter = Alive(), Meter(math.inf)
    alive.know([*system.parameters(), *system.buffers()])
    alive.hold([batch.image if batch.latent is None else batch.latent])
    kept: set[int] = set()
    with alive, meter, Autocast(dtype):
        for i in range(len(system.phases())):  # type: ignore[operator]
            system(i, batch, Blank(len(batch))).float().mean().backward()
            kept |= alive.numbers(p.grad for p in system.parameters() if p.grad is not None)
            system.zero_grad(set_to_none=True)
    number, bytes = torch.tensor(alive.events, dtype=torch.float64).unbind(1)
    gradient = torch.isin(number, torch.tensor(sorted(kept), dtype=torch.float64))
    return _Trace((bytes * ~gradient).cumsum(0), (bytes * gradient).cumsum(0), 1e12 * meter.tflop)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(x.untyped_storage().nbytes() for x in tensors)


class Autocast(TorchFunctionMode):
    """What torch's autocast does to operations on CUDA, which leaves tensors without numbers alone; and attention in one kernel."""

    NARROW = re.compile("linear|(__)?matmul(__)?|mm|bmm|(b?add)?b?mm|einsum|conv(_transpose)?[123]d|scaled_dot_product_attention")
    WIDE = re.compile(
        "(group|layer)_norm|(log_)?softmax|softplus|(cross_entropy|nll|mse|l1|smooth_l1)(_loss)?|kl_div|binary_cross_entropy_with_logits"
        "|cosine_similarity|normalize|norm|cdist|exp(m1)?|log(1p)?|(__)?pow(__)?|reciprocal|rsqrt|(cum)?(sum|prod)"
    )

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        name, options = getattr(function, "__name__", ""), options or {}
        if self.dtype != torch.float32 and (self.NARROW.fullmatch(name) or self.WIDE.fullmatch(name)):
            dtype = self.dtype if self.NARROW.fullmatch(name) else torch.float32
            arguments, options = tree_map_only(
                Tensor, lambda x: x.to(dtype) if x.is_floating_point() else x, (arguments, options)
            )
        if name == "scaled_dot_product_attention":
            return _attention(*arguments, **options)
        return function(*arguments, **options)


def _attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False, **_: Any) -> Tensor:
    """As the kernels have it that never store the scores of all pairs."""
    bias = None if attn_mask is None else attn_mask.to(q.dtype)
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, is_causal, attn_mask=bias)[0]
