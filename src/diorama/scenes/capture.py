"""Photographs that know where they were taken from: transforms.json of the NeRF family, or COLMAP's text; and first points in space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from diorama.errors import UserError
from diorama.files import read_json
from diorama.scenes.cameras import Camera, pixel_centres, project, rays
from diorama.scenes.gaussians import rotations
from diorama.types import Noise

BENT = ("k1", "k2", "k3", "k4", "p1", "p2")
UNBEND = "undistort the pictures first, as `colmap image_undistorter` does"
SUFFIXES = ("", ".png", ".jpg", ".jpeg")  # a NeRF's file_path may come without one
DEPTHS, NEIGHBOURS = 48, 8  # tried for each first point, and the views it is compared with
NEAREST, FARTHEST = 0.25, 6.0  # of them, in distances to what all look at


@dataclass(frozen=True)
class Capture:
    """v views of one scene."""

    images: Tensor  # (v, 4, h, w) in [-1, 1]: on white, and their alpha
    camera: Camera  # (v,)
    names: tuple[str, ...] = ()
    points: Tensor | None = None  # (n, 3) where something is known to be
    paint: Tensor | None = None  # (n, 3) in 0 .. 1: its colours

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, index: Any) -> Capture:
        names = tuple(np.array(self.names, object)[index]) if self.names else ()
        return Capture(self.images[index], self.camera.rows(index), names, self.points, self.paint)

    def split(self, every: int) -> tuple[Capture, Capture]:
        """All views but each `every`th, the first among these, and those."""
        kept_out = torch.arange(len(self)) % every == 0
        return self.rows(~kept_out), self.rows(kept_out)

    @property
    def extent(self) -> float:
        """Metres within which the cameras stand: 1.1 of the farthest from their middle (Kerbl et al. 2023)."""
        centre = self.camera.centre
        return 1.1 * float((centre - centre.mean(0)).norm(dim=1).max())

    @property
    def focus(self) -> Tensor:
        """(3,): the point nearest to all lines of sight."""
        ahead = self.camera.world_to_camera[:, 2, :3]
        across = torch.eye(3) - ahead[:, :, None] * ahead[:, None]
        return torch.linalg.lstsq(across.sum(0), (across @ self.camera.centre[:, :, None]).sum(0)).solution[:, 0]


def read_capture(path: str | Path, longest: int = 4096) -> Capture:
    """What lies in this folder, its pictures reduced to so many pixels along the longer side.

    Raises UserError where there are no poses, a picture is missing, or sizes or lenses do not fit."""
    folder = Path(path)
    if folder.is_file():
        return _transforms(folder, longest)
    if found := sorted(folder.glob("transforms*.json")):
        return _transforms(found[0], longest)
    for model in (folder / "sparse" / "0", folder / "sparse", folder):
        if (model / "images.txt").is_file():
            return _colmap(folder, model, longest)
        if (model / "images.bin").is_file():
            raise UserError(f"{model} is COLMAP's binary: run colmap model_converter --output_type TXT on it")
    raise UserError(
        f"{path} says nowhere from where its pictures were taken: it needs transforms.json, or COLMAP's sparse/0/images.txt"
    )


def _transforms(path: Path, longest: int) -> Capture:
    """The cameras of this family look along -z, with y up."""
    said = read_json(path)
    frames = said.get("frames") if isinstance(said, dict) else None
    if not frames:
        raise UserError(f"{path} names no frames: it is no transforms.json")
    files = [_picture(path.parent / frame["file_path"]) for frame in frames]
    images, (high, wide) = _read(files, longest)
    lenses = []
    for lens in ({**said, **frame} for frame in frames):
        if any(lens.get(name) for name in BENT):
            raise UserError(f"{path} has a bent lens: {UNBEND}")
        if not {"fl_x", "camera_angle_x"} & set(lens):
            raise UserError(f"{path} has neither fl_x nor camera_angle_x: one of them must say how wide the lens is")
        w, h = lens.get("w", wide), lens.get("h", high)
        across = lens.get("fl_x") or w / 2 / math.tan(lens["camera_angle_x"] / 2)
        lenses.append([across / w, lens.get("fl_y", across) / h, lens.get("cx", w / 2) / w, lens.get("cy", h / 2) / h])
    poses = torch.tensor([frame["transform_matrix"] for frame in frames], dtype=torch.float64)
    world_to_camera = torch.linalg.inv(poses @ torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)))
    return Capture(images, _camera(lenses, world_to_camera.float(), images), tuple(file.name for file in files))


def _colmap(folder: Path, model: Path, longest: int) -> Capture:
    """cameras.txt, images.txt (two lines a picture: pose and name, then what it matches) and points3D.txt."""
    cameras = {row[0]: row[1:] for row in _lines(model / "cameras.txt")}
    rows = sorted(_lines(model / "images.txt", every=2), key=lambda row: row[9])
    beside = folder / "images" if (folder / "images").is_dir() else folder
    images, _ = _read([_picture(beside / row[9]) for row in rows], longest)
    lenses = []
    for kind, wide, high, *numbers in (cameras[row[8]] for row in rows):
        if kind not in ("PINHOLE", "SIMPLE_PINHOLE"):
            raise UserError(f"{model / 'cameras.txt'} has a {kind} lens: {UNBEND}")
        values = [float(number) for number in (numbers if kind == "PINHOLE" else [numbers[0], *numbers])]
        lenses.append([value / float(size) for value, size in zip(values, (wide, high) * 2, strict=True)])
    pose, said = torch.eye(4).repeat(len(rows), 1, 1), _numbers(rows, 1, 8)
    pose[:, :3, :3], pose[:, :3, 3] = rotations(said[:, :4]), said[:, 4:]
    known = _lines(model / "points3D.txt") if (model / "points3D.txt").is_file() else []
    points = _numbers(known, 1, 7) if known else None
    seeds = (None, None) if points is None else (points[:, :3], points[:, 3:] / 255)
    return Capture(images, _camera(lenses, pose, images), tuple(row[9] for row in rows), *seeds)


def _numbers(rows: Sequence[Sequence[str]], first: int, last: int) -> Tensor:
    return torch.tensor([[float(word) for word in row[first:last]] for row in rows])


def _lines(path: Path, every: int = 1) -> list[list[str]]:
    rows = [line.split() for line in path.read_text().splitlines() if not line.startswith("#")]
    return [row for row in rows[::every] if row]


def _camera(lenses: Sequence[Sequence[float]], world_to_camera: Tensor, images: Tensor) -> Camera:
    """Cameras of lenses fx, fy, cx, cy in shares of the picture's width and height."""
    high, wide = images.shape[-2:]
    K = torch.eye(3).repeat(len(lenses), 1, 1)
    K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2] = (torch.tensor(lenses) * torch.tensor([wide, high, wide, high])).T
    return Camera(K, world_to_camera, high, wide)


def _picture(path: Path) -> Path:
    for suffix in SUFFIXES:
        if (file := path.with_name(path.name + suffix)).is_file():
            return file
    raise UserError(f"picture {path} is not there: the poses name it")


def _read(files: Sequence[Path], longest: int) -> tuple[Tensor, tuple[int, int]]:
    """(v, 4, h, w) in [-1, 1], on white, and their alpha; and the height and width they had."""
    images, sizes = [], set()
    for file in files:
        with Image.open(file) as picture:
            sizes.add((picture.height, picture.width))
            share = min(1.0, longest / max(picture.size))
            small = picture.convert("RGBA").resize([round(share * side) for side in picture.size], Image.Resampling.BOX)
        images.append(torch.from_numpy(np.asarray(small, np.float32) / 255).permute(2, 0, 1))
        if len(sizes) > 1:
            raise UserError(f"{file} is of another size than those before it: bring all pictures to one")
    whole = torch.stack(images)
    alpha = whole[:, 3:]
    return torch.cat([whole[:, :3] * alpha + 1 - alpha, alpha], 1) * 2 - 1, sizes.pop()


# --- first points ----------------------------------------------------------------------------------


def first_points(capture: Capture, n: int, noise: Noise) -> tuple[Tensor, Tensor]:
    """n points (n, 3) where the views may show something, and their colours (n, 3) in 0 .. 1. `noise` is of one seed.

    Each is a pixel drawn at random, at that of 48 depths where the nearest other views show the same colour most; of twice as many
    the half that agrees best is kept. A capture's own points come instead, as far as they reach.
    """
    if capture.points is not None and capture.paint is not None:
        chosen = noise.uniform(len(capture.points))[0].argsort()[:n]
        return capture.points[chosen], capture.paint[chosen]
    small, lens, each = F.avg_pool2d(capture.images, 2), capture.camera, -(-2 * n // len(capture))
    centre, size = lens.centre, torch.tensor([lens.width, lens.height])
    depths = (capture.focus - centre).norm(dim=1)[:, None] / torch.linspace(1 / FARTHEST, 1 / NEAREST, DEPTHS)  # (v, k)
    drawn = _pixels(capture.images[:, 3] + 1, noise.uniform(len(capture), each)[0])  # (v, each): where there is something
    at = pixel_centres(lens.height, lens.width)[drawn]
    points, colours, errors = [], [], []
    for v in range(len(capture)):
        origin, direction = rays(lens.rows(v), at[v])
        tried = origin + depths[v, None, :, None] * direction[:, None]  # (each, k, 3)
        colour = _colour(small[v : v + 1], lens.rows([v]), at[v][None])[0]  # (each, 4)
        others = (centre - centre[v]).norm(dim=1).argsort()[1 : NEIGHBOURS + 1]
        near = lens.rows(others)
        places, ahead = project(near, tried.flatten(0, 1).expand(len(others), -1, 3))
        seen = _colour(small[others], near, places).unflatten(1, (each, DEPTHS))  # (o, each, k, 4)
        inside = ((ahead > 0) & (places > 0).all(-1) & (places < size).all(-1)).unflatten(1, (each, DEPTHS))
        error = ((seen - colour[:, None]).abs().mean(-1) * inside).sum(0) / inside.sum(0).clamp_min(1)
        error = torch.where(inside.sum(0) < min(2, len(others)), torch.inf, error)
        best, which = error.min(1)
        points.append(tried[torch.arange(each), which])
        colours.append(colour)
        errors.append(best)
    chosen = torch.cat(errors).argsort()[:n]
    return torch.cat(points)[chosen], (torch.cat(colours)[chosen, :3] + 1) / 2


def _pixels(shares: Tensor, u: Tensor) -> Tensor:
    """Numbers of pixels, drawn from pictures (v, h, w) in proportion to their values by uniform u (v, each)."""
    summed = shares.flatten(1).double().cumsum(1)
    return torch.searchsorted(summed, u.double() * summed[:, -1:]).clamp_max(summed.shape[1] - 1)


def _colour(images: Tensor, camera: Camera, places: Tensor) -> Tensor:
    """(v, p, c): what pictures show at places (v, p, 2) of cameras, whatever the pictures' own size."""
    grid = places / torch.tensor([camera.width, camera.height]) * 2 - 1
    return F.grid_sample(images, grid[:, None], padding_mode="border", align_corners=False)[:, :, 0].mT


def spacing(points: Tensor, neighbours: int = 3) -> Tensor:
    """(n,): the root mean square distance of each point to the nearest others."""
    parts = [torch.cdist(some, points).topk(neighbours + 1, largest=False).values[:, 1:] for some in points.split(2048)]
    return torch.cat(parts).square().mean(1).sqrt()
