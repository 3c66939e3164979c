"""Pictures by masked tokens: a transformer tells the tokens of a frozen codec in parallel, the surest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from diorama import cards
from diorama.codecs.conv import ConvCodec
from diorama.codecs.quantise import QuantisedCodec, VectorQuantiser
from diorama.conditions.caption import CaptionEncoder
from diorama.conditions.text import TextTower
from diorama.errors import UserError
from diorama.guidance.classifier_free import classifier_free_logits
from diorama.guidance.scale import Scale
from diorama.networks.tokens import TokenTransformer, TokenTransformerConfig
from diorama.processes.masked import MaskedParallel
from diorama.systems.base import System, TakePart
from diorama.types import NO_LABEL, Batch, Condition, Noise, OnStep, ignore

PRESETS = {
    "nano": TokenTransformerConfig(width=96, depth=4, heads=4, text_width=128),
    "mini": TokenTransformerConfig(width=160, depth=6, heads=5, text_width=128),
}
EXACT = 2048  # the largest whole number up to which float16, in which what was encoded is kept, holds all


@dataclass(eq=False)
class MaskedTokens(System):
    """Sentences and labels to pictures (Chang et al. 2022; with words, Chang et al. 2023). Empty sentences leave the label alone."""

    codec: ConvCodec
    quantiser: VectorQuantiser
    text: TextTower
    network: TokenTransformer
    labels: tuple[str, ...] = ()

    card: ClassVar[cards.Card] = cards.MASKED_TOKENS
    process: ClassVar[MaskedParallel] = MaskedParallel()
    dropped: ClassVar[dict[str, float]] = {"text+label": 0.1, "label": 0.1}  # nothing asked, and words without a label

    def __post_init__(self) -> None:
        for frozen in (self.codec, self.quantiser):
            frozen.requires_grad_(False).eval()

    @classmethod
    def new(cls, *, preset: str, size: int, labels: Sequence[str], part: TakePart) -> MaskedTokens:
        cls.card.check_preset(preset)
        codec, quantiser, text = part("codec", ConvCodec), part("quantiser", VectorQuantiser), part("text", CaptionEncoder)
        codec.check_size(size)
        side, codes = size // codec.config.stride, quantiser.config.codes
        config = replace(PRESETS[preset], codes=codes, places=(side, side), text_width=text.config.width, labels=len(labels))
        return cls(codec, quantiser, text, TokenTransformer(config), tuple(labels))

    @property
    def size(self) -> int:
        """Pixels along a side of its pictures."""
        return self.network.config.places[0] * self.codec.config.stride

    @property
    def known_labels(self) -> tuple[str, ...]:
        return self.labels

    @property
    def tokenizer(self) -> QuantisedCodec:
        return QuantisedCodec(self.codec, self.quantiser)

    # --- training ---------------------------------------------------------------------------------

    def encode(self, batch: Batch) -> Batch:
        """The batch with what never changes while training: its tokens and, where the text tower is frozen, its sentences."""
        latent = self.tokenizer.tokenise(batch.image.to(self.device)) if batch.latent is None else batch.latent
        embedding = self.text(_texts(batch)) if batch.embedding is None and self.text.frozen else batch.embedding
        return replace(batch, latent=latent, embedding=embedding)

    @property
    def cacheable(self) -> bool:
        return self.text.frozen and self.quantiser.config.codes <= EXACT

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        with torch.no_grad():
            batch = self.encode(batch)
        assert batch.latent is not None
        text = self.text(_texts(batch)) if batch.embedding is None else batch.embedding
        condition = Condition(text=text, label=batch.label if self.labels else None).to(self.device).drop(self.dropped, noise)
        return self.process.loss(self.network, batch.latent.to(self.device).long(), condition, noise)

    def look(self, batch: Batch, noise: Noise) -> Tensor:
        label = [NO_LABEL] * len(batch) if batch.label is None else batch.label.tolist()
        return self.sample(_texts(batch), [None if i == NO_LABEL else self.labels[i] for i in label], noise=noise)

    # --- use --------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        labels: Sequence[str | None] | None = None,
        *,
        negative: Sequence[str] | None = None,
        start: Tensor | None = None,
        steps: int = 8,
        guidance: Scale = 3.0,
        noise: Noise,
        on_step: OnStep = ignore,
    ) -> Tensor:
        """(b, 4, h, w) in [-1, 1], one per prompt; `noise` has a seed for each. `start` (b, *places) has MASK where to tell."""
        condition = self.condition(prompts, labels)
        unasked = None if negative is None else self.condition(negative)
        guided = classifier_free_logits(self.network, guidance, unasked)
        start = self.process.prior(self.network.config.places, noise) if start is None else start.to(self.device)
        levels = self.process.levels(steps)
        return self.preview(self.process.sample(guided, start, condition, levels=levels, noise=noise, on_step=on_step))

    def condition(self, prompts: Sequence[str], labels: Sequence[str | None] | None = None) -> Condition:
        names = labels or [None] * len(prompts)
        if unknown := [name for name in names if name is not None and name not in self.labels]:
            raise UserError(f"label {unknown[0]!r} is not known: use {', '.join(self.labels) or 'none, it was trained without'}")
        label = torch.tensor([NO_LABEL if name is None else self.labels.index(name) for name in names], device=self.device)
        return Condition(text=self.text(list(prompts)), label=label if self.labels else None)

    def preview(self, x0: Tensor) -> Tensor:
        """What tokens (b, *places) look like: (b, 4, h, w) in [-1, 1]."""
        return self.tokenizer.detokenise(x0)


def _texts(batch: Batch) -> list[str]:
    return list(batch.text) or [""] * len(batch)
