"""DreamBooth: a few pictures of one subject tied to a word of its own, while the class it belongs to stays what it was."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from diorama import cards
from diorama.data.order import index_at
from diorama.errors import UserError
from diorama.networks import lora
from diorama.storage import Storage
from diorama.systems.base import System
from diorama.systems.images.latent import LatentPainter
from diorama.systems.images.stable_diffusion import StableDiffusion
from diorama.training.loop import History, fit
from diorama.training.plan import Plan
from diorama.types import Batch, Noise, OnStep, Step, ignore, mix

PLANS = {
    "lora": Plan(steps=400, batch=16, lr=2e-3, warmup=20, decay=0.5, ema=0.98, weight_decay=0.0),
    "full": Plan(steps=400, batch=16, lr=3e-4, warmup=20, decay=0.5, ema=0.98, weight_decay=0.0),
    # Stable Diffusion's U-Net: sec. 4; its LoRA learns twenty times as fast, as is the custom
    "large lora": Plan(steps=1000, batch=2, lr=1e-4, warmup=0, decay=0.0, ema=0.0),
    "large full": Plan(steps=1000, batch=2, lr=5e-6, warmup=0, decay=0.0, ema=0.0),
}
LARGE = 100_000_000  # parameters of a painter's network
# Which get a LoRA: all that attend, convolve or modulate; of a network as large as Stable Diffusion's, what attends
LAYERS = r"network\.(down|middle|up)\..+|network\.model\..+\.to_(q|k|v|out\.0)"
FEWEST, MOST = 2, 50  # pictures of a subject
CHUNK = 8  # class pictures painted together


@dataclass(frozen=True)
class Words:
    """What the subject is called: an identifier that meant nothing before, and the class that it is one of."""

    identifier: str
    noun: str

    @classmethod
    def of(cls, words: str) -> Words:
        """ "sks toy": the first is the identifier. Raises UserError where the class is missing."""
        identifier, _, noun = " ".join(words.split()).partition(" ")
        if not noun:
            raise UserError(f'{words!r} names no class: say an identifier and what the subject is, as in "sks toy"')
        return cls(identifier, noun)

    @property
    def subject(self) -> str:
        return f"a {self.identifier} {self.noun}"

    @property
    def kind(self) -> str:
        return f"{'an' if self.noun[0].lower() in 'aeiou' else 'a'} {self.noun}"


def check_pictures(n: int) -> None:
    """Raises UserError where a subject cannot be learned from so many."""
    if not FEWEST <= n <= MOST:
        found = f"{n} picture{'s' * (n != 1)} of the subject {'is' if n == 1 else 'are'} too {'few' if n < FEWEST else 'many'}"
        raise UserError(f"{found}: give {FEWEST} to {MOST}, best 3 to 6 on different grounds")


def plan_for(painter: LatentPainter, full: bool) -> Plan:
    """How a painter of this size learns a subject."""
    large = "large " if sum(p.numel() for p in painter.network.parameters()) > LARGE else ""
    return PLANS[large + ("full" if full else "lora")]


@dataclass(eq=False)
class DreamBooth(System):
    """A painter that learns "a [V] [class]" from a few pictures, beside what it painted itself when asked for "a [class]"."""

    painter: LatentPainter
    words: Words
    rank: int = 8  # of the LoRA that learns; 0 is all of the painter's network
    weight: float = 1.0  # of the class beside the subject: lambda of Ruiz et al. 2023, eq. 2

    card: ClassVar[cards.Card] = cards.DREAMBOOTH

    def __post_init__(self) -> None:
        self._check_identifier()
        if self.rank:
            lora.wrap(self.painter, LAYERS, self.rank)
        else:
            self.painter.requires_grad_(False)
            self.painter.network.requires_grad_(True)

    def _check_identifier(self) -> None:
        """A word that means something would be fought over; one that cannot be spelled is like all others that cannot."""
        word, text = self.words.identifier, self.painter.text
        if text.means(word) or not text.pieces_of(word):
            why = "means something to" if text.means(word) else "cannot be spelled by"
            raise UserError(f"identifier {word!r} {why} this model: use a short word without a meaning, such as sks or zwx")

    def learn(
        self,
        image: Tensor,
        plan: Plan,
        n: int = 100,
        *,
        on_paint: OnStep = ignore,
        on_step: OnStep = ignore,
        **how: Any,
    ) -> History:
        """From pictures (k, 4, size, size) of the subject and n of its class, which are painted first; 0 is none.

        `how` they are painted: steps, guidance, solver. Raises UserError for too few pictures of the subject or too many.
        """
        check_pictures(len(image))
        kind = self.remembered(n, plan.seed, on_paint, **how) if n else None
        return fit(self, Halves(self.seen(image, self.words.subject), kind, plan.batch, plan.seed), plan, on_step=on_step)

    def remembered(self, n: int, seed: int, on_paint: OnStep = ignore, **how: Any) -> Batch:
        """n pictures that the painter makes of the class: what it knew of it before."""
        painted = []
        for first in range(0, n, CHUNK):
            noise = Noise([mix(seed, 1, i) for i in range(first, min(n, first + CHUNK))], self.device)
            painted.append(self.painter.sample([self.words.kind] * len(noise), noise=noise, **how))
            on_paint(Step(min(n, first + CHUNK) - 1, n))
        return self.seen(torch.cat(painted), self.words.kind)

    @torch.no_grad()
    def seen(self, image: Tensor, sentence: str) -> Batch:
        """Pictures as the frozen codec sees them, and what all of them are called."""
        latent = torch.cat([self.painter.codec.encode(part.to(self.device)) for part in image.split(CHUNK)])
        return Batch(image.new_zeros(0), [sentence] * len(image), latent=latent)

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        """No sentence is dropped: what nobody asked for must not become the subject."""
        assert batch.latent is not None
        weight = torch.tensor([1.0 if text == self.words.subject else self.weight for text in batch.text], device=self.device)
        z = batch.latent.to(self.device)
        condition = self.painter.shown(self.painter.condition(batch.text), z, noise)
        return weight * self.painter.process.loss(self.painter.denoiser, z, condition, noise)

    def save_pretrained(self, folder: str | Path, storage: Storage = "float32", **about: Any) -> None:
        """The adapter alone; where all of the network learned, the painter as a model of its own."""
        if not self.rank:
            self.painter.save_pretrained(folder, storage, **about)
            return
        adapter = lora.Adapter.of(self.painter)
        adapter.save(folder, **about)
        if isinstance(self.painter, StableDiffusion):
            self.painter.write_adapter(adapter, Path(folder))


@dataclass(frozen=True, eq=False)
class Halves:
    """Batches of as many pictures of the class as of the subject; of the subject alone where there is no class."""

    subject: Batch
    kind: Batch | None
    n: int
    seed: int

    def __call__(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        both = [self.subject] if self.kind is None else [self.subject, self.kind]
        each = self.n // len(both)
        first = (step * world + rank) * each
        rows = [[index_at(p, len(part), self.seed) for p in range(first, first + each)] for part in both]
        latent = torch.cat([part.latent[some] for part, some in zip(both, rows, strict=True) if part.latent is not None])
        return Batch(latent.new_zeros(0), [part.text[0] for part in both for _ in range(each)], latent=latent)
