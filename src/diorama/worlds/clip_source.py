"""Clips of the world as a data set: by number, made when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from diorama.errors import UserError
from diorama.types import Batch
from diorama.worlds.clips import ANY, Clip, ClipRules, clip
from diorama.worlds.film import film
from diorama.worlds.motions import FORMS, describe
from diorama.worlds.render import LARGEST, SMALLEST
from diorama.worlds.sound import sound


@dataclass(frozen=True)
class ClipItem:
    """One clip with its sentence and its sound; the label is the way its camera goes."""

    key: str
    frames: Tensor  # (4, t, h, w) in [-1, 1]
    sound: Tensor  # (n,) at `sound.RATE`
    text: str
    label: str
    fields: Mapping[str, Any] = field(default_factory=dict)


class ClipWorld:
    """n clips of the world `seed`, item i a function of (seed, i) alone. Raises UserError for an impossible size, number or form."""

    layout = "clips"

    def __init__(self, seed: int, n: int, size: int = 32, rules: ClipRules = ANY, form: str | None = None):
        if n < 1:
            raise UserError(f"a world of {n} clips is not possible: use 1 or more")
        if not SMALLEST <= size <= LARGEST:
            raise UserError(f"size {size} is not possible in the world: use {SMALLEST} to {LARGEST}")
        if form is not None and form not in FORMS:
            raise UserError(f"form {form!r} is not known: use {', '.join(FORMS)}")
        self.seed, self.n, self.size, self.rules, self.form = seed, n, size, rules, form

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(sorted({"still", *self.rules.cameras}))

    def __len__(self) -> int:
        return self.n

    def clip(self, i: int) -> Clip:
        """The clip of item i."""
        if not 0 <= i < self.n:
            raise IndexError(i)
        return clip(self.seed, i, self.rules)

    def read(self, i: int) -> ClipItem:
        """Item i; its fields say what is wrong with it, where it cuts, and what happens when."""
        made = self.clip(i)
        fields = {"defect": made.defect, "cuts": made.cuts, "events": made.events()}
        frames = film(made, self.size).image.transpose(0, 1)
        words = describe(made, form=self.form)
        return ClipItem(f"clips-{self.seed}-{i}", frames, sound(made), words, made.shots[0].camera.kind, fields)

    def batch(self, first: int, n: int) -> Batch:
        """Items first .. first + n - 1, from the front again after the last: image (n, 4, t, size, size) in [-1, 1]."""
        clips = [self.clip(i % self.n) for i in range(first, first + n)]
        image = torch.stack([film(made, self.size).image.transpose(0, 1) for made in clips])
        label = torch.tensor([self.labels.index(made.shots[0].camera.kind) for made in clips], dtype=torch.int64)
        return Batch(image, [describe(made, form=self.form) for made in clips], label)
