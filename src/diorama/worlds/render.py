"""Scenes to pictures: anti-aliased signed distances, all things of a batch at once, each in a window around its centre.

Coverage of a pixel is its signed distance to the outline, in pixels, clamped: half a pixel inside is covered, half outside is clear.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from diorama.errors import UserError
from diorama.types import mix
from diorama.worlds.scene import ALL_STYLES, ALL_TEXTURES, COLOURS, SIZES, STYLES, TONES, Ground, Scene, Thing
from diorama.worlds.shapes import KINDS, REACH, SUBJECT, distance

SMALLEST, LARGEST = 32, 128  # pixels along a side
CELLS = 32  # along a side of a picture in the pixel style, and of the paper on which rare styles lay their marks
CHUNK = 32  # scenes whose things are painted together
LATTICE = 16  # of the noise ground
PALETTE = torch.tensor([*COLOURS.values(), (0.16, 0.16, 0.17)])  # the last is a subject's
OPAQUE = torch.ones(())
COLOUR_NUMBER = {name: number for number, name in enumerate(COLOURS)}


@dataclass(frozen=True)
class Views:
    """What a batch of scenes shows. Rows of masks beyond a scene's own things are empty, their ids -1, their boxes zero."""

    image: Tensor  # (b, 4, h, w) in [-1, 1]: the picture on white and its alpha
    masks: Tensor  # (b, k, h, w) in 0 .. 1: the share of each pixel where thing k is seen
    whole: Tensor  # (b, k, h, w) in 0 .. 1: the same if nothing covered it
    boxes: Tensor  # (b, k, 4) pixels, left, top, right, bottom of what is seen; right and bottom are one past the last
    ids: Tensor  # (b, k) int64: the thing's place in its scene, -1 where there is none

    @property
    def visible(self) -> Tensor:
        """(b, k) in 0 .. 1: how much of each thing is seen; 0 where there is none."""
        return self.masks.sum((2, 3)) / self.whole.sum((2, 3)).clamp(min=1e-6)


class Poses(NamedTuple):
    """m things as numbers, in pixels of the picture, ready to be drawn."""

    kind: Tensor  # (m,) int64, place in `shapes.KINDS`
    x: Tensor  # (m,) pixels; the first pixel's centre is at 0.5
    y: Tensor
    radius: Tensor
    angle: Tensor  # radians, clockwise
    grain: Tensor  # radians, clockwise, of the texture
    texture: Tensor  # (m,) int64
    style: Tensor  # (m,) int64
    rgb: Tensor  # (m, 3) in 0 .. 1
    waves: Tensor  # (m, 2, k) of subjects, zero for the others


def render(scenes: Sequence[Scene], size: int) -> Views:
    """Pictures of `size` x `size` pixels with their masks and boxes. Raises UserError where size is not 32 to 128."""
    _check(scenes, size)
    most = max(len(scene.things) for scene in scenes)
    masks, whole = torch.zeros(2, len(scenes), most, size, size)
    rows = torch.eye(most)[:, :, None, None]
    image = ground(scenes, size).permute(0, 3, 1, 2)
    for layer in _layers(scenes, size):
        (b, k), spot, _, cover = layer
        masks[b, :, *spot].lerp_(rows[k], cover)
        whole[b, k, *spot] = cover
        _lay(layer, image)
    ids = torch.tensor([[k if k < len(s.things) else -1 for k in range(most)] for s in scenes], dtype=torch.int64)
    return Views(image.mul_(2).sub_(1), masks, whole, boxes(masks), ids.reshape(len(scenes), most))


def pictures(scenes: Sequence[Scene], size: int) -> Tensor:
    """(b, 4, h, w) in [-1, 1]: the pictures of `render` alone, in two thirds of its time."""
    _check(scenes, size)
    image = ground(scenes, size).permute(0, 3, 1, 2)
    for layer in _layers(scenes, size):
        _lay(layer, image)
    return image.mul_(2).sub_(1)


def _check(scenes: Sequence[Scene], size: int) -> None:
    """Raises UserError where scenes cannot be drawn."""
    if not SMALLEST <= size <= LARGEST:
        raise UserError(f"size {size} is not possible in the world: use {SMALLEST} to {LARGEST}")
    if not scenes:
        raise UserError("there is no scene to draw: give one or more")


class Layer(NamedTuple):
    """One thing alone, in what its window and the picture share."""

    place: tuple[int, int]  # its scene in the batch, and its own in the scene
    spot: tuple[slice, slice]  # lines and columns of the picture, y and x of them
    rgb: Tensor  # (3, y, x) in 0 .. 1
    cover: Tensor  # (y, x) in 0 .. 1


def _layers(scenes: Sequence[Scene], size: int) -> Iterator[Layer]:
    """All things, a few scenes' at a time, each scene's from the farthest to the nearest."""
    wide = window(size)
    for start in range(0, len(scenes), CHUNK):
        some = enumerate(scenes[start : start + CHUNK], start)
        places = [(b, k) for b, scene in some for k in _far_to_near(scene)]
        poses = as_poses([(scenes[b].things[k], scenes[b].style) for b, k in places], size)
        left, top = corner(poses, wide)
        rgb, cover = paint(poses, left, top, wide, size)
        for i, (place, x, y) in enumerate(zip(places, left.tolist(), top.tolist(), strict=True)):
            (lines, v), (columns, u) = _shared(y, wide, size), _shared(x, wide, size)
            yield Layer(place, (lines, columns), rgb[i, :, v, u], cover[i, v, u])


def _shared(first: int, wide: int, size: int) -> tuple[slice, slice]:
    """What a window from pixel `first` on and a picture have in common, counted in the picture and in the window."""
    start, stop = (min(max(edge, 0), size) for edge in (first, first + wide))
    return slice(start, stop), slice(start - first, stop - first)


def _lay(layer: Layer, image: Tensor) -> None:
    """The layer over its picture of (b, 4, h, w) in 0 .. 1."""
    (b, _), spot, rgb, cover = layer
    image[b, :3, *spot].lerp_(rgb, cover)
    image[b, 3, *spot].lerp_(OPAQUE, cover)


def _far_to_near(scene: Scene) -> list[int]:
    return sorted(range(len(scene.things)), key=lambda k: -scene.things[k].depth)


def window(size: int) -> int:
    """Pixels along the window of a thing: as many as the largest needs, so that no thing depends on its neighbours."""
    return 2 * math.ceil(SIZES["large"][1] * REACH * size + 1.5) + 2


def corner(poses: Poses, wide: int) -> tuple[Tensor, Tensor]:
    """The left and top pixel (m,) of each thing's window."""
    return torch.floor(poses.x).long() - wide // 2, torch.floor(poses.y).long() - wide // 2


def as_poses(things: Sequence[tuple[Thing, str]], size: int) -> Poses:
    """Things and the styles they are drawn in, as numbers."""
    numbers = [(t.x * size, t.y * size, t.radius * size, math.radians(t.angle), math.radians(t.grain)) for t, _ in things]
    x, y, radius, angle, grain = torch.tensor(numbers).reshape(-1, 5).T
    words = [(KINDS.index(t.shape), ALL_TEXTURES.index(t.texture), ALL_STYLES.index(style)) for t, style in things]
    kind, texture, style = torch.tensor(words, dtype=torch.int64).reshape(-1, 3).T
    rgb = PALETTE[[-1 if t.subject is not None else COLOUR_NUMBER[t.colour] for t, _ in things]]
    waves = torch.zeros(len(things), 2, 4)
    for row, (thing, _) in enumerate(things):
        if thing.subject is not None:
            waves[row] = _waves(thing.subject)
    return Poses(kind, x, y, radius, angle, grain, texture, style, rgb, waves)


def _waves(subject: int) -> Tensor:
    """(2, 4): the outline of a subject, amplitudes and phases drawn from its number."""
    draws = [mix(subject, i) / 2**63 for i in range(8)]
    return torch.tensor([[(0.05 + 0.05 * d) for d in draws[:4]], [2 * math.pi * d for d in draws[4:]]])


# --- one thing ------------------------------------------------------------------------------------


def paint(poses: Poses, left: Tensor, top: Tensor, wide: int, size: int, soft: bool = False) -> tuple[Tensor, Tensor]:
    """Each thing alone in its window: colours (m, 3, w, w) in 0 .. 1 and coverage (m, w, w).

    `soft` smooths the hard outline of the pixel style, so that a pose can be fitted to it.
    """
    cell = max(1, size // CELLS)
    coarse = (poses.style == STYLES.index("pixel"))[:, None]
    x, y = (first[:, None] + torch.arange(wide) for first in (left, top))  # (m, w)
    across, down = (torch.where(coarse, (c - c % cell) + cell / 2, c + 0.5) for c in (x, y))
    x = ((across - poses.x[:, None]) / poses.radius[:, None])[:, None, :]
    y = ((down - poses.y[:, None]) / poses.radius[:, None])[:, :, None]
    cos, sin, scale = (n[:, None, None] for n in (poses.angle.cos(), poses.angle.sin(), poses.radius))
    u, v = cos * x + sin * y, cos * y - sin * x
    d = distance(poses.kind, u, v, poses.waves)
    k = _rows(poses.style, STYLES, "sketch")
    d[k] += 0.05 * torch.sin(5 * x[k]) * torch.cos(6 * y[k] + 1)
    cover = (0.5 - d * scale).clamp(0, 1)
    if not soft:
        k = _rows(poses.style, STYLES, "pixel")
        cover[k] = (d[k] < 0).float()
    paper = across[:, None, :] * (CELLS / size), down[:, :, None] * (CELLS / size)
    tint, shade = _finish(poses, x, y, d, scale, paper)
    rgb = poses.rgb[:, :, None, None]
    return (tint[:, None] * (1 - rgb)).add_(rgb).mul_(shade[:, None]), cover


def _rows(numbers: Tensor, words: Sequence[str], word: str) -> Tensor:
    """Where numbers (m,) are the place of a word among words."""
    return (numbers == words.index(word)).nonzero()[:, 0]


def _present(numbers: Tensor, words: Sequence[str]) -> list[str]:
    """Those words whose places are among numbers (m,)."""
    return [words[i] for i in numbers.bincount().nonzero()[:, 0].tolist()]


def _finish(poses: Poses, x: Tensor, y: Tensor, d: Tensor, scale: Tensor, paper: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """How far each pixel goes towards white, and by how much it is darkened: what texture and style do to a colour.

    Neither changes the hue, so a colour keeps its name; a fifth of its chroma is left at least, so that it can be read.
    `paper` holds the places x, y in cells of the picture: what a rare style strokes and dots does not follow the things.
    """
    u, v = x, y
    if poses.grain.any():
        cos, sin = poses.grain.cos()[:, None, None], poses.grain.sin()[:, None, None]
        u, v = cos * x + sin * y, cos * y - sin * x
    lighter = pattern(poses.texture, u, v, scale)
    tint, shade = TINT * lighter, torch.ones_like(d)
    k = _rows(poses.style, STYLES, "outlined")
    rim = _rim(d[k], scale[k])
    shade[k] = 1 - 0.5 * rim
    tint[k] *= 1 - rim
    k = _rows(poses.style, STYLES, "shaded")
    shade[k] = (0.84 - 0.3 * (0.6 * x[k] + 0.8 * y[k])).clamp(0.5, 1)  # light from the upper left
    k = _rows(poses.style, STYLES, "sketch")
    tint[k] = 0.68 * (1 - torch.maximum(_rim(d[k], scale[k]), 0.8 * lighter[k]))
    for style in _present(poses.style, ALL_STYLES):
        if finish := FINISHES.get(style):
            k = _rows(poses.style, ALL_STYLES, style)
            dusk, (p, q) = 0.6 * x[k] + 0.8 * y[k], (line[k] for line in paper)
            tint[k], shade[k] = finish(lighter[k], _rim(d[k], scale[k]), dusk, p, q)
    k = _rows(poses.kind, KINDS, SUBJECT)
    spots = 0.7 * (torch.cos(7 * u[k] + 1) * torch.cos(6 * v[k]) > 0.45).float()
    tint[k] = torch.maximum(0.9 * _rim(d[k], scale[k]), spots)
    return tint, shade


def _rim(d: Tensor, scale: Tensor) -> Tensor:
    """1 in a band inside the outline."""
    return ((d + torch.clamp(1.2 / scale, min=0.17)) * scale + 0.5).clamp(0, 1)


TINT = 0.58  # of the lighter half of a texture


def pattern(texture: Tensor, u: Tensor, v: Tensor, scale: Tensor) -> Tensor:
    """1 on the lighter half of textures (m,) at u, v (m, *), 0 on the rest, smooth over about a pixel; `scale` is pixels a radius."""
    out = torch.zeros(torch.broadcast_shapes(u.shape, v.shape))
    for name in _present(texture, ALL_TEXTURES):
        if wave := WAVES.get(name):
            k = _rows(texture, ALL_TEXTURES, name)
            sharp = (scale[k] * PERIOD / math.pi / 2).clamp(min=1)
            out[k] = (0.5 + sharp * wave(u[k] * TURN, v[k] * TURN)).clamp(0, 1)
    return out


PERIOD = 0.8  # of every texture, in radii
TURN = 2 * math.pi / PERIOD
WAVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # above 0 where it is lighter; 2 pi is a period
    "striped": lambda u, v: torch.cos(v),
    "dotted": lambda u, v: torch.cos(u) + torch.cos(v) - 0.7,
    "checked": lambda u, v: 2 * torch.cos(u / 2 + 0.8) * torch.cos(v / 2 + 0.8),
    "diagonal": lambda u, v: torch.cos((u + v) / math.sqrt(2)),
    "zigzag": lambda u, v: torch.cos((v - _teeth(u, 2 * math.pi)) / math.sqrt(2) + 0.6),
    "wavy": lambda u, v: torch.cos(u + 2.2 * torch.sin(v / 2)),
    "bricked": lambda u, v: torch.maximum(0.4 - torch.cos(v), _joints(u, v)) - 1,
    "concentric": lambda u, v: torch.cos(torch.hypot(u, v)),
    "toothed": lambda u, v: _teeth(u, math.pi) - torch.remainder(v, 2 * math.pi) / 2,
    "spiral": lambda u, v: torch.cos(torch.hypot(u, v) - torch.atan2(v, u)),
    "halved": lambda u, v: v,
}


def _teeth(u: Tensor, high: float) -> Tensor:
    """A line that falls and rises by 1 for 1, from `high` at 0 to 0 and back."""
    return (torch.remainder(u, 2 * high) - high).abs()


def _joints(u: Tensor, v: Tensor) -> Tensor:
    """Above 1 between the bricks of a row, which lie over the middles of those below."""
    row = torch.floor(v / (2 * math.pi) + 1.5)
    return 3 * torch.cos(u / 2 + math.pi * row) - 1.68


DITHER = torch.tensor([(0.125, 0.625), (0.875, 0.375)])  # Bayer 1973, 2 x 2
DABS = torch.tensor([[mix(i, j) % 4 for i in range(CELLS // 2)] for j in range(CELLS // 2)])


def _hatched(lighter: Tensor, rim: Tensor, dusk: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Dark strokes across, broader away from the light."""
    stroke = (0.3 + 2 * torch.cos(math.pi / 2 * (p - q)) + dusk).clamp(0, 1)
    return TINT * lighter * (1 - stroke), 1 - 0.5 * stroke


def _dithered(lighter: Tensor, rim: Tensor, dusk: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Cells that are lit or not, the fewer the farther from the light (ordered dithering)."""
    level = DITHER[q.floor().long() % 2, p.floor().long() % 2]
    return TINT * lighter, 1 - 0.38 * (0.5 + 0.6 * dusk > level).float()


def _neon(lighter: Tensor, rim: Tensor, dusk: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """A glowing rim on a dark pane; a texture's lighter half glows too."""
    return TINT * lighter * (1 - rim) + 0.2 * rim, 0.4 + 0.6 * torch.maximum(rim, lighter)


def _pointillist(lighter: Tensor, rim: Tensor, dusk: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Round dabs, two cells wide, on a light ground: some paler, some darker than the others."""
    number = DABS[(q / 2).floor().long() % len(DABS), (p / 2).floor().long() % len(DABS)]
    dab = (0.75 * (1 - torch.cos(math.pi * p)) * (1 - torch.cos(math.pi * q))).clamp(max=1)
    return 0.64 + dab * (0.42 * lighter + 0.2 * (number == 1) - 0.64), 1 - 0.3 * dab * (number == 0)


Finish = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
FINISHES: dict[str, Finish] = {"hatched": _hatched, "dithered": _dithered, "neon": _neon, "pointillist": _pointillist}
"""Tint and shade in the rare styles, of a texture's lighter half, the rim, how far off the light is, and the places on the paper."""


# --- what is behind -------------------------------------------------------------------------------


def ground(scenes: Sequence[Scene], size: int) -> Tensor:
    """(b, h, w, 4) in 0 .. 1: the grounds alone with their alpha. All are grey or nearly: only things have a hue."""
    bare = [(1.0, 1.0, 1.0, 0.0) if s.ground.kind == "clear" else (*TONES[s.ground.tone], 1.0) for s in scenes]
    planes = torch.tensor(bare)[:, :, None, None].repeat(1, 1, size, size)
    for kind, light in LIGHTS.items():
        rows = [i for i, s in enumerate(scenes) if s.ground.kind == kind]
        for i, lit in zip(rows, light([scenes[i].ground for i in rows], size), strict=True):
            planes[i, :3].add_(lit).clamp_(0, 1)
    return planes.permute(0, 2, 3, 1)


def _along(grounds: Sequence[Ground], size: int) -> Tensor:
    """(m, h, w) within 0.71 of zero: how far each pixel is from the middle, in the ground's direction."""
    angle = torch.tensor([math.radians(g.angle) for g in grounds])[:, None, None]
    line = (torch.arange(size) + 0.5) / size - 0.5
    return angle.cos() * line + angle.sin() * line[:, None]


def _noise(grounds: Sequence[Ground], size: int) -> Tensor:
    """(m, h, w) within 0.06 of zero: grey blotches, the same at every size."""
    spots = torch.arange(LATTICE * LATTICE).reshape(1, 1, LATTICE, LATTICE) * 0x9E3779B1
    state = (spots + torch.tensor([g.seed for g in grounds], dtype=torch.int64).reshape(-1, 1, 1, 1)) & 0xFFFFFFFF
    for _ in range(2):
        state = ((state ^ (state >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    coarse = ((state ^ (state >> 16)) / 2**32 - 0.5) * 0.12
    return torch.nn.functional.interpolate(coarse.float(), (size, size), mode="bilinear", align_corners=False)[:, 0]


LIGHTS: dict[str, Callable[[Sequence[Ground], int], Tensor]] = {  # (m, h, w) that are added to the tone
    "gradient": lambda grounds, size: 0.16 * _along(grounds, size),
    "striped": lambda grounds, size: 0.045 * torch.cos(2 * math.pi * 5 * _along(grounds, size)),
    "noise": _noise,
}


def boxes(masks: Tensor) -> Tensor:
    """(b, k, 4) pixels, left, top, right, bottom around what masks (b, k, h, w) show by half or more; zero where that is nothing."""
    seen = masks >= 0.5
    h, w = masks.shape[2:]
    columns, rows = seen.any(2), seen.any(3)
    x, y = (torch.arange(side, device=masks.device) for side in (w, h))
    left, top = torch.where(columns, x, w).amin(2), torch.where(rows, y, h).amin(2)
    right, bottom = torch.where(columns, x + 1, 0).amax(2), torch.where(rows, y + 1, 0).amax(2)
    found = torch.stack([left, top, right, bottom], -1)
    return torch.where(columns.any(2)[..., None], found, 0)
