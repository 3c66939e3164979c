"""A captioner: pictures to sentences, by a transformer that looks and a language model that writes what it saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from diorama import cards
from diorama.conditions.caption import CaptionEncoder
from diorama.conditions.writer import Writer, WriterConfig
from diorama.errors import UserError
from diorama.networks.vit import ViT, ViTConfig
from diorama.processes.autoregressive import Autoregressive
from diorama.systems.base import System, TakePart
from diorama.types import Batch, Condition, Noise, TextEmbedding

FORMS = ("descriptive", "short")
PRESETS = {
    "nano": (ViTConfig(patch=4, width=96, depth=3), WriterConfig(width=96)),
    "mini": (ViTConfig(patch=8, width=160, depth=4, heads=5), WriterConfig(width=160, depth=4, heads=5, max_tokens=96)),
}


@dataclass(eq=False)
class Captioner(System):
    """Pictures to captions, descriptive or in few words: log p(t_j | t_<j, F(picture)) (Betker et al. 2023, sec. 2).

    The paper pre-trains with a contrastive loss beside this one and then tunes one captioner for each form; this one learns both
    at once and by this loss alone, short captions where the data has them.
    """

    image: ViT
    writer: Writer

    card: ClassVar[cards.Card] = cards.CAPTIONER
    learns_form: ClassVar[str | None] = "long"

    @classmethod
    def new(cls, *, preset: str, size: int, labels: Sequence[str], part: TakePart) -> Captioner:
        cls.card.check_preset(preset)
        look, words = PRESETS[preset]
        if size % look.patch:
            raise UserError(f"size {size} is not a multiple of {look.patch}: use {-(-size // look.patch) * look.patch}")
        words = replace(words, read=look.width, forms=len(FORMS))
        return cls(ViT(replace(look, size=size)), Writer(words, part("text", CaptionEncoder).tokenizer))

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        seen = self.see(batch.image)
        loss = told(self.writer, batch.text, formed(seen, "descriptive"), noise)
        if any(batch.short):
            there = torch.tensor([bool(words) for words in batch.short], device=self.device)
            loss = loss + there * told(self.writer, batch.short, formed(seen, "short"), noise)
        return loss

    def see(self, image: Tensor) -> TextEmbedding:
        """Pictures (b, c >= 3, h, w) in [-1, 1], on white first -> their places, as a sentence's tokens stand.

        Before them stands each feature from the place where it is strongest: what is there is learned sooner than where.
        """
        places = self.image(F.interpolate(image[:, :3].to(self.device), (self.image.config.size,) * 2, mode="area"))
        whole = places.amax(1)
        x = torch.cat([whole[:, None], places], 1)
        return TextEmbedding(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device), whole)

    @torch.no_grad()
    def caption(self, image: Tensor, form: str = "descriptive", *, temperature: float = 0.0, noise: Noise) -> list[str]:
        """A sentence for each picture (b, c >= 3, h, w) in [-1, 1]; without a temperature, word for word the likeliest."""
        return written(self.writer, formed(self.see(image), form), temperature, noise)


def formed(seen: TextEmbedding, form: str) -> Condition:
    """What is seen, to be put in this form. Raises UserError for another than `FORMS`."""
    if form not in FORMS:
        raise UserError(f"form {form!r} is not known: use {' or '.join(FORMS)}")
    return Condition(text=seen, label=torch.full((len(seen.mask),), FORMS.index(form), device=seen.mask.device))


# --- what any writer does ---------------------------------------------------------------------------


def told(writer: Writer, texts: Sequence[str], read: Condition, noise: Noise) -> Tensor:
    """Nats per piece of these sentences, given what is read: (b,)."""
    return Autoregressive(writer.end).loss(writer, writer.spelled(texts), read, noise)


def written(writer: Writer, read: Condition, temperature: float, noise: Noise) -> list[str]:
    """A sentence for each row of what is read."""
    process = Autoregressive(writer.end, temperature)
    start = process.prior((writer.config.max_tokens,), noise)
    return writer.read_out(process.sample(writer, start, read, noise=noise))
