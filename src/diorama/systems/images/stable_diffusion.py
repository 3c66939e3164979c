"""Stable Diffusion: a checkpoint in diffusers' layout, as one more painter of sentences in latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from safetensors import SafetensorError
from torch import Tensor

from diorama import cards
from diorama.errors import UserError
from diorama.files import atomic_folder, read_json, write_json
from diorama.hub.stable_diffusion import ClipText, DiffusersUNet, KLCodec, check_fit, diffusion, index
from diorama.models import INDEX, OURS, index_of
from diorama.networks.lora import Adapter
from diorama.processes.diffusion import Diffusion
from diorama.processes.levels import respaced
from diorama.storage import Storage, write_tensors
from diorama.systems.base import TakePart
from diorama.systems.images.latent import LatentPainter

SCHEDULE = "scheduler/scheduler_config.json"


@dataclass(eq=False)
class StableDiffusion(LatentPainter):
    """Sentences to pictures whose alpha is 1 everywhere (Rombach et al. 2022): what stands on a painter stands on this one too."""

    codec: KLCodec  # type: ignore[assignment]
    text: ClipText
    network: DiffusersUNet  # type: ignore[assignment]
    schedule: Mapping[str, Any] = field(default_factory=dict)  # its scheduler's config

    card: ClassVar[cards.Card] = cards.STABLE_DIFFUSION

    def __post_init__(self) -> None:
        super().__post_init__()
        self.network.nothing = self.text.nothing()

    @classmethod
    def new(cls, *, preset: str, size: int, labels: Sequence[str], part: TakePart) -> Self:
        raise UserError("stable-diffusion is not trained from nothing: name a checkpoint to go on from with --start")

    @cached_property
    def process(self) -> Diffusion:
        return diffusion(self.schedule)

    def levels(self, steps: int) -> Tensor:
        sigmas = self.process.scaling.sigmas
        assert sigmas is not None
        return respaced(sigmas, steps)

    def write_adapter(self, adapter: Adapter, folder: Path) -> None:
        """What LoRAs beside the layers of its network learned, for `load_lora_weights` of diffusers: one more file in the folder."""
        sides = adapter.sides("{}.lora_{}.weight")
        theirs = {name.replace("network.model", "unet", 1): weight for name, weight in sides.items()}
        write_tensors(folder / "pytorch_lora_weights.safetensors", theirs)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """The checkpoint in this folder. Raises UserError where a part is missing or damaged, or of a kind that is not read."""
        folder = Path(folder)
        codec, text = KLCodec.from_pretrained(folder / "vae"), ClipText.from_pretrained(folder / "text_encoder")
        network, schedule = DiffusersUNet.from_pretrained(folder / "unet"), read_json(folder / SCHEDULE)
        check_fit(codec, text, network)
        if not isinstance(schedule, dict):
            raise UserError(f"{folder / SCHEDULE} describes no schedule: fetch the checkpoint again")
        system = cls(codec, text, network, size=index_of(folder)["settings"]["size"], schedule=schedule).eval()
        system.process  # noqa: B018 - a scheduler that is not read is told here
        system.origin = folder.resolve()
        return system

    def save_pretrained(self, folder: str | Path, storage: Storage = "float32", **about: Any) -> None:
        """In diffusers' layout again, so that both read it; `about` goes into the index. All of it or nothing.

        Raises UserError for another storage than float32, and where it cannot be written.
        """
        if storage != "float32":
            raise UserError(f"storage {storage!r} of a checkpoint of diffusers is not written yet: use float32")
        self.check_apart(folder)
        with atomic_folder(folder, replaces=INDEX) as new:
            for name, part in (("vae", self.codec), ("text_encoder", self.text), ("unet", self.network)):
                (new / name).mkdir()
                try:
                    part.write(new / name, storage)
                except SafetensorError as error:  # a full disk comes as this
                    raise UserError(f"cannot write {folder} ({error}): free some space or write elsewhere") from error
            (new / SCHEDULE).parent.mkdir()
            write_json(new / SCHEDULE, dict(self.schedule))
            write_json(new / INDEX, {**index(self.schedule), OURS: about})
