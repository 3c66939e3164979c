"""Which of many captioned pictures to keep: each is looked at once, and all are judged by what was seen.

What was seen of a picture is one record of fixed size, so a set of any size is a file of rows and never in memory. Judging takes
fifty bytes of memory for a picture.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diorama.data import masks, wording
from diorama.data.batches import fit, on_white, resize
from diorama.data.source import Item, Source, Unreadable
from diorama.data.twins import SIDE, fingerprint, twins
from diorama.errors import UserError

CHUNK = 64  # pictures looked at together
SMALL = 64  # pixels along a side at which masks and hashes are taken; the picture's shape is squeezed to it

SEEN = np.dtype(
    [
        ("readable", "?"),
        ("fault", "u1"),  # of the caption, its place in `wording.FAULTS`
        ("words", "u1"),  # of the caption, up to 255
        ("saying", "u8"),  # equal for equal captions; 0 asks for no comparison
        ("score", "f4"),  # how well picture and caption fit; nan where nobody looked
        ("area", "f4"),  # the subject's share of the picture; nan where no subject is told apart
        ("agreement", "f4"),  # of several masks of it; nan where there are no two
        ("colour", "f4"),  # of the colours the caption names, the one seen least: its share of the subject
        ("hash", "u2", (4,)),
        ("thumbnail", "u1", (SIDE, SIDE, 3)),
    ]
)
Scorer = Callable[[Tensor, Sequence[str]], Tensor]  # (b, 4, h, w) in [-1, 1] and b sentences -> (b,), higher fits better


class Reason(NamedTuple):
    """Why a picture goes: the filter that says so, and in words."""

    filter: str
    words: str


REASONS: Mapping[str, Reason] = {
    "unreadable": Reason("unreadable", "cannot be read"),
    "empty": Reason("caption", "has no caption"),
    "short": Reason("caption", "has too short a caption"),
    "file name": Reason("caption", "has a file name for a caption"),
    "not text": Reason("caption", "has a caption that is no text"),
    "boilerplate": Reason("caption", "has a caption that says nothing of it"),
    "repeated": Reason("caption", "has a caption that too many others have"),
    "small": Reason("mask", "has a subject that fills too little"),
    "large": Reason("mask", "has a subject that fills too much"),
    "disagree": Reason("mask", "has masks that disagree"),
    "colour": Reason("mask", "does not show a colour its caption names"),
    "unlike": Reason("retrieval", "does not fit its caption"),
    "duplicate": Reason("duplicate", "repeats another picture"),
}
FILTERS = ("caption", "mask", "retrieval", "duplicate")  # what can be left out
CODES = {name: code for code, name in enumerate(REASONS, 1)}  # 0 is kept


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is kept. Shares are of the picture or of all pictures, 0 .. 1."""

    filters: Sequence[str] = FILTERS
    least_words: int = 1
    repeats: float = 0.02  # of all pictures: a caption that more than this share has, and more than 20, is boilerplate
    worst: float = 0.1  # of the pictures: so many fit their captions worst and go ...
    least_score: float | None = None  # ... or all that score less than this
    least_area: float = 0.02
    most_area: float = 1.0
    agree: float = 0.5  # least intersection over union of two masks
    shown: float = 0.02  # least share of the subject that has a colour the caption names
    alike: float = 0.02  # root mean square difference up to which two thumbnails are one picture

    def __post_init__(self) -> None:
        if unknown := [name for name in self.filters if name not in FILTERS]:
            raise UserError(f"filter {unknown[0]!r} is not known: use {', '.join(FILTERS)}")
        for name in ("repeats", "worst", "least_area", "most_area", "agree", "shown", "alike"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name.replace('_', '-')} {getattr(self, name)} is not allowed: use 0 to 1")
        if self.least_area > self.most_area:
            raise UserError(f"areas of {self.least_area} to {self.most_area} keep nothing: give the smaller first")


# --- looking --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Looker:
    """What pictures are looked at with: a scorer of `size` pixels, and masks that something else made, found by their keys."""

    scorer: Scorer | None = None
    size: int = 0
    masks: Sequence[Source] = ()

    def __call__(self, items: Sequence[Item | Unreadable]) -> np.ndarray:
        """(n,) rows of `SEEN`: a pure function of these items, and of which stand together only in the last bits of the score."""
        rows = np.zeros(len(items), SEEN)
        rows[["score", "area", "agreement", "colour"]] = np.nan
        for row, item in zip(rows, items, strict=True):
            if isinstance(item, Item):
                self._see(row, item)
        told = [(i, item) for i, item in enumerate(items) if isinstance(item, Item) and item.text]
        if self.scorer is not None and told:
            places, some = zip(*told, strict=True)
            score = self.scorer(tensor([item.image for item in some], self.size), [item.text for item in some])
            rows["score"][list(places)] = score.float().cpu().numpy()
        return rows

    def _see(self, row: np.void, item: Item) -> None:
        row["readable"] = True
        row["fault"] = wording.FAULTS.index(wording.caption_fault(item.text))
        row["words"] = min(255, wording.words(item.text))
        row["saying"] = wording.saying(item.text, item.label)
        small = _small(item.image)
        row["hash"], row["thumbnail"] = fingerprint(on_paper(small))
        picture = np.asarray(small)
        found = [mask for mask in (masks.subject(picture), *self._given(item.key)) if mask is not None]
        if found:
            row["area"], row["agreement"] = found[-1].mean(), masks.agreement(found)
            row["colour"] = masks.colours_shown(picture, found[-1], item.text)

    def _given(self, key: str) -> Iterator[np.ndarray]:
        """The masks of this key that others made; what cannot be read is no mask."""
        for source, places in zip(self.masks, self._places, strict=True):
            if (place := places.get(_stem(key))) is not None:
                mask = _read(source, place)
                if isinstance(mask, Item):
                    yield masks.as_mask(np.asarray(_small(mask.image)))

    @cached_property
    def _places(self) -> list[dict[str, int]]:
        return [{_stem(source.record(i)["key"]): i for i in range(len(source))} for source in self.masks]


def _stem(key: str) -> str:
    """A key without the suffix of a file: a mask may be another kind of picture."""
    head, dot, suffix = key.rpartition(".")
    return head if dot and len(suffix) <= 4 and "/" not in suffix else key


def _small(image: Image.Image) -> Image.Image:
    return resize(image, (SMALL, SMALL))


def _read(source: Source, i: int) -> Item | Unreadable:
    try:
        return source.read(i)
    except Unreadable as error:
        return error


def on_paper(image: Image.Image) -> Image.Image:
    """A straight RGBA picture on white, RGB."""
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def tensor(images: Sequence[Image.Image], size: int) -> Tensor:
    """RGBA pictures of any sizes -> (b, 4, size, size) in [-1, 1], on white."""
    return torch.from_numpy(np.stack([on_white(fit(image, size)) for image in images])).float().div_(127.5).sub_(1)


def readings(source: Source, first: int) -> list[Item | Unreadable]:
    """The chunk of items that begins here."""
    with ThreadPoolExecutor(os.cpu_count(), "decode") as pool:
        return list(pool.map(partial(_read, source), range(first, min(first + CHUNK, len(source)))))


def look(source: Source, looker: Looker, first: int = 0) -> Iterator[np.ndarray]:
    """What is seen of the items from `first` on, a chunk at a time; no more than one chunk of pictures is held."""
    return (looker(readings(source, start)) for start in range(first, len(source), CHUNK))


# --- judging --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdicts:
    """Why each picture goes, and of which one it is a twin."""

    reason: np.ndarray  # (n,) uint8, the first of its reasons in the order of `REASONS`; 0 is kept
    twin: np.ndarray  # (n,) int32, the picture it repeats, or -1
    counts: Mapping[str, int]  # of every reason, also where another came first
    line: float = float("nan")  # the score below which a picture was dropped
    notes: Sequence[str] = field(default_factory=list)

    @property
    def kept(self) -> np.ndarray:
        """The places of the pictures to keep, rising."""
        return np.flatnonzero(self.reason == 0)

    def dropped(self, name: str) -> np.ndarray:
        return np.flatnonzero(self.reason == CODES[name])


def judge(seen: np.ndarray, limits: Limits) -> Verdicts:
    """Rows of `SEEN`, in memory or mapped from a file -> what becomes of each picture.

    Each filter looks at what the ones before it left: the worst are a share of the pictures with a sound caption, and a picture
    repeats only one that stays.
    """
    return _Judge(seen, limits).verdicts()


class _Judge:
    def __init__(self, seen: np.ndarray, limits: Limits):
        self.seen, self.limits = seen, limits
        self.reason, self.twin = np.zeros(len(seen), np.uint8), np.full(len(seen), -1, np.int32)
        self.counts: dict[str, int] = {}
        self.notes: list[str] = []
        self.line = float("nan")

    def verdicts(self) -> Verdicts:
        self._drop("unreadable", ~self.seen["readable"])
        for name in FILTERS:
            if name in self.limits.filters:
                getattr(self, f"_{name}")()
        return Verdicts(self.reason, self.twin, self.counts, self.line, self.notes)

    def _drop(self, name: str, rows: np.ndarray) -> None:
        rows = rows & (self.seen["readable"] | (name == "unreadable"))
        self.counts[name] = int(rows.sum())
        self.reason[rows & (self.reason == 0)] = CODES[name]

    def _caption(self) -> None:
        fault = self.seen["fault"]
        empty = fault == wording.FAULTS.index("empty")
        if empty[self.seen["readable"]].all():
            self.notes.append("caption: no picture has one, so none is asked for")
            return
        for name in wording.FAULTS[1:]:
            self._drop(name, fault == wording.FAULTS.index(name))
        self._drop("short", (self.seen["words"] < self.limits.least_words) & ~empty)
        saying, back, count = np.unique(self.seen["saying"], return_inverse=True, return_counts=True)
        often = (count > max(20, self.limits.repeats * len(self.seen))) & (saying != 0)
        self._drop("repeated", often[back] & ~empty)

    def _mask(self) -> None:
        if np.isnan(self.seen["area"]).all():
            self.notes.append("mask: no subject is told apart, by alpha, by a plain ground or by --masks: nothing is asked")
            return
        with np.errstate(invalid="ignore"):  # what is nan was not asked, and stays
            self._drop("small", self.seen["area"] < self.limits.least_area)
            self._drop("large", self.seen["area"] > self.limits.most_area)
            self._drop("disagree", self.seen["agreement"] < self.limits.agree)
            self._drop("colour", self.seen["colour"] < self.limits.shown)

    def _retrieval(self) -> None:
        score = self.seen["score"]
        asked = np.flatnonzero((self.reason == 0) & ~np.isnan(score))
        if not len(asked):
            self.notes.append("retrieval: nobody looked whether pictures fit their captions; name a model with --scorer")
            return
        if self.limits.least_score is not None:
            self.line = self.limits.least_score
        else:  # the score of the first one that stays
            ranked = np.sort(score[asked])
            self.line = float(ranked[min(int(self.limits.worst * len(ranked)), len(ranked) - 1)])
        self._drop("unlike", score < self.line)

    def _duplicate(self) -> None:
        left = np.flatnonzero(self.reason == 0)
        self.twin = twins(self.seen["hash"], self.seen["thumbnail"], left, self.limits.alike)
        self._drop("duplicate", self.twin >= 0)


def curate(source: Source, looker: Looker, limits: Limits) -> Verdicts:
    """A source judged in one go, its rows in memory: a kilobyte for a picture."""
    return judge(np.concatenate(list(look(source, looker))), limits)
