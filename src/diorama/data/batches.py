"""Batches whose content is a function of (seed, step): nothing to save, nothing to restore, the same on every machine."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

from diorama.data.order import index_at
from diorama.data.source import Item, Source, Unreadable
from diorama.errors import UserError
from diorama.types import NO_LABEL, Batch


class Batches:
    """`batches(step, rank, world)` -> a `Batch` of `batch` pictures: image (b, 4, size, size) float32 in [-1, 1].

    Channels 0-2 are the picture on white, channel 3 is alpha (-1 clear, 1 opaque); label is the index in `source.labels`.
    A broken item gives way to the next position's; `skipped` names it, and past `limit` of them a `UserError` is raised.
    """

    def __init__(
        self,
        source: Source,
        size: int,
        batch: int,
        seed: int,
        *,
        threads: int = 0,
        limit: int | None = None,
        ordered: bool = False,
    ):
        if not len(source):
            raise UserError("the data set has no items: nothing to make batches of")
        if size < 1 or batch < 1:
            raise UserError(f"size {size} and batch {batch}: both must be 1 or more")
        self.source, self.size, self.batch, self.seed = source, size, batch, seed
        self.limit = max(10, len(source) // 20) if limit is None else limit
        self.ordered = ordered  # the items as they stand, for reading a set once
        self.skipped: dict[str, str] = {}
        self._broken: set[int] = set()
        self._numbers = {label: number for number, label in enumerate(source.labels)}
        self._pool = ThreadPoolExecutor(threads, "decode") if threads else None

    def __call__(self, step: int, rank: int = 0, world: int = 1, stop: int | None = None) -> Batch:
        """The batch of this step; `stop` cuts a last one short at that position."""
        first = (step * world + rank) * self.batch
        positions = range(first, first + self.batch if stop is None else min(stop, first + self.batch))
        read = list(self._pool.map(self._at, positions) if self._pool else map(self._at, positions))
        image = torch.from_numpy(np.stack([picture for picture, _ in read]))
        label = torch.tensor([self._number(item) for _, item in read], dtype=torch.int64)
        short = [str(item.fields.get("short") or "") for _, item in read]
        return Batch(image.float().div_(127.5).sub_(1), [item.text for _, item in read], label, short=short)

    def _number(self, item: Item) -> int:
        return NO_LABEL if item.label is None else self._numbers.get(item.label, NO_LABEL)

    def _at(self, position: int) -> tuple[np.ndarray, Item]:
        """The picture (4, size, size) uint8 and item of this position, or of the next one that can be read."""
        for place in range(position, position + len(self.source) + self.limit + 1):
            i = place % len(self.source) if self.ordered else index_at(place, len(self.source), self.seed)
            if i in self._broken:
                continue
            try:
                item = self.source.read(i)
                return self.picture(item, position), item
            except Unreadable as error:
                self._skip(i, error)
        raise UserError(f"none of the {len(self.source)} items could be read, first {self._first_skipped()}")

    def picture(self, item: Item, position: int) -> np.ndarray:
        """(4, size, size) uint8. Raises `Unreadable` where it cannot be used."""
        return on_white(fit(item.image, self.size))

    def _skip(self, i: int, error: Unreadable) -> None:
        self._broken.add(i)
        key, _, reason = str(error).partition(": ")
        self.skipped[key] = reason
        if len(self._broken) > self.limit:
            raise UserError(
                f"{len(self._broken)} of {len(self.source)} items could not be read (allowed: {self.limit}), "
                f"first {self._first_skipped()}; repair or remove them"
            ) from error

    def _first_skipped(self) -> str:
        return "; ".join(f"{key}: {reason}" for key, reason in list(self.skipped.items())[:3])


class Ahead:
    """The same batches, the next step's made in a thread while this step's is in use; that one is kept, for a second phase."""

    def __init__(self, batches: Callable[[int, int, int], Batch]):
        self.batches = batches
        self._pool = ThreadPoolExecutor(1, "ahead")
        self._made: dict[tuple[int, int, int], Future[Batch]] = {}

    def __call__(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        places = (step, rank, world), (step + 1, rank, world)
        self._made = {place: self._made.get(place) or self._pool.submit(self.batches, *place) for place in places}
        return self._made[places[0]].result()


def fit(image: Image.Image, size: int) -> Image.Image:
    """Any RGBA picture -> (size, size), aspect kept: an opaque one is cropped to its centre, one with alpha is padded clear."""
    if image.size == (size, size):
        return image
    clear = np.asarray(image.getchannel("A")).min() < 255
    if image.width != image.height and not clear:
        image = _centre(image)
    scale = size / max(image.size)
    small = resize(image, (max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    if small.size == (size, size):
        return small
    canvas = Image.new("RGBA", (size, size), (255, 255, 255, 0))
    canvas.paste(small, ((size - small.width) // 2, (size - small.height) // 2))
    return canvas


def _centre(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An RGBA picture at another size (w, h). Pillow weighs colour by alpha here, so clear pixels do not bleed into edges."""
    whole = image.width % size[0] == 0 and image.height % size[1] == 0
    return image.resize(size, Image.Resampling.BOX if whole else Image.Resampling.LANCZOS)


def on_white(image: Image.Image) -> np.ndarray:
    """Straight RGBA -> (4, h, w) uint8: RGB is the picture on white, the last channel alpha."""
    white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.stack([np.asarray(white.getchannel(c)) for c in "RGB"] + [np.asarray(image.getchannel("A"))])
