"""The world as a data set: captioned pictures by number, made when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from PIL import Image

from diorama.errors import UserError
from diorama.pictures import to_pil
from diorama.worlds.captions import FORMS, caption
from diorama.worlds.render import LARGEST, SMALLEST, render
from diorama.worlds.scene import ANY, Rules, Scene, as_plain, scene


@dataclass(frozen=True)
class WorldItem:
    """One picture of the world, with the fields that `data.source.Item` has."""

    key: str
    image: Image.Image  # mode RGBA
    text: str
    label: str | None
    fields: Mapping[str, Any] = field(default_factory=dict)


class World:
    """n captioned pictures of the world `seed`, item i a function of (seed, i) alone; labels are the drawing styles.

    A `data.source.Source` by its shape. Neighbours are drawn together and the last few batches are kept, since whoever reads item
    i soon reads i + 1. Raises UserError for an impossible size, number or caption form.
    """

    layout = "world"
    AT_ONCE = 32  # items drawn together

    def __init__(self, seed: int, n: int, size: int = 64, rules: Rules = ANY, form: str | None = None):
        if n < 1:
            raise UserError(f"a world of {n} pictures is not possible: use 1 or more")
        if not SMALLEST <= size <= LARGEST:
            raise UserError(f"size {size} is not possible in the world: use {SMALLEST} to {LARGEST}")
        if form is not None and form not in FORMS:
            raise UserError(f"form {form!r} is not known: use {', '.join(FORMS)}")
        self.seed, self.n, self.size, self.rules, self.form = seed, n, size, rules, form
        self._drawn = lru_cache(8)(self._draw)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(sorted(self.rules.styles))

    def __len__(self) -> int:
        return self.n

    def scene(self, i: int) -> Scene:
        """The scene of item i."""
        if not 0 <= i < self.n:
            raise IndexError(i)
        return scene(self.seed, i, self.rules)

    def record(self, i: int) -> Mapping[str, Any]:
        """What is said of item i, nothing drawn: key, text, label and the whole scene."""
        made = self.scene(i)
        return {
            "key": f"world-{self.seed}-{i}",
            "text": caption(made, form=self.form),
            "label": made.style,
            "scene": as_plain(made),
        }

    def read(self, i: int) -> WorldItem:
        """Item i with its picture, RGBA."""
        said = dict(self.record(i))
        image = self._drawn(i // self.AT_ONCE)[i % self.AT_ONCE]
        return WorldItem(said.pop("key"), image, said.pop("text"), said.pop("label"), said)

    def _draw(self, batch: int) -> list[Image.Image]:
        rows = range(batch * self.AT_ONCE, min(self.n, (batch + 1) * self.AT_ONCE))
        return to_pil(render([self.scene(i) for i in rows], self.size).image, transparent=True)
