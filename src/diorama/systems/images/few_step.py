"""A few steps in the place of many: a painter learns, as an adapter, to stand where its own guided walk would stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from diorama import cards
from diorama.data.encoded import fingerprint
from diorama.data.order import index_at
from diorama.errors import UserError
from diorama.networks import lora
from diorama.networks.precision import ground
from diorama.processes.paths import follow, places, walk
from diorama.processes.solvers import SOLVERS
from diorama.storage import Storage, kept
from diorama.systems.base import System
from diorama.systems.images.latent import LatentPainter
from diorama.training.loop import History, fit
from diorama.training.plan import Plan
from diorama.types import NO_LABEL, Batch, Condition, Noise, OnStep, Step, TextEmbedding, ignore, mix

PLAN = Plan(steps=1200, batch=8, lr=2e-3, warmup=40, decay=0.5, ema=0.99, weight_decay=0.0)
LAYERS = r"network\..+"  # all that are linear or convolve: guidance changes what every one of them does
CHUNK = 64  # paths walked, and kept, together
AMPLIFIED = 100.0  # the most times that an error of the network may be one of the clean picture, where a walk begins

Asked = tuple[str, str | None]  # a sentence, and a style or none


@dataclass(eq=False)
class FewStep(System):
    """A painter that learns its own guided walk in a few steps without guidance (after Salimans & Ho 2022; Meng et al. 2023).

    Not one that tells the noise where nearly all is noise: there its clean picture is the difference of two huge numbers, and one
    step of it leads nowhere (Salimans & Ho 2022, sec. 4). It raises UserError.
    """

    painter: LatentPainter
    steps: int = 4
    rank: int = 16  # of the LoRA that learns

    card: ClassVar[cards.Card] = cards.FEW_STEP

    def __post_init__(self) -> None:
        first = self.levels[0]
        if (times := self.painter.process.scaling(first).c_out.abs()) > AMPLIFIED:
            raise UserError(
                f"a {self.painter.card.slug} tells the noise from sigma {first:,.0f} on, where its clean picture is {times:,.0f} times as "
                "wrong as what it tells: few steps are for a flow, or an ldm"
            )
        lora.wrap(self.painter, LAYERS, self.rank)

    @property
    def levels(self) -> Tensor:
        return self.painter.levels(self.steps)

    def learn(
        self,
        asked: Sequence[Asked],
        plan: Plan,
        n: int,
        work: Path | None = None,
        *,
        on_walk: OnStep = ignore,
        on_step: OnStep = ignore,
        **how: Any,
    ) -> History:
        """From n paths of its own, one for each that is asked and then around again; `how` they are walked: steps, guidance, solver.

        With `work`, a folder, paths and training are kept there and taken up again.
        """
        paths = self.paths(list(islice(cycle(asked), n)), plan, work, on_walk, **how)
        return fit(self, paths, plan, work, on_step=on_step)

    def paths(self, asked: Sequence[Asked], plan: Plan, work: Path | None = None, on_walk: OnStep = ignore, **how: Any) -> Paths:
        """One path for each that is asked, CHUNK at a time; those that are in `work` already are read."""
        chunks: list[dict[str, Tensor]] = []
        for first in range(0, len(asked), CHUNK):
            part = asked[first : first + CHUNK]
            noise = Noise([mix(plan.seed, first + i) for i in range(len(part))], self.device)
            file, key = work and work / f"paths-{first:06d}.safetensors", fingerprint(part, plan.seed, self.steps, how)
            with ground(plan.device, plan.dtype).autocast():
                chunks.append(kept(file, key, partial(self.walked, part, noise, **how)))
            on_walk(Step(first + len(part) - 1, len(asked)))
        return Paths({name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}, plan.batch, plan.seed)

    @torch.no_grad()
    def walked(
        self, asked: Sequence[Asked], noise: Noise, *, steps: int = 12, guidance: float = 5.0, solver: str = "dpmpp_2m"
    ) -> dict[str, Tensor]:
        """What was asked, and where the painter's guided walk stands whenever one of the few steps does: float16, one row each.

        It has `steps` steps, or the next number that leads through all the few.
        """
        painter, few = self.painter, self.levels
        levels, stands = next((many, at) for n in range(steps, 1001) if (at := places(many := painter.levels(n), few)))
        condition = painter.condition(*zip(*asked, strict=True))
        assert condition.text is not None
        guided = painter.guided(guidance)
        path = walk(SOLVERS[solver], guided, painter.start(noise), condition, levels, noise)[:, stands]
        label = torch.full((len(path),), NO_LABEL) if condition.label is None else condition.label
        rows = {"path": path, "label": label, **condition.text._asdict()}
        return {name: (row.half() if row.is_floating_point() else row).cpu() for name, row in rows.items()}

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        """Every step of its own, against the path."""
        assert batch.latent is not None
        condition = Condition(text=batch.embedding, label=batch.label if self.painter.styles else None).to(self.device)
        return follow(self.painter.denoiser, batch.latent.to(self.device), condition, self.levels)

    def save_pretrained(self, folder: str | Path, storage: Storage = "bfloat16", **about: Any) -> None:
        """The adapter alone, which says in how many steps it is walked."""
        defaults = {"steps": self.steps, "guidance": 1.0, "solver": "euler"}
        lora.Adapter.of(self.painter).save(folder, storage=storage, defaults=defaults, **about)


@dataclass(frozen=True, eq=False)
class Paths:
    """Batches of walked paths: n of them at each step."""

    rows: dict[str, Tensor]
    n: int
    seed: int

    def __call__(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        first, total = (step * world + rank) * self.n, len(self.rows["label"])
        picked = [index_at(p, total, self.seed) for p in range(first, first + self.n)]
        path, label, tokens, mask, pooled = (self.rows[name][picked] for name in ("path", "label", *TextEmbedding._fields))
        embedding = TextEmbedding(tokens.float(), mask, pooled.float())
        return Batch(path.new_zeros(0), label=label, latent=path.float(), embedding=embedding)
