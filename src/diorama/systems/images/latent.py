"""What every system has that paints sentences and labels in the latents of a frozen codec (Rombach et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from diorama.codecs.conv import ConvCodec
from diorama.conditions.text import TextTower
from diorama.guidance.classifier_free import classifier_free
from diorama.guidance.scale import Scale
from diorama.networks.unet import UNet, UNetConfig
from diorama.processes.diffusion import Diffusion
from diorama.processes.scalings import NetworkDenoiser
from diorama.processes.solvers import SOLVERS
from diorama.systems.base import System
from diorama.types import NO_LABEL, Batch, Condition, Denoiser, Noise, OnStep, TextEmbedding, ignore


@dataclass(eq=False)
class LatentPainter(System):
    """Sentences and styles to RGBA pictures; subclasses say by which process, and along which levels it is walked."""

    codec: ConvCodec
    text: TextTower
    network: UNet
    styles: tuple[str, ...] = ()
    size: int = 128  # pixels along a side

    dropped: ClassVar[dict[str, float]] = {"text+label": 0.1, "label": 0.1}  # nothing asked, and words without a style

    def __post_init__(self) -> None:
        self.codec.requires_grad_(False).eval()

    @classmethod
    def on(cls, codec: ConvCodec, text: TextTower, shape: UNetConfig, labels: Sequence[str], size: int) -> Self:
        """An untrained one of this shape, as wide at its ends as what it stands on."""
        network = UNet(replace(shape, channels=codec.config.latent, text_width=text.config.width, labels=len(labels)))
        network.check_size(size, codec.config.stride)
        return cls(codec, text, network, tuple(labels), size)

    def levels(self, steps: int) -> Tensor:
        """(steps + 1,) from pure noise to 0."""
        raise NotImplementedError

    @property
    def process(self) -> Diffusion:
        raise NotImplementedError

    @property
    def denoiser(self) -> Denoiser:
        return NetworkDenoiser(self.network, self.process.scaling)

    @property
    def known_labels(self) -> tuple[str, ...]:
        return self.styles

    def encode(self, batch: Batch) -> Batch:
        """The batch with what never changes while training: its latents and, where the text tower is frozen, its sentences."""
        latent = self.codec.encode(batch.image.to(self.device)) if batch.latent is None else batch.latent
        embedding = self.text(list(batch.text)) if batch.embedding is None and self.text.frozen else batch.embedding
        return replace(batch, latent=latent, embedding=embedding)

    @property
    def cacheable(self) -> bool:
        return self.text.frozen

    def look(self, batch: Batch, noise: Noise) -> Tensor:
        labels = batch.label.tolist() if self.styles and batch.label is not None else [NO_LABEL] * len(batch)
        return self.sample(batch.text, [None if i == NO_LABEL else self.styles[i] for i in labels], noise=noise)

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        with torch.no_grad():
            batch = self.encode(batch)
        assert batch.latent is not None
        text = self.text(list(batch.text)) if batch.embedding is None else batch.embedding
        condition = Condition(text=text, label=batch.label if self.styles else None).to(self.device).drop(self.dropped, noise)
        z = batch.latent.to(self.device).float()
        return self.process.loss(self.denoiser, z, self.shown(condition, z, noise), noise)

    def shown(self, condition: Condition, z: Tensor, noise: Noise) -> Condition:
        """The condition with whatever else the network is shown of the latents it learns to paint. Nothing by default."""
        return condition

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        styles: Sequence[str | None] | None = None,
        *,
        negative: Sequence[str] | None = None,
        steps: int = 20,
        guidance: float | Tensor = 4.0,
        solver: str = "euler",
        noise: Noise,
        on_step: OnStep = ignore,
    ) -> Tensor:
        """(b, 4, size, size) in [-1, 1], one per prompt: on white in channels 0-2, alpha in 3. `noise` has a seed for each."""
        guided = self.guided(guidance, None if negative is None else self.unasked(negative))
        return self.paint(guided, self.asked(prompts, styles, noise), steps=steps, solver=solver, noise=noise, on_step=on_step)

    def asked(self, prompts: Sequence[str], styles: Sequence[str | None] | None, noise: Noise) -> Condition:
        """What the network is shown of what is asked for."""
        return self.condition(prompts, styles)

    def unasked(self, prompts: Sequence[str]) -> Condition:
        """The same of what is to be avoided: without a style, as where nothing is asked."""
        return self.condition(prompts)

    def guided(self, scale: Scale, negative: Condition | None = None) -> Denoiser:
        """The clean sample that is expected, pressed towards what is asked."""
        return classifier_free(self.denoiser, scale, negative)

    @torch.no_grad()
    def paint(
        self,
        denoiser: Denoiser,
        condition: Condition,
        *,
        start: Tensor | None = None,
        steps: int = 20,
        solver: str = "euler",
        noise: Noise,
        on_step: OnStep = ignore,
    ) -> Tensor:
        """From pure noise, or a start as noisy, to pictures (b, 4, size, size), by the system's own denoiser under any guidance."""
        process = replace(self.process, solver=SOLVERS[solver])
        start = self.start(noise) if start is None else start
        return self.preview(process.sample(denoiser, start, condition, levels=self.levels(steps), noise=noise, on_step=on_step))

    def start(self, noise: Noise) -> Tensor:
        """Pure noise where the walk begins, one for each seed."""
        side = self.size // self.codec.config.stride
        return self.process.prior((self.codec.config.latent, side, side), noise)

    def condition(self, prompts: Sequence[str], styles: Sequence[str | None] | None = None) -> Condition:
        names = styles or [None] * len(prompts)
        label = torch.tensor([NO_LABEL if name is None else self.styles.index(name) for name in names], device=self.device)
        return Condition(text=encode_alone(self.text, prompts), label=label if self.styles else None)

    def preview(self, x0: Tensor) -> Tensor:
        """What an estimate of the latents looks like: (b, 4, size, size) in [-1, 1]."""
        return self.codec.decode(x0).float().clamp(-1, 1)


def encode_alone(tower: TextTower, texts: Sequence[str]) -> TextEmbedding:
    """Each sentence encoded by itself, then padded to the most tokens there can be: its neighbours must not change it."""
    n, encoded = tower.config.max_tokens, {text: tower([text]) for text in dict.fromkeys(texts)}
    rows = [encoded[text] for text in texts]
    return TextEmbedding(
        torch.cat([F.pad(row.tokens, (0, 0, 0, n - row.tokens.shape[1])) for row in rows]),
        torch.cat([F.pad(row.mask, (0, n - row.mask.shape[1])) for row in rows]),
        torch.cat([row.pooled for row in rows]),
    )
