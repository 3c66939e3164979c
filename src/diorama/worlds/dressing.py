"""Figures to pictures: each part of a body is an ellipsoid swept along a segment, seen by an orthographic camera from any azimuth.

The world is `figures`'s. Azimuth 0 looks at a figure's face and grows towards its left, in degrees; the camera goes along with the pelvis.
Outlines, surfaces and normals are exact; parts cover each other as wholes, the nearest first, anti-aliased as in `render`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from diorama.errors import UserError
from diorama.worlds.figures import ANKLE, HAIRS, NUMBER, SHOES, SKINS, Figure, Posed, offsets
from diorama.worlds.render import CHUNK, LARGEST, SMALLEST
from diorama.worlds.wardrobe import PART, PARTS, SLOTS, covers, flat, lie

SPAN = 2.4  # metres across the picture
FLOOR = 0.05  # of the picture is below the ground
OUTSIDE = -2.0  # a place in no picture, where there is no cloth
UNDERWEAR = (0.80, 0.80, 0.82)
LIGHT = (-0.48, 0.6, -0.64)  # towards the lamp: right, up, away from the camera
AMBIENT = 0.5
HALF = 0.36  # metres: no part of a body of `figure` reaches farther from its middle


@dataclass(frozen=True)
class Dressed:
    """What b figures show. rgb of `image`, in 0 .. 1, is albedo times shading; both are 1 where there is nobody."""

    image: Tensor  # (b, 4, h, w) in [-1, 1]: the picture on white and its alpha
    albedo: Tensor  # (b, 3, h, w) in 0 .. 1
    shading: Tensor  # (b, 1, h, w) in 0 .. 1
    masks: Tensor  # (b, 16, h, w) in 0 .. 1: the share of each pixel where a part of `wardrobe.PARTS` is seen
    parts: Tensor  # (b, h, w) int64: the part most seen and 1, or 0 where less than half of the pixel is anybody's
    uv: Tensor  # (b, 2, h, w) in 0 .. 1: where on that part; u around it, 0.5 in front and more towards the figure's left, v along it
    worn: Tensor  # (b, 2, h, w) bool: where the top and the bottom are seen
    warp: Tensor  # (b, 2, h, w, 2) in -1 .. 1: from there to its place in the flat picture, for `grid_sample`; OUTSIDE elsewhere
    skeleton: Tensor  # (b, 17, 3): pixels to the right, pixels down, metres away from the camera, seen from the pelvis


def draw(
    figures: Sequence[Figure],
    posed: Posed,
    size: int,
    azimuth: float | Sequence[float] = 0.0,
    wear: Sequence[str] = SLOTS,
    flats: Tensor | None = None,
) -> Dressed:
    """Pictures of `size` x `size` pixels of figures b in poses b, wearing their "top", their "bottom", both or nothing.

    flats (b, 2, 4, n, n), in [-1, 1], replaces the flat pictures of their garments. Raises UserError for an impossible size, nobody,
    numbers of poses or azimuths that do not match, or an unknown garment.
    """
    if not SMALLEST <= size <= LARGEST:
        raise UserError(f"size {size} is not possible in the world: use {SMALLEST} to {LARGEST}")
    if unknown := [slot for slot in wear if slot not in SLOTS]:
        raise UserError(f"{unknown[0]!r} cannot be worn: use {', '.join(SLOTS)}")
    turned = torch.tensor([float(azimuth)] * len(figures) if isinstance(azimuth, int | float) else list(azimuth))
    if not len(figures) == len(posed.joints) == len(turned) > 0:
        raise UserError(
            f"{len(figures)} figures in {len(posed.joints)} poses from {len(turned)} sides: give as many of each, 1 or more"
        )
    if flats is None:
        flats = flat([garment for f in figures for garment in f.garments]).unflatten(0, (-1, 2))
    out = []
    for i in range(0, len(figures), CHUNK):
        now = slice(i, i + CHUNK)
        out.append(_draw(figures[now], Posed(posed.joints[now], posed.turns[now]), size, turned[now], wear, flats[now]))
    return Dressed(*(torch.cat([getattr(part, f.name) for part in out]) for f in fields(Dressed)))


# --- the camera -----------------------------------------------------------------------------------


def axes(azimuth: Tensor) -> Tensor:
    """(b, 3, 3): which way right, up and away from the camera (rows) lead in the world."""
    cos, sin, zero = azimuth.deg2rad().cos(), azimuth.deg2rad().sin(), torch.zeros_like(azimuth)
    return torch.stack([cos, sin, zero, zero, zero, zero + 1, -sin, cos, zero], -1).unflatten(-1, (3, 3))


def project(points: Tensor, pelvis: Tensor, azimuth: Tensor, size: int) -> Tensor:
    """Points (b, n, 3) of the world -> (b, n, 3): pixels to the right, pixels down, metres away, seen from the pelvis (b, 3)."""
    seen = (points - pelvis[:, None] * torch.tensor([1.0, 1.0, 0.0])) @ axes(azimuth).mT
    scale = size / SPAN
    return torch.stack([size / 2 + scale * seen[..., 0], size * (1 - FLOOR) - scale * seen[..., 1], seen[..., 2]], -1)


# --- the body -------------------------------------------------------------------------------------


class Solids(NamedTuple):
    """m parts of bodies, each in its own axes: to the figure's left, to the front, and along its segment."""

    start: Tensor  # (m, 3) metres in the world: where the segment begins
    own: Tensor  # (m, 3, 3): its axes, as columns
    length: Tensor  # (m,) metres of the segment
    radii: Tensor  # (m, 3) metres of the ellipsoid

    def at(self, u: Tensor, v: Tensor) -> Tensor:
        """The points (m, ..., 3) of the surface at (u, v), both (m, ...)."""
        more = (slice(None), *[None] * (u.ndim - 1))
        long = (self.length / self.radii[:, 2])[more]
        along = v * (long + 2) - 1
        cap = along - torch.minimum(along.clamp(min=0), long)
        around, round_ = 2 * math.pi * (u - 0.5), (1 - cap**2).clamp(min=0).sqrt()
        local = torch.stack([round_ * around.sin(), round_ * around.cos(), along], -1) * self.radii[more]
        return self.start[more] + (self.own[more] * local[..., None, :]).sum(-1)


JOINT = {"head": "neck", "neck": "chest", "torso": "spine", "hips": "pelvis"}  # whose axes a part moves with
OF_LIMB = {"upper arm": "shoulder", "forearm": "elbow", "hand": "wrist", "thigh": "hip", "shin": "knee", "foot": "ankle"}
CARRIED = [NUMBER[JOINT.get(name) or f"{name.split()[0]} {OF_LIMB[name.split(' ', 1)[1]]}"] for name in PARTS]
UP, DOWN, AHEAD = (
    [[1, 0, 0], [0, *front], [0, *along]] for front, along in (((-1, 0), (0, 1)), ((-1, 0), (0, -1)), ((0, 1), (-1, 0)))
)
REST = torch.tensor([AHEAD if "foot" in name else UP if name in JOINT else DOWN for name in PARTS], dtype=torch.float32).mT


def _segments(figure: Figure, bones: Sequence[Sequence[float]]) -> list[list[float]]:
    """Of each part: how far its segment begins along itself from its joint, its length, how far behind its joint, and three radii."""
    tall, wide = figure.height, figure.height * figure.girth
    bone = {name: abs(bones[k][2]) for name, k in NUMBER.items()}
    hip, shoulder, head = abs(bones[NUMBER["left hip"]][0]), abs(bones[NUMBER["left shoulder"]][0]), bone["crown"]

    def tube(length: float, radius: float, begin: float = 0.0) -> list[float]:
        return [begin, length, 0, radius, radius, radius]

    part = {
        "head": [0.5 * head, 0, 0, 0.4 * head, 0.45 * head, 0.52 * head],
        "neck": tube(bone["neck"], 0.032 * tall),
        "torso": [0, bone["chest"] - 0.03 * tall, 0, 0.92 * shoulder, 0.066 * wide, 0.045 * tall],
        "hips": [0, bone["spine"], 0, hip + 0.04 * wide, 0.064 * wide, 0.045 * tall],
        "upper arm": tube(bone["left elbow"], 0.029 * wide),
        "forearm": tube(bone["left wrist"], 0.024 * wide),
        "hand": tube(0.02 * tall, 0.024 * tall, begin=0.02 * tall),
        "thigh": tube(bone["left knee"], 0.046 * wide),
        "shin": tube(bone["left ankle"], 0.034 * wide),
        "foot": [-0.01 * tall, 0.085 * tall, ANKLE * tall / 2, 0.027 * tall, ANKLE * tall / 2, 0.03 * tall],
    }
    return [part[name.removeprefix("right ").removeprefix("left ")] for name in PARTS]


def solids(figures: Sequence[Figure], posed: Posed) -> Solids:
    """The 16 parts of each figure (b) where its pose puts them: m = 16 b rows, figure by figure."""
    bones = offsets(figures).tolist()
    moved, length, sunk, *radii = torch.tensor([_segments(f, bone) for f, bone in zip(figures, bones, strict=True)]).unbind(-1)
    own = posed.turns[:, CARRIED] @ REST
    start = posed.joints[:, CARRIED] + own[..., 2] * moved[..., None] - own[..., 1] * sunk[..., None]
    return Solids(*(x.flatten(0, 1) for x in (start, own, length, torch.stack(radii, -1))))


# --- one part in its window -----------------------------------------------------------------------


class Surface(NamedTuple):
    """What m parts show in windows of w x w pixels."""

    cover: Tensor  # (m, w, w) in 0 .. 1
    u: Tensor
    v: Tensor
    shading: Tensor


def _surfaces(solid: Solids, middle: Tensor, view: Tensor, corner: Tensor, wide: int, scale: float) -> Surface:
    """Each part alone. middle (m, 3) is where its segment's middle is seen, and corner (m, 2) its window's left and top pixel.

    Lengths are in radii along the part's axes, where it is a capsule of radius 1 along its third one.
    """
    right, up, away = ((solid.own.mT @ way[..., None])[..., 0] for way in view.unbind(1))  # (m, 3) in its own axes
    long = (solid.length / solid.radii[:, 2])[:, None, None]
    steps = torch.arange(wide) + 0.5
    x, y = ((corner[:, i, None] + steps - middle[:, i, None]) / scale for i in (0, 1))  # metres from the middle
    x, y = x[:, None, :], -y[:, :, None]

    def ray(axis: int) -> tuple[Tensor, Tensor]:
        place, step = right[:, axis, None, None] * x + up[:, axis, None, None] * y, away[:, axis, None, None]
        radius = solid.radii[:, axis, None, None]
        return place / radius, step / radius

    (ox, dx), (oy, dy), (oz, dz) = (ray(axis) for axis in range(3))
    oz = oz + long / 2
    flat_, slant = dx * dx + dy * dy, dx * ox + dy * oy
    first = -(slant + (slant**2 - flat_ * (ox * ox + oy * oy - 1)).clamp(min=0).sqrt()) / flat_.clamp(min=1e-9)
    centre = torch.minimum((oz + first * dz).clamp(min=0), long)  # of the ball that the ray meets first
    oz = oz - centre
    square, slant = flat_ + dz * dz, slant + dz * oz
    second = -(slant + (slant**2 - square * (ox * ox + oy * oy + oz * oz - 1)).clamp(min=0).sqrt()) / square
    nx, ny, nz = ox + second * dx, oy + second * dy, oz + second * dz
    u = torch.atan2(nx, ny) / (2 * math.pi) + 0.5
    v = ((nz + centre + 1) / (long + 2)).clamp(0, 1)
    px, py, pz = (n / solid.radii[:, axis, None, None] for axis, n in enumerate((nx, ny, nz)))
    lx, ly, lz = (LIGHT[0] * right + LIGHT[1] * up + LIGHT[2] * away).T[:, :, None, None]
    lit = (lx * px + ly * py + lz * pz) / (px * px + py * py + pz * pz).sqrt()
    return Surface(_cover(solid, right, up, x, y, scale), u, v, AMBIENT + (1 - AMBIENT) * lit.clamp(0, 1))


def _cover(solid: Solids, right: Tensor, up: Tensor, x: Tensor, y: Tensor, scale: float) -> Tensor:
    """Anti-aliased outlines (m, w, w): the ellipsoid is seen as an ellipse, swept along the segment as it is seen."""
    flat_ = torch.stack([right, up], 1) * solid.radii[:, None]  # (m, 2, 3)
    root = torch.linalg.cholesky(flat_ @ flat_.mT)
    a, b, c = (root[:, i, j, None, None] for i, j in ((0, 0), (1, 0), (1, 1)))

    def round_(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """To where the ellipse is the unit circle."""
        return x / a, (y - b * x / a) / c

    half_x, half_y = round_(*(solid.length[:, None, None] / 2 * way[:, 2, None, None] for way in (right, up)))
    p, q = round_(x, y)
    t = ((p * half_x + q * half_y) / (half_x**2 + half_y**2).clamp(min=1e-9)).clamp(-1, 1)
    p, q = p - t * half_x, q - t * half_y
    far = torch.hypot(p, q).clamp(min=1e-3)
    slope = torch.hypot((p - b * q / c) / a, q / c).clamp(min=1e-6) / far
    return (0.5 - scale * (far - 1) / slope).clamp(0, 1)


def _albedo(figures: Sequence[Figure], u: Tensor, v: Tensor, wear: Sequence[str], flats: Tensor) -> Tensor:
    """The unlit colours (m, w, w, 3) of all parts of the figures: skin, a face with hair, shoes, underwear, and cloth over them."""
    rgb = torch.tensor([_bare(f) for f in figures]).flatten(0, 1)[:, None, None].repeat(1, *u.shape[1:], 1)
    head = slice(PART["head"], None, len(PARTS))
    rgb[head] = _face(figures, rgb[head], u[head], v[head])
    slots = [slot for slot, name in enumerate(SLOTS) if name in wear]
    if slots:
        i, k, slot = torch.tensor(
            [(i, k, slot) for i, f in enumerate(figures) for slot in slots for k in covers(f.garments[slot])]
        ).T
        rows = i * len(PARTS) + k
        places = lie(k[:, None, None], u[rows], v[rows])
        cloth = grid_sample(flats[i, slot, :3], places, align_corners=False, padding_mode="border")
        rgb[rows] = cloth.permute(0, 2, 3, 1) / 2 + 0.5
    return rgb


def _bare(figure: Figure) -> list[tuple[float, float, float]]:
    skin, shoe = SKINS[figure.skin], SHOES[figure.shoes]
    return [UNDERWEAR if name in ("torso", "hips") else shoe if "foot" in name else skin for name in PARTS]


def _face(figures: Sequence[Figure], rgb: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Two eyes in front, and hair from above: the mark by which a front is told from a back."""
    hair = torch.tensor([HAIRS[f.hair] for f in figures])[:, None]
    long = torch.tensor([0.05 if f.long_hair else 0.4 for f in figures])[:, None, None]
    front = (0.5 + 0.9 * torch.cos(2 * math.pi * (u - 0.5))).clamp(0, 1)
    eyes = (((u - 0.5).abs() - 0.085) * 2.6) ** 2 + (v - 0.5) ** 2 < 0.075**2
    rgb = torch.where(eyes[..., None], 0.12, rgb)
    hairy = (12 * (v - torch.lerp(long, torch.tensor(0.74), front)) + 0.5).clamp(0, 1)
    return torch.lerp(rgb, hair[:, None].expand_as(rgb), hairy[..., None])


# --- all parts together ---------------------------------------------------------------------------


def _draw(figures: Sequence[Figure], posed: Posed, size: int, azimuth: Tensor, wear: Sequence[str], flats: Tensor) -> Dressed:
    shape, scale = (len(figures), len(PARTS)), size / SPAN
    solid, pelvis = solids(figures, posed), posed.joints[:, NUMBER["pelvis"]]
    centre = solid.start + solid.own[..., 2] * solid.length[:, None] / 2
    middle = project(centre.unflatten(0, shape), pelvis, azimuth, size).flatten(0, 1)
    view, wide = axes(azimuth).repeat_interleave(len(PARTS), 0), 2 * math.ceil(HALF * scale + 1.5)
    corner = middle[:, :2].floor().long() - wide // 2
    surface = _surfaces(solid, middle, view, corner, wide, scale)
    colours = torch.cat([_albedo(figures, surface.u, surface.v, wear, flats), surface.shading[..., None]], -1)
    # a window that leaves the picture altogether lies in the margin around it, as wide as itself
    corner = corner.clamp(-wide, size)
    order = _nearest(solid, view, middle[:, 2]).unflatten(0, shape).argsort()
    (albedo, shading), masks = _lay(surface.cover, colours, corner, order, size)

    alpha, most = masks.sum(1, keepdim=True).clamp(max=1), _most(masks)
    there = alpha[:, 0] >= 0.5
    rows = torch.arange(shape[0])[:, None, None]
    own = rows * len(PARTS) + most
    x, y = (
        (place - corner[own, i]).clamp(0, wide - 1) for i, place in enumerate((torch.arange(size), torch.arange(size)[:, None]))
    )
    u, v = (torch.where(there, of[own, y, x], 0.0) for of in (surface.u, surface.v))
    cloth = [
        [[slot in wear and k in covers(g) for k in range(len(PARTS))] for slot, g in zip(SLOTS, f.garments, strict=True)]
        for f in figures
    ]
    worn = there[:, None] & torch.tensor(cloth)[rows[:, None], torch.arange(len(SLOTS))[:, None, None], most[:, None]]
    return Dressed(
        image=torch.cat([albedo * shading, alpha], 1) * 2 - 1,
        albedo=albedo,
        shading=shading,
        masks=masks,
        parts=torch.where(there, most + 1, 0),
        uv=torch.stack([u, v], 1),
        worn=worn,
        warp=torch.where(worn[..., None], lie(most, u, v)[:, None], OUTSIDE),
        skeleton=project(posed.joints, pelvis, azimuth, size),
    )


def _lay(cover: Tensor, colours: Tensor, corner: Tensor, order: Tensor, size: int) -> tuple[tuple[Tensor, ...], Tensor]:
    """Windows (m, w, w) of parts laid over each other in this order (b, k), the nearest first: albedo and shading, 1 where nobody is,
    and the share of each pixel that each part has."""
    (b, k), wide = order.shape, cover.shape[1]
    side, steps, inner = size + 2 * wide, torch.arange(wide), slice(wide, -wide)
    left, top = (corner + wide).T[:, :, None, None]
    rows = torch.arange(b).repeat_interleave(k)[:, None, None]
    spot = (((rows * side + top + steps[:, None]) * side) + left + steps).flatten(1)  # (m, w w) pixels of all the pictures
    share, clear = cover.flatten(1), torch.ones(b * side * side)
    for now in (torch.arange(b)[:, None] * k + order).T:  # what is nearer leaves less of a pixel to what is farther
        share[now] *= clear[spot[now]]
        clear[spot[now]] -= share[now]
    masks = torch.zeros(k, b * side * side)
    masks.view(-1)[torch.arange(k).repeat(b)[:, None] * clear.numel() + spot] = share
    masks = masks.unflatten(1, (b, side, side))[:, :, inner, inner].transpose(0, 1).contiguous()
    more = share[..., None] * (colours.flatten(1, 2) - 1)
    pixels = torch.ones(b * side * side, 4).index_add_(0, spot.flatten(), more.flatten(0, 1)).unflatten(0, (b, side, side))
    return pixels[:, inner, inner].permute(0, 3, 1, 2).contiguous().split((3, 1), 1), masks


def _most(masks: Tensor) -> Tensor:
    """(b, h, w) int64: the part with the largest share, to a millionth; several times as fast as argmax along a dimension in between."""
    k = masks.shape[1]
    return ((masks * 2**20).int() * k + torch.arange(k, dtype=torch.int32)[:, None, None]).amax(1).long() % k


def _nearest(solid: Solids, view: Tensor, away: Tensor) -> Tensor:
    """(m,) metres away of the nearest point of each part, whose middle is this far away."""
    along = (solid.own.mT @ view[:, 2, :, None])[..., 0]
    return away - solid.length / 2 * along[:, 2].abs() - (solid.radii * along).norm(dim=-1)
