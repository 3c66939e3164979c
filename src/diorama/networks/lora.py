"""Low-rank adapters: a trained network changed by a few weights beside its own (Hu et al. 2021, LoRA, arXiv 2106.09685)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diorama.errors import UserError
from diorama.files import atomic_folder, read_json, write_json
from diorama.models import ADAPTER, ADAPTER_WEIGHTS, FORMAT_VERSION
from diorama.networks.layers import CONVOLUTIONS, zeroed
from diorama.storage import Storage, read_weights, write_weights

LAYERS: tuple[type[nn.Module], ...] = (nn.Linear, *CONVOLUTIONS.values())
KEY = "base_model.model.{}.lora_{}.weight"  # as peft names layer and side


class LoRA(nn.Module):
    """W x + B A x: a linear or convolutional layer that stays, and a narrow pair beside it that learns. B begins at zero."""

    def __init__(self, base: nn.Module, rank: int):
        super().__init__()
        self.base = base
        self.lora_A, self.lora_B = _pair(base, rank)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.lora_B(self.lora_A(x))


def _pair(base: nn.Module, rank: int) -> tuple[nn.Module, nn.Module]:
    """One that looks where the layer looks and sees little, and one that brings this out at every place alone."""
    if isinstance(base, nn.Linear):
        return nn.Linear(base.in_features, rank, bias=False), zeroed(nn.Linear(rank, base.out_features, bias=False))
    kind: Any = type(base)
    place = {name: getattr(base, name) for name in ("stride", "padding", "dilation")}
    inlet = kind(base.in_channels, rank, base.kernel_size, bias=False, **place)
    return inlet, zeroed(kind(rank, base.out_channels, 1, bias=False))


def wrap(module: nn.Module, names: str, rank: int) -> None:
    """Freeze the module, and give every linear and convolutional layer whose whole name matches `names` a LoRA of this rank."""
    if rank < 1:
        raise UserError(f"rank {rank} is not allowed: use 1 or more")
    module.requires_grad_(False)
    for name, layer in [*module.named_modules()]:
        if isinstance(layer, LAYERS) and re.fullmatch(names, name):
            module.set_submodule(name, LoRA(layer, rank).to(next(layer.parameters())))


def unwrap(module: nn.Module) -> Adapter:
    """Put the module's own layers back, as they were; what was learned beside them."""
    adapter = Adapter.of(module)
    for name in adapter.layers:
        module.set_submodule(name, module.get_submodule(name).base)  # type: ignore[arg-type]
    return adapter


@dataclass(frozen=True, eq=False)
class Adapter:
    """What LoRAs learned: A (r, in, *kernel) and B (out, r, *1) of each layer, by the layer's name."""

    layers: Mapping[str, tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, module: nn.Module) -> Adapter:
        """What the LoRAs within this module learned."""
        found = {name: (layer.lora_A, layer.lora_B) for name, layer in module.named_modules() if isinstance(layer, LoRA)}
        return cls({name: (next(a.parameters()).detach(), next(b.parameters()).detach()) for name, (a, b) in found.items()})

    @cached_property
    def deltas(self) -> dict[str, Tensor]:
        """What each layer's weight grows by."""
        return {name: torch.einsum("o r, r ... -> o ...", b.flatten(1), a) for name, (a, b) in self.layers.items()}

    @torch.no_grad()
    def merge(self, module: nn.Module, scale: float = 1.0) -> Callable[[], None]:
        """Add it to the module's own weights, `scale` times: several add up. What is returned puts them back, bit for bit.

        Raises UserError where the module has no such layers.
        """
        weights = {name: _weight(module, name, delta.shape) for name, delta in self.deltas.items()}
        before = {name: weight.clone() for name, weight in weights.items()}
        for name, weight in weights.items():
            weight += scale * self.deltas[name].to(weight)

        @torch.no_grad()
        def restore() -> None:
            for name, weight in weights.items():
                weight.copy_(before[name])

        return restore

    def save(self, folder: str | Path, base: str = "", storage: Storage = "float32", **about: Any) -> None:
        """adapter_config.json and adapter_model.safetensors, as peft has them: all or nothing. `base` names the model."""
        rank = max(len(a) for a, _ in self.layers.values())
        config = {
            "peft_type": "LORA",
            "base_model_name_or_path": base,
            "r": rank,
            "lora_alpha": rank,
            "target_modules": list(self.layers),
            "diorama": {"format_version": FORMAT_VERSION, **about},
        }
        with atomic_folder(folder, replaces=ADAPTER) as new:
            write_json(new / ADAPTER, config)
            write_weights(new / ADAPTER_WEIGHTS, self.sides(KEY), storage)

    def sides(self, key: str) -> dict[str, Tensor]:
        """A and B of every layer under a key that has a place for the layer's name, and one for the side."""
        return {key.format(name, side): w for name, pair in self.layers.items() for side, w in zip("AB", pair, strict=True)}

    @classmethod
    def read(cls, folder: str | Path) -> Adapter:
        """The adapter in float32, its alpha / r within B. Raises UserError for a missing or damaged file, and for another kind."""
        config, sides = read_json(Path(folder) / ADAPTER), read_weights(Path(folder) / ADAPTER_WEIGHTS)
        downs, ups = (_side(sides, side) for side in "AB")
        if not isinstance(config, dict) or config.get("peft_type") != "LORA" or not _fit(downs, ups, len(sides)):
            raise UserError(f"{folder} holds no LoRA adapter that diorama knows: give a folder that `diorama personalize` wrote")
        rank = config.get("r")
        alpha = config.get("lora_alpha", rank)
        if not (isinstance(rank, int) and rank > 0 and isinstance(alpha, (int, float))):
            raise UserError(f"{Path(folder) / ADAPTER}: r {rank!r} and lora_alpha {alpha!r} are not a rank and a number: mend it")
        return cls({name: (a, alpha / rank * ups[name]) for name, a in downs.items()})


def told_of(folder: Path) -> dict[str, Any]:
    """What diorama wrote about an adapter beside what peft knows; nothing where another tool wrote it."""
    config = read_json(folder / ADAPTER)
    told = config.get("diorama") if isinstance(config, dict) else None
    return told if isinstance(told, dict) else {}


def _side(sides: Mapping[str, Tensor], side: str) -> dict[str, Tensor]:
    """The tensors of A or of B by their layers."""
    start, end = KEY.format("|", side).split("|")
    return {key[len(start) : -len(end)]: w for key, w in sides.items() if key.startswith(start) and key.endswith(end)}


def _fit(downs: Mapping[str, Tensor], ups: Mapping[str, Tensor], n: int) -> bool:
    """Whether these are pairs, and all of the n tensors there are."""
    return (
        0 < 2 * len(downs) == n
        and downs.keys() == ups.keys()
        and all(a.ndim == ups[name].ndim >= 2 and len(a) == ups[name].shape[1] for name, a in downs.items())
    )


def _weight(module: nn.Module, name: str, shape: torch.Size) -> Tensor:
    """The weight of this layer, of this shape."""
    try:
        weight: Tensor = module.get_submodule(name).weight  # type: ignore[assignment]
    except AttributeError:
        raise UserError(f"the adapter does not fit the model (no layer {name}): use the model it was made for") from None
    if weight.shape != shape:
        off = f"{tuple(weight.shape)}, not {tuple(shape)}, at {name}"
        raise UserError(f"the adapter does not fit the model ({off}): use the model it was made for")
    return weight
