"""DALL-E 2: first what a picture is to say, a vector in CLIP's space, then the picture that says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from diorama import cards
from diorama.conditions.picture import PictureWords, PictureWordsConfig
from diorama.conditions.text import TextTower
from diorama.guidance.classifier_free import classifier_free
from diorama.guidance.threshold import clipped
from diorama.networks.prior import PriorConfig, PriorTransformer
from diorama.networks.towers import Heads, ImageTower
from diorama.parts import Part
from diorama.processes.between import slerp
from diorama.processes.diffusion import Diffusion
from diorama.processes.levels import OfTable, cosine, respaced
from diorama.processes.scalings import X0, Epsilon, NetworkDenoiser
from diorama.processes.solvers import invert
from diorama.systems.base import TakePart
from diorama.systems.images.glide import Glide
from diorama.training.loop import Phase
from diorama.types import Batch, Condition, Noise, TextEmbedding

PRIORS = {
    "nano": PriorConfig(width=96, depth=3),
    "mini": PriorConfig(width=192, depth=6, heads=6),
    # Ramesh et al. 2022, table 3: 24 layers of width 2048 and 32 heads, "1 B" there, which alone hold 1.21 B. The decoder is GLIDE's
    "paper": PriorConfig(width=2048, depth=24, heads=32),
}
TABLE = Epsilon(cosine()).sigmas


@dataclass(eq=False, kw_only=True)
class Unclip(Glide):
    """A prior from sentences to pictures' vectors, and a GLIDE that reads such a vector beside the words (Ramesh et al. 2022, fig. 2).

    CLIP, its first three parts, is frozen. Its vectors have length 1 there, and entries of size 1 here.
    """

    image: ImageTower
    sentence: TextTower
    heads: Heads
    prior: PriorTransformer
    words: PictureWords

    card: ClassVar[cards.Card] = cards.UNCLIP
    dropped: ClassVar[dict[str, float]] = {"text": 0.5}  # and the vector on its own
    vector_dropped: ClassVar[dict[str, float]] = {"image": 0.1}
    prior_process: ClassVar[Diffusion] = Diffusion(X0(), OfTable(tuple(TABLE.tolist())), TABLE[-1].item())

    def __post_init__(self) -> None:
        super().__post_init__()
        for part in self.clip:
            part.requires_grad_(False).eval()

    @property
    def clip(self) -> tuple[Part, ...]:
        return self.image, self.sentence, self.heads

    def train(self, mode: bool = True) -> Self:
        """CLIP stays as it is: its heads would drop features at random."""
        super().train(mode)
        for part in self.clip:
            part.eval()
        return self

    @classmethod
    def new(cls, *, preset: str, size: int, labels: Sequence[str], part: TakePart) -> Unclip:
        cls.card.check_preset(preset)
        painter = Glide.build(preset, size, part)
        image, sentence, heads = part("image", ImageTower), part("text", TextTower), part("heads", Heads)
        d, reads = heads.config.width, sentence.config
        prior = PriorTransformer(replace(PRIORS[preset], channels=d, text_width=reads.width, words=reads.max_tokens))
        words = PictureWords(PictureWordsConfig(channels=d, text_width=painter.text.config.width))
        own = painter.codec, painter.text, painter.network, (), size
        return cls(*own, image=image, sentence=sentence, heads=heads, prior=prior, words=words)

    # --- training: the prior and the decoder beside each other, neither knows of the other ---------

    def phases(self) -> Sequence[Phase]:
        decoder = [p for part in (self.text, self.words, self.network) for p in part.parameters()]
        return [Phase("prior", list(self.prior.parameters()), self.prior_loss), Phase("decoder", decoder, self.loss)]

    def prior_loss(self, batch: Batch, noise: Noise) -> Tensor:
        """Squared error of the clean vector (Ramesh et al. 2022, eq. 2), (b,)."""
        z = self.vector(batch.image)
        condition = Condition(text=self.sentences(batch.text)).drop({"text": 0.1}, noise)
        return self.prior_process.loss(self.prior_denoiser, z, condition, noise)

    def shown(self, condition: Condition, z: Tensor, noise: Noise) -> Condition:
        """The picture's own vector beside its words, each dropped by itself."""
        condition = super().shown(condition, z, noise)
        vector = Condition(image=self.vector(self.codec.decode(z))).drop(self.vector_dropped, noise).image
        assert condition.text is not None and vector is not None
        return replace(condition, text=self.words(condition.text, vector))

    # --- CLIP's space -----------------------------------------------------------------------------

    @torch.no_grad()
    def vector(self, image: Tensor) -> Tensor:
        """What CLIP sees in pictures (b, c >= 3, h, w): z_i, (b, d)."""
        z = self.heads.picture(self.image(self.image.fit(image.to(self.device))).float())
        return z * z.shape[-1] ** 0.5

    @torch.no_grad()
    def sentences(self, texts: Sequence[str]) -> TextEmbedding:
        """CLIP's tokens, and its vector z_t of length 1 as what is pooled. An empty sentence asks for nothing."""
        text = self.sentence(list(texts))
        return text._replace(pooled=self.heads.text(text) * text.mask.any(1, keepdim=True))

    @property
    def prior_denoiser(self) -> NetworkDenoiser:
        return NetworkDenoiser(self.prior, self.prior_process.scaling)

    @torch.no_grad()
    def imagine(self, prompts: Sequence[str], *, steps: int = 64, guidance: float = 1.0, noise: Noise) -> Tensor:
        """Vectors (b, d) of pictures these sentences may be about: of two drawn, the one that CLIP finds nearer to the sentence."""
        text, process = self.sentences(prompts), self.prior_process
        guided, levels = classifier_free(self.prior_denoiser, guidance), respaced(TABLE, steps)
        shape = (self.prior.config.channels,)
        first, second = (
            process.sample(guided, process.prior(shape, noise), Condition(text=text), levels=levels, noise=noise)
            for _ in range(2)
        )
        nearer = (first * text.pooled).sum(1) >= (second * text.pooled).sum(1)
        return torch.where(nearer[:, None], first, second)

    # --- pictures ---------------------------------------------------------------------------------

    def asked(self, prompts: Sequence[str], styles: Sequence[str | None] | None, noise: Noise) -> Condition:
        return self.saying(self.imagine(prompts, noise=noise), prompts)

    def unasked(self, prompts: Sequence[str]) -> Condition:
        return self.saying(torch.zeros(len(prompts), self.prior.config.channels, device=self.device), prompts)

    @torch.no_grad()
    def decode(self, z: Tensor, prompts: Sequence[str] | None = None, *, guidance: float | Tensor = 4.0, **how: Any) -> Tensor:
        """Pictures that say z (b, d), with or without words; `how` is `paint`'s, with a `start` what z leaves open is kept too."""
        return self.paint(self.guided(guidance), self.saying(z, prompts), **how)

    def saying(self, z: Tensor, prompts: Sequence[str] | None = None) -> Condition:
        condition = self.condition([""] * len(z) if prompts is None else prompts)
        assert condition.text is not None
        return replace(condition, text=self.words(condition.text, z))

    def variations(self, image: Tensor, **how: Any) -> Tensor:
        """Other pictures that say what these (b, 4, size, size) say (sec. 3.1)."""
        return self.decode(self.vector(image), **how)

    @torch.no_grad()
    def invert(self, image: Tensor, *, steps: int = 100) -> tuple[Tensor, Tensor]:
        """What pictures say, z_i (b, d), and the start from which it leads back to them, without guidance (sec. 3)."""
        z, noise = self.vector(image), Noise([0] * len(image), self.device)
        x = self.codec.encode(image.to(self.device))
        return z, invert(clipped(self.denoiser, self.limit), x, self.saying(z), self.levels(steps), noise)

    def interpolate(self, a: Tensor, b: Tensor, share: float, *, steps: int = 100, noise: Noise, **how: Any) -> Tensor:
        """Pictures at this share of the way from a to b, both (b, 4, size, size), in what they say and in all else (sec. 3.2)."""
        (z_a, start_a), (z_b, start_b) = (self.invert(image, steps=steps) for image in (a, b))
        start = slerp(start_a, start_b, share)
        return self.decode(slerp(z_a, z_b, share), start=start, steps=steps, noise=noise, **{"guidance": 1.0, **how})

    def edit(
        self, image: Tensor, before: Sequence[str], after: Sequence[str], share: float = 0.35, *, steps: int = 100, **how: Any
    ) -> Tensor:
        """Pictures turned from what one sentence says towards another: along the difference of their vectors (sec. 3.3)."""
        z, start = self.invert(image, steps=steps)
        way = self.sentences(after).pooled - self.sentences(before).pooled
        way = F.normalize(way, dim=1) * z.norm(dim=1, keepdim=True)
        return self.decode(slerp(z, way, share), start=start, steps=steps, **{"guidance": 1.0, **how})
