"""Attributes read back from pixels alone, by analysis through synthesis: what would the renderer have had to draw?

Patches of one hue are cut out, every shape is fitted to each patch (Levenberg-Marquardt over place, radius and turn), the best are
painted in every texture and style, and the closest painting to the pixels is the reading. What no painting comes close to is unreadable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diorama.errors import UserError
from diorama.types import Score
from diorama.worlds.descriptions import Description, parse
from diorama.worlds.fitting import fit
from diorama.worlds.paintings import Paintings
from diorama.worlds.patches import HUED, hues, patches
from diorama.worlds.render import LARGEST, SMALLEST
from diorama.worlds.scene import ALL_STYLES, ALL_TEXTURES, COLOURS, SIZES, STYLES, TEXTURES, TONES, check_words
from diorama.worlds.shapes import SHAPES

__all__ = ["HUED", "Found", "Oracle", "Reading", "hues"]

READ_AT = 64  # pixels: larger pictures are reduced to it
MOST = 6  # patches; a picture with more is no scene
CRISP = 0.04  # error above which a picture may be blurred
BLURS = (0.7, 1.1)  # pixels (sigma) of the blurs that are tried then
OFF = 0.12  # root mean square error of a painting within its window above which it is no reading


@dataclass(frozen=True)
class Found:
    """One thing as read. x, y and radius are shares of the picture's side; `error` is the painting's, 0 .. 1."""

    shape: str | None
    colour: str
    size: str | None
    texture: str | None
    x: float
    y: float
    radius: float
    angle: float  # degrees
    error: float


@dataclass(frozen=True)
class Reading:
    """What the pixels say. `readable` is false where they do not look like a scene, and then nothing is claimed of them."""

    named: tuple[Found, ...] = ()
    behind_named: tuple[tuple[int, int], ...] = ()
    style: str | None = None
    tone: str | None = None
    readable: bool = False
    why: str = ""
    error: float = 0.0  # of the worst of its paintings


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """A critic that needs no training: the share of a caption's claims that a picture keeps, 0 where it is unreadable.

    It tries these textures and styles and no others. Raises UserError for unknown ones.
    """

    textures: tuple[str, ...] = TEXTURES
    styles: tuple[str, ...] = STYLES

    def __post_init__(self) -> None:
        check_words("textures", self.textures, ALL_TEXTURES)
        check_words("styles", self.styles, ALL_STYLES)

    def read(self, image: Tensor) -> list[Reading]:
        """(b, 3 or 4, h, w) in [-1, 1] -> what each picture shows. Raises UserError for other shapes or numbers that are not finite."""
        rgb = _prepared(image)
        looks = torch.tensor([*map(ALL_TEXTURES.index, self.textures)]), torch.tensor([*map(ALL_STYLES.index, self.styles)])
        readings = _read_all(rgb, looks)
        for blur in BLURS:
            rows = [i for i, reading in enumerate(readings) if reading.error > CRISP]
            for i, again in zip(rows, _read_all(rgb[rows], looks, blur), strict=True):
                readings[i] = min(readings[i], again, key=lambda reading: reading.error)
        return readings

    def observe(self, samples: Tensor, truth: Sequence[str]) -> Tensor:
        """(n, 3): claims kept as a share, whether all are kept, whether the picture is readable; `truth` holds one caption each."""
        if len(samples) != len(truth):
            raise UserError(f"{len(samples)} pictures and {len(truth)} captions: give one caption for each")
        asked = [parse(words) for words in truth]
        return torch.tensor([_kept(a, reading) for a, reading in zip(asked, self.read(samples), strict=True)])

    def score(self, observed: Tensor, reference: Tensor | None = None) -> Score:
        """The share of pictures that keep every claim of their caption, with its binomial error (Agresti & Coull 1998)."""
        n = len(observed)
        if not n:
            raise UserError("no picture was observed: give one or more")
        p = (float(observed[:, 1].sum()) + 2) / (n + 4)
        return Score(float(observed[:, 1].mean()), math.sqrt(p * (1 - p) / (n + 4)), "share", True, n)


def _kept(asked: Description, reading: Reading) -> list[float]:
    if not reading.readable:
        return [0.0, 0.0, 0.0]
    claims = asked.claims(reading)
    return [sum(claims) / max(1, len(claims)), float(all(claims)), 1.0]


def _prepared(image: Tensor) -> Tensor:
    """(b, 3, s, s) in 0 .. 1, s at most READ_AT."""
    if image.ndim != 4 or image.shape[1] not in (3, 4) or image.shape[2] != image.shape[3]:
        raise UserError(f"the oracle reads square pictures (b, 3 or 4, s, s), not {tuple(image.shape)}")
    if not SMALLEST <= image.shape[-1] <= LARGEST:
        raise UserError(f"the oracle reads {SMALLEST} to {LARGEST} pixels, not {image.shape[-1]}: resize the pictures first")
    if not bool(torch.isfinite(image).all()):
        raise UserError("a picture holds numbers that are not finite: mend it first")
    rgb = ((image[:, :3].detach().float().cpu() + 1) / 2).clamp(0, 1)
    return torch.nn.functional.interpolate(rgb, (READ_AT, READ_AT), mode="area") if rgb.shape[-1] > READ_AT else rgb


# --- from patches to words ------------------------------------------------------------------------


def _read_all(rgb: Tensor, looks: tuple[Tensor, Tensor], blur: float = 0.0) -> list[Reading]:
    return [reading for some in rgb.split(16) for reading in _read(some, looks, blur)] if len(rgb) else []


def _read(rgb: Tensor, looks: tuple[Tensor, Tensor], blur: float) -> list[Reading]:
    """Readings of a few pictures (b, 3, s, s) in 0 .. 1, held against paintings in textures and styles, that are so much blurred."""
    found = [patches(picture) for picture in rgb]
    why = ["no thing is seen" if not p else "too many patches for a scene" if len(p) > MOST else "" for p in found]
    kept = [(i, colour, mask) for i, p in enumerate(found) if not why[i] for colour, mask in p]
    if not kept:
        return [Reading(why=reason) for reason in why]
    owner, colours, masks = zip(*kept, strict=True)
    paintings = Paintings(rgb, torch.tensor(owner), torch.tensor(colours), torch.stack(masks), blur)
    styles, best = paintings.choose(*fit(paintings.masks, paintings.free, rgb.shape[-1]), *looks)
    return [Reading(why=reason) if reason else _reading(paintings, i, styles[i], best) for i, reason in enumerate(why)]


def _reading(paintings: Paintings, i: int, style: int, best: tuple[Tensor, ...]) -> Reading:
    """What is read of picture i."""
    rows = (paintings.owner == i).nonzero()[:, 0]
    kind, texture, pose = (part[rows] for part in best)
    off, seen, behind = paintings.judge(rows, kind, texture, torch.full_like(rows, style), pose)
    columns = (column.tolist() for column in (kind, paintings.colours[rows], texture, pose))
    things = [_found(k, c, t, p, error, paintings.size) for k, c, t, p, error in zip(*columns, off, strict=True)]
    bad = sum(thing.error > OFF or thing.size is None or bare < 0.3 for thing, bare in zip(things, seen, strict=True))
    tone = _tone(paintings.rgb[i][:, ~paintings.taken[i]])
    if bad or tone is None:
        why = f"{bad} of {len(things)} patches look like nothing in the world" if bad else "no ground is seen"
        return Reading(why=why, error=max(off))
    return Reading(tuple(things), behind, ALL_STYLES[style], tone, True, error=max(off))


def _found(kind: int, colour: int, texture: int, pose: Sequence[float], error: float, size: int) -> Found:
    x, y, radius = (length / size for length in pose[:3])
    name = list(COLOURS)[colour]
    return Found(SHAPES[kind], name, _size(radius), ALL_TEXTURES[texture], x, y, radius, math.degrees(pose[3]), error)


def _size(radius: float) -> str | None:
    """The size word nearest to a radius; None far from all."""
    low, high = SIZES["small"][0] * 0.8, SIZES["large"][1] * 1.2
    if not low <= radius <= high:
        return None
    return min(SIZES, key=lambda name: abs(math.log(radius / (sum(SIZES[name]) / 2))))


def _tone(bare: Tensor) -> str | None:
    """The tone nearest to the middle colour of the ground's pixels (3, p)."""
    if bare.shape[1] < 16:
        return None
    middle = bare.median(1)[0]
    return min(TONES, key=lambda name: float((middle - torch.tensor(TONES[name])).square().sum()))
