"""Gaussians in space: their colours from every side, what a camera makes of them, and a slow, plain picture of that.

Kerbl et al. 2023 (3D Gaussian Splatting), sec. 4, and Zwicker et al. 2001 (EWA splatting). All of it is O(n) and differentiable by torch;
only the sums over pixels have a kernel of their own (`splat.py`), to which `dense` here is the slow twin.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from diorama.scenes.cameras import Camera, pixel_centres

BLUR = 0.3  # pixels squared, added to every splat: none falls between pixels
NEAR = 0.01  # metres: nothing nearer is seen
MARGIN = 0.3  # half pictures outside the picture, from where the camera's slope is held fixed
LEAST = 1 / 255  # an alpha below is nothing
MOST = 0.99  # no alpha is above
FLAT = 0.28209479177387814  # the harmonic of degree 0
DARK = 1e-4  # where less of the light than this would be left, a pixel is done


class Gaussians(NamedTuple):
    """n Gaussians, as files hold them."""

    means: Tensor  # (n, 3) metres
    scales: Tensor  # (n, 3) logarithms of metres
    turns: Tensor  # (n, 4) quaternions w, x, y, z of any length
    opacities: Tensor  # (n,) logits
    harmonics: Tensor  # (n, k, 3): colour around 0.5 by direction; k = 1, 4, 9 or 16 for degrees 0 to 3

    @property
    def degree(self) -> int:
        return round(self.harmonics.shape[1] ** 0.5) - 1

    def rows(self, index: Tensor | slice) -> Gaussians:
        return Gaussians(*(part[index] for part in self))

    def detach(self) -> Gaussians:
        return Gaussians(*(part.detach() for part in self))


class Splats(NamedTuple):
    """The Gaussians in one picture."""

    places: Tensor  # (n, 2) pixels
    conics: Tensor  # (n, 3): xx, xy, yy of the inverse covariance, per pixel squared
    opacities: Tensor  # (n,) in 0 .. 1; 0 of those behind the camera
    features: Tensor  # (n, 4): red, green, blue, not below 0, and depth in metres


# --- as a part of a system -------------------------------------------------------------------------


# --- shape and colour ------------------------------------------------------------------------------


def rotations(turns: Tensor) -> Tensor:
    """(n, 3, 3) of quaternions (n, 4)."""
    w, x, y, z = F.normalize(turns, dim=-1).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def axes(gaussians: Gaussians) -> Tensor:
    """(n, 3, 3): M = R S, whose columns are the half axes; the covariance is M M^T (Kerbl et al. 2023, eq. 6)."""
    return rotations(gaussians.turns) * gaussians.scales.exp()[:, None]


def harmonics(directions: Tensor, degree: int) -> Tensor:
    """(n, (degree + 1)^2): real spherical harmonics at unit vectors (n, 3), degree 0 to 3, in the signs of splat files."""
    x, y, z = directions.unbind(-1)
    found = [torch.full_like(x, FLAT)]
    if degree > 0:
        found += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree > 1:
        xx, yy, zz = x * x, y * y, z * z
        found += [1.0925484305920792 * x * y, -1.0925484305920792 * y * z, 0.31539156525252005 * (2 * zz - xx - yy)]
        found += [-1.0925484305920792 * x * z, 0.5462742152960396 * (xx - yy)]
    if degree > 2:
        found += [-0.5900435899266435 * y * (3 * xx - yy), 2.890611442640554 * x * y * z, -0.4570457994644658 * y * (5 * zz - 1)]
        found += [0.3731763325901154 * z * (5 * zz - 3), -0.4570457994644658 * x * (5 * zz - 1)]
        found += [1.445305721320277 * z * (xx - yy), -0.5900435899266435 * x * (xx - 3 * yy)]
    return torch.stack(found, -1)


def colours(gaussians: Gaussians, eye: Tensor, degree: int = 3) -> Tensor:
    """(n, 3), not below 0: as seen from eye (3,), with the harmonics up to this degree."""
    degree = min(degree, gaussians.degree)
    known = gaussians.harmonics[:, : (degree + 1) ** 2]
    basis = harmonics(F.normalize(gaussians.means - eye, dim=-1), degree)
    return (0.5 + torch.einsum("nk,nkc->nc", basis, known)).clamp_min(0)


# --- in a picture ----------------------------------------------------------------------------------


def splats(gaussians: Gaussians, camera: Camera, degree: int = 3) -> Splats:
    """What one camera (K (3, 3)) sees of each Gaussian: its perspective is straightened around the Gaussian's middle (Kerbl et al., eq. 5)."""
    K, turn, shift = (part.to(gaussians.means) for part in (camera.K, *_pose(camera)))
    x, y, z = (gaussians.means @ turn.mT + shift).unbind(-1)
    ahead = z > NEAR
    z = torch.where(ahead, z, 1.0)
    right, down = x / z, y / z
    places = torch.stack([K[0, 0] * right + K[0, 2], K[1, 1] * down + K[1, 2]], -1)
    across = _slope(right, K[0, 0], K[0, 2], camera.width)
    along = _slope(down, K[1, 1], K[1, 2], camera.height)
    half = axes(gaussians)  # (n, 3, 3)
    u = (((turn[0] - across[:, None] * turn[2]) * (K[0, 0] / z)[:, None])[:, :, None] * half).sum(1)  # (n, 3): a row of J W M
    v = (((turn[1] - along[:, None] * turn[2]) * (K[1, 1] / z)[:, None])[:, :, None] * half).sum(1)
    xx, xy, yy = u.square().sum(1) + BLUR, (u * v).sum(1), v.square().sum(1) + BLUR
    conics = torch.stack([yy, -xy, xx], -1) / (xx * yy - xy * xy)[:, None]
    opacities = torch.where(ahead, gaussians.opacities.sigmoid(), 0.0)
    seen = colours(gaussians, camera.centre.to(gaussians.means), degree)
    return Splats(places, conics, opacities, torch.cat([seen, z[:, None]], 1))


def _pose(camera: Camera) -> tuple[Tensor, Tensor]:
    return camera.world_to_camera[:3, :3], camera.world_to_camera[:3, 3]


def _slope(at: Tensor, focal: Tensor, middle: Tensor, size: int) -> Tensor:
    """x/z, held where it is far outside the picture: there the straightened perspective is far off too."""
    beyond = MARGIN * size / 2 / focal
    return at.clamp(min=-middle / focal - beyond, max=(size - middle) / focal + beyond)


def dense(found: Splats, height: int, width: int) -> Tensor:
    """(h, w, 5): red, green, blue and depth summed front to back, and the share of light that is left (Kerbl et al. 2023, eq. 3).

    Every Gaussian in every pixel, in the precision of its input: memory n h w. `splat.rasterise` gives the same in tiles.
    """
    places, conics, opacities, features = (part[found.features[:, 3].argsort(stable=True)] for part in found)
    dx, dy = (places[:, None] - pixel_centres(height, width).to(places)).unbind(-1)  # (n, p)
    xx, xy, yy = conics[..., None].unbind(1)
    alpha = (opacities[:, None] * torch.exp(-(xx * dx * dx + yy * dy * dy) / 2 - xy * dx * dy)).clamp_max(MOST)
    alpha = torch.where(alpha < LEAST, 0.0, alpha)
    left = (1 - alpha).cumprod(0)
    before = torch.cat([torch.ones_like(left[:1]), left[:-1]])
    weight = torch.where(left < DARK, 0.0, alpha * before)
    return torch.cat([weight.mT @ features, 1 - weight.sum(0)[:, None]], 1).unflatten(0, (height, width))
