"""What every system is: parts as fields, a loss, a verb; saved once and read for ever."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar, cast, get_type_hints

import torch
from torch import Tensor, nn

from diorama.cards import Card, find, system_class
from diorama.errors import UserError
from diorama.files import atomic_folder, write_json
from diorama.models import FORMAT_VERSION, INDEX, index_of
from diorama.parts import Part
from diorama.storage import Storage
from diorama.training.loop import Phase
from diorama.types import Batch, Noise

Kind = TypeVar("Kind", bound="Part | System")


class TakePart(Protocol):
    """A trained part by the name of its field; or a whole trained system, where one stands on another."""

    def __call__(self, name: str, kind: type[Kind]) -> Kind: ...


class System(nn.Module):
    """A named composition of parts. Subclasses are dataclasses (eq=False): module fields are parts, the rest settings.

    `forward` is the loss of a phase, so that data-parallel wrappers see every parameter.
    """

    card: ClassVar[Card]
    learns_masks: ClassVar[bool] = False  # whether it asks the world for the masks of what its pictures show
    learns_form: ClassVar[str | None] = None  # of the world's captions, where it asks for one
    needs_labels: ClassVar[bool] = False  # whether there is nothing to learn from a picture without one of its labels
    origin: Path | None = None  # the folder it was read from
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]  # every subclass is a dataclass

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        nn.Module.__init__(self)  # before a dataclass's __init__ sets the first part
        return self

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        """One number per sample, (b,)."""
        raise NotImplementedError

    # --- training ---------------------------------------------------------------------------------

    @classmethod
    def new(cls, *, preset: str, size: int, labels: Sequence[str], part: TakePart) -> Self:
        """A new, untrained system for pictures of this size and these labels; `part(name, kind)` gives a trained part to stand on."""
        raise UserError(
            f"system {cls.card.slug!r} is not trained from pictures and captions: `diorama show {cls.card.slug}` says how"
        )

    @property
    def known_labels(self) -> tuple[str, ...]:
        """The labels that its training reads, in their order; none by default."""
        return ()

    def begin(self, part: TakePart) -> None:
        """Before training, whether new or gone on with: what only training stands on is taken here. Nothing by default."""

    def encode(self, batch: Batch) -> Batch:
        """The batch with what its frozen parts see in it. Nothing by default."""
        return batch

    @property
    def cacheable(self) -> bool:
        """Whether what `encode` sees is all that training reads of an item, and so worth keeping."""
        return False

    def look(self, batch: Batch, noise: Noise) -> Tensor:
        """Pictures (b, 4, h, w) that show a person how training goes, for these held-out items."""
        return batch.image

    def finish(self, batch: Batch) -> None:
        """After training, with held-out items: measured constants are set here. Nothing by default."""

    def phases(self) -> Sequence[Phase]:
        return [Phase("loss", [p for p in self.parameters() if p.requires_grad], self.loss)]

    def after_backward(self, step: int, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Between the gradient and the optimizer's step; nothing by default."""

    def forward(self, phase: int, batch: Batch, noise: Noise) -> Tensor:
        return self.phases()[phase].loss(batch, noise)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    # --- on disk ----------------------------------------------------------------------------------

    @classmethod
    def part_types(cls) -> dict[str, type[Part]]:
        hints = get_type_hints(cls)
        return {f.name: hints[f.name] for f in fields(cls) if isinstance(hints[f.name], type) and issubclass(hints[f.name], Part)}

    def save_pretrained(self, folder: str | Path, storage: Storage = "float32", **about: Any) -> None:
        """model_index.json and one folder per part; `about` (name, licence ...) goes into the index. All of it or nothing."""
        parts = self.part_types()
        settings = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in parts}
        index = {
            "_class_name": type(self).__name__,
            "format_version": FORMAT_VERSION,
            "system": self.card.slug,
            **about,
            "settings": settings,
            "parameters": {name: sum(p.numel() for p in getattr(self, name).parameters()) for name in parts},
            **{name: ["diorama", type(getattr(self, name)).__name__] for name in parts},
        }
        self.check_apart(folder)
        with atomic_folder(folder, replaces=INDEX) as new:
            write_json(new / INDEX, index)
            for name in parts:
                (new / name).mkdir()
                getattr(self, name).write(new / name, storage)

    def check_apart(self, folder: str | Path) -> None:
        """Raises UserError where writing this folder as a whole would harm the files the system was read from."""
        target, own = Path(folder).resolve(), self.origin
        if own and (target.is_relative_to(own) or own.is_relative_to(target)):
            raise UserError(f"cannot write {folder} (the model was read from {own}): name a folder beside that")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """The system that `save_pretrained` wrote there. Raises UserError where it is missing, damaged or newer."""
        folder = Path(folder)
        index = index_of(folder)
        settings = {k: tuple(v) if isinstance(v, list) else v for k, v in index.get("settings", {}).items()}
        if unknown := set(settings) - {f.name for f in fields(cls)}:
            other = f"{folder / INDEX} does not describe a {cls.__name__} (unknown setting {min(unknown)})"
            raise UserError(f"{other}: fetch or make it again")
        parts = {name: _kind(part, index.get(name)).from_pretrained(folder / name) for name, part in cls.part_types().items()}
        system = cls(**parts, **settings).eval()
        system.origin = folder.resolve()
        return system


def _kind(part: type[Any], written: Any) -> type[Any]:
    """The class a part was written as: the field's own, or one of its kinds (a field may take any text tower)."""
    name = written[-1] if isinstance(written, list) and written else part.__name__
    kinds = [part, *part.__subclasses__()]
    return next((kind for kind in kinds if kind.__name__ == name), part)


def read_part(folder: Path, kind: type[Kind]) -> Kind:
    """The part in this folder of a saved system, as the kind it was written as."""
    written = index_of(folder.parent).get(folder.name) if (folder.parent / INDEX).is_file() else None
    return cast(Kind, _kind(kind, written).from_pretrained(folder))


def load_system(folder: str | Path) -> System:
    """The system saved in this folder, whichever it is."""
    index = index_of(Path(folder))
    return system_class(find(index["system"])).from_pretrained(folder)
