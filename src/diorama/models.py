"""Where saved models are found, and what they are known by: names, folders, the hash of their weights. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

from diorama.assets import asset
from diorama.errors import UserError
from diorama.files import read_json, sha256, user_cache

INDEX = "model_index.json"
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # as peft names them
FORMAT_VERSION = 1


def shipped() -> list[str]:
    """The names of the models that came with the package."""
    return sorted(path.parent.name for path in asset("").glob(f"*/{INDEX}"))


def made() -> Path:
    """Where foundation models are kept that were not shipped but trained here."""
    return user_cache("foundations")


def locate(name: str | Path) -> Path:
    """The folder of a shipped or a saved model; a run's own folder leads to its model. Raises UserError where there is none."""
    folder = Path(name).expanduser()
    for known in (asset(str(name)), made() / str(name)):
        if folder == Path(folder.name) and (known / INDEX).is_file():
            return known
    if (folder / INDEX).is_file():
        return folder
    if (folder / "model" / INDEX).is_file():
        return folder / "model"
    if (folder / "checkpoints").is_dir():
        raise UserError(
            f"{name} is a training run that has not finished: run `diorama train` again to go on, its model comes at the end"
        )
    if folder.is_dir():
        raise UserError(f"{name} is not a saved model ({INDEX} is missing): give a folder that save_pretrained or train wrote")
    allowed = " or ".join([*shipped(), "the folder of a saved one"])
    raise UserError(f"model {str(name)!r} is not known: use {allowed}")


def ships_adapter(name: str) -> bool:
    """Whether an adapter of this name came with the package."""
    return Path(name) == Path(Path(name).name) and (asset(name) / ADAPTER).is_file()


def fast_adapter(model: Path) -> str:
    """The shipped adapter with which this model takes a few steps. Raises UserError where it names none."""
    index = index_of(model)
    if not isinstance(name := index.get("fast"), str) or not ships_adapter(name):
        raise UserError(f"{known_as(model)} has no fast adapter: make one with `diorama distill`, and wear it with --adapter")
    return name


def locate_adapter(words: str) -> tuple[Path, float]:
    """Folder and strength of FOLDER or FOLDER:STRENGTH; a shipped adapter goes by its name.

    Raises UserError where there is no adapter, or no such number.
    """
    name, colon, strength = words.rpartition(":")
    if not colon or Path(words, ADAPTER).is_file():
        name, strength = words, "1"
    folder = asset(name) if ships_adapter(name) else Path(name).expanduser()
    if not (folder / ADAPTER).is_file():
        raise UserError(
            f"{folder} is no adapter ({ADAPTER} is missing): give a folder that `diorama personalize` or `distill` wrote"
        )
    try:
        scale = float(strength)
    except ValueError:
        scale = math.nan
    if not math.isfinite(scale):
        raise UserError(f"strength {strength!r} of {folder} is not a number: write {folder}:0.8, or {folder} for all of it")
    return folder, scale


def index_of(folder: Path) -> dict[str, Any]:
    """model_index.json of a saved system. Raises UserError where it is missing, damaged or newer than this diorama."""
    path = folder / INDEX
    if not path.is_file():
        raise UserError(f"{folder} is not a saved system ({INDEX} is missing): give a folder that save_pretrained or train wrote")
    index = read_json(path)
    if not isinstance(index, dict) or "system" not in index:
        raise UserError(f"{path} names no system: it was not written by diorama")
    version = index.get("format_version", FORMAT_VERSION)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise UserError(f"{folder} has format_version {version}, this diorama reads up to {FORMAT_VERSION}: update diorama")
    return index


def known_as(folder: Path) -> str:
    """What people call the model: never more of its path than the last folder."""
    if folder.parent == asset(""):
        return folder.name
    return str(index_of(folder).get("name") or folder.resolve().name)


def weights_hash(folder: Path) -> str:
    """One SHA-256 over the weight files of a saved system, part by part in name order; 64 hexadecimal digits."""
    digest, files = hashlib.sha256(), sorted(folder.glob("*/model.safetensors"))
    if not files:  # the hash of nothing would fit any other model that has gone
        raise UserError(f"the weights of {folder.name} are not there any more: fetch or make the folder again")
    for path in files:
        digest.update(f"{path.parent.name} {sha256(path)}\n".encode())
    return digest.hexdigest()
