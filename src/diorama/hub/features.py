"""Networks of others that look at pictures: CLIP as transformers has it, and the Inception of FID."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diorama.errors import UserError
from diorama.files import read_json, sha256
from diorama.hub.reading import read_model, read_tokenizer, told
from diorama.models import fetched_files, known_as
from diorama.networks.inception import FidInception
from diorama.storage import read_weights

CONFIG, WEIGHTS = "config.json", "model.safetensors"
LOOKS = ("preprocessor_config.json", "processor_config.json")  # where it is said how pictures are normalised, older and newer
UNUSED = "num_batches_tracked"  # of a norm in training
FETCHED = (CONFIG, WEIGHTS, *LOOKS, "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")


class BorrowedClip(nn.Module):
    """A CLIPModel (Radford et al. 2021) with the edges of our own `Clip`. Pictures are (b, c >= 3, h, w) in [-1, 1], on white."""

    mean: Tensor  # (3, 1, 1), as `std`: of colours in [0, 1]
    std: Tensor

    def __init__(self, model: Any, tokenizer: Any, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.model, self.words, self.size = model, tokenizer, int(model.config.vision_config.image_size)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])
        self.requires_grad_(False).eval()

    def features(self, image: Tensor) -> Tensor:
        """What it sees, in the space of sentences but not yet of length 1: (b, d). Distances are taken here, as clean-fid's are."""
        return self.model.get_image_features(self._seen(image)).pooler_output

    def maps(self, image: Tensor) -> list[Tensor]:
        """What it sees at every patch after each of its blocks: (b, width, h, w) each."""
        states = self.model.vision_model(self._seen(image), output_hidden_states=True).hidden_states[1:]
        side = self.size // self.model.config.vision_config.patch_size
        return [state[:, 1:].transpose(1, 2).unflatten(2, (side, side)) for state in states]

    def encode_image(self, image: Tensor) -> Tensor:
        """(b, d) of length 1."""
        return F.normalize(self.features(image), dim=-1)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Sentences -> (b, d) of length 1; what does not fit is cut."""
        most = min(self.words.model_max_length, self.model.config.text_config.max_position_embeddings)
        pieces = self.words(list(texts), padding=True, truncation=True, max_length=most, return_tensors="pt")
        seen = self.model.get_text_features(**pieces.to(self.mean.device)).pooler_output
        return F.normalize(seen, dim=-1)

    def _seen(self, image: Tensor) -> Tensor:
        x = F.interpolate(image[:, :3].to(self.mean.device), (self.size, self.size), mode="area")
        return ((x + 1) / 2 - self.mean) / self.std

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """The checkpoint in this folder. Raises UserError where it is no CLIP, is damaged, or has its weights in pickles."""
        with told(folder := Path(folder)):
            from transformers import CLIPModel

            check_kind(folder)
            model = read_model(CLIPModel, folder, dtype=torch.float32)
            tokenizer, looks = read_tokenizer(folder, model.config.text_config.vocab_size), _looks(folder)
            return cls(model, tokenizer, looks["image_mean"], looks["image_std"])


def check_kind(folder: Path) -> None:
    """Raises UserError where the config is not that of a CLIP."""
    kind = read_json(folder / CONFIG).get("model_type")
    if kind != "clip":
        raise UserError(f"{folder} is no CLIP (model_type {kind!r} in its {CONFIG}): give a checkpoint with model_type 'clip'")


def _looks(folder: Path) -> Mapping[str, Any]:
    """Mean and standard deviation of colours: the checkpoint's own, or where it says none those of the first CLIP."""
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    said: dict[str, Any] = {"image_mean": OPENAI_CLIP_MEAN, "image_std": OPENAI_CLIP_STD}
    for name in LOOKS:
        if (folder / name).is_file():
            config = read_json(folder / name)
            said |= config.get("image_processor", config)
    return said


def read_inception(file: Path) -> FidInception:
    """FID's Inception with the weights in this safetensors file, under pytorch-fid's names. Raises UserError where they are others."""
    network, state = FidInception(), read_weights(file)
    asked = {name: tensor.shape for name, tensor in network.state_dict().items() if not name.endswith(UNUSED)}
    given = {name: tensor.shape for name, tensor in state.items() if not name.endswith(UNUSED)}
    if off := sorted(name for name, _ in asked.items() ^ given.items()):
        raise UserError(
            f"{file} does not hold the weights of FID's Inception ({len(set(off))} are missing or other, such as {off[0]}): "
            "convert those of pytorch-fid, as docs/critics.md says"
        )
    network.load_state_dict(state)
    return network


# --- where it is -----------------------------------------------------------------------------------


def title(folder: Path) -> str:
    """What people call the checkpoint, or the file, and its weights."""
    if folder.is_file():
        return f"FID Inception {sha256(folder)[:10]}"
    try:
        name = known_as(folder)
    except UserError:  # a folder of one's own, without an index
        name = folder.resolve().name
    return f"{name} {sha256(folder / WEIGHTS)[:10]}"


def fetched(name: str) -> Path:
    """The folder of a CLIP on the Hugging Face hub, hub:OWNER/NAME: never a pickle. Raises UserError where it cannot be had."""
    return fetched_files(name, CONFIG, FETCHED, check_kind)
