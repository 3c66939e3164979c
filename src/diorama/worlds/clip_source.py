"""Clips of the world as a data set: by number, made when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

LABELS: dict[str, Callable[[str, str], str]] = {  # of the law that moves the things, and of the way the camera goes
    "camera": lambda law, camera: camera,
    "law": lambda law, camera: law,
    "motion": lambda law, camera: f"{law}, {camera}",
}


@dataclass(frozen=True)
class ClipItem:
    """One clip with its sentence, its sound and its label."""

    key: str
    frames: Tensor  # (4, t, h, w) in [-1, 1]
    sound: Tensor  # (n,) at `sound.RATE`
    text: str
    label: str
    fields: Mapping[str, Any] = field(default_factory=dict)


class ClipWorld:
    """n clips of the world `seed`, item i a function of (seed, i) alone; the label is the way the camera goes, the law, or both.

    Raises UserError for an impossible size, number, label or form.
    """

    layout = "clips"

    def __init__(self, seed: int, n: int, size: int = 32, rules: ClipRules = ANY, form: str | None = None, label: str = "camera"):
        if n < 1:
            raise UserError(f"a world of {n} clips is not possible: use 1 or more")
        if not SMALLEST <= size <= LARGEST:
            raise UserError(f"size {size} is not possible in the world: use {SMALLEST} to {LARGEST}")
        if form is not None and form not in FORMS:
            raise UserError(f"form {form!r} is not known: use {', '.join(FORMS)}")
        if label not in LABELS:
            raise UserError(f"label {label!r} is not known of clips: use {', '.join(LABELS)}")
        self.seed, self.n, self.size, self.rules, self.form, self.label = seed, n, size, rules, form, label

    @property
    def labels(self) -> tuple[str, ...]:
        cameras, laws = {"still", *self.rules.cameras}, self.rules.laws
        return tuple(sorted({LABELS[self.label](law, camera) for law in laws for camera in cameras}))

    def __len__(self) -> int:
        return self.n

    def clip(self, i: int) -> Clip:
        """The clip of item i."""
        if not 0 <= i < self.n:
            raise IndexError(i)
        return clip(self.seed, i, self.rules)

    def record(self, i: int) -> Mapping[str, Any]:
        """What is said of item i, nothing drawn: key, text and label."""
        made = self.clip(i)
        return {"key": f"clips-{self.seed}-{i}", "text": describe(made, form=self.form), "label": self.label_of(made)}

    def read(self, i: int) -> ClipItem:
        """Item i; its fields say what is wrong with it, where it cuts, and what happens when."""
        made = self.clip(i)
        fields = {"defect": made.defect, "cuts": made.cuts, "events": made.events()}
        frames = film(made, self.size).image.transpose(0, 1)
        return ClipItem(frames=frames, sound=sound(made), fields=fields, **self.record(i))

    def label_of(self, made: Clip) -> str:
        """The label of a clip: of its first shot."""
        return LABELS[self.label](made.shots[0].law, made.shots[0].camera.kind)

    def lines(self) -> list[str]:
        """What it holds, for people, one fact a line."""
        said = [self.record(i)["text"] for i in range(min(3, self.n))]
        head = (
            f"the miniature world {self.seed} in motion, {self.rules.frames} frames of {self.size} x {self.size}, every clip new"
        )
        return [head, f"{len(self.labels)} labels ({self.label})", *(f"for example {s}" for s in said)]

    def batch(self, first: int, n: int) -> Batch:
        """Items first .. first + n - 1, from the front again after the last: image (n, 4, t, size, size) in [-1, 1]."""
        clips = [self.clip(i % self.n) for i in range(first, first + n)]
        image = torch.stack([film(made, self.size).image.transpose(0, 1) for made in clips])
        label = torch.tensor([self.labels.index(self.label_of(made)) for made in clips], dtype=torch.int64)
        return Batch(image, [describe(made, form=self.form) for made in clips], label)
