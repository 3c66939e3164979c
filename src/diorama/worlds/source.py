"""The world as a data set: captioned pictures by number, made when they are asked for."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Protocol

import torch
from PIL import Image

from diorama.errors import UserError
from diorama.pictures import to_pil
from diorama.types import NO_LABEL, Batch, Item, mix
from diorama.worlds.captions import FORMS, caption
from diorama.worlds.render import LARGEST, SMALLEST, pictures
from diorama.worlds.scene import ANY, Rules, Scene, as_plain, scene

ENDLESS = 2**40  # items: more than anyone will see


class World:
    """n captioned pictures of the world `seed`, item i a function of (seed, i) alone; `label` says what their labels are.

    A `data.source.Source` by its shape. Neighbours are drawn together and the last few batches are kept, since whoever reads item
    i soon reads i + 1. Raises UserError for an impossible size, number, label or caption form.
    """

    layout = "world"
    AT_ONCE = 32  # items drawn together

    def __init__(self, seed: int, n: int, size: int = 64, rules: Rules = ANY, form: str | None = None, label: str = "style"):
        if n < 1:
            raise UserError(f"a world of {n} pictures is not possible: use 1 or more")
        if not SMALLEST <= size <= LARGEST:
            raise UserError(f"size {size} is not possible in the world: use {SMALLEST} to {LARGEST}")
        if form is not None and form not in FORMS:
            raise UserError(f"form {form!r} is not known: use {', '.join(FORMS)}")
        if label not in LABELS:
            raise UserError(f"label {label!r} is not known in the world: use {', '.join(LABELS)}")
        self.seed, self.n, self.size, self.rules, self.form, self.label = seed, n, size, rules, form, label
        self._drawn = lru_cache(8)(self._draw)

    @property
    def labels(self) -> tuple[str, ...]:
        return LABELS[self.label](self.rules)

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
            "label": label_of(made, self.label),
            "scene": as_plain(made),
        }

    def read(self, i: int) -> Item:
        """Item i with its picture, RGBA."""
        said = dict(self.record(i))
        image = self._drawn(i // self.AT_ONCE)[i % self.AT_ONCE]
        return Item(said.pop("key"), image, said.pop("text"), said.pop("label"), said)

    def lines(self) -> list[str]:
        """What it holds, for people, one fact a line."""
        said = [self.record(i)["text"] for i in range(min(3, self.n))]
        head = f"the miniature world {self.seed}, {self.size} x {self.size}, every picture new; {len(self.rules.pairs)} coloured shapes"
        return [
            head,
            f"{len(self.labels)} labels ({self.label}): {', '.join(self.labels[:8])}",
            *(f"for example {s}" for s in said),
        ]

    def batch(self, first: int, n: int) -> Batch:
        """Items first .. first + n - 1, drawn together and without a detour over files: image (n, 4, size, size) in [-1, 1]."""
        scenes = [self.scene(i % self.n) for i in range(first, first + n)]
        numbers = {name: number for number, name in enumerate(self.labels)}
        label = torch.tensor([numbers.get(label_of(s, self.label) or "", NO_LABEL) for s in scenes], dtype=torch.int64)
        short = [caption(s, form="short") for s in scenes] if self.form == "long" else ()
        return Batch(pictures(scenes, self.size), [caption(s, form=self.form) for s in scenes], label, short=short)

    def _draw(self, batch: int) -> list[Image.Image]:
        rows = range(batch * self.AT_ONCE, min(self.n, (batch + 1) * self.AT_ONCE))
        return to_pil(pictures([self.scene(i) for i in rows], self.size), transparent=True)


class Numbered(Protocol):
    """A world that gives its items by number, pictures or clips."""

    def batch(self, first: int, n: int) -> Batch: ...


class WorldBatches:
    """`batches(step, rank, world)` -> the next `batch` items of the world: none is seen twice before all were."""

    def __init__(self, world: Numbered, batch: int):
        self.world, self.batch = world, batch
        self.skipped: dict[str, str] = {}  # nothing here is unreadable

    def __call__(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        return self.world.batch((step * world + rank) * self.batch, self.batch)


# --- what a label may be --------------------------------------------------------------------------

LABELS: dict[str, Callable[[Rules], tuple[str, ...]]] = {
    "style": lambda rules: tuple(sorted(rules.styles)),
    "shape": lambda rules: tuple(sorted(rules.shapes)),
    "colour": lambda rules: tuple(sorted(rules.colours)),
    "kind": lambda rules: tuple(sorted(f"{colour} {shape}" for colour in rules.colours for shape in rules.shapes)),
}


def label_of(scene: Scene, label: str) -> str | None:
    """The label of a scene: its style, or what its only thing is; None where it has several things, or a subject."""
    if label == "style":
        return scene.style
    if len(scene.things) != 1 or not scene.named:
        return None
    thing = scene.named[0]
    return f"{thing.colour} {thing.shape}" if label == "kind" else str(getattr(thing, label))


def unseen(rules: Rules, share: float, seed: int = 0) -> tuple[tuple[str, str], ...]:
    """About this share of the (colour, shape) pairs, for a hold-out; every colour and every shape stays known by other pairs."""
    if not 0 <= share <= 0.5:
        raise UserError(f"a hold-out of {share} is not possible in the world: use 0 to 0.5")
    pairs = sorted(rules.pairs, key=lambda pair: mix(seed, zlib.crc32(" ".join(pair).encode())))
    held: list[tuple[str, str]] = []
    for pair in pairs:
        rest = set(pairs) - {*held, pair}
        if len(held) < round(share * len(pairs)) and all(any(pair[i] == other[i] for other in rest) for i in (0, 1)):
            held.append(pair)
    return tuple(held)
