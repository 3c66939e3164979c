"""Attributes read back from pixels alone, by analysis through synthesis: what would the renderer have had to draw?

Patches of one hue are cut out, every shape is fitted to each patch (Levenberg-Marquardt over place, radius and turn), the best are
painted in every texture and style, and the closest painting to the pixels is the reading. What no painting comes close to is unreadable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from diorama.errors import UserError
from diorama.types import Score
from diorama.worlds.captions import Description, parse
from diorama.worlds.render import LARGEST, PALETTE, SMALLEST, Poses, paint, window
from diorama.worlds.scene import COLOURS, SIZES, STYLES, TEXTURES, TONES
from diorama.worlds.shapes import DISTANCES, SHAPES, TURNS, distance

READ_AT = 64  # pixels: larger pictures are reduced to it
HUED = 0.135  # chroma above which a pixel belongs to a thing; the grounds stay below 0.12
SPECK = 0.0045  # of the picture: a smaller patch is the rim where two colours mix
MOST = 6  # patches; a picture with more is no scene
KEPT = 3  # shapes of each patch that are painted
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


class Oracle:
    """A critic that needs no training: the share of a caption's claims that a picture keeps, 0 where it is unreadable."""

    def read(self, image: Tensor) -> list[Reading]:
        """(b, 3 or 4, h, w) in [-1, 1] -> what each picture shows. Raises UserError for other shapes or numbers that are not finite."""
        rgb = _prepared(image)
        return [reading for i in range(0, len(rgb), 16) for reading in _read(rgb[i : i + 16])]

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


# --- patches of one hue ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Patch:
    """The pixels of one thing: which picture, which colour, where."""

    picture: int
    colour: int
    mask: Tensor  # (s, s) bool


def hues(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """Hue in turns and chroma of (..., 3)."""
    high, place = rgb.max(-1)
    chroma = high - rgb.amin(-1)
    r, g, b = rgb.unbind(-1)
    six = torch.stack([g - b, b - r, r - g], -1).gather(-1, place[..., None])[..., 0] / chroma.clamp(min=1e-6) + 2 * place
    return (six / 6) % 1, chroma


def _patches(rgb: Tensor, picture: int) -> list[Patch]:
    """Connected pixels of one colour, specks left out, of a picture (3, s, s)."""
    hue, chroma = hues(rgb.permute(1, 2, 0))
    known = hues(PALETTE[: len(COLOURS)])[0]
    off = (hue[..., None] - known + 0.5) % 1 - 0.5
    names = torch.where(chroma > HUED, off.abs().argmin(-1), -1)
    size = rgb.shape[-1]
    found = [(c, mask) for c, mask in _connected(names.tolist(), size) if int(mask.sum()) >= SPECK * size * size]
    return [Patch(picture, c, mask) for c, mask in found if not _is_rim(mask, [other for _, other in found])]


def _is_rim(mask: Tensor, masks: Sequence[Tensor]) -> bool:
    """Whether a small patch touches a larger one: two colours mix where things overlap."""
    area, around = int(mask.sum()), _spread(mask[None])[0]
    return area < 2 * SPECK * mask.numel() and any(bool((around & other).any()) for other in masks if int(other.sum()) > area)


def _connected(names: list[list[int]], size: int) -> list[tuple[int, Tensor]]:
    """Each patch of equal names other than -1, pixels joined by sides or corners."""
    left = {(r, c) for r in range(size) for c in range(size) if names[r][c] >= 0}
    out = []
    while left:
        row, column = start = left.pop()
        name, todo, patch = names[row][column], [start], [start]
        while todo:
            r, c = todo.pop()
            near = ((r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1))
            new = [p for p in near if p in left and names[p[0]][p[1]] == name]
            left.difference_update(new)
            todo += new
            patch += new
        mask = torch.zeros(size, size, dtype=torch.bool)
        mask[tuple(torch.tensor(patch).T)] = True
        out.append((name, mask))
    return out


# --- shapes fitted to patches ---------------------------------------------------------------------


@cache
def _measures() -> tuple[Tensor, Tensor]:
    """Area (in radii squared) and centre of mass (2,) of every shape, unturned."""
    line = torch.linspace(-1.2, 1.2, 241)
    v, u = torch.meshgrid(line, line, indexing="ij")
    inside = torch.stack([(DISTANCES[shape](u, v) < 0).float() for shape in SHAPES])
    area = inside.sum((1, 2))
    centre = torch.stack([(inside * u).sum((1, 2)) / area, (inside * v).sum((1, 2)) / area], -1)
    return area * (2.4 / 240) ** 2, centre


@cache
def _starts() -> tuple[Tensor, Tensor]:
    """(g,) shapes and (g,) turns in radians that the fits begin from."""
    found = []
    for kind, shape in enumerate(SHAPES):
        turns = TURNS[shape]
        n = {0: 1, 1: 10}.get(turns, 4)
        found += [(kind, 2 * math.pi * i / n / max(1, turns)) for i in range(n)]
    kinds, angles = zip(*found, strict=True)
    return torch.tensor(kinds), torch.tensor(angles)


def _begin(masks: Tensor) -> tuple[Tensor, Tensor]:
    """For patches (m, s, s): kinds (m * g,) and pose (m * g, 4) of every start: x, y, radius in pixels and turn."""
    kinds, angles = _starts()
    line = torch.arange(masks.shape[-1]) + 0.5
    area = masks.sum((1, 2))
    x, y = (masks.sum(1) * line).sum(1) / area, (masks.sum(2) * line).sum(1) / area
    factors, centres = _measures()
    radius = (area[:, None] / factors[kinds]).sqrt()
    cos, sin = angles.cos(), angles.sin()
    u, v = centres[kinds].T
    x, y = x[:, None] - radius * (cos * u - sin * v), y[:, None] - radius * (sin * u + cos * v)
    pose = torch.stack([x, y, radius, angles.expand_as(radius)], -1)
    return kinds.repeat(len(masks)), pose.flatten(0, 1)


def _cut(pictures: Tensor, which: Tensor, left: Tensor, top: Tensor, wide: int, outside: float) -> Tensor:
    """Windows (m, c, w, w) of pictures (p, c, s, s) at their corners; `outside` where a window leaves its picture."""
    side = pictures.shape[-1] + 2 * wide
    padded = torch.nn.functional.pad(pictures, (wide,) * 4, value=outside).flatten(2)
    steps = torch.arange(wide)
    top, left = (top + wide).clamp(0, side - wide), (left + wide).clamp(0, side - wide)
    spot = ((top[:, None, None] + steps[:, None]) * side + left[:, None, None] + steps).flatten(1)
    return padded[which].gather(2, spot[:, None].expand(-1, pictures.shape[1], -1)).unflatten(2, (wide, wide))


def _levenberg(pose: Tensor, residual: Callable[[Tensor], Tensor], steps: int) -> tuple[Tensor, Tensor]:
    """Poses (m, 4) that lessen the squares of residual(pose) (m, r), and those squares (m,): damped Gauss-Newton."""
    change = torch.tensor([0.2, 0.2, 0.2, 0.06])
    now = residual(pose)
    loss, damping = now.square().sum(1), torch.full((len(pose),), 0.1)
    for _ in range(steps):
        slope = torch.stack([(residual(pose + change * axis) - now) / change[i] for i, axis in enumerate(torch.eye(4))], -1)
        square = slope.transpose(1, 2) @ slope
        ridge = torch.diag_embed(damping[:, None] * square.diagonal(dim1=1, dim2=2) + 1e-3)
        step = torch.linalg.solve(square + ridge, (slope.transpose(1, 2) @ now[..., None]))[..., 0]
        limit = torch.tensor([2.0, 2.0, 1.5, 0.4])
        new = pose - step.clamp(-limit, limit)
        new[:, 2].clamp_(min=1.5)
        then = residual(new)
        better = then.square().sum(1) < loss
        pose, now = torch.where(better[:, None], new, pose), torch.where(better[:, None], then, now)
        loss, damping = now.square().sum(1), torch.where(better, damping * 0.3, damping * 6).clamp(1e-4, 1e4)
    return pose, loss


def _outline(kinds: Tensor, x: Tensor, y: Tensor, target: Tensor, weight: Tensor) -> Callable[[Tensor], Tensor]:
    """The residual of a shape's coverage against a patch; a patch's rim is a third of a pixel too wide (see HUED)."""

    def residual(pose: Tensor) -> Tensor:
        px, py, radius, angle = (n[:, None, None] for n in pose.unbind(1))
        across, down, cos, sin = (x[:, None, :] - px) / radius, (y[:, :, None] - py) / radius, angle.cos(), angle.sin()
        d = distance(kinds, cos * across + sin * down, cos * down - sin * across) * radius
        return ((0.5 + (0.3 - d) / 1.5).clamp(0, 1) - target).mul(weight).flatten(1)

    return residual


def _fit(masks: Tensor, free: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The KEPT best shapes (m, j) of each patch and their poses (m, j, 4); `free` is 0 where another thing covers it."""
    wide, m = window(size), len(masks)
    kinds, pose = _begin(masks.float())
    g = len(kinds) // m
    row = torch.arange(m).repeat_interleave(g)
    line = torch.arange(size) + 0.5
    middle = [((masks.any(axis) * line).amax(1) + torch.where(masks.any(axis), line, size).amin(1)) / 2 for axis in (1, 2)]
    left, top = (torch.floor(c).long() - wide // 2 for c in middle)
    both = _cut(torch.stack([masks.float(), free.float()], 1), torch.arange(m), left, top, wide, 0.0)
    x, y = (first[:, None] + torch.arange(wide) + 0.5 for first in (left, top))

    def run(chosen: Tensor, pose: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        at = row[chosen]
        return _levenberg(pose, _outline(kinds[chosen], x[at], y[at], both[at, 0], both[at, 1]), steps)

    pose, loss = run(torch.arange(len(kinds)), pose, 2)
    keep = _survivors(kinds[:g], loss.reshape(m, g)).flatten()
    better, less = run(keep, pose[keep], 5)
    best = torch.full((m, len(SHAPES)), torch.inf).index_put((row[keep], kinds[keep]), torch.tensor(torch.inf))
    place = torch.zeros(m, len(SHAPES), dtype=torch.int64)
    for i, (r, k, value) in enumerate(zip(row[keep].tolist(), kinds[keep].tolist(), less.tolist(), strict=True)):
        if value < best[r, k]:
            best[r, k], place[r, k] = value, i
    shapes = best.topk(KEPT, largest=False)[1]
    shapes = torch.where(best.gather(1, shapes).isfinite(), shapes, shapes[:, :1])
    return shapes, better[place.gather(1, shapes)]


def _survivors(kinds: Tensor, loss: Tensor) -> Tensor:
    """Rows of the starts worth going on with, of losses (m, g): the best of every shape, and the four best of the others."""
    first = torch.zeros_like(loss, dtype=torch.bool)
    for kind in range(len(SHAPES)):
        own = torch.where(kinds == kind, loss, torch.inf)
        first.scatter_(1, own.argmin(1, keepdim=True), True)
    chosen = torch.where(first, -1.0, loss).topk(len(SHAPES) + 4, largest=False)[1]
    return chosen + torch.arange(len(loss))[:, None] * loss.shape[1]


# --- paintings compared ---------------------------------------------------------------------------


def _read(rgb: Tensor) -> list[Reading]:
    """Readings of a few pictures (b, 3, s, s) in 0 .. 1."""
    found = [_patches(picture, i) for i, picture in enumerate(rgb)]
    why = ["no thing is seen" if not p else "too many patches for a scene" if len(p) > MOST else "" for p in found]
    patches = [patch for p, reason in zip(found, why, strict=True) for patch in p if not reason]
    if not patches:
        return [Reading(why=reason) for reason in why]
    masks, owner = torch.stack([patch.mask for patch in patches]), torch.tensor([patch.picture for patch in patches])
    hued = hues(rgb.permute(0, 2, 3, 1))[1] > HUED  # specks too: a hole shows a little of what is behind it
    taken = _spread(hued)
    rest = [_spread(masks[(owner == i) & (torch.arange(len(masks)) != k)]).any(0) for k, i in enumerate(owner.tolist())]
    others = torch.stack(rest) | (hued[owner] & ~masks)
    shapes, poses = _fit(masks, ~others, rgb.shape[-1])
    scenes = _Scenes(rgb, owner, [patch.colour for patch in patches], masks, others, taken)
    styles, best = scenes.choose(shapes, poses)
    return [Reading(why=reason) if reason else scenes.reading(i, styles[i], best) for i, reason in enumerate(why)]


def _spread(masks: Tensor) -> Tensor:
    """Masks (m, s, s) grown by a pixel all round."""
    return torch.nn.functional.max_pool2d(masks[:, None].float(), 3, 1, 1)[:, 0] > 0


# poses around one, in pixels at 64 and (the last) fifths of a radian: the one itself, then quasi-random (Roberts' sequence)
NEARBY = torch.stack([(torch.arange(40) * a % 1 + 0.5) % 1 - 0.5 for a in (0.8567, 0.7339, 0.6287, 0.5386)], -1) * 1.4
NEARBY[0] = 0


class _Scenes:
    """The patches of a few pictures beside the paintings that could explain them."""

    def __init__(self, rgb: Tensor, owner: Tensor, colours: Sequence[int], masks: Tensor, others: Tensor, taken: Tensor):
        self.rgb, self.owner, self.colours, self.masks, self.taken = rgb, owner, torch.tensor(colours), masks, taken
        self.size = rgb.shape[-1]
        self.wide = window(self.size)
        line = torch.arange(self.size) + 0.5
        self.left, self.top = (
            torch.floor((masks.any(axis) * line).sum(1) / masks.any(axis).sum(1)).long() - self.wide // 2 for axis in (1, 2)
        )
        own = torch.arange(len(masks))
        self.target = self._window(rgb, owner)  # (m, 3, w, w)
        self.weight = self._window((~others).float()[:, None], own)[:, 0]  # 0 where another thing is, or no picture
        bare = self._window((~taken).float()[:, None], owner)  # (m, 1, w, w)
        self.behind = (self.target * bare).sum((2, 3)) / bare.sum((2, 3)).clamp(min=1)  # (m, 3) the ground near each thing

    def _window(self, pictures: Tensor, which: Tensor, rows: Tensor | None = None) -> Tensor:
        """Pictures cut at the windows of these patches, of all without `rows`."""
        left, top = (self.left, self.top) if rows is None else (self.left[rows], self.top[rows])
        return _cut(pictures, which, left, top, self.wide, 0.0)

    def paint(
        self, patch: Tensor, kind: Tensor, texture: Tensor, style: Tensor, pose: Tensor, soft: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Things (m,) over their grounds, (m, 3, w, w), and their coverage (m, w, w)."""
        waves = torch.zeros(len(patch), 2, 4)
        x, y, radius, angle = pose.unbind(1)
        rgb = PALETTE[self.colours[patch]]
        poses = Poses(kind, x, y, radius, angle, torch.zeros_like(x), texture, style, rgb, waves)
        rgb, cover = paint(poses, self.left[patch], self.top[patch], self.wide, self.size, soft)
        return torch.lerp(self.behind[patch][:, :, None, None], rgb.permute(0, 3, 1, 2), cover[:, None]), cover

    def residual(
        self, patch: Tensor, kind: Tensor, texture: Tensor, style: Tensor, soft: bool = True
    ) -> Callable[[Tensor], Tensor]:
        def of(pose: Tensor) -> Tensor:
            painting, _ = self.paint(patch, kind, texture, style, pose, soft)
            return ((painting - self.target[patch]) * self.weight[patch][:, None]).flatten(1)

        return of

    def choose(self, shapes: Tensor, poses: Tensor) -> tuple[list[int], tuple[Tensor, ...]]:
        """The style of every picture, and of every patch its (kind, texture, pose)."""
        m, j = shapes.shape
        grid = torch.cartesian_prod(torch.arange(m), torch.arange(j), torch.arange(len(TEXTURES)), torch.arange(len(STYLES)))
        patch, rank, texture, style = grid.T
        first = self.residual(patch, shapes[patch, rank], texture, style)(poses[patch, rank]).square().sum(1)
        table = first.reshape(m, j * len(TEXTURES), len(STYLES))
        likely = self._by_style(table.amin(1)).topk(2, largest=False)[1]  # (b, 2)
        chosen = []
        for n in range(2):
            now = likely[self.owner, n]
            top = table[torch.arange(m), :, now].topk(4, largest=False)[1]  # (m, 4)
            chosen.append(torch.stack([torch.arange(m)[:, None].expand_as(top), top, now[:, None].expand_as(top)], -1))
        patch, option, style = torch.stack(chosen, 1).flatten(0, 2).T  # (m * 2 * 4,)
        kind, texture = shapes[patch, option // len(TEXTURES)], option % len(TEXTURES)
        pose, error = _levenberg(poses[patch, option // len(TEXTURES)], self.residual(patch, kind, texture, style), 4)
        pose, error = self._harden(patch, kind, texture, style, pose, error)
        error, best = error.reshape(m, 2, 4).min(2)
        sums = torch.zeros(len(self.rgb), 2).index_add(0, self.owner, error)
        taken = sums.argmin(1)
        at = taken[self.owner]
        row = (torch.arange(m) * 2 + at) * 4 + best[torch.arange(m), at]
        styles = likely.gather(1, taken[:, None])[:, 0].tolist()
        return styles, (kind[row], texture[row], pose[row])

    def _harden(
        self, patch: Tensor, kind: Tensor, texture: Tensor, style: Tensor, pose: Tensor, error: Tensor
    ) -> tuple[Tensor, Tensor]:
        """In the pixel style no slope leads to the exact pose: the best of some poses nearby."""
        k = (style == STYLES.index("pixel")).nonzero()[:, 0]
        if not len(k):
            return pose, error
        n, pose, error = len(NEARBY), pose.clone(), error.clone()
        rows = k.repeat_interleave(n)
        hard = self.residual(patch[rows], kind[rows], texture[rows], style[rows], soft=False)
        for scale in (1.0, 0.4):
            spread = NEARBY * torch.tensor([1.0, 1.0, 1.0, 0.2]) * scale * self.size / 64
            many = (pose[k][:, None] + spread).flatten(0, 1)
            least, place = hard(many).square().sum(1).reshape(-1, n).min(1)
            pose[k], error[k] = many.reshape(-1, n, 4)[torch.arange(len(k)), place], least
        return pose, error

    def _by_style(self, error: Tensor) -> Tensor:
        return torch.zeros(len(self.rgb), len(STYLES)).index_add(0, self.owner, error)

    def reading(self, i: int, style: int, best: tuple[Tensor, ...]) -> Reading:
        """What is read of picture i."""
        rows = (self.owner == i).nonzero()[:, 0]
        kind, texture, pose = (part[rows] for part in best)
        painting, cover = self.paint(rows, kind, texture, torch.full_like(rows, style), pose)
        near = _spread(torch.maximum(cover, self._window(self.masks.float()[:, None], rows, rows)[:, 0])) * self.weight[rows]
        off = ((painting - self.target[rows]).square().mean(1) * near).sum((1, 2)).div(near.sum((1, 2)).clamp(min=1)).sqrt()
        seen = (cover * self.weight[rows]).sum((1, 2)) / cover.sum((1, 2)).clamp(min=1)
        names = list(COLOURS)
        things = [
            _found(SHAPES[k], names[c], TEXTURES[t], p, self.size, e)
            for k, c, t, p, e in zip(
                kind.tolist(), self.colours[rows].tolist(), texture.tolist(), pose.tolist(), off.tolist(), strict=True
            )
        ]
        bad = [n for n, thing in enumerate(things) if thing.error > OFF or thing.size is None or seen[n] < 0.3]
        tone = _tone(self.rgb[i][:, ~self.taken[i]])
        if bad or tone is None:
            return Reading(
                why=f"{len(bad)} of {len(things)} patches look like nothing in the world" if bad else "no ground is seen"
            )
        return Reading(tuple(things), self._behind(rows, cover), STYLES[style], tone, True)

    def _behind(self, rows: Tensor, cover: Tensor) -> tuple[tuple[int, int], ...]:
        """(i, j) where the whole of i reaches under the patch of j, and j's hardly under i's."""
        owned = [self._window(self.masks.float()[:, None], rows, row.expand(len(rows)))[:, 0] for row in rows]
        under = torch.stack([(cover[n] * masks).sum((1, 2)) / cover[n].sum() for n, masks in enumerate(owned)])
        n = range(len(rows))
        return tuple((a, b) for a in n for b in n if a != b and under[a, b] > 0.02 and under[a, b] > 2 * under[b, a])


def _found(shape: str, colour: str, texture: str, pose: Sequence[float], size: int, error: float) -> Found:
    x, y, radius, angle = pose
    return Found(shape, colour, _size(radius / size), texture, x / size, y / size, radius / size, math.degrees(angle), error)


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
