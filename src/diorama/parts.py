"""A part of a system: a module that can be written to a folder and read back."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from diorama.errors import UserError
from diorama.files import atomic_folder, read_json, write_json
from diorama.storage import Storage, read_weights, write_weights

FORMAT_VERSION = 1


class Part(nn.Module):
    """A module built from one frozen dataclass, kept as config.json and model.safetensors in one folder."""

    Config: ClassVar[type]
    config: Any

    def save_pretrained(self, folder: str | Path, storage: Storage = "float32") -> None:
        """All files or none."""
        with atomic_folder(folder, replaces="config.json") as new:
            self.write(new, storage)

    def write(self, folder: Path, storage: Storage) -> None:
        write_json(folder / "config.json", {"format_version": FORMAT_VERSION, **asdict(self.config)})
        write_weights(folder / "model.safetensors", self.state_dict(), storage)
        self.save_files(folder)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """The part that was written there, in float32. Raises UserError for a missing, damaged or newer file."""
        folder = Path(folder)
        config = cls.read_config(folder / "config.json")
        state = read_weights(folder / "model.safetensors")
        with torch.device("meta"):  # no time spent on weights that are about to be replaced
            part = cls.build(config, folder)
        try:
            part.load_state_dict(state, assign=True)
        except RuntimeError:
            raise UserError(f"{folder}: model.safetensors does not fit config.json: fetch or make the folder again") from None
        assert not any(b.is_meta for b in part.buffers()), f"{cls.__name__} has a buffer that is not saved"
        return part

    @classmethod
    def read_config(cls, path: Path) -> Any:
        values = read_json(path)
        version = values.pop("format_version", FORMAT_VERSION) if isinstance(values, dict) else None
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise UserError(f"{path} has format_version {version}, this diorama reads up to {FORMAT_VERSION}: update diorama")
        if unknown := set(values) - {f.name for f in fields(cls.Config)}:
            raise UserError(f"{path} does not describe a {cls.__name__} (unknown field {min(unknown)}): fetch or make it again")
        try:
            return cls.Config(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
        except TypeError:
            raise UserError(f"{path} does not describe a {cls.__name__} (a field is missing): fetch or make it again") from None

    @classmethod
    def build(cls, config: Any, folder: Path) -> Self:
        """The part of this config; overridden where it needs more files than its weights."""
        return cls(config)

    def save_files(self, folder: Path) -> None:
        """What the part needs besides config and weights; nothing by default."""
