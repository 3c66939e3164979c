"""The oracle of motion: what happens in a clip, read from its pictures alone.

The still oracle reads the first and last frames; in between, things are followed by their hue, of which no two in a clip are alike,
and the camera by the grey ground behind them. What is read is a `motions.Story`, so a sentence about a clip can be held to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diorama.errors import UserError
from diorama.types import Score
from diorama.worlds.clips import DISC
from diorama.worlds.film import look, middles
from diorama.worlds.motions import FALL, Actor, Story, drift, parse_clip
from diorama.worlds.oracle import HUED, Found, Oracle, Reading, hues
from diorama.worlds.render import PALETTE
from diorama.worlds.scene import COLOURS
from diorama.worlds.shapes import REACH, TURNS

PULL = 0.8  # sides per second squared: what falls faster and faster does so by gravity
KINK = 0.2  # sides per second by which a speed changes where something is met
TURN = 40.0  # degrees per second above which a thing spins


def watch(image: Tensor, fps: float) -> Story:
    """What the pictures (t, 3 or 4, s, s) in [-1, 1] show, t >= 4. Where the first or all near the end cannot be read, nothing is claimed."""
    if len(image) < 4:
        raise UserError(f"{len(image)} frames are too few to read motion from: give 4 or more")
    late = [len(image) - 1 - len(image) * i // 8 for i in range(3)]  # at the very end, things may be hidden or half outside
    first, second, third, *final = Oracle().read(image[[0, 1, 2, *late]])
    at, last = next(((i, r) for i, r in zip(late, final, strict=True) if r.readable), (0, first))
    if not first.readable or not at:
        return Story(readable=False)
    rgb = ((image[:, :3].float().cpu() + 1) / 2).clamp(0, 1)
    places, areas, hued = _followed(rgb)
    windows = _windows(rgb.mean(1, keepdim=True), ~hued[:, None])
    world = (places - 0.5) / windows[:, None, 2:] + windows[:, None, :2]  # (t, colours, 2)
    names, found = list(COLOURS), list(first.named)
    pairs = [(start, _end(start, areas)) for start in (names.index(f.colour) for f in found)]
    tracks = torch.stack([_track(world, areas, start, end) for start, end in pairs], 1)
    steady = torch.stack([_steady(areas[:, [start, end]].amax(1)) for start, end in pairs], 1)
    zoom = float(windows[at, 2])
    does = [_looks(f, names[end], (second, third), last, fps, zoom) for f, (_, end) in zip(found, pairs, strict=True)]
    does, hits = _goes(tracks, steady, [f.radius * DISC.get(str(f.shape), REACH) for f in found], fps, does)
    actors = [Actor(f.shape, f.colour, f.size, f.texture, f.x, f.y, frozenset(d)) for f, d in zip(found, does, strict=True)]
    return Story(tuple(actors), _camera(windows), frozenset(hits), first.style, first.tone)


class Watcher:
    """A critic that needs no training: whether clips do what their sentences say."""

    def observe(self, samples: Tensor, truth: Sequence[str], fps: float) -> Tensor:
        """Clips (n, c, t, h, w) -> (n, 3): claims kept as a share, whether all are kept, whether the clip is readable."""
        if len(samples) != len(truth):
            raise UserError(f"{len(samples)} clips and {len(truth)} sentences: give one sentence for each")
        rows = []
        for clip, words in zip(samples, truth, strict=True):
            story = watch(clip.transpose(0, 1), fps)
            claims = parse_clip(words).claims(story) if story.readable else [False]
            rows.append([sum(claims) / len(claims), float(all(claims)), float(story.readable)])
        return torch.tensor(rows)

    def score(self, observed: Tensor, reference: Tensor | None = None) -> Score:
        """The share of clips that keep every claim, with its binomial error."""
        return Oracle().score(observed, reference)


# --- things by their hue --------------------------------------------------------------------------


def _followed(rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of every colour in every frame its middle (t, colours, 2) in sides and area (t, colours) in sides squared; what is hued (t, h, w)."""
    hue, chroma = hues(rgb.permute(0, 2, 3, 1))
    off = ((hue[..., None] - hues(PALETTE[: len(COLOURS)])[0] + 0.5) % 1 - 0.5).abs()
    mine = torch.nn.functional.one_hot(off.argmin(-1), len(COLOURS)).float() * (chroma > HUED)[..., None]  # (t, h, w, colours)
    size = rgb.shape[-1]
    pixels, line = mine.sum((1, 2)), middles(size)
    x, y = (mine.sum(1) * line[:, None]).sum(1), (mine.sum(2) * line[:, None]).sum(1)
    return torch.stack([x, y], -1) / pixels.clamp(min=1)[..., None] / size, pixels / size**2, chroma > HUED


def _end(colour: int, areas: Tensor) -> int:
    """The colour a thing ends with: its own, or where that is gone at the end, the one that came."""
    gone, came = areas[-1] < 0.2 * areas[0], (areas[0] < 0.2 * areas[-1]) & (areas[-1] > 0.005)
    return int((came * areas[-1]).argmax()) if bool(gone[colour]) and bool(came.any()) else colour


def _track(world: Tensor, areas: Tensor, start: int, end: int) -> Tensor:
    """(t, 2): where the thing is, by whichever of its two colours covers more."""
    return torch.where((areas[:, start] >= areas[:, end])[:, None], world[:, start], world[:, end])


def _steady(area: Tensor) -> Tensor:
    """(t - 1,): whether from one frame to the next no part of a thing came or went, but for its even growth."""
    ratio = area.clamp(min=1e-4).log().diff()
    return (ratio - ratio.median()).abs() < 0.12


def _looks(thing: Found, end: str, soon: Sequence[Reading], last: Reading, fps: float, zoom: float) -> set[str]:
    """What a thing does on the spot: it changes, turns, grows."""
    does = {f"becomes {end}"} if end != thing.colour else set()
    if after := [f for f in last.named if f.colour == end]:
        does |= {f"becomes {after[0].shape}"} if after[0].shape != thing.shape else set()
        larger = after[0].radius / zoom / thing.radius
        does |= {"grows"} if larger > 1.1 else {"shrinks"} if larger < 0.9 else set()
    for frames in (2, 1):
        same = [f for f in soon[frames - 1].named if (f.colour, f.shape) == (thing.colour, thing.shape)]
        if same and (turns := TURNS[str(thing.shape)]):
            turn = (same[0].angle - thing.angle + 180 / turns) % (360 / turns) - 180 / turns
            rate = turn * fps / frames
            return does | ({"clockwise" if rate > 0 else "anticlockwise"} if abs(rate) > TURN else set())
    return does


# --- where they go --------------------------------------------------------------------------------


def _goes(
    tracks: Tensor, steady: Tensor, radii: list[float], fps: float, does: list[set[str]]
) -> tuple[list[set[str]], set[tuple[int, int]]]:
    """How things (t, n, 2) move, added to what they do, and which of them meet."""
    speeds = tracks.diff(dim=0) * fps  # (t - 1, n, 2)
    change = speeds.diff(dim=0)  # (t - 2, n, 2)
    pull = float(change[..., 1].median()) * fps
    heavy = pull > PULL
    kinks = (change - torch.tensor([0.0, pull / fps if heavy else 0.0])).norm(dim=-1) > KINK  # (t - 2, n)
    kinks = kinks & steady[1:] & steady[:-1]
    hits: set[tuple[int, int]] = set()
    for k in range(tracks.shape[1]):
        own = kinks[:, k].nonzero()[:, 0].tolist()
        for i in own:
            near = slice(i, i + 3)  # the frames about it
            walls = torch.cat([tracks[near, k], 1 - tracks[near, k]]).amin() - radii[k]
            gaps = {
                j: float((tracks[near, k] - tracks[near, j]).norm(dim=-1).amin()) - radii[k] - radii[j]
                for j in range(tracks.shape[1])
                if j != k and bool(kinks[max(0, i - 1) : i + 2, j].any())
            }
            nearest = min(gaps, key=lambda j: gaps[j], default=None)
            if nearest is not None and gaps[nearest] < float(walls):
                hits |= {(k, nearest), (nearest, k)}
            else:
                does[k] = does[k] | {"bounces"}
        if heavy and float(tracks[:, k, 1].amax() - tracks[0, k, 1]) > FALL / 2:
            does[k] = does[k] | {"falls"}
        if not heavy and not own:
            vx, vy = speeds[steady[:, k], k].mean(0).nan_to_num().tolist()
            does[k] = does[k] | drift(vx, vy, off=22.5)
    return does, hits


# --- the camera -----------------------------------------------------------------------------------


def _windows(grey: Tensor, bare: Tensor) -> Tensor:
    """(t, 3): the window's middle in the world and its zoom, from grounds (t, 1, h, w) laid over each other where nothing covers them.

    Gauss-Newton on shift and zoom between neighbours, all at once (Lucas & Kanade 1981); on a plain ground nothing is seen to move.
    """
    size = grey.shape[-1]
    blur = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(grey, (1, 1, 1, 1), mode="replicate"), 3, 1)
    before, after, n = blur[:-1], blur[1:], len(blur) - 1
    line = middles(size) - size / 2
    u, v = line.expand(n, size, size), line[:, None].expand(n, size, size)
    free = (torch.nn.functional.avg_pool2d(bare.float(), 5, 1, 2) > 0.99).float()
    step = torch.zeros(n, 3)  # shift in pixels and logarithm of the zoom
    for _ in range(12):
        x, y, log = step[:, :, None, None].unbind(1)
        at = (u * (-log).exp() + x + size / 2, v * (-log).exp() + y + size / 2)
        there = look(torch.cat([before, free[:-1]], 1), *at)
        weight = (there[:, 1] > 0.99) * free[1:, 0]
        down, right = torch.gradient(there[:, 0], dim=(1, 2))
        slopes = torch.stack([right, down, -(right * u + down * v)], -1) * weight[..., None]  # (n, h, w, 3)
        miss = ((after[:, 0] - there[:, 0]) * weight).flatten(1)
        slopes = slopes.flatten(1, 2)
        square = slopes.mT @ slopes + torch.diag(torch.tensor([0.02, 0.02, 5.0]))
        step = step + torch.linalg.solve(square, (slopes.mT @ miss[..., None]))[..., 0].clamp(-1.5, 1.5)
    zoom = torch.cat([torch.zeros(1), step[:, 2].cumsum(0)]).exp()
    middle = torch.cat([torch.zeros(1, 2), (step[:, :2] / zoom[:-1, None]).cumsum(0)]) / size + 0.5
    return torch.cat([middle, zoom[:, None]], 1)


def _camera(windows: Tensor) -> str:
    """The kind of camera that goes so."""
    zoom, (x, y) = float(windows[-1, 2].log()), (windows[-1, :2] - windows[0, :2]).tolist()
    way, net = float(windows[:, :2].diff(dim=0).norm(dim=-1).sum()), math.hypot(x, y)
    if abs(zoom) > 0.07:
        return "in" if zoom > 0 else "out"
    if way > 0.06 and way > 1.5 * net:
        return "shake"
    if net < 0.03:
        return "still"
    return ("right" if x > 0 else "left") if abs(x) > abs(y) else "down" if y > 0 else "up"
