"""Cameras: where a point of the world lies in a picture, and back. The one convention of the house is OpenCV's.

World: right-handed, metres, z up. Camera: x to the right, y downwards, z forwards, `x_camera = R x_world + t`. Picture:
`u = fx X/Z + cx`, `v = fy Y/Z + cy`; the pixel in row i and column j has its centre at (j + 0.5, i + 0.5), so a picture covers
0 .. width and 0 .. height. Depth is Z, not the length of the ray. Things face -y: azimuth 0 sees their front, 90 is on the +x side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from diorama.errors import UserError


@dataclass(frozen=True)
class Camera:
    """One camera, or a batch (*) of cameras whose pictures are of one size."""

    K: Tensor  # (*, 3, 3), pixels
    world_to_camera: Tensor  # (*, 4, 4), metres
    height: int
    width: int

    @property
    def centre(self) -> Tensor:
        """(*, 3): where the camera stands."""
        return -(self.world_to_camera[..., :3, :3].mT @ self.world_to_camera[..., :3, 3:])[..., 0]

    def rows(self, index: Any) -> Camera:
        """The cameras of this index."""
        return replace(self, K=self.K[index], world_to_camera=self.world_to_camera[index])

    def resized(self, height: int, width: int) -> Camera:
        """The same view with other pixels: focal lengths and principal point scale with the size."""
        scale = torch.tensor([[width / self.width], [height / self.height], [1.0]])
        return Camera(self.K * scale, self.world_to_camera, height, width)


def look_at(eye: Tensor, target: Tensor, size: int = 64, field: float = 40.0) -> Camera:
    """Cameras at eye (*, 3) that see target (*, 3) in the middle of a square picture, upright; `field` degrees from edge to edge.

    Straight down or up, the picture's right is +x. Raises UserError where a camera stands on its target.
    """
    if not 0 < field < 180:
        raise UserError(f"a field of view of {field} degrees is not possible: use more than 0 and less than 180")
    eye, target = torch.broadcast_tensors(eye, target)
    forward = target - eye
    if bool((forward.norm(dim=-1) < 1e-6).any()):
        raise UserError("a camera stands on what it looks at: move it away")
    forward = torch.nn.functional.normalize(forward, dim=-1)
    right = torch.linalg.cross(forward, torch.tensor([0.0, 0.0, 1.0]).expand_as(forward))
    right = torch.where(right.norm(dim=-1, keepdim=True) < 1e-5, torch.tensor([1.0, 0.0, 0.0]), right)
    right = torch.nn.functional.normalize(right, dim=-1)
    turn = torch.stack([right, torch.linalg.cross(forward, right), forward], -2)  # (*, 3, 3)
    pose = torch.eye(4).repeat(*eye.shape[:-1], 1, 1)
    pose[..., :3, :3], pose[..., :3, 3:] = turn, -turn @ eye[..., None]
    focal = size / 2 / math.tan(math.radians(field) / 2)
    K = torch.tensor([[focal, 0.0, size / 2], [0.0, focal, size / 2], [0.0, 0.0, 1.0]])
    return Camera(K.repeat(*eye.shape[:-1], 1, 1), pose, size, size)


def around(azimuth: Tensor, elevation: Tensor | float) -> Tensor:
    """Unit vectors (*, 3) towards a place at these degrees around and above the origin."""
    a, e = torch.deg2rad(azimuth), torch.deg2rad(torch.as_tensor(elevation, dtype=azimuth.dtype))
    return torch.stack([a.sin() * e.cos(), -a.cos() * e.cos(), e.sin().expand_as(a)], -1)


def orbit(
    n: int,
    elevation: float = 25.0,
    distance: float = 2.0,
    *,
    target: Sequence[float] = (0.0, 0.0, 0.15),
    start: float = 0.0,
    size: int = 64,
    field: float = 40.0,
) -> Camera:
    """n cameras (n,) once around the target, the first at the azimuth `start`. Raises UserError for an impossible orbit."""
    if n < 1:
        raise UserError(f"an orbit of {n} views is not possible: use 1 or more")
    if not -90 <= elevation <= 90:
        raise UserError(f"an elevation of {elevation} degrees is not possible: use -90 to 90")
    if distance <= 0:
        raise UserError(f"a distance of {distance} is not possible: use more than 0")
    towards = around(start + torch.arange(n) * (360 / n), elevation)
    place = torch.tensor(target)
    return look_at(place + distance * towards, place, size, field)


ELEVATIONS, DISTANCES, NARROW, JITTER = (-10.0, 90.0), (1.1, 1.6), 30.0, 0.02  # degrees, metres, degrees, metres


def all_around(
    where: Tensor, target: Tensor | Sequence[float] = (0.0, 0.0, 0.0), size: int = 32
) -> tuple[Camera, Tensor, Tensor]:
    """Cameras, azimuths and elevations (b,) anywhere around a thing of half a metre, by numbers (b, 6) in 0 .. 1: three place the
    camera and three move what it looks at (Poole et al. 2022, section 3.2; the lengths are ours).
    """
    u, (low, high), (near, far) = where.T, ELEVATIONS, DISTANCES
    azimuth, elevation = 360 * u[0], low + (high - low) * u[1]
    place = torch.as_tensor(target, dtype=where.dtype) + JITTER * (2 * where[:, 3:] - 1)
    eye = place + (near + (far - near) * u[2])[:, None] * around(azimuth, elevation)
    return look_at(eye, place, size, NARROW), azimuth, elevation


def rays(camera: Camera, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Origins (*, 3) and directions (*, p, 3) through places at (p, 2) of the picture, pixel centres row by row without them.

    Directions go one metre deep each, so that a point's depth is its place along its ray.
    """
    at = pixel_centres(camera.height, camera.width) if at is None else at
    back = torch.linalg.inv(camera.K @ camera.world_to_camera[..., :3, :3])
    return camera.centre, torch.nn.functional.pad(at, (0, 1), value=1.0) @ back.mT


def pixel_centres(height: int, width: int) -> Tensor:
    """(h * w, 2) places across and down, row by row."""
    down, across = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([across, down], -1).flatten(0, 1)


def project(camera: Camera, points: Tensor) -> tuple[Tensor, Tensor]:
    """Places (*, p, 2) in the picture and depths (*, p) of points (*, p, 3); a depth below 0 is behind the camera, its place void."""
    turn, shift = camera.world_to_camera[..., :3, :3], camera.world_to_camera[..., :3, 3]
    seen = points @ turn.mT + shift[..., None, :]
    flat = seen @ camera.K.mT
    return flat[..., :2] / flat[..., 2:], seen[..., 2]


def unproject(camera: Camera, depth: Tensor) -> Tensor:
    """Points (*, h, w, 3) of the world under the pixels of depth (*, h, w)."""
    origin, direction = rays(camera)
    return origin[..., None, None, :] + depth[..., None] * direction.unflatten(-2, (camera.height, camera.width))


def view_words(azimuth: float, elevation: float = 0.0) -> str:
    """From where a thing is seen that faces azimuth 0, as prompts say it (Poole et al. 2022, section 3.2)."""
    if elevation > 60:
        return "overhead view"
    off = abs((azimuth + 180) % 360 - 180)
    return "front view" if off <= 45 else "side view" if off < 135 else "back view"


def transforms(camera: Camera, files: Sequence[str]) -> dict[str, Any]:
    """Cameras (n,) and their n pictures as a transforms.json of the NeRF family says it, whose cameras look along -z with y up."""
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    poses = torch.linalg.inv(camera.world_to_camera) @ flip
    return {
        "camera_model": "OPENCV",
        "w": camera.width,
        "h": camera.height,
        "frames": [
            {
                "file_path": file,
                "fl_x": K[0][0],
                "fl_y": K[1][1],
                "cx": K[0][2],
                "cy": K[1][2],
                "transform_matrix": pose,
            }
            for file, K, pose in zip(files, camera.K.tolist(), poses.tolist(), strict=True)
        ],
    }
