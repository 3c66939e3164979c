"""The parts of a Stable Diffusion checkpoint: diffusers' and transformers' own networks, with the edges of ours.

Each is read from, and written to, its own folder of diffusers' layout, in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from diorama.conditions.text import TextTower
from diorama.errors import UserError
from diorama.files import read_json
from diorama.hub.reading import read_model, read_tokenizer, told
from diorama.networks.precision import exactly
from diorama.parts import Part
from diorama.processes.diffusion import Diffusion
from diorama.processes.levels import cosine, linear_abar, scaled_linear
from diorama.processes.scalings import Epsilon, V
from diorama.storage import Storage
from diorama.types import Condition, Noise, TextEmbedding

RARE = 40_000  # of CLIP's 49,408 pieces the later ones: letters that hardly ever stand together, as in "sks"
# by which a network may be told more than words
TOLD = ("class_embed_type", "num_class_embeds", "addition_embed_type", "time_cond_proj_dim", "encoder_hid_dim_type")


@dataclass(frozen=True)
class Sides:
    """What the house asks of a codec."""

    latent: int  # channels
    stride: int  # pixels along each side of one latent position


@dataclass(frozen=True)
class Words:
    """What the house asks of a text tower."""

    width: int
    max_tokens: int


class Borrowed(Part):
    """A network of diffusers, read from and written to its own folder."""

    kind: ClassVar[str]  # its class there

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def write(self, folder: Path, storage: Storage) -> None:
        self.model.save_pretrained(folder)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        with told(folder := Path(folder)):
            import diffusers

            return cls(read_model(getattr(diffusers, cls.kind), folder, torch_dtype=torch.float32))


class KLCodec(Borrowed):
    """AutoencoderKL: colours to latents of about unit variance, and back with an alpha of 1 everywhere; what is encoded stands on white."""

    Config = Sides
    kind = "AutoencoderKL"

    def __init__(self, model: Any):
        super().__init__(model)
        self.config = Sides(model.config.latent_channels, 2 ** (len(model.config.block_out_channels) - 1))

    def encode(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        """(b, 3 or 4, h, w) in [-1, 1] to (b, latent, h / stride, w / stride): the mean, or a sample."""
        law = self.model.encode(x[:, :3]).latent_dist
        z = law.mean if noise is None else law.mean + law.std * noise.normal(*law.mean.shape[1:]).to(law.mean)
        return (z - self._shift) * self.model.config.scaling_factor

    def decode(self, z: Tensor) -> Tensor:
        """(b, 4, h, w)."""
        x = self.model.decode(z / self.model.config.scaling_factor + self._shift).sample
        return torch.cat([x, torch.ones_like(x[:, :1])], 1)

    @property
    def _shift(self) -> float:
        return self.model.config.shift_factor or 0.0


class ClipText(TextTower):
    """CLIP's text tower. Sentences to tokens (b, n, d), n always as many as fit, all of them attended to; pooled (b, d).

    A blank sentence asks for nothing: zeros and a mask that is all false, for which the network puts `nothing`.
    """

    Config = Words
    frozen = True

    def __init__(self, model: Any, tokenizer: Any):
        super().__init__()
        self.model, self.words = model, tokenizer
        self.config = Words(model.config.hidden_size, min(tokenizer.model_max_length, model.config.max_position_embeddings))
        self.use(tokenizer.backend_tokenizer)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> ClipText:
        """It stays as it is."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, texts: Sequence[str]) -> TextEmbedding:
        tokens, pooled = self._encode(texts)
        asked = torch.tensor([bool(text.strip()) for text in texts], device=tokens.device)
        mask = asked[:, None].expand(tokens.shape[:2])
        return TextEmbedding(tokens * mask[..., None], mask, pooled * asked[:, None])

    @torch.no_grad()
    def nothing(self) -> Tensor:
        """(1, n, d): what it makes of a sentence without words, which the network learned as nothing asked."""
        return self._encode([""])[0]

    def _encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        ids, mask = self.pieces(texts)
        padding = self.words.pad_token_id
        ids = F.pad(ids.masked_fill(~mask, padding), (0, self.config.max_tokens - ids.shape[1]), value=padding)
        with exactly(ids):
            seen = self.model(ids)
        return seen.last_hidden_state, seen.pooler_output

    def means(self, word: str) -> bool:
        """Whether the word has a piece of its own that is not too rare to have a meaning (Ruiz et al. 2023, sec. 3.2)."""
        return super().means(word) and self.tokenizer.encode(word, add_special_tokens=False).ids[0] < RARE

    def write(self, folder: Path, storage: Storage) -> None:
        self.model.save_pretrained(folder)
        self.words.save_pretrained(folder.parent / "tokenizer")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        folder = Path(folder)
        with told(folder):
            from transformers import CLIPTextModel

            kind = read_json(folder / "config.json").get("model_type")
            if kind != "clip_text_model":
                raise UserError(f"{folder} is a {kind}, which is not read yet: give a checkpoint whose words CLIP reads")
            model = read_model(CLIPTextModel, folder, dtype=torch.float32)
        return cls(model, read_tokenizer(folder.parent / "tokenizer", model.config.vocab_size))


class DiffusersUNet(Borrowed):
    """UNet2DConditionModel as a network of the house: c_noise is an index of the table. `nothing` stands where nothing is asked."""

    kind = "UNet2DConditionModel"
    nothing: Tensor  # (1, n, d)

    def __init__(self, model: Any):
        super().__init__(model)
        if model.config.in_channels != model.config.out_channels:
            raise UserError(
                f"its network takes {model.config.in_channels} channels and gives {model.config.out_channels}, as one that is also "
                "shown a picture: that is not read yet, give a checkpoint of words to pictures"
            )
        self.register_buffer("nothing", torch.zeros(1, 1, 1), persistent=False)

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        """x (b, c, h, w), c_noise (b,), like x."""
        tokens = self.nothing.expand(len(x), -1, -1)
        if condition.text is not None:
            tokens = torch.where(condition.text.mask.any(1)[:, None, None], condition.text.tokens, tokens)
        return self.model(x, c_noise, encoder_hidden_states=tokens).sample


def check_fit(codec: KLCodec, text: ClipText, network: DiffusersUNet) -> None:
    """Raises UserError where the parts are not of one checkpoint, or the network wants to be told more than words."""
    config = network.model.config
    more = [name for name in TOLD if getattr(config, name, None)]
    if more:
        raise UserError(f"its network is told more than words ({more[0]}), which is not read yet: give another checkpoint")
    pairs = (
        ("in_channels", config.in_channels, codec.config.latent),
        ("cross_attention_dim", config.cross_attention_dim, text.config.width),
    )
    for name, own, other in pairs:
        if own != other:
            raise UserError(f"the parts do not fit: {name} of the network is {own}, not {other}: fetch the checkpoint again")


# --- the process ----------------------------------------------------------------------------------

KINDS: Mapping[str, type[Epsilon] | type[V]] = {"epsilon": Epsilon, "v_prediction": V}
TABLES: Mapping[str, Callable[..., tuple[float, ...]]] = {
    "linear": linear_abar,
    "scaled_linear": scaled_linear,
    "squaredcos_cap_v2": lambda n, low, high: cosine(n),
}


def diffusion(schedule: Mapping[str, Any]) -> Diffusion:
    """The process that a scheduler's config describes, whatever its solver. Raises UserError where it is none that we know."""
    kind, table = schedule.get("prediction_type", "epsilon"), schedule.get("beta_schedule", "linear")
    for name, value, known in (("prediction_type", kind, KINDS), ("beta_schedule", table, TABLES)):
        if value not in known:
            raise UserError(f"its scheduler has {name} {value!r}, which is not read: give a checkpoint with {' or '.join(known)}")
    if schedule.get("trained_betas") or schedule.get("rescale_betas_zero_snr"):
        raise UserError("its scheduler has levels of its own (trained_betas or rescale_betas_zero_snr), which are not read yet")
    n, low, high = (schedule.get(*what) for what in (("num_train_timesteps", 1000), ("beta_start", 1e-4), ("beta_end", 0.02)))
    return Diffusion.of_table(KINDS[kind], TABLES[table](n, low, high))


def index(schedule: Mapping[str, Any]) -> dict[str, Any]:
    """What diffusers writes into model_index.json."""
    from diffusers import __version__

    solver = schedule.get("_class_name", "DDIMScheduler")
    theirs = {"unet": DiffusersUNet.kind, "vae": KLCodec.kind, "scheduler": solver}
    words = {"text_encoder": "CLIPTextModel", "tokenizer": "CLIPTokenizer"}
    left_out = ("safety_checker", "feature_extractor", "image_encoder")
    return {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": __version__,
        "requires_safety_checker": False,
        **{name: ["diffusers", kind] for name, kind in theirs.items()},
        **{name: ["transformers", kind] for name, kind in words.items()},
        **{name: [None, None] for name in left_out},
    }
