"""Where saved models are found, and what they are known by: names, folders, the hash of their weights. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from diorama.assets import asset
from diorama.errors import UserError
from diorama.files import read_json, sha256, user_cache

INDEX = "model_index.json"
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # as peft names them
FORMAT_VERSION = 1

HUB = "hub:"  # hub:OWNER/NAME, or hub:OWNER/NAME@REVISION
READ = {"StableDiffusionPipeline": "stable-diffusion"}  # pipelines of diffusers: the systems that they are here
FETCHED = (
    "scheduler/scheduler_config.json",
    *(f"tokenizer/{name}" for name in ("*.json", "merges.txt")),
    *(f"{part}/{name}" for part in ("unet", "vae") for name in ("config.json", "diffusion_pytorch_model.safetensors")),
    *(f"text_encoder/{name}" for name in ("config.json", "model.safetensors")),
)
WEIGHTS = ("*/model.safetensors", "*/diffusion_pytorch_model.safetensors")
OURS = "_diorama"  # what we write into an index of diffusers


def shipped() -> list[str]:
    """The names of the models that came with the package."""
    return sorted(path.parent.name for path in asset("").glob(f"*/{INDEX}"))


def made() -> Path:
    """Where foundation models are kept that were not shipped but trained here."""
    return user_cache("foundations")


def locate(name: str | Path) -> Path:
    """The folder of a shipped or a saved model; a run's own folder leads to its model; hub:OWNER/NAME is fetched.

    Raises UserError where there is none.
    """
    if str(name).startswith(HUB):
        return fetched(str(name))
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
    allowed = " or ".join([*shipped(), "the folder of a saved one", f"{HUB}OWNER/NAME"])
    raise UserError(f"model {str(name)!r} is not known: use {allowed}")


def fetched(name: str) -> Path:
    """The folder of a checkpoint on the Hugging Face hub, hub:OWNER/NAME: what a painter needs of it, never a pickle.

    Raises UserError where it cannot be had.
    """
    return fetched_files(name, INDEX, FETCHED, index_of)


@cache
def fetched_files(name: str, first: str, files: tuple[str, ...], check: Callable[[Path], Any]) -> Path:
    """The folder of a checkpoint on the hub with those of its `files` that it has.

    The `first` is fetched and its folder checked before the others, so that what is not read is not fetched. Raises UserError where
    it cannot be had.
    """
    try:
        from huggingface_hub import hf_hub_download, snapshot_download
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError
    except ImportError as error:
        raise UserError(f"{name} needs more than is here ({error}): pip install 'diorama[hub]'") from error
    repo, _, revision = name.removeprefix(HUB).partition("@")
    try:
        folder = Path(hf_hub_download(repo, first, revision=revision or None)).parent
        check(folder)
        snapshot_download(repo, revision=folder.name, allow_patterns=list(files))
    except GatedRepoError:
        raise UserError(f"{name} asks to agree to its terms first: do so on its page, then `hf auth login`") from None
    except RepositoryNotFoundError:
        raise UserError(f"{name} is not on the hub, or is private: write hub:OWNER/NAME, or `hf auth login` first") from None
    except HFValidationError:
        raise UserError(f"{name} is no name on the hub: write hub:OWNER/NAME, or hub:OWNER/NAME@REVISION") from None
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise UserError(f"{name} cannot be fetched ({reason}): try again, or give a folder that holds it") from None
    return folder


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
    if isinstance(index, dict) and "_diffusers_version" in index:
        return _of_diffusers(index, path)
    if not isinstance(index, dict) or "system" not in index:
        raise UserError(f"{path} names no system: it was not written by diorama")
    version = index.get("format_version", FORMAT_VERSION)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise UserError(f"{folder} has format_version {version}, this diorama reads up to {FORMAT_VERSION}: update diorama")
    return index


def _of_diffusers(index: dict[str, Any], path: Path) -> dict[str, Any]:
    """What diffusers wrote, with what it would be asked for by default. Raises UserError for a pipeline that is not read."""
    kind = index.get("_class_name")
    if kind not in READ:
        raise UserError(f"{path} is a {kind} of diffusers, which is not read yet: give a {' or a '.join(READ)}")
    ours = index.get(OURS)
    about = ours if isinstance(ours, dict) else {}
    own = {"defaults": {"steps": 25, "guidance": 7.5, "solver": "dpmpp_2m"}, "settings": _size_of(path.parent)}
    return {**own, **about, **index, "system": READ[kind]}


def _size_of(folder: Path) -> dict[str, int]:
    """Pixels along a side of what a checkpoint of diffusers paints, where all of it is there."""
    unet, vae = (read_json(file) if (file := folder / part / "config.json").is_file() else {} for part in ("unet", "vae"))
    side, widths = unet.get("sample_size"), vae.get("block_out_channels", [])
    side = side[0] if isinstance(side, list) and side else side
    return {"size": side * 2 ** (len(widths) - 1)} if isinstance(side, int) and widths else {}


def known_as(folder: Path) -> str:
    """What people call the model: its name on the hub, else never more of its path than the last folder."""
    if folder.parent == asset(""):
        return folder.name
    place = folder.resolve()
    if place.parent.name == "snapshots" and (repo := place.parents[1].name).startswith("models--"):
        return HUB + "/".join(repo.split("--")[1:])
    return str(index_of(folder).get("name") or folder.resolve().name)


def weight_files(folder: Path) -> list[Path]:
    """The files with a saved system's weights, part by part in name order; a safety checker is no part of it."""
    return sorted(path for pattern in WEIGHTS for path in folder.glob(pattern) if path.parent.name != "safety_checker")


def weights_hash(folder: Path) -> str:
    """One SHA-256 over the weight files of a saved system, part by part in name order; 64 hexadecimal digits."""
    digest, files = hashlib.sha256(), weight_files(folder)
    if not files:  # the hash of nothing would fit any other model that has gone
        raise UserError(f"the weights of {folder.name} are not there any more: fetch or make the folder again")
    for path in files:
        digest.update(f"{path.parent.name} {sha256(path)}\n".encode())
    return digest.hexdigest()
