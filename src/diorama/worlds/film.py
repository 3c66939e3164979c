"""Clips to pictures with their truth: every frame is a scene for `render`, and motion is what the scenes say, not what pixels show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from diorama.pictures import to_pil
from diorama.worlds.clips import Clip
from diorama.worlds.render import ground, render
from diorama.worlds.scene import Scene

BAND = 0.2  # of the picture's height that a banner covers


@dataclass(frozen=True)
class Film:
    """A clip as filmed. Things are counted in the scene of their shot; rows beyond it have ids -1, no mask and a track of zeros."""

    image: Tensor  # (t, 4, h, w) in [-1, 1]: the picture on white and its alpha
    ids: Tensor  # (t, k) int64
    owners: Tensor  # (t, k + 2, h, w) in 0 .. 1: the share of each pixel that the things have, the ground, a banner over them
    poses: Tensor  # (t, k + 2, 4) pixels and radians: place, radius and turn of each of these
    cuts: tuple[int, ...]

    @property
    def masks(self) -> Tensor:
        """(t, k, h, w) in 0 .. 1: the share of each pixel where thing k is seen."""
        return self.owners[:, :-2]

    @property
    def tracks(self) -> Tensor:
        """(t, k, 2) pixels: x and y of the centres; the first pixel's middle is at 0.5."""
        return self.poses[:, :-2, :2]

    def flow(self) -> tuple[Tensor, Tensor]:
        """(t - 1, 2, h, w) pixels right and down, and (t - 1, h, w) bool where it has no counterpart.

        The point in a pixel's middle, on what the pixel belongs to most, is so much further in the next frame; occluded is what is
        not seen there. At a cut that is everything, and the flow is zero.
        """
        size, t = self.owners.shape[-1], len(self.owners) - 1
        owner = self.owners[:-1].max(1)[1]  # (t - 1, h, w)
        row = torch.arange(t)[:, None, None]
        x, y, radius, angle = self.poses[:-1][row, owner].unbind(-1)
        x2, y2, radius2, angle2 = self.poses[1:][row, owner].unbind(-1)
        column, line = middles(size).expand(t, size, size), middles(size)[:, None].expand(t, size, size)
        cos, sin, scale = (angle2 - angle).cos(), (angle2 - angle).sin(), radius2 / radius
        u, v = (column - x) * scale, (line - y) * scale
        to_x, to_y = x2 + cos * u - sin * v, y2 + sin * u + cos * v
        kept = look(self.owners[1:], to_x, to_y).gather(1, owner[:, None])[:, 0]
        flow, occluded = torch.stack([to_x - column, to_y - line], 1), kept < 0.5
        for cut in self.cuts:
            flow[cut - 1], occluded[cut - 1] = 0, True
        return flow, occluded


def film(clip: Clip, size: int) -> Film:
    """The clip in pictures of `size` x `size` pixels. Raises UserError where size is not 32 to 128."""
    scenes = clip.scenes()
    views = render(scenes, size)
    image, masks = views.image, views.masks
    windows = torch.tensor(clip.windows())  # (t, 3)
    rest = (1 - masks.sum(1, keepdim=True)).clamp(min=0)
    if bool((windows != windows.new_tensor([0.5, 0.5, 1.0])).any()):
        behind = ground(scenes, size).permute(0, 3, 1, 2)
        image = image + 2 * rest * (_through(behind, windows) - behind)
    image, over = _spoilt(clip, image)
    owners = torch.cat([torch.cat([masks, rest], 1) * (1 - over), over.expand(len(masks), 1, size, size)], 1)
    return Film(image, views.ids, owners, _poses(scenes, masks.shape[1], size, windows), clip.cuts)


def frames(clip: Clip, size: int) -> Tensor:
    """(t, 4, size, size) in [-1, 1]: the pictures alone."""
    return film(clip, size).image


def animation(clip: Clip, size: int) -> list[Image.Image]:
    """The clip's pictures for people, which Pillow saves as one WebP or GIF, 1000 / clip.fps milliseconds each."""
    return to_pil(frames(clip, size))


# --- the camera and what is behind ----------------------------------------------------------------


def look(pictures: Tensor, x: Tensor, y: Tensor, outside: str = "zeros") -> Tensor:
    """Pictures (n, c, h, w) at places (n, h', w') in pixels, between pixels by their nearest four -> (n, c, h', w')."""
    h, w = pictures.shape[2:]
    places = torch.stack([2 * x / w - 1, 2 * y / h - 1], -1)
    return torch.nn.functional.grid_sample(pictures, places, "bilinear", outside, align_corners=False)


def middles(size: int) -> Tensor:
    """(size,): where the middles of the pixels are."""
    return torch.arange(size) + 0.5


def _through(behind: Tensor, windows: Tensor) -> Tensor:
    """Grounds (t, 4, h, w) as seen through the windows; beyond its edges the ground is its own mirror image."""
    size = behind.shape[-1]
    x, y, zoom = windows[:, :, None, None].unbind(1)
    steps = (middles(size) - size / 2) / zoom
    full = (len(behind), size, size)
    return look(behind, (steps + x * size).expand(full), (steps.mT + y * size).expand(full), "reflection")


def _poses(scenes: Sequence[Scene], k: int, size: int, windows: Tensor) -> Tensor:
    """(t, k + 2, 4): x, y and radius in pixels and the turn of every thing, of the ground, and of the picture itself."""
    x, y, zoom = windows.unbind(1)
    world = torch.stack([(0.5 - (x - 0.5) * zoom) * size, (0.5 - (y - 0.5) * zoom) * size, zoom, torch.zeros_like(x)], 1)
    still = torch.tensor([0.0, 0.0, 1.0, 0.0])
    poses = still.repeat(len(scenes), k + 2, 1)
    for i, made in enumerate(scenes):
        rows = [[t.x * size, t.y * size, t.radius * size, math.radians(t.angle)] for t in made.things]
        poses[i, : len(rows)] = torch.tensor(rows).reshape(-1, 4)
    poses[:, k] = world
    return poses


# --- what may be wrong with a clip ----------------------------------------------------------------


def _spoilt(clip: Clip, image: Tensor) -> tuple[Tensor, Tensor]:
    """The pictures with the clip's defect, and (h, w) 1 where something lies over them."""
    size = image.shape[-1]
    over, high = torch.zeros(size, size), round(BAND * size)
    if clip.defect == "dull":
        image = _opaque(0.15 * image[:, :3] - 0.1)
    elif clip.defect == "flicker":
        gain = torch.tensor([0.6 if (5 * i + clip.index) % 3 == 0 else 1.0 for i in range(len(image))])
        image = _opaque((image[:, :3] + 1) * gain[:, None, None, None] - 1)
    elif clip.defect == "banner":
        over[-high:] = 1
        strip = _opaque(_strip(clip.banner, size, high)[None]).expand(len(image), 4, high, size)
        image = torch.cat([image[:, :, :-high], strip], 2)
    return image, over


def _opaque(rgb: Tensor) -> Tensor:
    return torch.cat([rgb, torch.ones_like(rgb[:, :1])], 1)


def _strip(words: str, size: int, high: int) -> Tensor:
    """(3, high, size) in [-1, 1]: white words on dark blue."""
    font = ImageFont.load_default(20)
    paper = Image.new("RGB", (int(font.getlength(words)) + 12, 28), (16, 24, 64))
    ImageDraw.Draw(paper).text((6, 2), words, "white", font)
    pixels = torch.from_numpy(np.asarray(paper.resize((size, high), Image.Resampling.BILINEAR)).copy())
    return pixels.permute(2, 0, 1).float() / 127.5 - 1
