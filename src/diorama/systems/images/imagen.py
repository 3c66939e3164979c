"""Imagen: a frozen encoder of words, a small picture, and two diffusions that make it larger, each shown a noised picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from diorama import cards
from diorama.conditions.text import SentenceEncoder, TextTower
from diorama.errors import UserError
from diorama.guidance.classifier_free import classifier_free
from diorama.guidance.scale import Scale
from diorama.guidance.threshold import dynamic
from diorama.networks.unet import UNet, UNetConfig
from diorama.processes.cascade import Stage, cascade, follow, resized
from diorama.processes.diffusion import Diffusion
from diorama.processes.levels import cosine, linear_abar, respaced
from diorama.processes.scalings import Epsilon, NetworkDenoiser
from diorama.processes.solvers import SOLVERS, ancestral
from diorama.systems.base import System, TakePart
from diorama.systems.images.latent import encode_alone
from diorama.training.loop import Phase
from diorama.types import Batch, Condition, Noise, OnStep, ignore

_BASE = UNetConfig(channels=4, levels=1.0)  # c_noise is an index of the table
_LARGER = replace(_BASE, given=4, augmented=True, skip=2**-0.5)
# 64 -> 256 -> 1024 px, 2 B, 600 M and 400 M (Saharia et al. 2022, sec. 4.1 and app. F). The larger stages are the Efficient U-Net, which
# F.3 gives both alike but for what attention sees, so that theirs cannot differ by 200 M: with T5-XXL the three have 2.08 B, 507 M and
# 499 M here. Words are brought to 4096 channels, as many as T5-XXL has, whoever reads them. Known differences: between the base's levels
# is a convolution (with F.1's BigGAN blocks there it would have 2.17 B, with all else that ADM has 2.4 B, of which one digit says 2 B);
# beside a block that keeps its width there is none (fig. A.27), and every block is told the level (fig. A.28: once for all)
_PAPER_BASE = replace(
    _BASE,
    channels=3,
    widths=(512, 1024, 1536, 2048),
    depth=3,
    attention=(False, True, True, True),
    head_width=64,
    reads=4096,
)
_PAPER = replace(
    _LARGER,
    channels=3,
    given=3,
    widths=(128, 256, 512, 1024),
    depth=(2, 4, 8, 8),
    attention=(False, False, False, True),
    heads=8,
    reads=4096,
    grouped=True,
)
_MINI = replace(_LARGER, widths=(48, 96, 128), depth=(1, 1, 2), attention=(False, False, True), embedding=192)
_NANO = replace(_LARGER, widths=(32, 64), depth=1, embedding=96)
PRESETS = {  # by how much each stage is larger than the one before, and their networks
    "nano": (
        2,
        (
            replace(_BASE, widths=(48, 96), depth=1, embedding=128),
            replace(_NANO, patch=2),
            replace(_NANO, patch=4, own=False),
        ),
    ),
    "mini": (2, (replace(_BASE, widths=(96, 192), embedding=256), replace(_MINI, patch=2), replace(_MINI, patch=4, own=False))),
    "paper": (4, (_PAPER_BASE, _PAPER, replace(_PAPER, own=False))),
}
TABLES = (cosine(), cosine(), linear_abar())


@dataclass(eq=False)
class Imagen(System):
    """Sentences to pictures (b, 4, size, size), through two smaller ones (Saharia et al. 2022)."""

    text: TextTower
    base: UNet
    middle: UNet
    top: UNet
    factor: int = 2  # by which each stage is larger than the one before
    size: int = 64  # pixels along a side of the last

    card: ClassVar[cards.Card] = cards.IMAGEN
    styles: ClassVar[tuple[str, ...]] = ()
    processes: ClassVar[tuple[Diffusion, ...]] = tuple(Diffusion.of_table(Epsilon, table) for table in TABLES)
    dropped: ClassVar[dict[str, float]] = {"text": 0.1}

    def __post_init__(self) -> None:
        self.text.requires_grad_(False).eval()

    @classmethod
    def new(cls, *, preset: str, size: int, labels: Sequence[str], part: TakePart) -> Imagen:
        cls.card.check_preset(preset)
        factor, shapes = PRESETS[preset]
        if size % (whole := factor**2):
            raise UserError(f"size {size} is not a multiple of {whole}: use {max(1, size // whole) * whole}")
        text = part("text", SentenceEncoder)
        base, middle, top = (UNet(replace(shape, text_width=text.config.width)) for shape in shapes)
        system = cls(text, base, middle, top, factor, size)
        for network, side in zip(system.networks, system.sides, strict=True):
            network.check_size(side)
        return system

    @property
    def networks(self) -> tuple[UNet, UNet, UNet]:
        return self.base, self.middle, self.top

    @property
    def sides(self) -> tuple[int, int, int]:
        """Pixels along a side, stage by stage."""
        return self.size // self.factor**2, self.size // self.factor, self.size

    @property
    def denoisers(self) -> list[NetworkDenoiser]:
        pairs = zip(self.networks, self.processes, strict=True)
        return [NetworkDenoiser(network, process.scaling) for network, process in pairs]

    # --- training: each stage for itself, on real pictures ----------------------------------------

    def phases(self) -> Sequence[Phase]:
        named = enumerate(zip(("base", "middle", "top"), self.networks, strict=True))
        return [Phase(name, list(network.parameters()), partial(self.stage_loss, stage)) for stage, (name, network) in named]

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        return self.stage_loss(0, batch, noise)

    def stage_loss(self, stage: int, batch: Batch, noise: Noise) -> Tensor:
        """(b,) of one stage; the last sees pieces as large as the pictures of the one before it."""
        text = self.text(list(batch.text)) if batch.embedding is None else batch.embedding
        condition = Condition(text=text).to(self.device).drop(self.dropped, noise)
        image = batch.image[:, : self.base.config.channels].to(self.device)
        if stage == 2:
            image = cropped(image, self.sides[1], noise)
        x = image if stage == 2 else resized(image, 2 * [self.sides[stage]])
        if stage:
            small = resized(x, 2 * [x.shape[-1] // self.factor])
            condition = follow(condition, small, x.shape[2:], noise.uniform(), noise)
        return self.processes[stage].loss(self.denoisers[stage], x, condition, noise)

    def look(self, batch: Batch, noise: Noise) -> Tensor:
        return self.sample(batch.text, noise=noise)

    # --- sampling: one stage after the other ------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        styles: Sequence[str | None] | None = None,
        *,
        negative: Sequence[str] | None = None,
        steps: int = 20,
        guidance: Scale = 4.0,
        solver: str | None = None,
        augmentation: float = 0.2,
        share: float = 0.995,
        noise: Noise,
        on_step: OnStep = ignore,
    ) -> Tensor:
        """(b, c, size, size) in [-1, 1], one per prompt; `noise` has a seed for each.

        `augmentation`, 0 to 1, is the noise on the picture that a larger stage follows, `share` that of dynamic thresholding.
        Without a `solver` each step draws fresh noise, as in the paper.
        """
        condition = Condition(text=encode_alone(self.text, prompts))
        unasked = None if negative is None else Condition(text=encode_alone(self.text, negative))

        channels, way = self.base.config.channels, ancestral if solver is None else SOLVERS[solver]
        stages = [
            Stage(
                dynamic(classifier_free(denoiser, guidance, unasked), share),
                replace(process, solver=way),
                (channels, side, side),
                respaced(Epsilon(table).sigmas, steps),
                augmentation,
            )
            for denoiser, process, side, table in zip(self.denoisers, self.processes, self.sides, TABLES, strict=True)
        ]
        return cascade(stages, condition, noise, on_step).clamp(-1, 1)


def cropped(image: Tensor, side: int, noise: Noise) -> Tensor:
    """A piece (b, c, side, side) of each picture, from anywhere in it."""
    places = noise.integers(image.shape[-1] - side + 1, 2).tolist()
    return torch.stack([x[:, top : top + side, left : left + side] for x, (top, left) in zip(image, places, strict=True)])
